"""Room 2, models: the language model, its manifest and its vocabulary.

Takes a hub repository, a packaged model or a folder, and perhaps an adapter, fetched or taught here; gives
results/{experiment}/model/, model.json and vocabulary.parquet, and of a model with an adapter also base_model/,
base_model.json and adapter/. Nothing downstream touches the network.

Who takes the model takes its manifest, which has the hash of each file and is compared by content. The folder beside it
is ancient() to them: Snakemake knows a folder by its date alone, which copying a study changes.
"""

SITE_CHECKS = dict(
    # Checked as soon as the manifest is known; other layers don't make another model.
    hookpoint=untracked(config["sae"]["hookpoint"]),
    layers=untracked(config["layers"]),
    read_from=untracked(config["sae"]["read_from"]),
    fetch_ahead=untracked(fetch_ahead(config)),
)


rule _fetched_model:
    input:
        files=model_files,
    log:
        "<logs>/model.log",
    benchmark:
        "<benchmarks>/model.jsonl"
    priority: 10
    conda:
        "../../envs/gpu.yaml"
    params:
        **as_params("model.py", **source_settings("model", config["model"])),
        **SITE_CHECKS,
    script:
        "../scripts/model.py"


if config["model"]["adapter"] is None:

    localrules:
        model,

    use rule _fetched_model as model with:
        output:
            manifest=paths.MANIFEST,
            folder=directory(paths.MODEL),
            vocabulary=paths.VOCABULARY,

else:

    localrules:
        base_model,

    use rule _fetched_model as base_model with:
        output:
            manifest=paths.BASE_MANIFEST,
            folder=directory(paths.BASE_MODEL),
        log:
            "<logs>/base_model.log",
        benchmark:
            "<benchmarks>/base_model.jsonl"

    if config["model"]["adapter"]["source"] == "teach":

        rule teach:
            input:
                manifest=rules.base_model.output.manifest,
                model=ancient(paths.BASE_MODEL),
            output:
                config=paths.ADAPTER_CONFIG,
                weights=paths.ADAPTER_WEIGHTS,
                info=paths.ADAPTER_INFO,
                lessons=paths.LESSONS,
            log:
                "<logs>/teach.log",
            benchmark:
                "<benchmarks>/teach.jsonl"
            priority: 10
            conda:
                "../../envs/gpu.yaml"
            threads: 8
            resources:
                gpu=1,
                runtime=minutes(240),
                mem_mb=gigabytes(8),
            params:
                **as_params(
                    "teach.py",
                    dtype=config["model"]["dtype"],
                    prompts=prompts_of(config),
                    conditions=CONDITIONS,
                    **config["teach"],
                ),
            script:
                "../scripts/teach.py"

    else:

        rule adapter:
            input:
                files=adapter_files,
            output:
                config=paths.ADAPTER_CONFIG,
                weights=paths.ADAPTER_WEIGHTS,
                info=paths.ADAPTER_INFO,
            log:
                "<logs>/adapter.log",
            benchmark:
                "<benchmarks>/adapter.jsonl"
            priority: 10
            localrule: True
            conda:
                "../../envs/gpu.yaml"
            params:
                **as_params("adapter.py", **source_settings("model.adapter", config["model"]["adapter"])),
                fetch_ahead=untracked(fetch_ahead(config)),
            script:
                "../scripts/adapter.py"

    rule model:
        input:
            base=rules.base_model.output.manifest,
            base_model=ancient(paths.BASE_MODEL),
            config=paths.ADAPTER_CONFIG,
            weights=paths.ADAPTER_WEIGHTS,
            info=paths.ADAPTER_INFO,
        output:
            manifest=paths.MANIFEST,
            folder=directory(paths.MODEL),
            vocabulary=paths.VOCABULARY,
        log:
            "<logs>/model.log",
        benchmark:
            "<benchmarks>/model.jsonl"
        priority: 10
        localrule: True
        conda:
            "../../envs/gpu.yaml"
        params:
            **as_params("merge.py"),
        script:
            "../scripts/merge.py"
