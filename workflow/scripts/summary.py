"""Write the run's summary (rule summary)."""

from thoughtscope.job import job

with job(snakemake.log[0], snakemake.rule):
    import json

    from thoughtscope import files, paths
    from thoughtscope.report import study, summary

    params, source = snakemake.params, snakemake.input

    recurrence, top_tokens, verdicts = (
        {site: files.read_parquet(path) for site, path in paths.by("site", paths.SITE_TABLE, tables).items()}
        for tables in (source.recurrence, source.top_tokens, source.verdicts)
    )
    traces = files.read_parquet(source.traces, columns=["condition", "generated_ids", "finish_reason", "correct"])
    teach = json.loads(params.teach) if params.teach else None
    text = summary.write(
        experiment=snakemake.wildcards.experiment,
        manifest=files.read_json(source.manifest),
        traces=traces,
        saes={name: files.read_json(path) for name, path in paths.by("hookpoint", paths.SAE_INFO, source.saes).items()},
        gate=files.read_parquet(source.gate),
        layers=files.read_parquet(source.layers),
        recurrence=recurrence,
        top_tokens=top_tokens,
        verdicts=verdicts,
        matches=files.read_parquet(source.matches),
        headline=files.read_parquet(source.headline),
        truth=study.truth_of(dict(source.items()), teach, len(traces.filter(condition=params.conditions[0]))),
        effects=study.of_sites(dict(source.items()), "effects"),
        cost=study.of_sites(dict(source.items()), "cost"),
        twins=files.read_parquet(source.twins) if "twins" in source.keys() else None,  # noqa: SIM118
        seeds=study.of_sites(dict(source.items()), "seeds"),
        conditions=params.conditions,
        top_latents=params.top_latents,
        min_traces=params.min_traces,
        alpha=params.alpha,
        max_fvu=params.max_fvu,
        include_sinks=params.include_sinks,
    )
    with files.replacing(snakemake.output[0]) as temporary:
        temporary.write_text(text, encoding="utf-8")
