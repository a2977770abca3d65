"""Room 1, problems: a dataset's whole split in a seeded order.

Takes a dataset (hub, generator or file); gives results/{experiment}/problems.parquet.
"""


rule problems:
    input:
        file=source_file(config["problems"]),
    output:
        problems=paths.PROBLEMS,
    log:
        "<logs>/problems.log",
    benchmark:
        "<benchmarks>/problems.jsonl"
    priority: 10
    localrule: True
    conda:
        "../../envs/gpu.yaml"
    params:
        **as_params("problems.py", **source_settings("problems", config["problems"])),
        key="problems",
        content=content_of(config["problems"]),
        fetch_ahead=untracked(fetch_ahead(config)),
    script:
        "../scripts/problems.py"
