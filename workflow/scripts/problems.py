"""Load a problem set (rules problems and sae_text)."""

from thoughtscope.job import job

with job(snakemake.log[0], snakemake.rule, network=True, fetch_ahead=snakemake.params.fetch_ahead) as log:
    from thoughtscope import dispatch, files, problems

    source = dispatch.settings(snakemake.params, "key", "content", "fetch_ahead", "wanted")
    table, origin = problems.load(source, snakemake.params.key, log)
    if wanted := snakemake.params.get("wanted"):  # before anything is generated it is seen whether the text suffices
        from thoughtscope import models
        from thoughtscope.saes import text

        manifest = files.read_json(snakemake.input.manifest) | {"folder": snakemake.input.model}
        tokens = sum(text.sequences_of(*wanted)) * wanted[-1]
        text.token_ids(table, models.load_tokenizer(manifest), tokens, source)
    files.write_parquet(table, snakemake.output[0], {"experiment": snakemake.wildcards.experiment, "source": origin})
