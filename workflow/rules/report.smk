"""Room 9, report: what a person reads instead of a folder of parquet.

Takes tables, pictures, activations and SAEs; gives, for a site's leading latents,
results/{experiment}/tables/trained/{site}/{passages,latent_histograms,strips,coactivation,logit_effects,neighbours}.parquet,
and results/{experiment}/report.html, one self-contained page.
"""


localrules:
    report,


rule dashboards:
    input:
        activations=per_block(
            "results/{experiment}/readings/trained/{site}/{condition}/{block}/activations.parquet"
        ),
        features=per_block(
            "results/{experiment}/readings/trained/{site}/{condition}/{block}/features.parquet"
        ),
        traces=per_block("results/{experiment}/traces/{condition}/{block}.parquet"),
        sinks="results/{experiment}/tables/trained/{site}/sinks.parquet",
        verdict="results/{experiment}/tables/trained/{site}/verdict.parquet",
    output:
        passages="results/{experiment}/tables/trained/{site}/passages.parquet",
        histograms="results/{experiment}/tables/trained/{site}/latent_histograms.parquet",
        strips="results/{experiment}/tables/trained/{site}/strips.parquet",
        coactivation="results/{experiment}/tables/trained/{site}/coactivation.parquet",
    log:
        "results/{experiment}/logs/tables/trained/{site}/dashboards.log",
    benchmark:
        "results/{experiment}/benchmarks/tables/trained/{site}/dashboards.jsonl"
    conda:
        "../../envs/analysis.yaml"
    resources:
        runtime=60,
        mem_mb=gigabytes(6),
    params:
        latents=config["report"]["latents"],
        conditions=CONDITIONS,
        include_sinks=config["analysis"]["include_sinks"],
    script:
        "../scripts/dashboards.py"


rule directions:
    input:
        manifest="results/{experiment}/model.json",
        vocabulary="results/{experiment}/vocabulary.parquet",
        verdict="results/{experiment}/tables/trained/{site}/verdict.parquet",
        sae_config=sae_of_site("cfg.json"),
        sae_weights=sae_of_site("sae.safetensors"),
    output:
        logit_effects="results/{experiment}/tables/trained/{site}/logit_effects.parquet",
        neighbours="results/{experiment}/tables/trained/{site}/neighbours.parquet",
    log:
        "results/{experiment}/logs/tables/trained/{site}/directions.log",
    benchmark:
        "results/{experiment}/benchmarks/tables/trained/{site}/directions.jsonl"
    conda:
        "../../envs/gpu.yaml"
    resources:
        runtime=60,
        mem_mb=gigabytes(8),
    params:
        latents=config["report"]["latents"],
    script:
        "../scripts/directions.py"


rule report:
    input:
        template=f"{workflow.basedir}/workflow/report/page.html.j2",
        style=f"{workflow.basedir}/workflow/report/page.css",
        code=f"{workflow.basedir}/workflow/report/page.js",
        manifest="results/{experiment}/model.json",
        problems="results/{experiment}/problems.parquet",
        sae_text=(
            ["results/{experiment}/sae_text.parquet"]
            if config["sae"]["source"] == "train"
            else []
        ),
        vocabulary="results/{experiment}/vocabulary.parquet",
        traces=per_block("results/{experiment}/traces/{condition}/{block}.parquet"),
        matches="results/{experiment}/tables/matches.parquet",
        gate="results/{experiment}/tables/site_gate.parquet",
        layers="results/{experiment}/tables/layers.parquet",
        saes=expand(
            "results/{{experiment}}/saes/trained/{hookpoint}/info.json",
            hookpoint=HOOKPOINTS,
        ),
        pictures=expand(
            "results/{{experiment}}/plots/{picture}.png",
            picture=list(REPORT_PICTURES_ACROSS),
        ),
        site_pictures=expand(
            "results/{{experiment}}/plots/trained/{site}/{picture}.png",
            site=SITES,
            picture=list(REPORT_PICTURES),
        ),
        tables=expand(
            "results/{{experiment}}/tables/trained/{site}/{table}.parquet",
            site=SITES,
            table=REPORT_TABLES,
        ),
        activations=expand(
            "results/{{experiment}}/readings/trained/{site}/{condition}/{block}/activations.parquet",
            site=SITES,
            condition=CONDITIONS,
            block=BLOCKS,
        ),
    output:
        page="results/{experiment}/report.html",
    log:
        "results/{experiment}/logs/report.log",
    benchmark:
        "results/{experiment}/benchmarks/report.jsonl"
    conda:
        "../../envs/analysis.yaml"
    params:
        conditions=CONDITIONS,
        max_megabytes=config["report"]["max_megabytes"]
        or (60 if config["inferences"] > 100 else 10),
        neuronpedia=literal(config["report"]["neuronpedia"]),
        # As it was run: what only says how the work is done, not what comes out, reruns nothing.
        config=untracked(yaml.safe_dump(given, sort_keys=False, allow_unicode=True)),
        settings=untracked(as_json(config)),
    script:
        "../scripts/report.py"
