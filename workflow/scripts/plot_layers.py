"""Draw recurrence across sites (rule plot_layers)."""

from thoughtscope.job import job

with job(snakemake.log[0], snakemake.rule):
    import polars as pl
    from thoughtscope.plots import sites as plots

    params = snakemake.params
    tables = {site: pl.read_parquet(path) for site, path in zip(params.sites, snakemake.input.recurrence, strict=True)}
    figure = plots.layers(tables, conditions=params.conditions, scope=params.scope)
    plots.save(figure, snakemake.output[0], params.dpi)
