"""Room 8, plots: the tables as pictures.

Takes tables; gives results/{experiment}/plots/trained/{site}/*.png over all traces,
plots/trained/{site}/traces/{condition}/{block}/*.png, one picture a trace, plots/layers.png and plots/site_gate.png across
sites, and plots/pattern_counts.png, of the text alone.
"""


rule plot_recurrence:
    input:
        table="results/{experiment}/tables/trained/{site}/recurrence.parquet",
        top_tokens="results/{experiment}/tables/trained/{site}/top_tokens.parquet",
    output:
        picture=report(
            "results/{experiment}/plots/trained/{site}/recurrence.png",
            caption="../report/recurrence.rst",
            category="Over all traces",
            subcategory="{site}",
            labels={"site": "{site}", "picture": "recurrence"},
        ),
    log:
        "results/{experiment}/logs/plots/trained/{site}/recurrence.log",
    benchmark:
        "results/{experiment}/benchmarks/plots/trained/{site}/recurrence.jsonl"
    conda:
        "../../envs/analysis.yaml"
    resources:
        runtime=30,
        mem_mb=gigabytes(4),
    params:
        conditions=CONDITIONS,
        scope=config["plots"]["scope"],
        latents=config["plots"]["latents"],
        dpi=config["plots"]["dpi"],
    script:
        "../scripts/plot.py"


rule plot_frequencies:
    input:
        table="results/{experiment}/tables/trained/{site}/frequencies.parquet",
    output:
        picture=report(
            "results/{experiment}/plots/trained/{site}/frequencies.png",
            caption="../report/frequencies.rst",
            category="Over all traces",
            subcategory="{site}",
            labels={"site": "{site}", "picture": "frequencies"},
        ),
    log:
        "results/{experiment}/logs/plots/trained/{site}/frequencies.log",
    benchmark:
        "results/{experiment}/benchmarks/plots/trained/{site}/frequencies.jsonl"
    conda:
        "../../envs/analysis.yaml"
    resources:
        runtime=30,
        mem_mb=gigabytes(4),
    params:
        **tracked(
            latents=config["plots"]["frequent_latents"], dpi=config["plots"]["dpi"]
        ),
        conditions=CONDITIONS,
        scope=config["plots"]["scope"],
    script:
        "../scripts/plot.py"


rule plot_histogram:
    input:
        table="results/{experiment}/tables/trained/{site}/histogram.parquet",
    output:
        picture=report(
            "results/{experiment}/plots/trained/{site}/histogram.png",
            caption="../report/histogram.rst",
            category="Over all traces",
            subcategory="{site}",
            labels={"site": "{site}", "picture": "activation histogram"},
        ),
    log:
        "results/{experiment}/logs/plots/trained/{site}/histogram.log",
    benchmark:
        "results/{experiment}/benchmarks/plots/trained/{site}/histogram.jsonl"
    conda:
        "../../envs/analysis.yaml"
    resources:
        runtime=30,
        mem_mb=gigabytes(4),
    params:
        conditions=CONDITIONS,
        scope=config["plots"]["scope"],
        dpi=config["plots"]["dpi"],
    script:
        "../scripts/plot.py"


rule plot_top_activations:
    input:
        table="results/{experiment}/tables/trained/{site}/top_activations.parquet",
    output:
        picture=report(
            "results/{experiment}/plots/trained/{site}/top_activations.png",
            caption="../report/top_activations.rst",
            category="Over all traces",
            subcategory="{site}",
            labels={"site": "{site}", "picture": "largest activations"},
        ),
    log:
        "results/{experiment}/logs/plots/trained/{site}/top_activations.log",
    benchmark:
        "results/{experiment}/benchmarks/plots/trained/{site}/top_activations.jsonl"
    conda:
        "../../envs/analysis.yaml"
    resources:
        runtime=30,
        mem_mb=gigabytes(4),
    params:
        **tracked(
            latents=config["plots"]["frequent_latents"], dpi=config["plots"]["dpi"]
        ),
        conditions=CONDITIONS,
        scope=config["plots"]["scope"],
    script:
        "../scripts/plot.py"


