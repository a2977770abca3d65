"""Compare sites in one table (rule layers)."""

from thoughtscope.job import job

with job(snakemake.log[0], snakemake.rule):
    import polars as pl
    from thoughtscope.evidence import recurrence as evidence
    from thoughtscope import files

    def of_all_sites(paths):
        """Scan a table of every site, with a column that names the site."""
        return pl.concat(
            pl.scan_parquet([path for path in paths if f"/tables/{site}/" in path]).with_columns(site=pl.lit(site))
            for site in snakemake.params.sites
        )

    tables = {name: of_all_sites(paths) for name, paths in snakemake.input.items()}
    table = evidence.layers(**tables, min_traces=snakemake.params.min_traces)
    files.write_parquet(table, snakemake.output[0], {"experiment": snakemake.wildcards.experiment})
