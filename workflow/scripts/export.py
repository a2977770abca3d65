"""Write what a study has in a form that other tools read (rules export_saelens, export_dataset, …)."""

from pathlib import Path

from thoughtscope.job import job

with job(snakemake.log[0], snakemake.rule) as log:
    import json

    from thoughtscope import api, files

    params = snakemake.params
    study = api.open(Path(snakemake.input.manifest).parent, json.loads(params.only))
    with files.replacing(snakemake.output.folder) as temporary:
        if params.form == "saelens":
            from thoughtscope.exports.saelens import saelens

            for info in snakemake.input.saes:
                sae = Path(info).parent
                saelens(sae, sae.name, study.model, temporary / sae.name)
        elif params.form == "neuronpedia":
            from datetime import UTC, datetime

            from thoughtscope.exports.neuronpedia import neuronpedia

            made = datetime.fromtimestamp(Path(snakemake.input.report).stat().st_mtime, UTC)
            log.info("%s", ", ".join(neuronpedia(study, temporary, made, condition=params.condition)))
        elif params.form == "rocrate":
            from thoughtscope.exports.rocrate import rocrate

            count = rocrate(study, temporary, config=params.config, workflow=Path(params.workflow))
            log.info("%d files", count)
        else:
            from thoughtscope.exports.dataset import dataset

            log.info("%d tables", len(dataset(study, temporary)))
