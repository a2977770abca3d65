"""Read one block of traces at one site: activations, features and reconstruction from one pass (rule read)."""

from pathlib import Path

from thoughtscope.job import job

wildcards = snakemake.wildcards
with job(snakemake.log[0], f"read {wildcards.site} {wildcards.condition}/{wildcards.block}") as log:
    import torch
    from thoughtscope import config, devices, files, models
    from thoughtscope.readings import block, reconstruction
    from thoughtscope.saes import formats

    torch.set_num_threads(snakemake.threads)
    manifest = files.read_json(snakemake.input.manifest) | {"folder": snakemake.input.model}
    model = models.load_model(manifest, snakemake.params.dtype)
    devices.report(model, log)
    folder = Path(snakemake.input.sae_config).parent
    hookpoint = config.parse_site(wildcards.site)[0]
    reading = block.read(
        files.read_parquet(snakemake.input.traces),
        model=model,
        sae=formats.load(folder, devices.device()),
        site=wildcards.site,
        compared=reconstruction.compared_sites(hookpoint, manifest),
        log=log,
    )
    about = dict(wildcards.items()) | {"dtype": str(model.dtype), "device": str(model.device)}
    for name, table in reading._asdict().items():
        files.write_parquet(table, snakemake.output.get(name), about)
