"""Write the report (rule report)."""

from pathlib import Path

from thoughtscope.job import job

with job(snakemake.log[0], snakemake.rule) as log:
    import json

    import polars as pl
    from thoughtscope import config, files
    from thoughtscope.report import provenance, reader, page as report
    from thoughtscope.report.study import load

    given, params, results = snakemake.input, snakemake.params, Path(snakemake.output[0]).parent
    named = {name: params.get(name) for name in ("conditions", "sites", "blocks")}
    study = load(
        results, **named, settings=json.loads(params.settings), config=params.config, neuronpedia=params.neuronpedia
    )
    tokens = reader.Tokens.of(pl.read_parquet(given.vocabulary))
    blocks = {
        (site, condition, config.traces_of(block)): str(results / "activations" / site / condition / f"{block}.parquet")
        for site in params.sites
        for condition in params.conditions
        for block in params.blocks
    }
    page, held = report.render(
        study,
        folder=Path(given.template).parent,
        parcels=reader.trace_parcels(
            study.traces, study.matches, params.conditions, params.sites, reader.reading(blocks), tokens
        ),
        tokens=tokens,
        provenance=provenance.collect(
            results,
            manifest=study.manifest,
            saes={config.parse_site(site.name)[0]: site.info for site in study.sites},
            problems=study.problems,
            traces=given.traces,
            settings=study.settings,
            names={name for site in params.sites for name in (site, config.parse_site(site)[0])}
            | {*params.conditions, *params.blocks},
        ),
        max_megabytes=params.max_megabytes,
    )
    with files.replacing(snakemake.output[0]) as temporary:
        temporary.write_text(page, encoding="utf-8")
    size = len(page.encode("utf-8")) / 1e6
    log.info("%s: %.1f MB, %d of %d traces", snakemake.output[0], size, len(held), len(study.traces))
    if size > params.max_megabytes:
        log.warning(
            "warning: it is larger than report.max_megabytes (%d) without any trace; lower report.latents",
            params.max_megabytes,
        )
