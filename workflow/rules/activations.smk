"""Room 5, activations: the k active latents of every token.

Takes traces, model and one SAE; gives results/{experiment}/activations/{site}/{condition}/{block}.parquet. A site is
the SAE's hookpoint, or hookpoint@residual_in / hookpoint@residual_out where config reads it off its site.
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
