"""thoughtscope: does a k-sparse autoencoder reveal thinking patterns in a reasoning model?

The library behind the workflow, one module a room, in the order data walks through them: `problems`, `models`,
`traces` (with `sampling` and `grading`), `saes` and `activations` (with `sites`), `features`, `evidence`, `plots` (with
`summary`), `report` (with `study`, `findings`, `dashboards`, `directions`, `reader` and `provenance`). `config`,
`errors`, `files`, `job`, `vocabulary` and `docs` are the hall. Nothing here imports snakemake.
"""

__version__ = "0.1.0"
