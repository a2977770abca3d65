"""Room 1, problems: a dataset's whole split in a seeded order.

Takes a dataset (hub, generator or file); gives results/{experiment}/problems.parquet.
"""


localrules:
    problems,


rule problems:
    input:
        file=source_file(config["problems"]),
    output:
        problems="results/{experiment}/problems.parquet",
    log:
        "results/{experiment}/logs/problems.log",
    benchmark:
        "results/{experiment}/benchmarks/problems.jsonl"
    priority: 10
    conda:
        "../../envs/gpu.yaml"
    params:
        **tracked(**source_settings("problems", config["problems"])),
        key="problems",
        fetch_ahead=untracked(fetch_ahead(config)),
    script:
        "../scripts/problems.py"
