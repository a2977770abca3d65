"""Draw one picture: what the library's function named in the rule makes of the rule's tables."""

from thoughtscope.job import job

site = {name: value for name, value in snakemake.wildcards.items() if name == "site"}
with job(snakemake.log[0], " ".join([snakemake.rule, *site.values()])):
    import polars as pl
    from thoughtscope import dispatch
    from thoughtscope.plots import canvas

    params = {name: value for name, value in snakemake.params.items() if name != "dpi"}
    figure = dispatch.call(params, snakemake.input, snakemake.wildcards, read=pl.read_parquet)
    canvas.save(figure, snakemake.output[0], snakemake.params.dpi)
