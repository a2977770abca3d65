"""Make one table: the function of thoughtscope.evidence that has the rule's name, on the rule's inputs and params."""

from thoughtscope.job import job

with job(snakemake.log[0], f"{snakemake.rule} {snakemake.wildcards.site}"):
    import polars as pl
    from thoughtscope import evidence, files

    make = getattr(evidence, snakemake.rule)
    inputs = {name: pl.scan_parquet(snakemake.input.get(name)) for name in snakemake.input.keys()}  # noqa: SIM118
    table = make(**inputs, **dict(snakemake.params.items()))
    about = {"experiment": snakemake.wildcards.experiment, "site": snakemake.wildcards.site}
    about |= {name: str(value) for name, value in snakemake.params.items()}
    files.write_parquet(table, snakemake.output[0], about)
