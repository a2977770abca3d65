"""Write an SAE with random directions, of the shape of the study's (rule random_sae)."""

from pathlib import Path

from thoughtscope.job import job

with job(snakemake.log[0], f"random_sae {snakemake.wildcards.hookpoint}") as log:
    from thoughtscope import twins

    trained, made = Path(snakemake.input.config).parent, Path(snakemake.output[0]).parent
    twins.random_sae(trained, made, snakemake.params.seed, log)
