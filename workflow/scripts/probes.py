"""Learn the states of a taught model's text from its raw states (rule probes)."""

from thoughtscope.job import job

with job(snakemake.log[0], snakemake.rule) as log:
    import torch
    from thoughtscope import devices, files, models
    from thoughtscope.truth import probes

    params, source = snakemake.params, snakemake.input
    torch.set_num_threads(snakemake.threads)
    model = models.load_model(files.read_json(source.manifest) | {"folder": source.model}, params.dtype)
    devices.report(model, log)
    table = probes.probes(
        files.read_parquet(source.traces),
        files.read_parquet(source.truth),
        model=model,
        names=params.sites,
        condition=params.condition,
        log=log,
    )
    files.write_parquet(table, snakemake.output.table, {"experiment": snakemake.wildcards.experiment})
