"""Predict what ablations would do, of all latents of a site, in the condition under study (rule attribution)."""

from pathlib import Path

from thoughtscope.job import job

wildcards, params, source = snakemake.wildcards, snakemake.params, snakemake.input
with job(snakemake.log[0], f"attribution {wildcards.site}") as log:
    import polars as pl
    import torch
    from thoughtscope import devices, files, models
    from thoughtscope.interventions import attribution
    from thoughtscope.saes import formats

    torch.set_num_threads(snakemake.threads)
    model = models.load_model(files.read_json(source.manifest) | {"folder": source.model}, params.dtype)
    devices.report(model, log)
    table = attribution.attribution(
        files.read_parquet(source.traces),
        files.read_parquet(source.matches).filter(pl.col("condition") == params.condition),
        files.scan_parquet(source.vocabulary),
        model=model,
        sae=formats.load(Path(source.sae_config).parent, devices.device()),
        site=wildcards.site,
        traces_each=params.traces,
        steps=params.steps,
        tokens_before=params.tokens_before,
        tokens_after=params.tokens_after,
        log=log,
    )
    about = dict(wildcards.items()) | {"dtype": str(model.dtype), "device": str(model.device)}
    files.write_parquet(table, snakemake.output.table, about)
