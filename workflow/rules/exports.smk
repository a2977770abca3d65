"""Exports: what a study has, as other tools read it. Only where they are asked for by name; nothing is uploaded.

Takes SAEs, tables and traces; gives results/{experiment}/exports/ (saelens, dataset, neuronpedia, rocrate).
"""


localrules:
    export_saelens,
    export_dataset,
    export_neuronpedia,
    export_rocrate,


# Results of earlier configs of the study lie beside those of this one.
ONLY = dict(
    site=SITES,
    condition=CONDITIONS,
    block=BLOCKS,
    reader=[READER, *TWINS, *SECOND],
    table=made_in("tables"),
    picture=made_in("plots"),
)


rule export_saelens:
    input:
        manifest=paths.MANIFEST.format(experiment=EXPERIMENT),
        saes=expand(paths.SAE_INFO, reader=READER, hookpoint=HOOKPOINTS, experiment=EXPERIMENT),
        weights=expand(paths.SAE_WEIGHTS, reader=READER, hookpoint=HOOKPOINTS, experiment=EXPERIMENT),
    output:
        folder=directory(paths.EXPORT.format(experiment=EXPERIMENT, form="saelens")),
    log:
        f"results/{EXPERIMENT}/logs/export_saelens.log",
    conda:
        "../../envs/gpu.yaml"
    params:
        **as_params("export.py", form="saelens", only=ONLY),
    script:
        "../scripts/export.py"


rule export_dataset:
    input:
        manifest=paths.MANIFEST.format(experiment=EXPERIMENT),
        report=paths.REPORT.format(experiment=EXPERIMENT),
        contrasts=rules.all.input.contrasts,
    output:
        folder=directory(paths.EXPORT.format(experiment=EXPERIMENT, form="dataset")),
    log:
        f"results/{EXPERIMENT}/logs/export_dataset.log",
    conda:
        "../../envs/analysis.yaml"
    params:
        **as_params("export.py", form="dataset", only=ONLY),
    script:
        "../scripts/export.py"


rule export_neuronpedia:
    input:
        manifest=paths.MANIFEST.format(experiment=EXPERIMENT),
        report=paths.REPORT.format(experiment=EXPERIMENT),
    output:
        folder=directory(paths.EXPORT.format(experiment=EXPERIMENT, form="neuronpedia")),
    log:
        f"results/{EXPERIMENT}/logs/export_neuronpedia.log",
    conda:
        "../../envs/analysis.yaml"
    params:
        **as_params("export.py", form="neuronpedia", only=ONLY, condition=CONDITIONS[0]),
    script:
        "../scripts/export.py"


rule export_rocrate:
    input:
        manifest=paths.MANIFEST.format(experiment=EXPERIMENT),
        report=paths.REPORT.format(experiment=EXPERIMENT),
        contrasts=rules.all.input.contrasts,
    output:
        folder=directory(paths.EXPORT.format(experiment=EXPERIMENT, form="rocrate")),
    log:
        f"results/{EXPERIMENT}/logs/export_rocrate.log",
    conda:
        "../../envs/analysis.yaml"
    params:
        **as_params("export.py", form="rocrate", only=ONLY),
        config=untracked(yaml.safe_dump(given, sort_keys=False, allow_unicode=True)),
        workflow=untracked(str(WORKFLOW.parent)),
    script:
        "../scripts/export.py"
