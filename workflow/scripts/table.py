"""Make one table: the library's function that has the rule's name, on the rule's inputs and params."""

from thoughtscope.job import job

site = {name: value for name, value in snakemake.wildcards.items() if name == "site"}
with job(snakemake.log[0], " ".join([snakemake.rule, *site.values()])):
    import importlib

    import polars as pl
    from thoughtscope import files

    for room in ("evidence.recurrence", "evidence.controls", "evidence.patterns", "evidence.verdict"):
        make = getattr(importlib.import_module(f"thoughtscope.{room}"), snakemake.rule, None)
        if make is not None:
            break
    inputs = {name: pl.scan_parquet(snakemake.input.get(name)) for name in snakemake.input.keys()}  # noqa: SIM118
    settings = {name: value for name, value in snakemake.params.items() if name != "names"}
    table = make(**inputs, **settings)
    about = {"experiment": snakemake.wildcards.experiment} | site
    about |= {name: str(value) for name, value in settings.items()}
    files.write_parquet(table, snakemake.output[0], about)
