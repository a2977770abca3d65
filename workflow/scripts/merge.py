"""Merge an adapter into its model, and write that one's manifest and vocabulary (rule model)."""

from thoughtscope.job import job

with job(snakemake.log[0], snakemake.rule) as log:
    from pathlib import Path

    from thoughtscope import adapters, files, models, vocabulary

    base = files.read_json(snakemake.input.base) | {"folder": snakemake.input.base_model}
    info = files.read_json(snakemake.input.info)
    manifest = adapters.merge(base, info, Path(snakemake.input.weights).parent, Path(snakemake.output.folder), log)
    table = vocabulary.table(models.load_tokenizer(manifest), manifest["vocab_size"])
    files.write_parquet(table, snakemake.output.vocabulary, {"experiment": snakemake.wildcards.experiment})
    files.write_json(manifest, snakemake.output.manifest)
