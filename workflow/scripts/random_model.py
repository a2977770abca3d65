"""Write the model with random weights, and its manifest (rule random_model)."""

from thoughtscope.job import job

with job(snakemake.log[0], snakemake.rule) as log:
    from pathlib import Path

    from thoughtscope import files, twins

    manifest = files.read_json(snakemake.input.manifest) | {"folder": snakemake.input.model}
    made = twins.random_model(manifest, Path(snakemake.output.folder), snakemake.params.seed, log)
    files.write_json(made, snakemake.output.manifest)
