"""Room 8, report: what a person reads instead of a folder of parquet.

Takes tables, pictures, readings and SAEs; gives, for a site's leading latents, results/{experiment}/tables/{reader}/
{site}/{passages,latent_histograms,strips,coactivation,logit_effects,neighbours,descriptions,coherence}.parquet,
and results/{experiment}/: summary.md for a terminal, report.html, one self-contained page.
"""


use rule _site_table as dashboards with:
    input:
        activations=per_block(rules.read.output.activations),
        features=per_block(rules.read.output.features),
        traces=per_block(rules.generate.output.traces),
        sinks=rules.sinks.output.table,
        verdict=rules.verdict.output.table,
    output:
        passages=site_table("passages"),
        histograms=site_table("latent_histograms"),
        strips=site_table("strips"),
        coactivation=site_table("coactivation"),
    pathvars:
        table="dashboards",
    params:
        **settings("report.dashboards.tables", "conditions", analysis="include_sinks", report="latents"),


use rule _site_table as descriptions with:
    input:
        activations=of_studied(rules.read.output.activations),
        traces=of_studied(rules.generate.output.traces),
        verdict=rules.verdict.output.table,
        vocabulary=rules.model.output.vocabulary,
    pathvars:
        table="descriptions",
    params:
        **settings("report.descriptions.descriptions", analysis="include_sinks", report="latents"),
        condition=CONDITIONS[0],


use rule _site_table as coherence with:
    input:
        activations=of_studied(rules.read.output.activations),
        traces=of_studied(rules.generate.output.traces),
        verdict=rules.verdict.output.table,
        vocabulary=rules.model.output.vocabulary,
    pathvars:
        table="coherence",
    params:
        **settings("report.coherence.coherence", analysis="include_sinks", report="latents"),
        condition=CONDITIONS[0],


use rule _site_table as directions with:
    input:
        manifest=rules.model.output.manifest,
        model=ancient(paths.MODEL),
        vocabulary=rules.model.output.vocabulary,
        verdict=rules.verdict.output.table,
        sae_weights=sae_of_site(paths.SAE_WEIGHTS),
        sae_info=sae_of_site(paths.SAE_INFO),
    output:
        logit_effects=site_table("logit_effects"),
        neighbours=site_table("neighbours"),
    pathvars:
        table="directions",
    params:
        **settings("report.directions.tables", report="latents"),


# By this an edit of the page's template, style or script is seen, wherever the workflow lies.
PAGE = files_digest(sorted((WORKFLOW / "report" / "page").iterdir()))

TRUTH = (
    dict(truth=rules.truth.output.table, found=rules.found.output.table, called=rules.called.output.table)
    if config["teach"]
    else {}
)

EFFECTS = (
    dict(effects=per_site(rules.effects.output.table), cost=per_site(rules.cost.output.table))
    if config["interventions"]
    else {}
)
BY_TOKEN = (
    dict(
        attribution=per_site(rules.attribution.output.table),
        token_effects=per_site(rules.ablations.output.token_effects),
        token_changes=per_site(rules.token_changes.output.table),
        weighted_tests=per_site(rules.weighted_tests.output.table),
        stable_patterns=rules.stable_patterns.output.table,
        responses=per_site(rules.responses.output.table),
    )
    if config["interventions"]
    else {}
)
if config["interventions"] and config["interventions"]["steering"]:
    EFFECTS["steered"] = per_site(rules.steered.output.table)
if TWINS:
    EFFECTS["twins"] = rules.twins.output.table
if SECOND:
    EFFECTS["seeds"] = per_site(rules.seeds.output.table)


rule summary:
    input:
        **TRUTH,
        **EFFECTS,
        manifest=rules.model.output.manifest,
        traces=per_block(rules.generate.output.traces),
        saes=expand(paths.SAE_INFO, reader=READER, hookpoint=HOOKPOINTS, allow_missing=True),
        gate=rules.site_gate.output.table,
        layers=rules.layers.output.table,
        recurrence=per_site(rules.recurrence.output.table),
        top_tokens=per_site(rules.top_tokens.output.table),
        verdicts=per_site(rules.verdict.output.table),
        matches=rules.matches.output.table,
        headline=files_of(rules.headline.output.table, reader=READER),
    output:
        page=paths.SUMMARY,
    log:
        "<logs>/summary.log",
    benchmark:
        "<benchmarks>/summary.jsonl"
    localrule: True
    conda:
        "../../envs/analysis.yaml"
    params:
        **settings(
            "summary.py",
            "conditions",
            "teach",
            analysis="top_latents min_traces alpha max_fvu include_sinks",
        ),
    script:
        "../scripts/summary.py"


rule report:
    input:
        **TRUTH,
        **EFFECTS,
        **BY_TOKEN,
        problems=rules.problems.output.problems,
        sae_text=rules.sae_text.output.text if config["sae"]["source"] == "train" else [],
        manifest=rules.model.output.manifest,
        vocabulary=rules.model.output.vocabulary,
        traces=per_block(rules.generate.output.traces),
        matches=rules.matches.output.table,
        gate=rules.site_gate.output.table,
        layers=rules.layers.output.table,
        headline=files_of(rules.headline.output.table, reader=READER),
        saes=rules.summary.input.saes,
        pictures=expand(paths.STUDY_PICTURE, picture=list(report_pictures_across(config)), allow_missing=True),
        site_pictures=per_site(expand(paths.SITE_PICTURE, picture=list(report_pictures(config)), allow_missing=True)),
        tables=per_site(expand(paths.SITE_TABLE, table=REPORT_TABLES, allow_missing=True)),
        activations=per_site(per_block(rules.read.output.activations)),
    output:
        page=paths.REPORT,
    log:
        "<logs>/report.log",
    benchmark:
        "<benchmarks>/report.jsonl"
    localrule: True
    conda:
        "../../envs/analysis.yaml"
    params:
        **settings("report.py", "conditions"),
        page=PAGE,
        max_megabytes=config["report"]["max_megabytes"] or (60 if config["inferences"] > 100 else 10),
        neuronpedia=_param(config["report"]["neuronpedia"]),
        # As it was run: what only says how the work is done, not what comes out, reruns nothing.
        config=untracked(yaml.safe_dump(given, sort_keys=False, allow_unicode=True)),
        settings=untracked(json.dumps(config, sort_keys=True)),
    script:
        "../scripts/report.py"
