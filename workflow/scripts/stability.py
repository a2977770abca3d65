"""Say how likely the model was to write each match of a pattern, in the condition under study (rule stability)."""

from thoughtscope.job import job

params, source = snakemake.params, snakemake.input
with job(snakemake.log[0], snakemake.rule) as log:
    import polars as pl
    import torch
    from thoughtscope import devices, files, models
    from thoughtscope.interventions import stability, steering
    from thoughtscope.traces import generate

    torch.set_num_threads(snakemake.threads)
    manifest = files.read_json(source.manifest) | {"folder": source.model}
    model, tokenizer = models.load_model(manifest, params.dtype), models.load_tokenizer(manifest)
    devices.report(model, log)
    temperature, top_p, stop_ids = generate.sampling_of(
        models.generation_config(manifest), tokenizer, params.temperature, params.top_p
    )
    table = stability.stability(
        files.read_parquet(source.traces),
        files.read_parquet(source.matches).filter(pl.col("condition") == params.condition),
        files.scan_parquet(source.vocabulary),
        model=model,
        sampling=steering.Sampling(params.seed, temperature, top_p, 0, stop_ids, params.batch_size),
        patterns=params.patterns,
        continuations=params.continuations,
        log=log,
    )
    about = dict(snakemake.wildcards.items()) | {"dtype": str(model.dtype), "device": str(model.device)}
    files.write_parquet(table, snakemake.output.table, about)
