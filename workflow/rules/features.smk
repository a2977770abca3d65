"""Room 6, features: per trace and latent, the sufficient statistics.

Takes activations; gives results/{experiment}/readings/trained/{site}/{condition}/{block}/features.parquet.
"""


rule features:
    input:
        activations="results/{experiment}/readings/trained/{site}/{condition}/{block}/activations.parquet",
    output:
        features="results/{experiment}/readings/trained/{site}/{condition}/{block}/features.parquet",
    log:
        "results/{experiment}/logs/features/trained/{site}/{condition}/{block}.log",
    benchmark:
        "results/{experiment}/benchmarks/features/trained/{site}/{condition}/{block}.jsonl"
    conda:
        "../../envs/analysis.yaml"
    resources:
        runtime=30,
        mem_mb=gigabytes(4),
    script:
        "../scripts/features.py"
