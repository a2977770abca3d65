"""Room 6, features: per trace and latent, the sufficient statistics.

Takes activations; gives results/{experiment}/features/{site}/{condition}/{block}.parquet.
"""


rule features:
    input:
        activations="results/{experiment}/activations/{site}/{condition}/{block}.parquet",
    output:
        features="results/{experiment}/features/{site}/{condition}/{block}.parquet",
    log:
        "results/{experiment}/logs/features/{site}/{condition}/{block}.log",
    benchmark:
        "results/{experiment}/benchmarks/features/{site}/{condition}/{block}.jsonl"
    conda:
        "../../envs/analysis.yaml"
    resources:
        runtime=30,
        mem_mb=gigabytes(4),
    script:
        "../scripts/features.py"
