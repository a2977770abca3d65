"""Room 5, activations: the k active latents of every token, and how well the SAE reconstructs what it is given.

Takes traces, model and one SAE; gives results/{experiment}/readings/trained/{site}/{condition}/{block}/activations.parquet and
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
        activations="results/{experiment}/readings/trained/{site}/{condition}/{block}/activations.parquet",
    log:
        "results/{experiment}/logs/activations/trained/{site}/{condition}/{block}.log",
    benchmark:
        "results/{experiment}/benchmarks/activations/trained/{site}/{condition}/{block}.jsonl"
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
        sae_config="results/{experiment}/saes/trained/{hookpoint}/cfg.json",
        sae_weights="results/{experiment}/saes/trained/{hookpoint}/sae.safetensors",
    output:
        reconstruction="results/{experiment}/readings/trained/{hookpoint}/{condition}/{block}/reconstruction.parquet",
    log:
        "results/{experiment}/logs/reconstruction/trained/{hookpoint}/{condition}/{block}.log",
    benchmark:
        "results/{experiment}/benchmarks/reconstruction/trained/{hookpoint}/{condition}/{block}.jsonl"
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
