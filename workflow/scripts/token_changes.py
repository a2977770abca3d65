"""See which tokens leading latents make likelier at one site (rule token_changes)."""

from pathlib import Path

from thoughtscope.job import job

wildcards, params, source = snakemake.wildcards, snakemake.params, snakemake.input
with job(snakemake.log[0], f"token_changes {wildcards.site}") as log:
    import torch
    from thoughtscope import devices, files, models
    from thoughtscope.interventions.token_changes import token_changes
    from thoughtscope.saes import formats

    torch.set_num_threads(snakemake.threads)
    model = models.load_model(files.read_json(source.manifest) | {"folder": source.model}, params.dtype)
    devices.report(model, log)
    table = token_changes(
        files.read_parquet(source.traces),
        files.scan_parquet(source.features),
        files.read_parquet(source.verdict),
        files.scan_parquet(source.vocabulary),
        model=model,
        sae=formats.load(Path(source.sae_config).parent, devices.device()),
        site=wildcards.site,
        latents=params.latents,
        log=log,
    )
    about = dict(wildcards.items()) | {"dtype": str(model.dtype), "device": str(model.device)}
    files.write_parquet(table, snakemake.output.table, about)
