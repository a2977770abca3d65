"""Room 4, SAEs: one k-sparse autoencoder a hookpoint, in sparsify's format.

Takes a hub repository, a folder, or model and text to train on; gives results/{experiment}/saes/{reader}/{hookpoint}/
with cfg.json, sae.safetensors and info.json (origin, or training settings and held-out FVU, L0 and dead share).
"""

if config["sae"]["source"] == "train":

    # By this an SAE is known again: what it was trained on, with and for.
    REQUESTED = {
        "model": model_settings(config) | {"dtype": config["model"]["dtype"]},
        "sae": source_settings("sae", config["sae"]),
        "text": source_settings("sae.text", config["sae"]["text"]),
        "code": digest_of_script(SCRIPTS / "train_sae.py"),
    }

    rule sae_text:
        input:
            file=source_file(config["sae"]["text"]),
            # By the model's tokenizer it is seen whether the text suffices; another model makes no other text. Named
            # by their paths: ancient() would mark the rule's own outputs, for all who take them.
            manifest=ancient(paths.MANIFEST),
            model=ancient(paths.MODEL),
        output:
            text=paths.SAE_TEXT,
        log:
            "<logs>/sae_text.log",
        benchmark:
            "<benchmarks>/sae_text.jsonl"
        priority: 20
        localrule: True
        conda:
            "../../envs/gpu.yaml"
        params:
            **as_params("problems.py", **source_settings("sae.text", config["sae"]["text"])),
            key="sae.text",
            content=content_of(config["sae"]["text"]),
            wanted=untracked([config["sae"][name] for name in ("tokens", "heldout_tokens", "context")]),
            fetch_ahead=untracked(fetch_ahead(config)),
        script:
            "../scripts/problems.py"

    rule train_sae:
        input:
            text=rules.sae_text.output.text,
            manifest=of_reader(paths.MANIFEST),
            model=ancient(of_reader(paths.MODEL)),
        output:
            *paths.SAE_FILES,
        log:
            "<logs>/saes/{reader}/{hookpoint}.log",
        benchmark:
            "<benchmarks>/saes/{reader}/{hookpoint}.jsonl"
        wildcard_constraints:
            reader=f"{READER}|random_model|second_seed",
        conda:
            "../../envs/gpu.yaml"
        threads: 8
        resources:
            gpu=1,
            runtime=minutes(240),
            mem_mb=gigabytes(16),
        params:
            **as_params("train_sae.py", dtype=config["model"]["dtype"], **source_settings("sae", config["sae"]))
            | {"seed": seed_of_reader},
            requested=requested_of_reader(REQUESTED),
        script:
            "../scripts/train_sae.py"

    # One pass over the text trains all SAEs of a model that this run has to; one alone, and those at hand, are
    # train_sae's. What is at hand changes when this job ends, and not before: a cluster's jobs see the same as the run.
    if len(untrained(REQUESTED)) > 1:

        ruleorder: train_saes > train_sae

        use rule train_sae as train_saes with:
            input:
                text=rules.sae_text.output.text,
                manifest=rules.model.output.manifest,
                model=ancient(paths.MODEL),
            output:
                [path for hookpoint in untrained(REQUESTED) for path in sae_files_of(hookpoint)],
            log:
                "<logs>/saes.log",
            benchmark:
                "<benchmarks>/saes.jsonl"
            params:
                **as_params("train_sae.py", dtype=config["model"]["dtype"], **source_settings("sae", config["sae"])),
                requested=untracked(REQUESTED),

    if "random_model" in TWINS and len(untrained(requested_by("random_model", REQUESTED), "random_model")) > 1:

        ruleorder: train_random_model_saes > train_sae

        use rule train_sae as train_random_model_saes with:
            input:
                text=rules.sae_text.output.text,
                manifest=own("random_model", paths.MANIFEST),
                model=ancient(own("random_model", paths.MODEL)),
            output:
                [
                    path
                    for hookpoint in untrained(requested_by("random_model", REQUESTED), "random_model")
                    for path in sae_files_of(hookpoint, "random_model")
                ],
            log:
                "<logs>/random_model_saes.log",
            benchmark:
                "<benchmarks>/random_model_saes.jsonl"
            params:
                **as_params("train_sae.py", dtype=config["model"]["dtype"], **source_settings("sae", config["sae"])),
                requested=untracked(requested_by("random_model", REQUESTED)),

else:

    rule fetch_sae:
        input:
            files=sae_files,
            manifest=rules.model.output.manifest,
        output:
            *paths.SAE_FILES,
        log:
            "<logs>/saes/{reader}/{hookpoint}.log",
        benchmark:
            "<benchmarks>/saes/{reader}/{hookpoint}.jsonl"
        wildcard_constraints:
            reader=READER,
        priority: 10
        localrule: True
        conda:
            "../../envs/gpu.yaml"
        params:
            **as_params("fetch_sae.py", **source_settings("sae", config["sae"])),
            fetch_ahead=untracked(fetch_ahead(config)),
        script:
            "../scripts/fetch_sae.py"
