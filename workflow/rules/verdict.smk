"""Room 7, evidence: which of what recurs are thinking patterns. Controls, patterns, outcomes, lexicality, verdict.

Takes features, activations, traces and the site gate; gives results/{experiment}/tables/{matches,pattern_counts}.parquet
and, per site, results/{experiment}/tables/trained/{site}/*.parquet. The first condition of the config is the one under study.
"""


localrules:
    matches,
    pattern_counts,


rule matches:
    input:
        traces=per_block("results/{experiment}/traces/{condition}/{block}.parquet"),
        vocabulary="results/{experiment}/vocabulary.parquet",
    output:
        table="results/{experiment}/tables/matches.parquet",
    log:
        "results/{experiment}/logs/tables/matches.log",
    benchmark:
        "results/{experiment}/benchmarks/tables/matches.jsonl"
    conda:
        "../../envs/analysis.yaml"
    resources:
        runtime=60,
        mem_mb=gigabytes(4),
    params:
        patterns=literal(as_json(config["patterns"])),
        reason_words=literal(as_json(config["reason_words"])),
    script:
        "../scripts/table.py"


rule pattern_counts:
    input:
        matches="results/{experiment}/tables/matches.parquet",
        traces=per_block("results/{experiment}/traces/{condition}/{block}.parquet"),
    output:
        table="results/{experiment}/tables/pattern_counts.parquet",
    log:
        "results/{experiment}/logs/tables/pattern_counts.log",
    benchmark:
        "results/{experiment}/benchmarks/tables/pattern_counts.jsonl"
    conda:
        "../../envs/analysis.yaml"
    resources:
        runtime=60,
        mem_mb=gigabytes(4),
    params:
        patterns=literal(as_json(config["patterns"])),
    script:
        "../scripts/table.py"


rule controls:
    input:
        features=per_block(
            "results/{experiment}/readings/trained/{site}/{condition}/{block}/features.parquet"
        ),
        traces=per_block("results/{experiment}/traces/{condition}/{block}.parquet"),
    output:
        table="results/{experiment}/tables/trained/{site}/controls.parquet",
    log:
        "results/{experiment}/logs/tables/trained/{site}/controls.log",
    benchmark:
        "results/{experiment}/benchmarks/tables/trained/{site}/controls.jsonl"
    conda:
        "../../envs/analysis.yaml"
    resources:
        runtime=60,
        mem_mb=gigabytes(4),
    params:
        **tracked(
            most=config["analysis"]["top_latents"],
            min_traces=config["analysis"]["min_traces"],
        ),
        conditions=CONDITIONS,
        include_sinks=config["analysis"]["include_sinks"],
    script:
        "../scripts/table.py"


rule contrasts:
    input:
        features=per_block(
            "results/{experiment}/readings/trained/{site}/{condition}/{block}/features.parquet"
        ),
        traces=per_block("results/{experiment}/traces/{condition}/{block}.parquet"),
        sinks="results/{experiment}/tables/trained/{site}/sinks.parquet",
        candidates="results/{experiment}/tables/trained/{site}/controls.parquet",
    output:
        table="results/{experiment}/tables/trained/{site}/contrasts.parquet",
    log:
        "results/{experiment}/logs/tables/trained/{site}/contrasts.log",
    benchmark:
        "results/{experiment}/benchmarks/tables/trained/{site}/contrasts.jsonl"
    conda:
        "../../envs/analysis.yaml"
    resources:
        runtime=60,
        mem_mb=gigabytes(4),
    params:
        conditions=CONDITIONS,
        include_sinks=config["analysis"]["include_sinks"],
    script:
        "../scripts/table.py"


rule outcomes:
    input:
        features=of_studied(
            "results/{experiment}/readings/trained/{site}/{condition}/{block}/features.parquet"
        ),
        traces=of_studied("results/{experiment}/traces/{condition}/{block}.parquet"),
        sinks="results/{experiment}/tables/trained/{site}/sinks.parquet",
        candidates="results/{experiment}/tables/trained/{site}/controls.parquet",
    output:
        table="results/{experiment}/tables/trained/{site}/outcomes.parquet",
    log:
        "results/{experiment}/logs/tables/trained/{site}/outcomes.log",
    benchmark:
        "results/{experiment}/benchmarks/tables/trained/{site}/outcomes.jsonl"
    conda:
        "../../envs/analysis.yaml"
    resources:
        runtime=60,
        mem_mb=gigabytes(4),
    params:
        condition=CONDITIONS[0],
        include_sinks=config["analysis"]["include_sinks"],
    script:
        "../scripts/table.py"


