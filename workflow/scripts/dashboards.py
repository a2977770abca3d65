"""Make the tables behind the dashboards of a site's leading latents (rule dashboards)."""

from thoughtscope.job import job

site = snakemake.wildcards.site
with job(snakemake.log[0], f"{snakemake.rule} {site}"):
    import polars as pl
    from thoughtscope.report import dashboards
    from thoughtscope import files
    from thoughtscope.evidence import verdict

    given, params = snakemake.input, snakemake.params
    activations, features, traces, sinks = (
        pl.scan_parquet(paths) for paths in (given.activations, given.features, given.traces, given.sinks)
    )
    latents = verdict.leading(pl.read_parquet(given.verdict), params.latents)["latent"].to_list()
    chosen = {"latents": latents, "include_sinks": params.include_sinks}
    under_study, every = {"condition": params.conditions[0]}, {"conditions": params.conditions}
    tables = {
        "passages": dashboards.passages(activations, traces, **chosen, **under_study),
        "histograms": dashboards.latent_histograms(activations, traces, sinks, **chosen, **every),
        "strips": dashboards.strips(features, **chosen, **every),
        "coactivation": dashboards.coactivation(activations, traces, sinks, **chosen, **under_study),
    }
    about = {"experiment": snakemake.wildcards.experiment, "site": site, "include_sinks": str(params.include_sinks)}
    for name, table in tables.items():
        files.write_parquet(table, snakemake.output.get(name), about)
