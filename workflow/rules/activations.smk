"""Room 5, activations: the k active latents of every token, and how well the SAE reconstructs what it is given.

Takes traces, model and one SAE; gives results/{experiment}/activations/{site}/{condition}/{block}.parquet and
reconstruction/{hookpoint}/{condition}/{block}.parquet. A site is the SAE's hookpoint, or hookpoint@residual_in /
hookpoint@residual_out where config reads it off its site; reconstruction is measured at these and at other blocks.
"""


rule encode:
    input:
        traces="results/{experiment}/traces/{condition}/{block}.parquet",
        manifest="results/{experiment}/model.json",
        sae_config=sae_of_site("cfg.json"),
        sae_weights=sae_of_site("sae.safetensors"),
    output:
        activations="results/{experiment}/activations/{site}/{condition}/{block}.parquet",
    log:
        "results/{experiment}/logs/activations/{site}/{condition}/{block}.log",
    benchmark:
        "results/{experiment}/benchmarks/activations/{site}/{condition}/{block}.jsonl"
    conda:
        "../../envs/gpu.yaml"
    threads: 8
    resources:
        gpu=1,
        runtime=60,
        mem_mb=gigabytes(8),
    params:
        dtype=config["model"]["dtype"],
    script:
        "../scripts/encode.py"


rule reconstruct:
    input:
        traces="results/{experiment}/traces/{condition}/{block}.parquet",
        manifest="results/{experiment}/model.json",
        sae_config="results/{experiment}/saes/{hookpoint}/cfg.json",
        sae_weights="results/{experiment}/saes/{hookpoint}/sae.safetensors",
    output:
        reconstruction="results/{experiment}/reconstruction/{hookpoint}/{condition}/{block}.parquet",
    log:
        "results/{experiment}/logs/reconstruction/{hookpoint}/{condition}/{block}.log",
    benchmark:
        "results/{experiment}/benchmarks/reconstruction/{hookpoint}/{condition}/{block}.jsonl"
    conda:
        "../../envs/gpu.yaml"
    threads: 8
    resources:
        gpu=1,
        runtime=60,
        mem_mb=gigabytes(8),
    params:
        dtype=config["model"]["dtype"],
    script:
        "../scripts/reconstruct.py"
