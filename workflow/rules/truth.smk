"""Room 9, truth: which states a taught model's text has where, and how well latents and verdict find them.

Only in a study of a model whose lessons are known (`teach` in the config). Takes traces, model, activations and
verdict; gives results/{experiment}/truth.parquet and tables/ (probes, found, called) and per site latent_marks. Nothing
that makes the verdict takes any of it.
"""


localrules:
    truth,
    found,
    called,


use rule _table as truth with:
    input:
        traces=of_studied(rules.generate.output.traces),
        vocabulary=rules.model.output.vocabulary,
    output:
        table=paths.TRUTH,
    pathvars:
        table="truth",
    params:
        **as_params("truth.parse.truth", kind=config["teach"]["kind"]),


rule probes:
    input:
        traces=of_studied(rules.generate.output.traces),
        truth=rules.truth.output.table,
        manifest=rules.model.output.manifest,
        model=ancient(paths.MODEL),
    output:
        table=paths.STUDY_TABLE.replace("{table}", "probes"),
    log:
        "<logs>/tables/probes.log",
    benchmark:
        "<benchmarks>/tables/probes.jsonl"
    conda:
        "../../envs/gpu.yaml"
    threads: 8
    resources:
        gpu=1,
        runtime=minutes(60),
        mem_mb=gigabytes(8),
    params:
        **as_params("probes.py", dtype=config["model"]["dtype"], sites=SITES),
        condition=CONDITIONS[0],
    script:
        "../scripts/probes.py"


use rule _site_table as latent_marks with:
    input:
        activations=of_studied(rules.read.output.activations),
        traces=of_studied(rules.generate.output.traces),
        truth=rules.truth.output.table,
    pathvars:
        table="latent_marks",
    params:
        **settings("truth.score.latent_marks"),
        condition=CONDITIONS[0],


use rule _table as found with:
    input:
        latent_marks=per_site(rules.latent_marks.output.table),
        verdict=per_site(rules.verdict.output.table),
        probes=rules.probes.output.table,
    pathvars:
        table="found",
    params:
        **settings("truth.found.found"),


use rule _table as called with:
    input:
        latent_marks=per_site(rules.latent_marks.output.table),
        verdict=per_site(rules.verdict.output.table),
    pathvars:
        table="called",
    params:
        **settings("truth.found.called"),
