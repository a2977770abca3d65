"""Room 8, plots: the tables as pictures.

Takes tables; gives results/{experiment}/plots/{site}/*.png over all traces,
plots/{site}/traces/{condition}/{block}/*.png, one picture a trace, and plots/layers.png and plots/site_gate.png across sites.
"""


rule plot_recurrence:
    input:
        table="results/{experiment}/tables/{site}/recurrence.parquet",
        top_tokens="results/{experiment}/tables/{site}/top_tokens.parquet",
    output:
        picture=report(
            "results/{experiment}/plots/{site}/recurrence.png",
            caption="../report/recurrence.rst",
            category="Over all traces",
            subcategory="{site}",
            labels={"site": "{site}", "picture": "recurrence"},
        ),
    log:
        "results/{experiment}/logs/plots/{site}/recurrence.log",
    benchmark:
        "results/{experiment}/benchmarks/plots/{site}/recurrence.jsonl"
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
        table="results/{experiment}/tables/{site}/frequencies.parquet",
    output:
        picture=report(
            "results/{experiment}/plots/{site}/frequencies.png",
            caption="../report/frequencies.rst",
            category="Over all traces",
            subcategory="{site}",
            labels={"site": "{site}", "picture": "frequencies"},
        ),
    log:
        "results/{experiment}/logs/plots/{site}/frequencies.log",
    benchmark:
        "results/{experiment}/benchmarks/plots/{site}/frequencies.jsonl"
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
        table="results/{experiment}/tables/{site}/histogram.parquet",
    output:
        picture=report(
            "results/{experiment}/plots/{site}/histogram.png",
            caption="../report/histogram.rst",
            category="Over all traces",
            subcategory="{site}",
            labels={"site": "{site}", "picture": "activation histogram"},
        ),
    log:
        "results/{experiment}/logs/plots/{site}/histogram.log",
    benchmark:
        "results/{experiment}/benchmarks/plots/{site}/histogram.jsonl"
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
        table="results/{experiment}/tables/{site}/top_activations.parquet",
    output:
        picture=report(
            "results/{experiment}/plots/{site}/top_activations.png",
            caption="../report/top_activations.rst",
            category="Over all traces",
            subcategory="{site}",
            labels={"site": "{site}", "picture": "largest activations"},
        ),
    log:
        "results/{experiment}/logs/plots/{site}/top_activations.log",
    benchmark:
        "results/{experiment}/benchmarks/plots/{site}/top_activations.jsonl"
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
        table="results/{experiment}/tables/{site}/top_tokens.parquet",
        recurrence="results/{experiment}/tables/{site}/recurrence.parquet",
    output:
        picture=report(
            "results/{experiment}/plots/{site}/top_tokens.png",
            caption="../report/top_tokens.rst",
            category="Over all traces",
            subcategory="{site}",
            labels={"site": "{site}", "picture": "top tokens"},
        ),
    log:
        "results/{experiment}/logs/plots/{site}/top_tokens.log",
    benchmark:
        "results/{experiment}/benchmarks/plots/{site}/top_tokens.jsonl"
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
            directory("results/{experiment}/plots/{site}/traces/{condition}/{block}"),
            patterns=["{trace}.png"],
            caption="../report/trace.rst",
            category="Trace by trace",
            subcategory="{site}, {condition}",
            labels={"site": "{site}", "condition": "{condition}", "trace": "{trace}"},
        ),
    log:
        "results/{experiment}/logs/plots/{site}/traces/{condition}/{block}.log",
    benchmark:
        "results/{experiment}/benchmarks/plots/{site}/traces/{condition}/{block}.jsonl"
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
            "results/{{experiment}}/tables/{site}/recurrence.parquet", site=SITES
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
