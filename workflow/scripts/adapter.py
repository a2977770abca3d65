"""Fetch an adapter (rule adapter)."""

from thoughtscope.job import job

with job(snakemake.log[0], snakemake.rule, network=True, fetch_ahead=snakemake.params.fetch_ahead) as log:
    from thoughtscope import adapters, dispatch, files

    source, output = dispatch.settings(snakemake.params, "fetch_ahead"), snakemake.output
    files.write_json(adapters.fetch(source, output.config, output.weights, log), output.info)
