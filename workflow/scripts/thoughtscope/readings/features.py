"""Room 6, features: per trace and latent, the sufficient statistics that every count is a sum of."""

import polars as pl

from ..frames import Schema, keys

SCHEMA = Schema(
    "a latent active in a segment of a trace, on sinks or elsewhere",
    **keys("trace_id", "condition", "segment", "sink", "latent"),
    tokens=(pl.UInt32, "tokens it is active on"),
    sum=(pl.Float64, "sum of its activation"),
    max=(pl.Float32, "its largest activation"),
    max_position=(pl.UInt32, "first position it has that at"),
    max_token_id=(pl.UInt32, "id of the token there"),
)


def summarize(activations: pl.DataFrame) -> pl.DataFrame:
    """Return one row per trace, segment, sink flag and latent, in SCHEMA, from an activations table.

    Of several equal maxima the first position counts.
    """
    # An activations table is sorted by position within a trace, so arg_max takes the first of equals.
    peak = pl.col("activation").arg_max()
    return (
        activations.group_by("trace_id", "condition", "segment", "sink", "latent", maintain_order=True)
        .agg(
            tokens=pl.len(),
            sum=pl.col("activation").cast(pl.Float64).sum(),
            max=pl.col("activation").max(),
            max_position=pl.col("position").get(peak),
            max_token_id=pl.col("token_id").get(peak),
        )
        .sort("trace_id", "segment", "sink", "latent")
        .select(*SCHEMA)
        .cast(SCHEMA)  # type: ignore[arg-type]
    )
