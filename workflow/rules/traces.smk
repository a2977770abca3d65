"""Room 3, traces: what the model writes on each problem.

Takes problems and model; gives results/{experiment}/traces/{condition}/{block}.parquet, one job a block.
"""


rule generate:
    input:
        problems=rules.problems.output.problems,
        manifest=rules.model.output.manifest,
        model=ancient(paths.MODEL),
    output:
        traces=paths.TRACES,
    log:
        "<logs>/traces/{condition}/{block}.log",
    benchmark:
        "<benchmarks>/traces/{condition}/{block}.jsonl"
    conda:
        "../../envs/gpu.yaml"
    threads: 8
    resources:
        gpu=1,
        runtime=minutes(120),
        mem_mb=gigabytes(8),
    params:
        **as_params(
            "generate.py",
            dtype=config["model"]["dtype"],
            think_open=(config["model"]["think"] or {}).get("open"),
            think_close=(config["model"]["think"] or {}).get("close"),
            seed=config["generation"]["seed"],
            temperature=config["generation"]["temperature"],
            top_p=config["generation"]["top_p"],
            max_new_tokens=config["generation"]["max_new_tokens"],
        ),
        user=prompt_part("user"),
        assistant=prompt_part("assistant"),
        raw=prompt_part("raw"),
        parts=prompt_names,
        batch_size=untracked(config["generation"]["batch_size"]),
    script:
        "../scripts/generate.py"
