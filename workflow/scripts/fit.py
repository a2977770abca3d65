"""Measure how well a site's SAE fits it and those around it (rule fit)."""

from thoughtscope.job import job

site = snakemake.wildcards.site
with job(snakemake.log[0], f"{snakemake.rule} {site}"):
    import polars as pl
    from thoughtscope import config, files
    from thoughtscope.evidence import recurrence as evidence

    table = evidence.fit(
        pl.scan_parquet(snakemake.input.reconstruction),
        hookpoint=config.parse_site(site)[0],
        num_latents=files.read_json(snakemake.input.sae)["num_latents"],
        used=site,
    )
    files.write_parquet(table, snakemake.output[0], {"experiment": snakemake.wildcards.experiment, "site": site})