rule plot_top_tokens:
    input:
        table="results/{experiment}/tables/trained/{site}/top_tokens.parquet",
        recurrence="results/{experiment}/tables/trained/{site}/recurrence.parquet",
    output:
        picture=report(
            "results/{experiment}/plots/trained/{site}/top_tokens.png",
            caption="../report/top_tokens.rst",
            category="Over all traces",
            subcategory="{site}",
            labels={"site": "{site}", "picture": "top tokens"},
        ),
    log:
        "results/{experiment}/logs/plots/trained/{site}/top_tokens.log",
    benchmark:
        "results/{experiment}/benchmarks/plots/trained/{site}/top_tokens.jsonl"
    conda:
        "../../envs/analysis.yaml"
    resources:
        runtime=30,
        mem_mb=gigabytes(4),
    params:
        **tracked(latents=config["plots"]["latents"], tokens=config["plots"]["tokens"]),
        scope=config["plots"]["scope"],
        dpi=config["plots"]["dpi"],
    script:
        "../scripts/plot.py"


rule plot_waterfall:
    input:
        table="results/{experiment}/tables/trained/{site}/verdict.parquet",
    output:
        picture=report(
            "results/{experiment}/plots/trained/{site}/waterfall.png",
            caption="../report/waterfall.rst",
            category="Evidence",
            subcategory="{site}",
            labels={"site": "{site}", "picture": "what is left"},
        ),
    log:
        "results/{experiment}/logs/plots/trained/{site}/waterfall.log",
    benchmark:
        "results/{experiment}/benchmarks/plots/trained/{site}/waterfall.jsonl"
    conda:
        "../../envs/analysis.yaml"
    resources:
        runtime=30,
        mem_mb=gigabytes(4),
    params:
        dpi=config["plots"]["dpi"],
    script:
        "../scripts/plot.py"


rule plot_verdict:
    input:
        table="results/{experiment}/tables/trained/{site}/verdict.parquet",
        reason_scores="results/{experiment}/tables/trained/{site}/reason_scores.parquet",
        lexicality="results/{experiment}/tables/trained/{site}/lexicality.parquet",
    output:
        picture=report(
            "results/{experiment}/plots/trained/{site}/verdict.png",
            caption="../report/verdict.rst",
            category="Evidence",
            subcategory="{site}",
            labels={"site": "{site}", "picture": "verdict"},
        ),
    log:
        "results/{experiment}/logs/plots/trained/{site}/verdict.log",
    benchmark:
        "results/{experiment}/benchmarks/plots/trained/{site}/verdict.jsonl"
    conda:
        "../../envs/analysis.yaml"
    resources:
        runtime=30,
        mem_mb=gigabytes(4),
    params:
        **tracked(max_top_3=config["analysis"]["max_top_3"], dpi=config["plots"]["dpi"]),
    script:
        "../scripts/plot.py"


rule plot_patterns:
    input:
        table="results/{experiment}/tables/trained/{site}/pattern_tests.parquet",
        verdict="results/{experiment}/tables/trained/{site}/verdict.parquet",
    output:
        picture=report(
            "results/{experiment}/plots/trained/{site}/patterns.png",
            caption="../report/patterns.rst",
            category="Evidence",
            subcategory="{site}",
            labels={"site": "{site}", "picture": "patterns"},
        ),
    log:
        "results/{experiment}/logs/plots/trained/{site}/patterns.log",
    benchmark:
        "results/{experiment}/benchmarks/plots/trained/{site}/patterns.jsonl"
    conda:
        "../../envs/analysis.yaml"
    resources:
        runtime=30,
        mem_mb=gigabytes(4),
    params:
        **tracked(
            latents=config["plots"]["latents"],
            alpha=config["analysis"]["alpha"],
            dpi=config["plots"]["dpi"],
        ),
    script:
        "../scripts/plot.py"


