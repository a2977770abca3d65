"""Load a problem set (rules problems and sae_text)."""

from thoughtscope.job import job

with job(snakemake.log[0], snakemake.rule, network=True, fetch_ahead=snakemake.params.fetch_ahead) as log:
    from thoughtscope import dispatch, files, problems

    source = dispatch.settings(snakemake.params, "key", "fetch_ahead")
    table, origin = problems.load(source, snakemake.params.key, log)
    files.write_parquet(table, snakemake.output[0], {"experiment": snakemake.wildcards.experiment, "source": origin})
