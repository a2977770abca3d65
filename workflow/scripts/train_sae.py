"""Train one hookpoint's SAE (rule train_sae)."""

from pathlib import Path

from thoughtscope.job import job

wildcards, params = snakemake.wildcards, snakemake.params
with job(snakemake.log[0], f"train_sae {wildcards.hookpoint}") as log:
    import polars as pl
    import torch
    from thoughtscope import devices, files, models
    from thoughtscope.saes import train

    torch.set_num_threads(snakemake.threads)
    manifest = files.read_json(snakemake.input.manifest)
    model = models.load_model(manifest, params.dtype)
    devices.report(model, log)
    settings = {name: value for name, value in params.items() if name not in ("dtype", "source", "names")}
    train.train(
        pl.read_parquet(snakemake.input.text),
        model=model,
        tokenizer=models.load_tokenizer(manifest),
        hookpoint=wildcards.hookpoint,
        folder=Path(snakemake.output.config).parent,
        **settings,
        log=log,
    )
