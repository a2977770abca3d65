"""Measure how well a hookpoint's SAE reconstructs one block of traces, at its site and around it (rule reconstruct)."""

from pathlib import Path

from thoughtscope.job import job

wildcards = snakemake.wildcards
with job(snakemake.log[0], f"reconstruct {wildcards.hookpoint} {wildcards.condition}/{wildcards.block}") as log:
    import polars as pl
    import torch
    from thoughtscope import devices, files, models
    from thoughtscope.readings import block, reconstruction
    from thoughtscope.saes import formats

    torch.set_num_threads(snakemake.threads)
    manifest = files.read_json(snakemake.input.manifest)
    model = models.load_model(manifest, snakemake.params.dtype)
    devices.report(model, log)
    reading = block.read(
        pl.read_parquet(snakemake.input.traces),
        model=model,
        sae=formats.load(Path(snakemake.input.sae_config).parent, devices.device()),
        site=wildcards.hookpoint,
        compared=reconstruction.compared_sites(wildcards.hookpoint, manifest),
        log=log,
    )
    about = {"experiment": wildcards.experiment, "hookpoint": wildcards.hookpoint}
    about |= {"dtype": str(model.dtype), "device": str(model.device)}
    files.write_parquet(reading.reconstruction, snakemake.output[0], about)
