"""Encode one block of traces at one site (rule encode)."""

from pathlib import Path

from thoughtscope.job import job

wildcards = snakemake.wildcards
with job(snakemake.log[0], f"encode {wildcards.site} {wildcards.condition}/{wildcards.block}") as log:
    import polars as pl
    import torch
    from thoughtscope.readings import block
    from thoughtscope import devices, files, models
    from thoughtscope.saes import formats

    torch.set_num_threads(snakemake.threads)
    manifest = files.read_json(snakemake.input.manifest)
    model = models.load_model(manifest, snakemake.params.dtype)
    devices.report(model, log)
    reading = block.read(
        pl.read_parquet(snakemake.input.traces),
        model=model,
        sae=formats.load(Path(snakemake.input.sae_config).parent, devices.device()),
        site=wildcards.site,
        compared=[],
        log=log,
    )
    about = {"experiment": wildcards.experiment, "site": wildcards.site}
    about |= {"dtype": str(model.dtype), "device": str(model.device)}
    files.write_parquet(reading.activations, snakemake.output[0], about)
