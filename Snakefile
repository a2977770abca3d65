"""thoughtscope: which recurring latents of a k-sparse autoencoder are thinking patterns in a reasoning model?

    snakemake --cores all                                        the embedded default, config/config.yaml
    snakemake --cores all --configfile config/FILE.yaml          another study; FILE.yaml stands alone
    snakemake --cores all --config inferences=32                 a change for this run

All results are under results/{experiment}/. config/README.md describes every key.
"""

from snakemake.exceptions import WorkflowError
from snakemake.utils import min_version, validate

min_version("9.27")

# A config file given on the command line stands alone. Snakemake would lay it over the default one, and keys that it
# leaves out would silently be the embedded model's instead of the documented defaults.
if not workflow.overwrite_configfiles:

    configfile: "config/config.yaml"


include: "workflow/rules/common.smk"
include: "workflow/rules/problems.smk"
include: "workflow/rules/models.smk"
include: "workflow/rules/traces.smk"
include: "workflow/rules/saes.smk"
include: "workflow/rules/activations.smk"
include: "workflow/rules/features.smk"
include: "workflow/rules/evidence.smk"
include: "workflow/rules/verdict.smk"
include: "workflow/rules/plots.smk"
include: "workflow/rules/report.smk"


rule all:
    default_target: True
    input:
        report=f"results/{EXPERIMENT}/report.html",
        summary=f"results/{EXPERIMENT}/summary.md",
        gate=f"results/{EXPERIMENT}/plots/site_gate.png",
        layers=f"results/{EXPERIMENT}/plots/layers.png",
        sites=expand(
            "results/{experiment}/plots/{site}/{picture}.png",
            experiment=EXPERIMENT,
            site=SITES,
            picture=[
                "waterfall",
                "verdict",
                "patterns",
                "outcomes",
                "recurrence",
                "frequencies",
                "histogram",
                "top_activations",
                "top_tokens",
            ],
        ),
        contrasts=expand(
            "results/{experiment}/tables/{site}/contrasts.parquet",
            experiment=EXPERIMENT,
            site=SITES,
        ),
        patterns=f"results/{EXPERIMENT}/plots/pattern_counts.png",
        traces=expand(
            "results/{experiment}/plots/{site}/traces/{condition}/{block}",
            experiment=EXPERIMENT,
            site=SITES,
            condition=CONDITIONS,
            block=BLOCKS,
        ),


speak(workflow, EXPERIMENT)


onstart:
    save_rule_graph()


onsuccess:
    show_summary()
