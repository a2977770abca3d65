"""Write what a study has in a form that other tools read (rules export_saelens and export_dataset)."""

from pathlib import Path

from thoughtscope.job import job

with job(snakemake.log[0], snakemake.rule) as log:
    from thoughtscope import api, files

    study = api.open(Path(snakemake.input.manifest).parent)
    with files.replacing(snakemake.output.folder) as temporary:
        if snakemake.params.form == "saelens":
            from thoughtscope.exports.saelens import saelens

            for info in snakemake.input.saes:
                sae = Path(info).parent
                saelens(sae, sae.name, study.model, temporary / sae.name)
        else:
            from thoughtscope.exports.dataset import dataset

            log.info("%d tables", len(dataset(study, temporary)))
