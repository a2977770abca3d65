"""Fetch or convert the model, and write its manifest and vocabulary (rule model)."""

from thoughtscope.job import job

with job(snakemake.log[0], snakemake.rule, network=True, fetch_ahead=snakemake.params.fetch_ahead) as log:
    from thoughtscope import config, dispatch, files, models, vocabulary

    source = dispatch.settings(snakemake.params, "hookpoint", "layers", "read_from", "fetch_ahead")
    manifest = models.prepare(source, snakemake.output.folder, log)
    config.check_sites(manifest, snakemake.params.hookpoint, snakemake.params.layers, snakemake.params.read_from)
    if path := snakemake.output.get("vocabulary"):  # a base model has none of its own
        table = vocabulary.table(models.load_tokenizer(manifest), manifest["vocab_size"])
        files.write_parquet(table, path, {"experiment": snakemake.wildcards.experiment})
    files.write_json(manifest, snakemake.output.manifest)
