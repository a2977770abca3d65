"""Let the model write one block of traces (rule generate)."""

from thoughtscope.job import job

wildcards, params = snakemake.wildcards, snakemake.params
with job(snakemake.log[0], f"generate {wildcards.condition}/{wildcards.block}") as log:
    import torch
    from thoughtscope import config, devices, files, models
    from thoughtscope.traces import generate as traces

    torch.set_num_threads(snakemake.threads)
    manifest = files.read_json(snakemake.input.manifest) | {"folder": snakemake.input.model}
    problems = traces.select(files.read_parquet(snakemake.input.problems), config.traces_of(wildcards.block))
    model = models.load_model(manifest, params.dtype)
    devices.report(model, log)
    table = traces.generate(
        problems,
        model=model,
        tokenizer=models.load_tokenizer(manifest),
        card=models.generation_config(manifest),
        condition=wildcards.condition,
        prompt={name: text for name in ("user", "assistant", "raw") if (text := params[name])},
        think={"open": params.think_open, "close": params.think_close} if params.think_open else None,
        seed=params.seed,
        temperature=params.temperature,
        top_p=params.top_p,
        max_new_tokens=params.max_new_tokens,
        batch_size=params.batch_size,
        log=log,
    )
    about = {"experiment": wildcards.experiment}
    about |= {"dtype": str(model.dtype), "device": str(model.device)}
    files.write_parquet(table, snakemake.output[0], about)
