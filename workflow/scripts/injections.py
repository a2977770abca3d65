"""Put a latent's cues into other text, and leave them out of traces, at one site (rule injections)."""

from pathlib import Path

from thoughtscope.job import job

wildcards, params, source = snakemake.wildcards, snakemake.params, snakemake.input
with job(snakemake.log[0], f"injections {wildcards.site}") as log:
    import torch
    from thoughtscope import devices, files, models
    from thoughtscope.interventions import injections
    from thoughtscope.saes import formats

    torch.set_num_threads(snakemake.threads)
    model = models.load_model(files.read_json(source.manifest) | {"folder": source.model}, params.dtype)
    devices.report(model, log)
    table = injections.injections(
        files.read_parquet(source.traces),
        files.scan_parquet(source.activations),
        files.read_parquet(source.candidates),
        files.read_parquet(source.headline),
        files.read_parquet(source.attribution),
        files.scan_parquet(source.vocabulary),
        model=model,
        sae=formats.load(Path(source.sae_config).parent, devices.device()),
        site=wildcards.site,
        alpha=params.alpha,
        latents=params.latents,
        named=params.named,
        traces_each=params.traces,
        log=log,
    )
    about = dict(wildcards.items()) | {"dtype": str(model.dtype), "device": str(model.device)}
    files.write_parquet(table, snakemake.output.table, about)
