"""Room 7, evidence: what recurs.

Takes features and activations; gives, per trace, results/{experiment}/tables/trained/{site}/traces/{condition}/{block}/*.parquet
and, over all traces, results/{experiment}/tables/trained/{site}/*.parquet. One rule a table, so that an analysis setting reruns
its own table and what is made from it.
"""


rule trace_top_activations:
    input:
        activations="results/{experiment}/readings/trained/{site}/{condition}/{block}/activations.parquet",
        vocabulary="results/{experiment}/vocabulary.parquet",
    output:
        table="results/{experiment}/tables/trained/{site}/traces/{condition}/{block}/top_activations.parquet",
    log:
        "results/{experiment}/logs/tables/trained/{site}/traces/{condition}/{block}/top_activations.log",
    benchmark:
        "results/{experiment}/benchmarks/tables/trained/{site}/traces/{condition}/{block}/top_activations.jsonl"
    conda:
        "../../envs/analysis.yaml"
    resources:
        runtime=30,
        mem_mb=gigabytes(4),
    params:
        most=config["analysis"]["top_activations"],
        include_sinks=config["analysis"]["include_sinks"],
    script:
        "../scripts/table.py"


rule trace_frequencies:
    input:
        features="results/{experiment}/readings/trained/{site}/{condition}/{block}/features.parquet",
    output:
        table="results/{experiment}/tables/trained/{site}/traces/{condition}/{block}/frequencies.parquet",
    log:
        "results/{experiment}/logs/tables/trained/{site}/traces/{condition}/{block}/frequencies.log",
    benchmark:
        "results/{experiment}/benchmarks/tables/trained/{site}/traces/{condition}/{block}/frequencies.jsonl"
    conda:
        "../../envs/analysis.yaml"
    resources:
        runtime=30,
        mem_mb=gigabytes(4),
    params:
        include_sinks=config["analysis"]["include_sinks"],
    script:
        "../scripts/table.py"


rule trace_histograms:
    input:
        activations="results/{experiment}/readings/trained/{site}/{condition}/{block}/activations.parquet",
    output:
        table="results/{experiment}/tables/trained/{site}/traces/{condition}/{block}/histograms.parquet",
    log:
        "results/{experiment}/logs/tables/trained/{site}/traces/{condition}/{block}/histograms.log",
    benchmark:
        "results/{experiment}/benchmarks/tables/trained/{site}/traces/{condition}/{block}/histograms.jsonl"
    conda:
        "../../envs/analysis.yaml"
    resources:
        runtime=30,
        mem_mb=gigabytes(4),
    params:
        bins=config["analysis"]["histogram_bins"],
        include_sinks=config["analysis"]["include_sinks"],
    script:
        "../scripts/table.py"


rule relevant_latents:
    input:
        features="results/{experiment}/readings/trained/{site}/{condition}/{block}/features.parquet",
        vocabulary="results/{experiment}/vocabulary.parquet",
    output:
        table="results/{experiment}/tables/trained/{site}/traces/{condition}/{block}/relevant_latents.parquet",
    log:
        "results/{experiment}/logs/tables/trained/{site}/traces/{condition}/{block}/relevant_latents.log",
    benchmark:
        "results/{experiment}/benchmarks/tables/trained/{site}/traces/{condition}/{block}/relevant_latents.jsonl"
    conda:
        "../../envs/analysis.yaml"
    resources:
        runtime=30,
        mem_mb=gigabytes(4),
    params:
        most=config["analysis"]["top_latents"],
        include_sinks=config["analysis"]["include_sinks"],
    script:
        "../scripts/table.py"


rule trace_top_tokens:
    input:
        activations="results/{experiment}/readings/trained/{site}/{condition}/{block}/activations.parquet",
        relevant="results/{experiment}/tables/trained/{site}/traces/{condition}/{block}/relevant_latents.parquet",
        vocabulary="results/{experiment}/vocabulary.parquet",
    output:
        table="results/{experiment}/tables/trained/{site}/traces/{condition}/{block}/top_tokens.parquet",
    log:
        "results/{experiment}/logs/tables/trained/{site}/traces/{condition}/{block}/top_tokens.log",
    benchmark:
        "results/{experiment}/benchmarks/tables/trained/{site}/traces/{condition}/{block}/top_tokens.jsonl"
    conda:
        "../../envs/analysis.yaml"
    resources:
        runtime=30,
        mem_mb=gigabytes(4),
    params:
        most=config["analysis"]["top_tokens"],
        include_sinks=config["analysis"]["include_sinks"],
    script:
        "../scripts/table.py"


