"""Compare how well each SAE fits its site and those around it, and warn (rule site_gate)."""

from thoughtscope.job import job

with job(snakemake.log[0], snakemake.rule) as log:
    import polars as pl
    from thoughtscope import evidence, files

    infos = {path.split("/")[-2]: files.read_json(path) for path in snakemake.input.saes}
    measured = pl.concat(
        pl.scan_parquet(
            [path for path in snakemake.input.reconstruction if f"/reconstruction/{hookpoint}/" in path]
        ).with_columns(hookpoint=pl.lit(hookpoint))
        for hookpoint in infos
    )
    table = evidence.site_gate(measured, saes=infos, used=snakemake.params.sites)
    for line in evidence.gate_warnings(table, snakemake.params.max_fvu):
        log.warning("warning: %s", line)
    files.write_parquet(table, snakemake.output[0], {"experiment": snakemake.wildcards.experiment})
