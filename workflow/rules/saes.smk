"""Room 4, SAEs: one k-sparse autoencoder a hookpoint, in sparsify's format.

Takes a hub repository, a folder, or model and text to train on; gives results/{experiment}/saes/trained/{hookpoint}/ with
cfg.json, sae.safetensors and info.json (origin, or training settings and held-out FVU, L0 and dead share).
"""

if config["sae"]["source"] == "train":

    localrules:
        sae_text,

    rule sae_text:
        input:
            file=source_file(config["sae"]["text"]),
        output:
            text="results/{experiment}/sae_text.parquet",
        log:
            "results/{experiment}/logs/sae_text.log",
        benchmark:
            "results/{experiment}/benchmarks/sae_text.jsonl"
        conda:
            "../../envs/gpu.yaml"
        params:
            **tracked(**source_settings("sae.text", config["sae"]["text"])),
            key="sae.text",
            fetch_ahead=untracked(fetch_ahead(config)),
        script:
            "../scripts/problems.py"

    rule train_sae:
        input:
            text="results/{experiment}/sae_text.parquet",
            manifest="results/{experiment}/model.json",
        output:
            config="results/{experiment}/saes/trained/{hookpoint}/cfg.json",
            weights="results/{experiment}/saes/trained/{hookpoint}/sae.safetensors",
            info="results/{experiment}/saes/trained/{hookpoint}/info.json",
        log:
            "results/{experiment}/logs/saes/trained/{hookpoint}.log",
        benchmark:
            "results/{experiment}/benchmarks/saes/trained/{hookpoint}.jsonl"
        conda:
            "../../envs/gpu.yaml"
        threads: 8
        resources:
            gpu=1,
            runtime=240,
            mem_mb=gigabytes(16),
        params:
            **tracked(**source_settings("sae", config["sae"])),
            dtype=config["model"]["dtype"],
        script:
            "../scripts/train_sae.py"

else:

    localrules:
        fetch_sae,

    rule fetch_sae:
        input:
            files=sae_files,
            manifest="results/{experiment}/model.json",
        output:
            config="results/{experiment}/saes/trained/{hookpoint}/cfg.json",
            weights="results/{experiment}/saes/trained/{hookpoint}/sae.safetensors",
            info="results/{experiment}/saes/trained/{hookpoint}/info.json",
        log:
            "results/{experiment}/logs/saes/trained/{hookpoint}.log",
        benchmark:
            "results/{experiment}/benchmarks/saes/trained/{hookpoint}.jsonl"
        priority: 10
        conda:
            "../../envs/gpu.yaml"
        params:
            **tracked(**source_settings("sae", config["sae"])),
            fetch_ahead=untracked(fetch_ahead(config)),
        script:
            "../scripts/fetch_sae.py"
