"""Room 7, interventions: what cues do to a latent wherever they are put, and what it does without them."""

from typing import Any

import numpy as np
import polars as pl

from ..frames import Schema, complete, keys
from ..statistics import MIN_TRACES, holm, mean_over_traces, sign_flips
from .tables import STRATEGIES

SCHEMA = Schema(
    "a latent that was tried, and a strategy (see `injections`)",
    **keys("latent"),
    pattern=(pl.String, "the pattern the latent is linked to"),
    strategy=(pl.Enum(list(STRATEGIES)), "the strategy"),
    cues=(pl.List(pl.String), "the cues"),
    traces=(pl.UInt32, "traces, or their problems"),
    in_place=(pl.Float64, "activation that goes with the cue where it is in traces"),
    with_cue=(pl.Float64, "with the cue put in, or left out; mean over traces"),
    with_alike=(pl.Float64, "with tokens alike"),
    difference=(pl.Float64, "what the cue adds beyond tokens alike; with `deletion`, what is lost with it beyond them"),
    low=(pl.Float64, "95 % interval of that over traces (Hall 1992): lower end"),
    high=(pl.Float64, "95 % interval of that: upper end"),
    p=(pl.Float64, "one-sided, of nothing, by sign flips over traces"),
    p_holm=(pl.Float64, "p by Holm (1979) over the latent's strategies"),
)  # fmt: skip


def responses(injections: pl.LazyFrame) -> pl.DataFrame:
    """Return what each strategy does to each latent, in SCHEMA, by latent and strategy."""
    table = injections.with_columns(pl.col("strategy").cast(pl.String)).collect()
    rows = []
    for (latent,), of_latent in table.group_by("latent", maintain_order=True):
        own = [_response(latent, str(how), group) for (how,), group in of_latent.group_by("strategy")]
        known = [row for row in own if row.get("p") is not None]
        for row, p in zip(known, holm(np.array([row["p"] for row in known])), strict=True):
            row["p_holm"] = float(p)
        rows += own
    return complete(pl.DataFrame(rows, infer_schema_length=None), SCHEMA).sort("latent", "strategy")


def _response(latent: Any, strategy: str, table: pl.DataFrame) -> dict[str, Any]:
    means = table.group_by("trace_id").agg(pl.col("with_cue", "with_alike").mean()).sort("trace_id")
    cue, alike = (means[name].to_numpy() for name in ("with_cue", "with_alike"))
    row: dict[str, Any] = {"latent": latent, "pattern": table["pattern"][0], "strategy": strategy, "traces": len(means)}
    row |= {"cues": table["cue"].unique().sort().to_list(), "in_place": table["in_place"].mean()}
    row |= {"with_cue": cue.mean(), "with_alike": alike.mean()}
    values = (alike - cue if strategy == "deletion" else cue - alike)[:, None]
    row["difference"] = values.mean()
    if len(means) < MIN_TRACES:
        return row
    mean = mean_over_traces(values)
    return row | {"low": mean.low[0], "high": mean.high[0], "p": float(sign_flips(values)[0])}
