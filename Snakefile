"""thoughtscope: which recurring latents of a k-sparse autoencoder are thinking patterns in a reasoning model?

    snakemake --cores all                                        the embedded default, config/config.yaml
    snakemake --cores all --configfile config/FILE.yaml          another study; FILE.yaml stands alone
    snakemake --cores all --config inferences=32                 a change for this run

All results are under results/{experiment}/. config/README.md describes every key.
"""

from snakemake.exceptions import WorkflowError
from snakemake.utils import min_version, validate

min_version("9.27")


include: "workflow/rules/common.smk"
include: "workflow/rules/problems.smk"
include: "workflow/rules/models.smk"
include: "workflow/rules/traces.smk"
include: "workflow/rules/saes.smk"
include: "workflow/rules/readings.smk"
include: "workflow/rules/evidence.smk"


if config["twins"]:

    include: "workflow/rules/twins.smk"


if config["interventions"]:

    include: "workflow/rules/interventions.smk"


if config["teach"]:

    include: "workflow/rules/truth.smk"


include: "workflow/rules/plots.smk"
include: "workflow/rules/report.smk"


rule all:
    default_target: True
    input:
        report=files_of(rules.report.output.page, experiment=EXPERIMENT),
        summary=files_of(rules.summary.output.page, experiment=EXPERIMENT),
        trace_tables=expand(per_site(per_block(rules.trace_tables.output.top_tokens)), experiment=EXPERIMENT),
        contrasts=expand(per_site(rules.contrasts.output.table), experiment=EXPERIMENT),
        pictures=expand(
            paths.SITE_PICTURE,
            experiment=EXPERIMENT,
            reader=READER,
            site=SITES,
            picture=["waterfall", "frequencies", "histogram", "top_activations", "top_tokens"],
        ),
        traces=(
            expand(per_site(per_block(rules.plot_traces.output.pictures)), experiment=EXPERIMENT)
            if config["plots"]["per_trace"]
            else []
        ),


include: "workflow/rules/exports.smk"


if not IS_MODULE:
    speak(
        workflow,
        EXPERIMENT,
        config["generation"]["max_new_tokens"],
        config["sae"]["k"] if config["sae"]["source"] == "train" else None,
    )


onstart:
    run.begin(workflow, EXPERIMENT, given)
    remove_stale_blocks()
    save_rule_graph()


onsuccess:
    show_summary()