rule top_activations:
    input:
        per_trace=per_block(
            "results/{experiment}/tables/trained/{site}/traces/{condition}/{block}/top_activations.parquet"
        ),
    output:
        table="results/{experiment}/tables/trained/{site}/top_activations.parquet",
    log:
        "results/{experiment}/logs/tables/trained/{site}/top_activations.log",
    benchmark:
        "results/{experiment}/benchmarks/tables/trained/{site}/top_activations.jsonl"
    conda:
        "../../envs/analysis.yaml"
    resources:
        runtime=30,
        mem_mb=gigabytes(4),
    params:
        most=config["analysis"]["top_activations"],
    script:
        "../scripts/table.py"


rule frequencies:
    input:
        features=per_block(
            "results/{experiment}/readings/trained/{site}/{condition}/{block}/features.parquet"
        ),
    output:
        table="results/{experiment}/tables/trained/{site}/frequencies.parquet",
    log:
        "results/{experiment}/logs/tables/trained/{site}/frequencies.log",
    benchmark:
        "results/{experiment}/benchmarks/tables/trained/{site}/frequencies.jsonl"
    conda:
        "../../envs/analysis.yaml"
    resources:
        runtime=30,
        mem_mb=gigabytes(4),
    params:
        include_sinks=config["analysis"]["include_sinks"],
    script:
        "../scripts/table.py"


rule histogram:
    input:
        activations=per_block(
            "results/{experiment}/readings/trained/{site}/{condition}/{block}/activations.parquet"
        ),
    output:
        table="results/{experiment}/tables/trained/{site}/histogram.parquet",
    log:
        "results/{experiment}/logs/tables/trained/{site}/histogram.log",
    benchmark:
        "results/{experiment}/benchmarks/tables/trained/{site}/histogram.jsonl"
    conda:
        "../../envs/analysis.yaml"
    resources:
        runtime=30,
        mem_mb=gigabytes(4),
    params:
        bins=config["analysis"]["histogram_bins"],
        include_sinks=config["analysis"]["include_sinks"],
    script:
        "../scripts/table.py"


rule recurrence:
    input:
        relevant=per_block(
            "results/{experiment}/tables/trained/{site}/traces/{condition}/{block}/relevant_latents.parquet"
        ),
    output:
        table="results/{experiment}/tables/trained/{site}/recurrence.parquet",
    log:
        "results/{experiment}/logs/tables/trained/{site}/recurrence.log",
    benchmark:
        "results/{experiment}/benchmarks/tables/trained/{site}/recurrence.jsonl"
    conda:
        "../../envs/analysis.yaml"
    resources:
        runtime=30,
        mem_mb=gigabytes(4),
    params:
        inferences=config["inferences"],
    script:
        "../scripts/table.py"


rule top_tokens:
    input:
        activations=per_block(
            "results/{experiment}/readings/trained/{site}/{condition}/{block}/activations.parquet"
        ),
        recurrence="results/{experiment}/tables/trained/{site}/recurrence.parquet",
        vocabulary="results/{experiment}/vocabulary.parquet",
    output:
        table="results/{experiment}/tables/trained/{site}/top_tokens.parquet",
    log:
        "results/{experiment}/logs/tables/trained/{site}/top_tokens.log",
    benchmark:
        "results/{experiment}/benchmarks/tables/trained/{site}/top_tokens.jsonl"
    conda:
        "../../envs/analysis.yaml"
    resources:
        runtime=30,
        mem_mb=gigabytes(4),
    params:
        most=config["analysis"]["top_tokens"],
        include_sinks=config["analysis"]["include_sinks"],
    script:
        "../scripts/table.py"


