"""Room 7, interventions: what the model does otherwise when a latent is taken away, or added, at its site.

Only where the config asks for it (`interventions`). Takes traces, model, SAE and the latents that evidence links to a
pattern; gives tables/{reader}/{site}/ (attribution: all latents, to first order; ablations: a row a trace, latent and
edit; effects: a row a latent; cost: of reading on from reconstructions).
"""


localrules:
    stable_patterns,


MODEL_AND_SAE = dict(
    manifest=rules.model.output.manifest,
    model=ancient(paths.MODEL),
    sae_config=sae_of_site(paths.SAE_CONFIG),
    sae_weights=sae_of_site(paths.SAE_WEIGHTS),
    sae_info=sae_of_site(paths.SAE_INFO),
)


def intervention(script, names, **others):
    """Return params of a script that edits the model's states: the settings of that name, and what places are."""
    values = {name: config["interventions"][name] for name in names.split()} | others
    values |= {name: config["analysis"][name] for name in ("tokens_before", "tokens_after")}
    return as_params(script, dtype=config["model"]["dtype"], **values)


rule attribution:
    input:
        **MODEL_AND_SAE,
        traces=of_studied(rules.generate.output.traces),
        matches=rules.matches.output.table,
        vocabulary=rules.model.output.vocabulary,
    output:
        table=site_table("attribution"),
    log:
        "<logs>/tables/{reader}/{site}/attribution.log",
    benchmark:
        "<benchmarks>/tables/{reader}/{site}/attribution.jsonl"
    conda:
        "../../envs/gpu.yaml"
    threads: 8
    resources:
        gpu=1,
        runtime=minutes(120),
        mem_mb=gigabytes(8),
    params:
        **intervention("attribution.py", "traces steps"),
        condition=CONDITIONS[0],
    script:
        "../scripts/attribution.py"


rule ablations:
    input:
        **MODEL_AND_SAE,
        traces=of_studied(rules.generate.output.traces),
        matches=rules.matches.output.table,
        features=of_studied(rules.read.output.features),
        candidates=rules.candidates.output.table,
        headline=rules.headline.output.table,
        attribution=rules.attribution.output.table,
        vocabulary=rules.model.output.vocabulary,
    output:
        ablations=site_table("ablations"),
        token_effects=site_table("token_effects"),
    log:
        "<logs>/tables/{reader}/{site}/ablations.log",
    benchmark:
        "<benchmarks>/tables/{reader}/{site}/ablations.jsonl"
    conda:
        "../../envs/gpu.yaml"
    threads: 8
    resources:
        gpu=1,
        runtime=minutes(120),
        mem_mb=gigabytes(8),
    params:
        **intervention("ablations.py", "latents traces draws strengths", alpha=config["analysis"]["alpha"]),
        named=named_at,
        condition=CONDITIONS[0],
    script:
        "../scripts/ablations.py"


rule cost:
    input:
        **MODEL_AND_SAE,
        traces=of_studied(rules.generate.output.traces),
        sae_text=rules.sae_text.output.text if config["sae"]["source"] == "train" else [],
    output:
        table=site_table("cost"),
    log:
        "<logs>/tables/{reader}/{site}/cost.log",
    benchmark:
        "<benchmarks>/tables/{reader}/{site}/cost.jsonl"
    conda:
        "../../envs/gpu.yaml"
    threads: 8
    resources:
        gpu=1,
        runtime=minutes(60),
        mem_mb=gigabytes(8),
    params:
        **as_params(
            "cost.py",
            dtype=config["model"]["dtype"],
            traces=config["interventions"]["traces"],
            **{name: config["sae"].get(name) for name in ("tokens", "heldout_tokens", "context")},
        ),
    script:
        "../scripts/cost.py"


rule injections:
    input:
        **MODEL_AND_SAE,
        traces=of_studied(rules.generate.output.traces),
        activations=of_studied(rules.read.output.activations),
        candidates=rules.candidates.output.table,
        headline=rules.headline.output.table,
        attribution=rules.attribution.output.table,
        vocabulary=rules.model.output.vocabulary,
    output:
        table=site_table("injections"),
    log:
        "<logs>/tables/{reader}/{site}/injections.log",
    benchmark:
        "<benchmarks>/tables/{reader}/{site}/injections.jsonl"
    conda:
        "../../envs/gpu.yaml"
    threads: 8
    resources:
        gpu=1,
        runtime=minutes(60),
        mem_mb=gigabytes(8),
    params:
        **as_params(
            "injections.py",
            dtype=config["model"]["dtype"],
            alpha=config["analysis"]["alpha"],
            latents=config["interventions"]["latents"],
            traces=config["interventions"]["traces"],
        ),
        named=named_at,
    script:
        "../scripts/injections.py"


