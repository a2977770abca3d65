"""Room 4, SAEs: one k-sparse autoencoder a hookpoint, in sparsify's format.

Takes a hub repository, a folder, or model and text to train on; gives results/{experiment}/saes/{reader}/{hookpoint}/
with cfg.json, sae.safetensors and info.json (origin, or training settings and held-out FVU, L0 and dead share).
"""

if config["sae"]["source"] == "train":

    rule sae_text:
        input:
            file=source_file(config["sae"]["text"]),
        output:
            text=paths.SAE_TEXT,
        log:
            "<logs>/sae_text.log",
        benchmark:
            "<benchmarks>/sae_text.jsonl"
        localrule: True
        conda:
            "../../envs/gpu.yaml"
        params:
            **as_params(function="problems.load", **source_settings("sae.text", config["sae"]["text"])),
            key="sae.text",
            fetch_ahead=untracked(fetch_ahead(config)),
        script:
            "../scripts/problems.py"

    rule train_sae:
        input:
            text=rules.sae_text.output.text,
            manifest=rules.model.output.manifest,
        output:
            config=paths.SAE_CONFIG,
            weights=paths.SAE_WEIGHTS,
            info=paths.SAE_INFO,
        log:
            "<logs>/saes/{reader}/{hookpoint}.log",
        benchmark:
            "<benchmarks>/saes/{reader}/{hookpoint}.jsonl"
        conda:
            "../../envs/gpu.yaml"
        threads: 8
        resources:
            gpu=1,
            runtime=240,
            mem_mb=gigabytes(16),
        params:
            **as_params(
                function="saes.train.train", dtype=config["model"]["dtype"], **source_settings("sae", config["sae"])
            ),
        script:
            "../scripts/train_sae.py"

else:

    rule fetch_sae:
        input:
            files=sae_files,
            manifest=rules.model.output.manifest,
        output:
            config=paths.SAE_CONFIG,
            weights=paths.SAE_WEIGHTS,
            info=paths.SAE_INFO,
        log:
            "<logs>/saes/{reader}/{hookpoint}.log",
        benchmark:
            "<benchmarks>/saes/{reader}/{hookpoint}.jsonl"
        priority: 10
        localrule: True
        conda:
            "../../envs/gpu.yaml"
        params:
            **as_params(function="saes.formats.fetch", **source_settings("sae", config["sae"])),
            fetch_ahead=untracked(fetch_ahead(config)),
        script:
            "../scripts/fetch_sae.py"
