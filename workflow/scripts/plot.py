"""Draw what the library's function named in the rule makes of the rule's tables: a picture, or one a trace."""

from thoughtscope.job import job

place = {name: value for name, value in snakemake.wildcards.items() if name != "experiment"}
with job(snakemake.log[0], " ".join([snakemake.rule, *place.values()])):
    from thoughtscope import dispatch, files
    from thoughtscope.plots import canvas

    params = {name: value for name, value in snakemake.params.items() if name != "dpi"}
    drawn = dispatch.call(params, snakemake.input, snakemake.wildcards, read=files.read_parquet)
    canvas.save(drawn, snakemake.output[0], snakemake.params.dpi)
