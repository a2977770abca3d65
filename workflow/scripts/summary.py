"""Write the run's summary (rule summary)."""

from thoughtscope.job import job

with job(snakemake.log[0], snakemake.rule):
    import polars as pl
    from thoughtscope import files
    from thoughtscope.report import summary

    params, source = snakemake.params, snakemake.input

    text = summary.write(
        experiment=snakemake.wildcards.experiment,
        manifest=files.read_json(source.manifest),
        traces=pl.concat([pl.read_parquet(path) for path in source.traces]),
        saes={info.split("/")[-2]: files.read_json(info) for info in source.saes},
        gate=pl.read_parquet(source.gate),
        layers=pl.read_parquet(source.layers),
        recurrence=dict(zip(params.sites, map(pl.read_parquet, source.recurrence), strict=True)),
        top_tokens=dict(zip(params.sites, map(pl.read_parquet, source.top_tokens), strict=True)),
        verdicts=dict(zip(params.sites, map(pl.read_parquet, source.verdicts), strict=True)),
        conditions=params.conditions,
        top_latents=params.top_latents,
        min_traces=params.min_traces,
        max_fvu=params.max_fvu,
        include_sinks=params.include_sinks,
    )
    with files.replacing(snakemake.output[0]) as temporary:
        temporary.write_text(text, encoding="utf-8")
