"""Measure what the decoder directions of a site's leading latents do, and which are near (rule directions)."""

from pathlib import Path

from thoughtscope.job import job

site = snakemake.wildcards.site
with job(snakemake.log[0], f"{snakemake.rule} {site}") as log:
    import polars as pl
    import torch
    from thoughtscope.report import directions
    from thoughtscope import files
    from thoughtscope.saes import formats
    from thoughtscope.evidence import verdict

    torch.set_num_threads(snakemake.threads)
    given = snakemake.input
    manifest = files.read_json(given.manifest)
    latents = verdict.leading(pl.read_parquet(given.verdict), snakemake.params.latents)["latent"].to_list()
    decoder = formats.load(Path(given.sae_config).parent, torch.device("cpu")).decoder
    effects = pl.DataFrame(schema=directions.EFFECTS_SCHEMA)
    if directions.writes_to_residual(site, manifest):
        unembedding = directions.unembedding(manifest)
        effects = directions.logit_effects(decoder, latents, unembedding, pl.read_parquet(given.vocabulary))
    else:
        log.info("no logit effects: what is read there isn't added to the residual stream as it is")
    about = {"experiment": snakemake.wildcards.experiment, "site": site}
    files.write_parquet(effects, snakemake.output.logit_effects, about)
    files.write_parquet(directions.decoder_neighbours(decoder, latents), snakemake.output.neighbours, about)
