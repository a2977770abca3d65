"""Let the model write on, steered by latents, in the condition under study at one site (rule steering)."""

import json
from pathlib import Path

from thoughtscope.job import job

wildcards, params, source = snakemake.wildcards, snakemake.params, snakemake.input
with job(snakemake.log[0], f"steering {wildcards.site}") as log:
    import torch
    from thoughtscope import devices, files, models
    from thoughtscope.interventions import steering
    from thoughtscope.saes import formats
    from thoughtscope.traces import generate

    torch.set_num_threads(snakemake.threads)
    manifest = files.read_json(source.manifest) | {"folder": source.model}
    model, tokenizer = models.load_model(manifest, params.dtype), models.load_tokenizer(manifest)
    devices.report(model, log)
    temperature, top_p, stop_ids = generate.sampling_of(
        models.generation_config(manifest), tokenizer, params.temperature, params.top_p
    )
    questions, patterns, prompt = files.read_parquet(source.problems)["question"], params.patterns, params.prompt

    def ask(pattern: str, trace_id: int) -> list[int]:
        """Return the ids of a prompt that asks for a pattern."""
        instruction = steering.instruction_of(pattern, json.loads(patterns)[pattern], params.instruction)
        return generate.render(json.loads(prompt), f"{questions[trace_id]} {instruction}", tokenizer, trace_id)[1]

    table = steering.steering(
        files.read_parquet(source.traces),
        files.scan_parquet(source.features),
        files.read_parquet(source.candidates),
        files.read_parquet(source.headline),
        files.read_parquet(source.attribution),
        files.scan_parquet(source.vocabulary),
        model=model,
        tokenizer=tokenizer,
        sae=formats.load(Path(source.sae_config).parent, devices.device()),
        site=wildcards.site,
        condition=params.condition,
        sampling=steering.Sampling(params.seed, temperature, top_p, params.max_new_tokens, stop_ids, params.batch_size),
        patterns=patterns,
        ask=ask if params.instruction else None,
        alpha=params.alpha,
        latents=params.latents,
        named=params.named,
        traces_each=params.traces,
        strengths=params.strengths,
        log=log,
    )
    about = dict(wildcards.items()) | {"dtype": str(model.dtype), "device": str(model.device)}
    files.write_parquet(table, snakemake.output.table, about)
