"""Draw one picture for each trace of a block (rule plot_traces)."""

from thoughtscope.job import job

wildcards, params = snakemake.wildcards, snakemake.params
with job(snakemake.log[0], f"plot_traces {wildcards.site} {wildcards.condition}/{wildcards.block}"):
    import polars as pl
    from thoughtscope import files
    from thoughtscope.plots import sites as plots

    tables = {name: pl.read_parquet(path) for name, path in snakemake.input.items() if name != "traces"}
    with files.replacing(snakemake.output[0]) as folder:
        for trace in pl.read_parquet(snakemake.input.traces).iter_rows(named=True):
            trace_id = trace["trace_id"]
            figure = plots.trace(
                trace,
                **{name: table.filter(trace_id=trace_id, scope=params.scope) for name, table in tables.items()},
                site=wildcards.site,
                scope=params.scope,
                latents=params.latents,
                tokens=params.tokens,
            )
            plots.save(figure, folder / f"{trace_id:05d}.png", params.dpi)
