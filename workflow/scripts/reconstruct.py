"""Measure how well a hookpoint's SAE reconstructs one block of traces, at its site and around it (rule reconstruct)."""

from pathlib import Path

from thoughtscope.job import job

wildcards = snakemake.wildcards
with job(snakemake.log[0], f"reconstruct {wildcards.hookpoint} {wildcards.condition}/{wildcards.block}") as log:
    import polars as pl
    import torch
    from thoughtscope import devices, files, models
    from thoughtscope.readings import reconstruction
    from thoughtscope.saes import formats

    torch.set_num_threads(snakemake.threads)
    manifest = files.read_json(snakemake.input.manifest)
    model = models.load_model(manifest, snakemake.params.dtype)
    devices.report(model, log)
    folder = Path(snakemake.input.sae_config).parent
    table = reconstruction.measure(
        pl.read_parquet(snakemake.input.traces),
        model=model,
        encoder=formats.load_encoder(folder, devices.device()),
        decoder=formats.load_decoder(folder, devices.device()),
        names=reconstruction.compared_sites(wildcards.hookpoint, manifest),
        log=log,
    )
    about = {"experiment": wildcards.experiment, "hookpoint": wildcards.hookpoint}
    about |= {"dtype": str(model.dtype), "device": str(model.device)}
    files.write_parquet(table, snakemake.output[0], about)
