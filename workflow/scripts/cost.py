"""Let the model go on with an SAE's reconstructions in the condition under study, at one site (rule cost)."""

from pathlib import Path

from thoughtscope.job import job

wildcards, params, source = snakemake.wildcards, snakemake.params, snakemake.input
with job(snakemake.log[0], f"cost {wildcards.site}") as log:
    import torch
    from thoughtscope import devices, files, models
    from thoughtscope.interventions import cost
    from thoughtscope.saes import formats, text

    torch.set_num_threads(snakemake.threads)
    manifest = files.read_json(source.manifest) | {"folder": source.model}
    model = models.load_model(manifest, params.dtype)
    devices.report(model, log)
    held_out = []
    if source.sae_text:
        sizes = params.tokens, params.heldout_tokens, params.context
        held_out = text.held_out(files.read_parquet(source.sae_text), models.load_tokenizer(manifest), *sizes)
    table = cost.cost(
        files.read_parquet(source.traces),
        held_out,
        model=model,
        sae=formats.load(Path(source.sae_config).parent, devices.device()),
        site=wildcards.site,
        traces_each=params.traces,
        log=log,
    )
    about = dict(wildcards.items()) | {"dtype": str(model.dtype), "device": str(model.device)}
    files.write_parquet(table, snakemake.output.table, about)
