"""Check the layers and hookpoints in the config against the model's manifest (rule check_sites)."""

from thoughtscope.job import job

with job(snakemake.log[0], snakemake.rule):
    from thoughtscope import config, files

    manifest = files.read_json(snakemake.input.manifest)
    config.check_sites(manifest, snakemake.params.hookpoint, snakemake.params.layers)
    hookpoints = config.hookpoints(snakemake.params.hookpoint, snakemake.params.layers)
    files.write_json({name: {"width": manifest["widths"][name]} for name in hookpoints}, snakemake.output[0])
