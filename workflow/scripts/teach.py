"""Teach a model lessons (rule teach)."""

from thoughtscope.job import job

with job(snakemake.log[0], snakemake.rule) as log:
    import json
    from pathlib import Path

    import torch
    from thoughtscope import devices, files, models
    from thoughtscope.teaching import lessons, teach

    params, output = snakemake.params, snakemake.output
    torch.set_num_threads(snakemake.threads)
    manifest = files.read_json(snakemake.input.manifest) | {"folder": snakemake.input.model}
    table = lessons.table(params.lessons, params.seed, params.kind, params.conditions)
    tokenizer, model = models.load_tokenizer(manifest), models.load_model(manifest, params.dtype)
    devices.report(model, log)
    folder = Path(output.weights).parent
    went = teach.teach(
        teach.examples(table, json.loads(params.prompts), tokenizer),
        model=model,
        folder=folder,
        checkpoint=folder.with_name(f"{folder.name}.unfinished"),
        first_block=params.first_block,
        rank=params.rank,
        lr=params.lr,
        batch_size=params.batch_size,
        passes=params.passes,
        seed=params.seed,
        log=log,
    )
    files.write_parquet(table, output.lessons, {"experiment": snakemake.wildcards.experiment})
    origin = {"name": f"{params.lessons} lessons ({params.kind}, seed {params.seed})", "requested": {"source": "teach"}}
    files.write_json(origin | {"sha256": files.sha256(output.weights), "teaching": went}, output.info)
