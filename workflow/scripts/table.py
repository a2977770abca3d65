"""Make tables: what the library's function named in the rule gives, one or a table for each output."""

from thoughtscope.job import job

place = {name: value for name, value in snakemake.wildcards.items() if name != "experiment"}
with job(snakemake.log[0], " ".join([snakemake.rule, *place.values()])):
    from thoughtscope import dispatch, files

    made = dispatch.call(snakemake.params, snakemake.input, snakemake.wildcards)
    about = dict(snakemake.wildcards.items())
    about |= {name: str(value) for name, value in dispatch.settings(snakemake.params).items()}
    for name, table in (made if isinstance(made, dict) else {"table": made}).items():
        files.write_parquet(table, snakemake.output.get(name), about)
