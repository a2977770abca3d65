"""Twins: what those who read beside the study have of their own. All after it goes by the study's own rules.

Only where the config asks for them (`twins`). Takes model, SAEs, traces and matches; gives
results/{experiment}/twins/{reader}/ (a model with random weights, traces in another order), saes/{reader}/ and
tables/{reader}/.
"""


localrules:
    random_sae,
    shuffled,
    shuffled_matches,


if "random_model" in TWINS:

    rule random_model:
        input:
            manifest=rules.model.output.manifest,
            model=ancient(paths.MODEL),
        output:
            manifest=own("random_model", paths.MANIFEST),
            folder=directory(own("random_model", paths.MODEL)),
        log:
            "<logs>/random_model.log",
        benchmark:
            "<benchmarks>/random_model.jsonl"
        priority: 10
        localrule: True
        conda:
            "../../envs/gpu.yaml"
        params:
            **as_params("random_model.py", seed=0),
        script:
            "../scripts/random_model.py"


if "random_sae" in TWINS:

    rule random_sae:
        input:
            config=paths.SAE_CONFIG.replace("{reader}", READER),
            weights=paths.SAE_WEIGHTS.replace("{reader}", READER),
            info=paths.SAE_INFO.replace("{reader}", READER),
        output:
            *[path.replace("{reader}", "random_sae") for path in paths.SAE_FILES],
        log:
            "<logs>/saes/random_sae/{hookpoint}.log",
        benchmark:
            "<benchmarks>/saes/random_sae/{hookpoint}.jsonl"
        conda:
            "../../envs/gpu.yaml"
        params:
            **as_params("random_sae.py", seed=0),
        script:
            "../scripts/random_sae.py"


if "shuffled_text" in TWINS:

    use rule _table as shuffled with:
        input:
            traces=rules.generate.output.traces,
            matches=rules.matches.output.table,
            vocabulary=rules.model.output.vocabulary,
        output:
            table=own("shuffled_text", paths.TRACES),
        log:
            "<logs>/twins/shuffled_text/{condition}/{block}.log",
        benchmark:
            "<benchmarks>/twins/shuffled_text/{condition}/{block}.jsonl"
        params:
            **settings("twins.shuffled"),

    use rule matches as shuffled_matches with:
        input:
            traces=per_block(rules.shuffled.output.table),
            vocabulary=rules.model.output.vocabulary,
        output:
            table=own("shuffled_text", MATCHES),
        log:
            "<logs>/tables/shuffled_text/matches.log",
        benchmark:
            "<benchmarks>/tables/shuffled_text/matches.jsonl"


use rule _table as twins with:
    input:
        headlines=files_of(rules.headline.output.table, reader=[READER, *TWINS]),
        verdicts=files_of(rules.verdict.output.table, reader=[READER, *TWINS], site=SITES),
    pathvars:
        table="twins",
    params:
        **settings("evidence.twins.twins", analysis="alpha"),
        readers=[READER, *TWINS],
        sites=SITES,