rule pattern_tests:
    input:
        activations=of_studied(
            "results/{experiment}/readings/trained/{site}/{condition}/{block}/activations.parquet"
        ),
        traces=of_studied("results/{experiment}/traces/{condition}/{block}.parquet"),
        matches="results/{experiment}/tables/matches.parquet",
        candidates="results/{experiment}/tables/trained/{site}/controls.parquet",
    output:
        table="results/{experiment}/tables/trained/{site}/pattern_tests.parquet",
    log:
        "results/{experiment}/logs/tables/trained/{site}/pattern_tests.log",
    benchmark:
        "results/{experiment}/benchmarks/tables/trained/{site}/pattern_tests.jsonl"
    conda:
        "../../envs/analysis.yaml"
    resources:
        runtime=60,
        mem_mb=gigabytes(4),
    params:
        **tracked(
            before=config["analysis"]["window_before"],
            after=config["analysis"]["window_after"],
            shifts=config["analysis"]["shifts"],
            alpha=config["analysis"]["alpha"],
        ),
        patterns=literal(as_json(config["patterns"])),
        condition=CONDITIONS[0],
        include_sinks=config["analysis"]["include_sinks"],
    script:
        "../scripts/table.py"


rule reason_scores:
    input:
        activations=of_studied(
            "results/{experiment}/readings/trained/{site}/{condition}/{block}/activations.parquet"
        ),
        traces=of_studied("results/{experiment}/traces/{condition}/{block}.parquet"),
        matches="results/{experiment}/tables/matches.parquet",
        candidates="results/{experiment}/tables/trained/{site}/controls.parquet",
    output:
        table="results/{experiment}/tables/trained/{site}/reason_scores.parquet",
    log:
        "results/{experiment}/logs/tables/trained/{site}/reason_scores.log",
    benchmark:
        "results/{experiment}/benchmarks/tables/trained/{site}/reason_scores.jsonl"
    conda:
        "../../envs/analysis.yaml"
    resources:
        runtime=60,
        mem_mb=gigabytes(4),
    params:
        **tracked(
            before=config["analysis"]["window_before"],
            after=config["analysis"]["window_after"],
            shifts=config["analysis"]["shifts"],
            alpha=config["analysis"]["alpha"],
        ),
        reason_words=literal(as_json(config["reason_words"])),
        condition=CONDITIONS[0],
        include_sinks=config["analysis"]["include_sinks"],
    script:
        "../scripts/table.py"


rule lexicality:
    input:
        activations=of_studied(
            "results/{experiment}/readings/trained/{site}/{condition}/{block}/activations.parquet"
        ),
        traces=of_studied("results/{experiment}/traces/{condition}/{block}.parquet"),
        candidates="results/{experiment}/tables/trained/{site}/controls.parquet",
        vocabulary="results/{experiment}/vocabulary.parquet",
    output:
        table="results/{experiment}/tables/trained/{site}/lexicality.parquet",
    log:
        "results/{experiment}/logs/tables/trained/{site}/lexicality.log",
    benchmark:
        "results/{experiment}/benchmarks/tables/trained/{site}/lexicality.jsonl"
    conda:
        "../../envs/analysis.yaml"
    resources:
        runtime=60,
        mem_mb=gigabytes(4),
    params:
        condition=CONDITIONS[0],
        max_top_3=config["analysis"]["max_top_3"],
        include_sinks=config["analysis"]["include_sinks"],
    script:
        "../scripts/table.py"


rule verdict:
    input:
        controls="results/{experiment}/tables/trained/{site}/controls.parquet",
        fit="results/{experiment}/tables/trained/{site}/fit.parquet",
        pattern_tests="results/{experiment}/tables/trained/{site}/pattern_tests.parquet",
        lexicality="results/{experiment}/tables/trained/{site}/lexicality.parquet",
        outcomes="results/{experiment}/tables/trained/{site}/outcomes.parquet",
    output:
        table="results/{experiment}/tables/trained/{site}/verdict.parquet",
    log:
        "results/{experiment}/logs/tables/trained/{site}/verdict.log",
    benchmark:
        "results/{experiment}/benchmarks/tables/trained/{site}/verdict.jsonl"
    conda:
        "../../envs/analysis.yaml"
    resources:
        runtime=60,
        mem_mb=gigabytes(4),
    params:
        **tracked(
            min_traces=config["analysis"]["min_traces"],
            alpha=config["analysis"]["alpha"],
            min_excess=config["analysis"]["min_excess"],
            min_link=config["analysis"]["min_link"],
            max_fvu=config["analysis"]["max_fvu"],
            max_sink_share=config["analysis"]["max_sink_share"],
            max_top_3=config["analysis"]["max_top_3"],
            max_length_auroc=config["analysis"]["max_length_auroc"],
        ),
    script:
        "../scripts/table.py"
