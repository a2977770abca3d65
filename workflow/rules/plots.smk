"""Room 7, plots: the tables as pictures.

Takes tables; gives results/{experiment}/plots/{reader}/{site}/*.png over all traces, plots/*.png across sites and, on
demand, plots/{reader}/{site}/traces/{condition}/{block}/*.png, one picture a trace.
"""


localrules:
    plot_layers,
    plot_site_gate,
    plot_pattern_counts,


rule _picture:
    log:
        "<logs>/plots/<picture>.log",
    benchmark:
        "<benchmarks>/plots/<picture>.jsonl"
    conda:
        "../../envs/analysis.yaml"
    script:
        "../scripts/plot.py"


rule _site_picture:
    log:
        "<logs>/plots/{reader}/{site}/<picture>.log",
    benchmark:
        "<benchmarks>/plots/{reader}/{site}/<picture>.jsonl"
    group:
        on_cluster("site")
    conda:
        "../../envs/analysis.yaml"
    resources:
        runtime=minutes(30),
        mem_mb=gigabytes(4),
    script:
        "../scripts/plot.py"


use rule _site_picture as plot_recurrence with:
    input:
        table=rules.recurrence.output.table,
        top_tokens=rules.top_tokens.output.table,
    output:
        picture=picture("recurrence", "Over all traces", "recurrence"),
    pathvars:
        picture="recurrence",
    params:
        **settings("plots.sites.recurrence", "conditions", plots="scope latents dpi"),


use rule _site_picture as plot_frequencies with:
    input:
        table=rules.frequencies.output.table,
    output:
        picture=picture("frequencies", "Over all traces", "frequencies"),
    pathvars:
        picture="frequencies",
    params:
        **settings("plots.sites.frequencies", "conditions", plots="scope frequent_latents dpi"),


use rule _site_picture as plot_histogram with:
    input:
        table=rules.histogram.output.table,
    output:
        picture=picture("histogram", "Over all traces", "activation histogram"),
    pathvars:
        picture="histogram",
    params:
        **settings("plots.sites.histogram", "conditions", plots="scope dpi"),


use rule _site_picture as plot_top_activations with:
    input:
        table=rules.top_activations.output.table,
    output:
        picture=picture("top_activations", "Over all traces", "largest activations"),
    pathvars:
        picture="top_activations",
    params:
        **settings("plots.sites.top_activations", "conditions", plots="scope frequent_latents dpi"),


use rule _site_picture as plot_top_tokens with:
    input:
        table=rules.top_tokens.output.table,
        recurrence=rules.recurrence.output.table,
    output:
        picture=picture("top_tokens", "Over all traces", "top tokens"),
    pathvars:
        picture="top_tokens",
    params:
        **settings("plots.sites.top_tokens", plots="scope latents tokens dpi"),


use rule _site_picture as plot_waterfall with:
    input:
        table=rules.verdict.output.table,
    output:
        picture=picture("waterfall", "Evidence", "what is left"),
    pathvars:
        picture="waterfall",
    params:
        **settings("plots.evidence.waterfall", plots="dpi"),


use rule _site_picture as plot_verdict with:
    input:
        table=rules.verdict.output.table,
        pattern_tests=rules.pattern_tests.output.table,
        lexicality=rules.lexicality.output.table,
    output:
        picture=picture("verdict", "Evidence", "verdict"),
    pathvars:
        picture="verdict",
    params:
        **settings("plots.evidence.verdict", analysis="max_typed min_share", plots="dpi"),


use rule _site_picture as plot_patterns with:
    input:
        table=rules.pattern_tests.output.table,
        verdict=rules.verdict.output.table,
    output:
        picture=picture("patterns", "Evidence", "patterns"),
    pathvars:
        picture="patterns",
    params:
        **settings("plots.evidence.patterns", analysis="alpha", plots="latents dpi"),


use rule _site_picture as plot_outcomes with:
    input:
        table=rules.outcomes.output.table,
        verdict=rules.verdict.output.table,
    output:
        picture=picture("outcomes", "Evidence", "outcomes"),
    pathvars:
        picture="outcomes",
    params:
        **settings("plots.evidence.outcomes", plots="latents dpi"),


if config["interventions"]:

    use rule _site_picture as plot_effects with:
        input:
            table=rules.effects.output.table,
        output:
            picture=picture("effects", "Evidence", "effects"),
        pathvars:
            picture="effects",
        params:
            **settings("plots.interventions.effects", analysis="alpha", plots="dpi"),


if TWINS:

    use rule _picture as plot_twins with:
        input:
            table=rules.twins.output.table,
        output:
            picture=picture_across("twins", "Evidence", "twins"),
        pathvars:
            picture="twins",
        params:
            **settings("plots.evidence.twins", plots="dpi"),


use rule _picture as plot_pattern_counts with:
    input:
        table=rules.pattern_counts.output.table,
    output:
        picture=picture_across("pattern_counts", "Evidence", "patterns in the text"),
    pathvars:
        picture="pattern_counts",
    params:
        **settings("plots.evidence.pattern_counts", "conditions", plots="dpi"),


use rule _picture as plot_site_gate with:
    input:
        table=rules.site_gate.output.table,
    output:
        picture=picture_across("site_gate", "Across sites", "site gate"),
    pathvars:
        picture="site_gate",
    params:
        **settings("plots.evidence.site_gate", analysis="max_fvu", plots="dpi"),


use rule _picture as plot_layers with:
    input:
        recurrence=per_site(rules.recurrence.output.table),
    output:
        picture=picture_across("layers", "Across sites", "recurrence"),
    pathvars:
        picture="layers",
    params:
        **settings("plots.sites.layers", "conditions", plots="scope dpi"),


rule plot_traces:
    input:
        **{table: rules.trace_tables.output[table] for table in TRACE_TABLES},
        traces=rules.generate.output.traces,
    output:
        pictures=report(
            directory(paths.TRACE_PICTURES),
            patterns=["{trace}.png"],
            caption="../report/trace.rst",
            category="Trace by trace",
            subcategory="{site}, {condition}",
            labels={"site": "{site}", "condition": "{condition}", "trace": "{trace}"},
        ),
    log:
        "<logs>/plots/{reader}/{site}/traces/{condition}/{block}.log",
    benchmark:
        "<benchmarks>/plots/{reader}/{site}/traces/{condition}/{block}.jsonl"
    group:
        on_cluster("block")
    conda:
        "../../envs/analysis.yaml"
    resources:
        runtime=minutes(60),
        mem_mb=gigabytes(4),
    params:
        **settings("plots.traces.pictures", plots="scope frequent_latents tokens dpi"),
    script:
        "../scripts/plot.py"
