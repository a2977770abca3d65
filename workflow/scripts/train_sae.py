"""Train the SAEs that are asked for (rules train_sae and train_saes)."""

from pathlib import Path

from thoughtscope.job import job

params = snakemake.params
folders = {Path(path).parent.name: Path(path).parent for path in snakemake.output}
with job(snakemake.log[0], f"{snakemake.rule} {' '.join(folders)}") as log:
    import torch
    from thoughtscope import devices, dispatch, files, models
    from thoughtscope.saes import train

    torch.set_num_threads(snakemake.threads)
    manifest = files.read_json(snakemake.input.manifest) | {"folder": snakemake.input.model}
    model = models.load_model(manifest, params.dtype)
    devices.report(model, log)
    settings = dispatch.settings(params, "dtype", "source")
    train.train(
        files.read_parquet(snakemake.input.text),
        model=model,
        tokenizer=models.load_tokenizer(manifest),
        folders=folders,
        widths=manifest["widths"],
        **settings,
        log=log,
    )
