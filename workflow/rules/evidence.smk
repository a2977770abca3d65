"""Room 6, evidence: what recurs, what it means, and which of it are thinking patterns.

Takes readings and traces; gives, per trace, results/{experiment}/tables/{reader}/{site}/traces/{condition}/{block}/,
over all traces tables/{reader}/{site}/, and across sites tables/ (parquet). A block's tables are one job; those over all
traces have one rule each, so that an analysis setting reruns its own table and what is made from it. The first condition
of the config is the one under study.
"""


localrules:
    site_gate,
    headline,
    layers,
    matches,
    pattern_counts,


rule _table:
    output:
        table=paths.STUDY_TABLE.replace("{table}", "<table>"),
    log:
        "<logs>/tables/<table>.log",
    benchmark:
        "<benchmarks>/tables/<table>.jsonl"
    conda:
        "../../envs/analysis.yaml"
    resources:
        runtime=minutes(60),
        mem_mb=gigabytes(4),
    script:
        "../scripts/table.py"


rule _site_table:
    output:
        table=site_table("<table>"),
    log:
        "<logs>/tables/{reader}/{site}/<table>.log",
    benchmark:
        "<benchmarks>/tables/{reader}/{site}/<table>.jsonl"
    group:
        on_cluster("site")
    conda:
        "../../envs/analysis.yaml"
    resources:
        runtime=minutes(60),
        mem_mb=gigabytes(4),
    script:
        "../scripts/table.py"


rule trace_tables:
    input:
        activations=rules.read.output.activations,
        features=rules.read.output.features,
        vocabulary=rules.model.output.vocabulary,
    output:
        **{table: paths.TRACE_TABLE.replace("{table}", table) for table in TRACE_TABLES},
    log:
        "<logs>/tables/{reader}/{site}/traces/{condition}/{block}.log",
    benchmark:
        "<benchmarks>/tables/{reader}/{site}/traces/{condition}/{block}.jsonl"
    group:
        on_cluster("block")
    conda:
        "../../envs/analysis.yaml"
    resources:
        runtime=minutes(30),
        mem_mb=gigabytes(4),
    params:
        **settings(
            "evidence.traces.trace_tables",
            analysis="top_activations top_latents top_tokens histogram_bins include_sinks",
        ),
    script:
        "../scripts/table.py"


use rule _site_table as top_activations with:
    input:
        activations=per_block(rules.read.output.activations),
        vocabulary=rules.model.output.vocabulary,
    pathvars:
        table="top_activations",
    params:
        **settings("evidence.recurrence.top_activations", analysis="top_activations include_sinks"),


use rule _site_table as frequencies with:
    input:
        features=per_block(rules.read.output.features),
    pathvars:
        table="frequencies",
    params:
        **settings("evidence.recurrence.frequencies", analysis="include_sinks"),


use rule _site_table as histogram with:
    input:
        activations=per_block(rules.read.output.activations),
    pathvars:
        table="histogram",
    params:
        **settings("evidence.recurrence.histogram", analysis="histogram_bins include_sinks"),


use rule _site_table as relevant_latents with:
    input:
        features=per_block(rules.read.output.features),
        vocabulary=rules.model.output.vocabulary,
    pathvars:
        table="relevant_latents",
    params:
        **settings("evidence.recurrence.relevant_latents", analysis="top_latents include_sinks"),


use rule _site_table as recurrence with:
    input:
        relevant=rules.relevant_latents.output.table,
    pathvars:
        table="recurrence",
    params:
        **settings("evidence.recurrence.recurrence", "inferences"),


use rule _site_table as top_tokens with:
    input:
        activations=per_block(rules.read.output.activations),
        recurrence=rules.recurrence.output.table,
        vocabulary=rules.model.output.vocabulary,
    pathvars:
        table="top_tokens",
    params:
        **settings("evidence.recurrence.top_tokens", analysis="top_tokens include_sinks"),


use rule _site_table as sinks with:
    input:
        activations=per_block(rules.read.output.activations),
        vocabulary=rules.model.output.vocabulary,
    pathvars:
        table="sinks",
    params:
        **settings("evidence.recurrence.sinks"),


use rule _site_table as fit with:
    input:
        reconstruction=per_block(rules.read.output.reconstruction),
        sae=sae_of_site(paths.SAE_INFO),
    pathvars:
        table="fit",
    params:
        **settings("evidence.fit.fit"),


use rule _table as site_gate with:
    input:
        fits=per_site(rules.fit.output.table),
    pathvars:
        table="site_gate",
    params:
        **settings("evidence.fit.site_gate", analysis="max_fvu"),


use rule _table as layers with:
    input:
        frequencies=per_site(rules.frequencies.output.table),
        recurrence=per_site(rules.recurrence.output.table),
        relevant=per_site(rules.relevant_latents.output.table),
        sinks=per_site(rules.sinks.output.table),
        top_activations=per_site(rules.top_activations.output.table),
    pathvars:
        table="layers",
    params:
        **settings("evidence.recurrence.layers", analysis="min_traces"),


use rule _table as matches with:
    input:
        traces=per_block(rules.generate.output.traces),
        vocabulary=rules.model.output.vocabulary,
    pathvars:
        table="matches",
    params:
        **settings("evidence.matches.matches", "patterns", "reason_words"),


