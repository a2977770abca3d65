"""Take latents away, and add them, in the traces of the condition under study at one site (rule ablations)."""

from pathlib import Path

from thoughtscope.job import job

wildcards, params, source = snakemake.wildcards, snakemake.params, snakemake.input
with job(snakemake.log[0], f"ablations {wildcards.site}") as log:
    import polars as pl
    import torch
    from thoughtscope import devices, files, models
    from thoughtscope.interventions import ablations
    from thoughtscope.saes import formats

    torch.set_num_threads(snakemake.threads)
    model = models.load_model(files.read_json(source.manifest) | {"folder": source.model}, params.dtype)
    devices.report(model, log)
    tables = ablations.ablations(
        files.read_parquet(source.traces),
        files.read_parquet(source.matches).filter(pl.col("condition") == params.condition),
        files.scan_parquet(source.features),
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
        draws=params.draws,
        strengths=params.strengths,
        tokens_before=params.tokens_before,
        tokens_after=params.tokens_after,
        log=log,
    )
    about = dict(wildcards.items()) | {"dtype": str(model.dtype), "device": str(model.device)}
    for name, table in tables._asdict().items():
        files.write_parquet(table, snakemake.output[name], about)
