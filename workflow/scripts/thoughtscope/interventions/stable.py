"""Room 7, interventions: how stable the places are on which patterns rest, pattern by pattern."""

from typing import Any

import numpy as np
import polars as pl

from ..frames import Schema, complete
from ..statistics import Floats, share_over_traces
from .tables import CONTINUED

STABLE = 0.5
"""A match is stable from this probability on: the model would rather write the pattern there than anything else."""

SCHEMA = Schema(
    "a pattern with matches under the condition under study",
    pattern=(pl.String, "the pattern"),
    traces=(pl.UInt32, "traces with it"),
    matches=(pl.UInt32, "places it is at"),
    probability=(pl.Float64, "with which the model was to write it there (see `stability`), mean over matches"),
    probability_low=(pl.Float64, "95 % interval of that over traces (Fieller 1954): lower end"),
    probability_high=(pl.Float64, "95 % interval of that: upper end"),
    unstable=(pl.Float64, f"share of its matches of a probability below {STABLE:g}"),
    unstable_low=(pl.Float64, "95 % interval of that, likewise: lower end"),
    unstable_high=(pl.Float64, "95 % interval of that: upper end"),
    continued=(pl.UInt32, "matches from which the model wrote on"),
    recurs=(pl.Float64, f"share of these continuations with a word of the pattern in {CONTINUED} tokens"),
    recurs_low=(pl.Float64, "95 % interval of that, likewise: lower end"),
    recurs_high=(pl.Float64, "95 % interval of that: upper end"),
)  # fmt: skip


def stable_patterns(stability: pl.LazyFrame) -> pl.DataFrame:
    """Return how likely the model was to write each pattern where it did, and how often it does again, in SCHEMA."""
    rows = [
        _pattern(str(name), group)
        for (name,), group in stability.collect().sort("name").group_by("name", maintain_order=True)
    ]
    return complete(pl.DataFrame(rows, infer_schema_length=None), SCHEMA)


def _pattern(name: str, matches: pl.DataFrame) -> dict[str, Any]:
    row: dict[str, Any] = {"pattern": name, "traces": matches["trace_id"].n_unique(), "matches": len(matches)}
    unstable = matches.with_columns(unstable=(pl.col("probability") < STABLE).cast(pl.Float64))
    row |= _share(unstable, "probability") | _share(unstable, "unstable")
    continued = matches.drop_nulls("recurs")
    return row | {"continued": len(continued)} | _share(continued, "recurs")


def _share(matches: pl.DataFrame, name: str) -> dict[str, float | None]:
    """Return the mean of a column over matches, and its interval over traces."""
    if matches.is_empty():
        return {}
    sums = matches.group_by("trace_id").agg(pl.col(name).sum(), count=pl.len()).sort("trace_id")
    part, whole = (column.to_numpy().astype(float)[:, None] for column in (sums[name], sums["count"]))
    share = share_over_traces(part, whole, 0.5)
    return {name: float(part.sum() / whole.sum()), f"{name}_low": _edge(share.low), f"{name}_high": _edge(share.high)}


def _edge(values: Floats) -> float | None:
    """Return an end of a share's interval, within 0 and 1."""
    return None if np.isnan(values[0]) else float(np.clip(values[0], 0, 1))
