"""Write the report (rule report)."""

from pathlib import Path

from thoughtscope.job import job

with job(snakemake.log[0], snakemake.rule) as log:
    import json

    from thoughtscope import config, files, paths
    from thoughtscope.report import page as report, provenance, reader, study as room

    given, params, experiment = snakemake.input, snakemake.params, snakemake.wildcards.experiment
    study = room.load(
        dict(given.items()),
        experiment=experiment,
        conditions=params.conditions,
        settings=json.loads(params.settings),
        config=params.config,
        neuronpedia=params.neuronpedia,
    )
    tokens = reader.Tokens.of(files.read_parquet(given.vocabulary))
    known = paths.levels(paths.SAE_INFO, given.saes) | paths.levels(paths.ACTIVATIONS, given.activations)
    known["reader"] += study.settings["twins"]
    rules = Path(paths.RULES.format(experiment=experiment))
    page, held = report.render(
        study,
        parcels=reader.trace_parcels(
            study.traces,
            study.matches,
            study.conditions,
            known["site"],
            reader.reading(given.activations),
            tokens,
            study.token_effects,
        ),
        tokens=tokens,
        provenance=provenance.collect(
            Path(snakemake.output[0]).parent,
            manifest=study.manifest,
            saes={config.parse_site(site.name)[0]: site.info for site in study.sites},
            problems=study.problems,
            texts=[text for text in (given.problems, given.sae_text) if text],  # no text where no SAE is trained
            traces=given.traces,
            settings=study.settings,
            times=provenance.benchmarks(Path(snakemake.output[0]).with_name("benchmarks"), known),
            rules=provenance.read_if_whole(rules),
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
