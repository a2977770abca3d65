"""Link one hookpoint's SAE from the hub or a folder (rule fetch_sae)."""

from pathlib import Path

from thoughtscope.job import job

with job(
    snakemake.log[0],
    f"fetch_sae {snakemake.wildcards.hookpoint}",
    network=True,
    fetch_ahead=snakemake.params.fetch_ahead,
) as log:
    from thoughtscope import dispatch, files
    from thoughtscope.saes import formats

    source = dispatch.settings(snakemake.params, "fetch_ahead")
    manifest = files.read_json(snakemake.input.manifest)
    formats.fetch(source, snakemake.wildcards.hookpoint, manifest, Path(snakemake.output[0]).parent, log)
