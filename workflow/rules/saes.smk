"""Room 4, SAEs: one k-sparse autoencoder a hookpoint, in sparsify's format.

Takes a hub repository, a folder, or model and text to train on; gives results/{experiment}/saes/{hookpoint}/ with
cfg.json, sae.safetensors and info.json (origin, or training settings and held-out FVU, L0 and dead share).
"""

if config["sae"]["source"] == "train":

    localrules:
        sae_text,

    # By this an SAE is known again: what it was trained on, with and for.
    REQUESTED = {
        "model": {
            **source_settings("model", config["model"]),
            "dtype": config["model"]["dtype"],
        },
        "sae": source_settings("sae", config["sae"]),
        "text": source_settings("sae.text", config["sae"]["text"]),
    }

    def untrained():
        """Return the hookpoints whose SAE isn't there as this config asks for it."""

        def is_there(hookpoint):
            folder = Path(f"results/{EXPERIMENT}/saes/{hookpoint}")
            if not all((folder / name).exists() for name in (*SAE_FILES, "info.json")):
                return False
            info = json.loads((folder / "info.json").read_text(encoding="utf-8"))
            return info.get("requested") == REQUESTED

        return [hookpoint for hookpoint in HOOKPOINTS if not is_there(hookpoint)]

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

    def sae_files_of(hookpoint):
        """Return the files of an SAE."""
        return [
            f"results/{{experiment}}/saes/{hookpoint}/{name}"
            for name in (*SAE_FILES, "info.json")
        ]

    rule train_sae:
        input:
            text="results/{experiment}/sae_text.parquet",
            manifest="results/{experiment}/model.json",
        output:
            sae_files_of("{hookpoint}"),
        log:
            "results/{experiment}/logs/saes/{hookpoint}.log",
        benchmark:
            "results/{experiment}/benchmarks/saes/{hookpoint}.jsonl"
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
            requested=untracked(REQUESTED),
        script:
            "../scripts/train_sae.py"

    # One pass over the text trains all SAEs that this run has to; one alone, and those at hand, are train_sae's.
    # What is at hand changes when this job ends, and not before: a cluster's jobs see the same as the run.
    if len(untrained()) > 1:

        ruleorder: train_saes > train_sae

        use rule train_sae as train_saes with:
            output:
                [path for hookpoint in untrained() for path in sae_files_of(hookpoint)],
            log:
                "results/{experiment}/logs/saes.log",
            benchmark:
                "results/{experiment}/benchmarks/saes.jsonl"

else:

    localrules:
        fetch_sae,

    rule fetch_sae:
        input:
            files=sae_files,
            manifest="results/{experiment}/model.json",
        output:
            config="results/{experiment}/saes/{hookpoint}/cfg.json",
            weights="results/{experiment}/saes/{hookpoint}/sae.safetensors",
            info="results/{experiment}/saes/{hookpoint}/info.json",
        log:
            "results/{experiment}/logs/saes/{hookpoint}.log",
        benchmark:
            "results/{experiment}/benchmarks/saes/{hookpoint}.jsonl"
        priority: 10
        conda:
            "../../envs/gpu.yaml"
        params:
            **tracked(**source_settings("sae", config["sae"])),
            fetch_ahead=untracked(fetch_ahead(config)),
        script:
            "../scripts/fetch_sae.py"
