"""Summarize one block of activations per trace and latent (rule features)."""

from thoughtscope.job import job

with job(snakemake.log[0], f"features {snakemake.wildcards}"):
    import polars as pl
    from thoughtscope.readings import features
    from thoughtscope import files

    wildcards = snakemake.wildcards
    table = features.summarize(pl.read_parquet(snakemake.input[0]))
    files.write_parquet(table, snakemake.output[0], {"experiment": wildcards.experiment, "site": wildcards.site})
