"""Room 2, models: the language model, its manifest and its vocabulary.

Takes a hub repository, a packaged model or a folder; gives results/{experiment}/model/, model.json, vocabulary.parquet
and sites.json (the layers under study, checked against the manifest). Nothing downstream touches the network.
"""


localrules:
    model,
    check_sites,


rule model:
    input:
        files=model_files,
    output:
        manifest="results/{experiment}/model.json",
        folder=directory("results/{experiment}/model"),
        vocabulary="results/{experiment}/vocabulary.parquet",
    log:
        "results/{experiment}/logs/model.log",
    benchmark:
        "results/{experiment}/benchmarks/model.jsonl"
    priority: 10
    conda:
        "../../envs/gpu.yaml"
    params:
        **settings(
            config["model"], "source", "name", "revision", "version", "sha256", "path"
        ),
    script:
        "../scripts/model.py"


# What comes after takes sites.json as `ancient`: it waits for the check, and isn't run again when a layer is added.
rule check_sites:
    input:
        manifest="results/{experiment}/model.json",
    output:
        "results/{experiment}/sites.json",
    log:
        "results/{experiment}/logs/check_sites.log",
    benchmark:
        "results/{experiment}/benchmarks/check_sites.jsonl"
    priority: 10
    conda:
        "../../envs/gpu.yaml"
    params:
        hookpoint=literal(config["sae"]["hookpoint"]),
        layers=sorted(config["layers"]),
    script:
        "../scripts/check_sites.py"