use rule _table as pattern_counts with:
    input:
        matches=rules.matches.output.table,
        traces=per_block(rules.generate.output.traces),
    pathvars:
        table="pattern_counts",
    params:
        **settings("evidence.matches.pattern_counts", "patterns"),


use rule _site_table as controls with:
    input:
        features=per_block(rules.read.output.features),
        traces=of_reader(paths.TRACES, per_block),
    pathvars:
        table="controls",
    params:
        **settings("evidence.controls.controls", "conditions", analysis="top_latents min_traces include_sinks"),


# What follows needs one table of all sites' tests, so these are a job of their own on a cluster.
use rule _site_table as presence with:
    input:
        activations=per_block(rules.read.output.activations),
        traces=of_reader(paths.TRACES, per_block),
    pathvars:
        table="presence",
    group:
        on_cluster("tested")
    params:
        **settings("evidence.presence.presence", "conditions", analysis="min_excess include_sinks"),


use rule _site_table as pattern_tests with:
    input:
        activations=of_studied(rules.read.output.activations),
        traces=of_reader(paths.TRACES, of_studied),
        matches=of_reader(MATCHES),
        vocabulary=rules.model.output.vocabulary,
    pathvars:
        table="pattern_tests",
    group:
        on_cluster("tested")
    params:
        **settings(
            "evidence.patterns.pattern_tests",
            "patterns",
            analysis="tokens_before tokens_after min_share include_sinks",
        ),
        condition=CONDITIONS[0],


use rule _table as headline with:
    input:
        pattern_tests=files_of(rules.pattern_tests.output.table, site=SITES),
        presence=files_of(rules.presence.output.table, site=SITES),
        traces=of_reader(paths.TRACES, of_studied),
    output:
        table=reader_table("<table>"),
    log:
        "<logs>/tables/{reader}/<table>.log",
    benchmark:
        "<benchmarks>/tables/{reader}/<table>.jsonl"
    pathvars:
        table="headline",
    params:
        **settings("evidence.headline.headline"),
        condition=CONDITIONS[0],


use rule _site_table as candidates with:
    input:
        features=of_studied(rules.read.output.features),
        controls=rules.controls.output.table,
        relevant=rules.relevant_latents.output.table,
        headline=rules.headline.output.table,
    pathvars:
        table="candidates",
    params:
        **settings("evidence.candidates.candidates", analysis="min_traces alpha max_sink_share"),
        condition=CONDITIONS[0],


use rule _site_table as contrasts with:
    input:
        features=per_block(rules.read.output.features),
        traces=per_block(rules.generate.output.traces),
        sinks=rules.sinks.output.table,
        candidates=rules.candidates.output.table,
    pathvars:
        table="contrasts",
    params:
        **settings("evidence.controls.contrasts", "conditions", analysis="include_sinks"),


use rule _site_table as outcomes with:
    input:
        features=of_studied(rules.read.output.features),
        traces=of_studied(rules.generate.output.traces),
        sinks=rules.sinks.output.table,
        candidates=rules.candidates.output.table,
    pathvars:
        table="outcomes",
    params:
        **settings("evidence.outcomes.outcomes", analysis="include_sinks"),
        condition=CONDITIONS[0],


use rule _site_table as reason_scores with:
    input:
        activations=of_studied(rules.read.output.activations),
        traces=of_studied(rules.generate.output.traces),
        matches=rules.matches.output.table,
        candidates=rules.controls.output.table,
    pathvars:
        table="reason_scores",
    params:
        **settings(
            "evidence.reason.reason_scores",
            "reason_words",
            analysis="window_before window_after shifts alpha include_sinks",
        ),
        condition=CONDITIONS[0],


use rule _site_table as lexicality with:
    input:
        activations=of_studied(rules.read.output.activations),
        traces=of_reader(paths.TRACES, of_studied),
        candidates=rules.candidates.output.table,
        matches=of_reader(MATCHES),
        vocabulary=rules.model.output.vocabulary,
    pathvars:
        table="lexicality",
    params:
        **settings("evidence.lexicality.lexicality", analysis="max_typed include_sinks"),
        condition=CONDITIONS[0],


use rule _site_table as verdict with:
    input:
        **{name: of_study(site_table(name)) for name in ("effects", "attribution") if config["interventions"]},
        candidates=rules.candidates.output.table,
        fit=rules.fit.output.table,
        presence=rules.presence.output.table,
        pattern_tests=rules.pattern_tests.output.table,
        lexicality=rules.lexicality.output.table,
        headline=rules.headline.output.table,
        twins=of_twins(site_table("verdict")),
    pathvars:
        table="verdict",
    params:
        **settings(
            "evidence.verdict.verdict",
            analysis="alpha min_excess min_share max_fvu max_sink_share max_typed max_twins min_effect",
        ),
        readers=twins_of,


if SECOND:

    use rule _site_table as seeds with:
        input:
            headlines=files_of(rules.headline.output.table, reader=[READER, *SECOND]),
            verdicts=files_of(rules.verdict.output.table, reader=[READER, *SECOND]),
            weights=sae_of_site(paths.SAE_WEIGHTS),
            info=sae_of_site(paths.SAE_INFO),
            other_weights=sae_of_site(paths.SAE_WEIGHTS, *SECOND),
            other_info=sae_of_site(paths.SAE_INFO, *SECOND),
        pathvars:
            table="seeds",
        params:
            **settings("evidence.seeds.seeds"),
            readers=[READER, *SECOND],
