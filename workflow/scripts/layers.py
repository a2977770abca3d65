"""Compare sites in one table (rule layers)."""

from thoughtscope.job import job

with job(snakemake.log[0], snakemake.rule):
    import polars as pl
    from thoughtscope import evidence, files

    tables = {
        name: pl.concat(
            pl.scan_parquet(path).with_columns(site=pl.lit(site))
            for site, path in zip(snakemake.params.sites, snakemake.input.get(name), strict=True)
        )
        for name in ("frequencies", "recurrence")
    }
    files.write_parquet(evidence.layers(**tables), snakemake.output[0], {"experiment": snakemake.wildcards.experiment})