use rule _site_table as responses with:
    input:
        injections=rules.injections.output.table,
    pathvars:
        table="responses",
    params:
        **settings("interventions.responses.responses"),


rule stability:
    input:
        manifest=rules.model.output.manifest,
        model=ancient(paths.MODEL),
        traces=of_studied(rules.generate.output.traces),
        matches=rules.matches.output.table,
        vocabulary=rules.model.output.vocabulary,
    output:
        table=paths.STUDY_TABLE.replace("{table}", "stability"),
    log:
        "<logs>/tables/stability.log",
    benchmark:
        "<benchmarks>/tables/stability.jsonl"
    conda:
        "../../envs/gpu.yaml"
    threads: 8
    resources:
        gpu=1,
        runtime=minutes(120),
        mem_mb=gigabytes(8),
    params:
        **as_params(
            "stability.py",
            dtype=config["model"]["dtype"],
            seed=config["generation"]["seed"],
            temperature=config["generation"]["temperature"],
            top_p=config["generation"]["top_p"],
            patterns=config["patterns"],
            continuations=config["interventions"]["continuations"],
        ),
        condition=CONDITIONS[0],
        batch_size=untracked(config["generation"]["batch_size"]),
    script:
        "../scripts/stability.py"


use rule _table as stable_patterns with:
    input:
        stability=rules.stability.output.table,
    pathvars:
        table="stable_patterns",
    params:
        **settings("interventions.stable.stable_patterns"),


# The link tests once more, each match counting as much as the model was likely to write it.
use rule pattern_tests as weighted_tests with:
    input:
        activations=of_studied(rules.read.output.activations),
        traces=of_studied(rules.generate.output.traces),
        matches=rules.stability.output.table,
        vocabulary=rules.model.output.vocabulary,
    pathvars:
        table="weighted_tests",


if config["interventions"]["steering"]:

    rule steering:
        input:
            **MODEL_AND_SAE,
            problems=rules.problems.output.problems,
            traces=of_studied(rules.generate.output.traces),
            features=of_studied(rules.read.output.features),
            candidates=rules.candidates.output.table,
            headline=rules.headline.output.table,
            attribution=rules.attribution.output.table,
            vocabulary=rules.model.output.vocabulary,
        output:
            table=site_table("steering"),
        log:
            "<logs>/tables/{reader}/{site}/steering.log",
        benchmark:
            "<benchmarks>/tables/{reader}/{site}/steering.jsonl"
        conda:
            "../../envs/gpu.yaml"
        threads: 8
        resources:
            gpu=1,
            runtime=minutes(240),
            mem_mb=gigabytes(8),
        params:
            **as_params(
                "steering.py",
                dtype=config["model"]["dtype"],
                seed=config["generation"]["seed"],
                temperature=config["generation"]["temperature"],
                top_p=config["generation"]["top_p"],
                max_new_tokens=config["generation"]["max_new_tokens"],
                prompt=config["prompts"][CONDITIONS[0]],
                patterns=config["patterns"],
                alpha=config["analysis"]["alpha"],
                **config["interventions"]["steering"],
            ),
            named=named_at,
            condition=CONDITIONS[0],
            batch_size=untracked(config["generation"]["batch_size"]),
        script:
            "../scripts/steering.py"

    use rule _site_table as steered with:
        input:
            steering=rules.steering.output.table,
        pathvars:
            table="steered",
        params:
            **settings("interventions.steered.steered"),


use rule _site_table as effects with:
    input:
        ablations=rules.ablations.output.ablations,
        attribution=rules.attribution.output.table,
    pathvars:
        table="effects",
    params:
        **settings("interventions.effects.effects"),


rule token_changes:
    input:
        **MODEL_AND_SAE,
        traces=of_studied(rules.generate.output.traces),
        features=of_studied(rules.read.output.features),
        verdict=rules.verdict.output.table,
        vocabulary=rules.model.output.vocabulary,
    output:
        table=site_table("token_changes"),
    log:
        "<logs>/tables/{reader}/{site}/token_changes.log",
    benchmark:
        "<benchmarks>/tables/{reader}/{site}/token_changes.jsonl"
    conda:
        "../../envs/gpu.yaml"
    threads: 8
    resources:
        gpu=1,
        runtime=minutes(60),
        mem_mb=gigabytes(8),
    params:
        **as_params("token_changes.py", dtype=config["model"]["dtype"], latents=config["report"]["latents"]),
    script:
        "../scripts/token_changes.py"