rule sinks:
    input:
        activations=per_block(
            "results/{experiment}/readings/trained/{site}/{condition}/{block}/activations.parquet"
        ),
        vocabulary="results/{experiment}/vocabulary.parquet",
    output:
        table="results/{experiment}/tables/trained/{site}/sinks.parquet",
    log:
        "results/{experiment}/logs/tables/trained/{site}/sinks.log",
    benchmark:
        "results/{experiment}/benchmarks/tables/trained/{site}/sinks.jsonl"
    conda:
        "../../envs/analysis.yaml"
    resources:
        runtime=30,
        mem_mb=gigabytes(4),
    script:
        "../scripts/table.py"


rule fit:
    input:
        reconstruction=reconstruction_of_site,
        sae=sae_of_site("info.json"),
    output:
        table="results/{experiment}/tables/trained/{site}/fit.parquet",
    log:
        "results/{experiment}/logs/tables/trained/{site}/fit.log",
    benchmark:
        "results/{experiment}/benchmarks/tables/trained/{site}/fit.jsonl"
    conda:
        "../../envs/analysis.yaml"
    resources:
        runtime=30,
        mem_mb=gigabytes(4),
    script:
        "../scripts/fit.py"


localrules:
    layers,
    site_gate,
    summary,


rule site_gate:
    input:
        fits=expand(
            "results/{{experiment}}/tables/trained/{site}/fit.parquet", site=SITES
        ),
    output:
        table="results/{experiment}/tables/site_gate.parquet",
    log:
        "results/{experiment}/logs/tables/site_gate.log",
    benchmark:
        "results/{experiment}/benchmarks/tables/site_gate.jsonl"
    conda:
        "../../envs/analysis.yaml"
    params:
        max_fvu=config["analysis"]["max_fvu"],
    script:
        "../scripts/site_gate.py"


rule layers:
    input:
        frequencies=expand(
            "results/{{experiment}}/tables/trained/{site}/frequencies.parquet",
            site=SITES,
        ),
        recurrence=expand(
            "results/{{experiment}}/tables/trained/{site}/recurrence.parquet",
            site=SITES,
        ),
        relevant=expand(
            "results/{{experiment}}/tables/trained/{site}/traces/{condition}/{block}/relevant_latents.parquet",
            site=SITES,
            condition=CONDITIONS,
            block=BLOCKS,
        ),
        sinks=expand(
            "results/{{experiment}}/tables/trained/{site}/sinks.parquet", site=SITES
        ),
        top_activations=expand(
            "results/{{experiment}}/tables/trained/{site}/top_activations.parquet",
            site=SITES,
        ),
    output:
        table="results/{experiment}/tables/layers.parquet",
    log:
        "results/{experiment}/logs/tables/layers.log",
    benchmark:
        "results/{experiment}/benchmarks/tables/layers.jsonl"
    conda:
        "../../envs/analysis.yaml"
    params:
        sites=SITES,
        min_traces=config["analysis"]["min_traces"],
    script:
        "../scripts/layers.py"


rule summary:
    input:
        manifest="results/{experiment}/model.json",
        traces=per_block("results/{experiment}/traces/{condition}/{block}.parquet"),
        saes=expand(
            "results/{{experiment}}/saes/trained/{hookpoint}/info.json",
            hookpoint=HOOKPOINTS,
        ),
        gate="results/{experiment}/tables/site_gate.parquet",
        layers="results/{experiment}/tables/layers.parquet",
        recurrence=expand(
            "results/{{experiment}}/tables/trained/{site}/recurrence.parquet",
            site=SITES,
        ),
        top_tokens=expand(
            "results/{{experiment}}/tables/trained/{site}/top_tokens.parquet",
            site=SITES,
        ),
        verdicts=expand(
            "results/{{experiment}}/tables/trained/{site}/verdict.parquet", site=SITES
        ),
    output:
        page="results/{experiment}/summary.md",
    log:
        "results/{experiment}/logs/summary.log",
    benchmark:
        "results/{experiment}/benchmarks/summary.jsonl"
    conda:
        "../../envs/analysis.yaml"
    params:
        conditions=CONDITIONS,
        top_latents=config["analysis"]["top_latents"],
        min_traces=config["analysis"]["min_traces"],
        max_fvu=config["analysis"]["max_fvu"],
        include_sinks=config["analysis"]["include_sinks"],
    script:
        "../scripts/summary.py"
