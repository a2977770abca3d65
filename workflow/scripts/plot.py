"""Draw one picture over all traces: the function of thoughtscope.plots named in the rule, on the rule's tables."""

from thoughtscope.job import job

site = {name: value for name, value in snakemake.wildcards.items() if name == "site"}
with job(snakemake.log[0], " ".join([snakemake.rule, *site.values()])):
    import polars as pl
    from thoughtscope.plots import sites as plots

    draw = getattr(plots, snakemake.rule.removeprefix("plot_"))
    tables = {name: pl.read_parquet(path) for name, path in snakemake.input.items()}
    settings = {name: value for name, value in snakemake.params.items() if name not in ("dpi", "names")}
    plots.save(draw(**tables, **site, **settings), snakemake.output[0], snakemake.params.dpi)
