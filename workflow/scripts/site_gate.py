"""Put all SAEs' fits into one table, and warn where one doesn't fit what it reads (rule site_gate)."""

from thoughtscope.job import job

with job(snakemake.log[0], snakemake.rule) as log:
    import polars as pl
    from thoughtscope.evidence import recurrence as evidence
    from thoughtscope import files

    table = pl.concat([pl.read_parquet(path) for path in snakemake.input])
    for line in evidence.gate_warnings(table, snakemake.params.max_fvu):
        log.warning("warning: %s", line)
    files.write_parquet(table, snakemake.output[0], {"experiment": snakemake.wildcards.experiment})
