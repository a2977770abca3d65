"""Room 2, models: the language model, its manifest and its vocabulary.

Takes a hub repository, a packaged model or a folder; gives results/{experiment}/model/, model.json and
vocabulary.parquet. Nothing downstream touches the network.
"""


rule model:
    input:
        files=model_files,
    output:
        manifest=paths.MANIFEST,
        folder=directory("<results>/model"),
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
        **as_params("model.py", **source_settings("model", config["model"])),
        # Checked as soon as the manifest is known; other layers don't make another model.
        hookpoint=untracked(config["sae"]["hookpoint"]),
        layers=untracked(config["layers"]),
        read_from=untracked(config["sae"]["read_from"]),
        fetch_ahead=untracked(fetch_ahead(config)),
    script:
        "../scripts/model.py"