rule plot_outcomes:
    input:
        table="results/{experiment}/tables/trained/{site}/outcomes.parquet",
        verdict="results/{experiment}/tables/trained/{site}/verdict.parquet",
    output:
        picture=report(
            "results/{experiment}/plots/trained/{site}/outcomes.png",
            caption="../report/outcomes.rst",
            category="Evidence",
            subcategory="{site}",
            labels={"site": "{site}", "picture": "outcomes"},
        ),
    log:
        "results/{experiment}/logs/plots/trained/{site}/outcomes.log",
    benchmark:
        "results/{experiment}/benchmarks/plots/trained/{site}/outcomes.jsonl"
    conda:
        "../../envs/analysis.yaml"
    resources:
        runtime=30,
        mem_mb=gigabytes(4),
    params:
        **tracked(latents=config["plots"]["latents"], dpi=config["plots"]["dpi"]),
    script:
        "../scripts/plot.py"


rule plot_traces:
    input:
        traces="results/{experiment}/traces/{condition}/{block}.parquet",
        activations=trace_table("top_activations"),
        frequent=trace_table("frequencies"),
        bins=trace_table("histograms"),
        relevant=trace_table("relevant_latents"),
        tokens_of=trace_table("top_tokens"),
    output:
        pictures=report(
            directory(
                "results/{experiment}/plots/trained/{site}/traces/{condition}/{block}"
            ),
            patterns=["{trace}.png"],
            caption="../report/trace.rst",
            category="Trace by trace",
            subcategory="{site}, {condition}",
            labels={"site": "{site}", "condition": "{condition}", "trace": "{trace}"},
        ),
    log:
        "results/{experiment}/logs/plots/trained/{site}/traces/{condition}/{block}.log",
    benchmark:
        "results/{experiment}/benchmarks/plots/trained/{site}/traces/{condition}/{block}.jsonl"
    conda:
        "../../envs/analysis.yaml"
    resources:
        runtime=60,
        mem_mb=gigabytes(4),
    params:
        **tracked(
            latents=config["plots"]["frequent_latents"],
            tokens=config["plots"]["tokens"],
            dpi=config["plots"]["dpi"],
        ),
        scope=config["plots"]["scope"],
    script:
        "../scripts/plot_traces.py"


localrules:
    plot_layers,
    plot_site_gate,
    plot_pattern_counts,


rule plot_pattern_counts:
    input:
        table="results/{experiment}/tables/pattern_counts.parquet",
    output:
        picture=report(
            "results/{experiment}/plots/pattern_counts.png",
            caption="../report/pattern_counts.rst",
            category="Evidence",
            subcategory="all sites",
            labels={"site": "all", "picture": "patterns in the text"},
        ),
    log:
        "results/{experiment}/logs/plots/pattern_counts.log",
    benchmark:
        "results/{experiment}/benchmarks/plots/pattern_counts.jsonl"
    conda:
        "../../envs/analysis.yaml"
    params:
        conditions=CONDITIONS,
        dpi=config["plots"]["dpi"],
    script:
        "../scripts/plot.py"


rule plot_site_gate:
    input:
        table="results/{experiment}/tables/site_gate.parquet",
    output:
        picture=report(
            "results/{experiment}/plots/site_gate.png",
            caption="../report/site_gate.rst",
            category="Across sites",
            labels={"site": "all", "picture": "site gate"},
        ),
    log:
        "results/{experiment}/logs/plots/site_gate.log",
    benchmark:
        "results/{experiment}/benchmarks/plots/site_gate.jsonl"
    conda:
        "../../envs/analysis.yaml"
    params:
        **tracked(max_fvu=config["analysis"]["max_fvu"], dpi=config["plots"]["dpi"]),
    script:
        "../scripts/plot.py"


rule plot_layers:
    input:
        recurrence=expand(
            "results/{{experiment}}/tables/trained/{site}/recurrence.parquet",
            site=SITES,
        ),
    output:
        picture=report(
            "results/{experiment}/plots/layers.png",
            caption="../report/layers.rst",
            category="Across sites",
            labels={"site": "all", "picture": "recurrence"},
        ),
    log:
        "results/{experiment}/logs/plots/layers.log",
    benchmark:
        "results/{experiment}/benchmarks/plots/layers.jsonl"
    conda:
        "../../envs/analysis.yaml"
    params:
        sites=SITES,
        conditions=CONDITIONS,
        scope=config["plots"]["scope"],
        dpi=config["plots"]["dpi"],
    script:
        "../scripts/plot_layers.py"
