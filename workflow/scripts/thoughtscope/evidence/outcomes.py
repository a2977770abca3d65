"""Room 6, evidence: whether a latent tells how a trace ends, and more than the trace's length does."""

from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ..frames import Schema, complete, keys, latents_of, portions, with_q
from ..statistics import MIN_CLASS, Floats, auroc, stratified_auroc
from .controls import WRITTEN, token_counts, trace_values

OF_EQUAL_LENGTH = 5
"""Traces of about the same length in a stratum: so few that length hardly varies within it."""

SCHEMA = Schema(
    "a candidate latent, outcome and value, over the traces of the condition under study",
    **keys("latent"),
    outcome=(pl.String, "`correct` or `truncated`"),
    value=(pl.String, "what of the latent is to tell it: the `mean` or `max` of its activation in a trace"),
    positive=(pl.UInt32, "traces with the outcome"),
    negative=(pl.UInt32, "traces without it"),
    auroc=(pl.Float64, "area under the ROC curve: how well the value tells them"),
    low=(pl.Float64, "95 % interval of that (DeLong et al. 1988): lower end"),
    high=(pl.Float64, "95 % interval of that: upper end"),
    p=(pl.Float64, "Mann-Whitney test, two-sided"),
    q=(pl.Float64, "Benjamini-Hochberg q over the family"),
    family=(pl.String, "the tests that q is over"),
    length_auroc=(pl.Float64, "the area of the trace's length alone"),
    length_low=(pl.Float64, "95 % interval of that: lower end"),
    length_high=(pl.Float64, "95 % interval of that: upper end"),
    within_length=(
        pl.Float64,
        f"the latent's area over pairs of traces of about the same length (strata of {OF_EQUAL_LENGTH})",
    ),
    within_low=(pl.Float64, "95 % interval of that: lower end"),
    within_high=(pl.Float64, "95 % interval of that: upper end"),
    within_p=(pl.Float64, "van Elteren's test, two-sided"),
    note=(pl.String, f"why there is no number: a class of fewer than {MIN_CLASS} traces"),
)


def outcomes(
    features: pl.LazyFrame,
    traces: pl.LazyFrame,
    sinks: pl.LazyFrame,
    candidates: pl.LazyFrame,
    *,
    condition: str,
    include_sinks: bool,
) -> pl.DataFrame:
    """Ask whether each candidate latent tells how a trace of `condition` ends, and more than length does."""
    latents, counts = latents_of(candidates), token_counts(traces, sinks, include_sinks)
    ends = (
        traces.filter(pl.col("condition") == condition)
        .select("trace_id", "correct", truncated=pl.col("finish_reason").cast(pl.String) == "length")
        .collect()
    )
    tables: dict[str, list[pl.DataFrame]] = {"correct": [], "truncated": []}
    for portion in portions(latents) if latents else []:
        values = trace_values(features, counts, portion, condition, WRITTEN, include_sinks)
        for outcome, parts in tables.items():
            known = ends.filter(pl.col(outcome).is_not_null(), pl.col("trace_id").is_in(values.trace_ids.tolist()))
            known = known.sort("trace_id")
            rows = np.searchsorted(values.trace_ids, known["trace_id"].to_numpy())
            positive, lengths = known[outcome].to_numpy().astype(bool), values.tokens[rows].astype(float)
            sizes = int(positive.sum()), int((~positive).sum())
            row: dict[str, Any] = {"latent": portion, "outcome": outcome, "positive": sizes[0], "negative": sizes[1]}
            for value in ("mean", "max"):
                if min(sizes) < MIN_CLASS:
                    row["note"] = f"too few: {sizes[0]} {outcome} and {sizes[1]} not, {MIN_CLASS} needed of each"
                else:
                    row |= _outcome(getattr(values, value)[rows], lengths, positive)
                    row["family"] = f"{2 * len(latents)} tests: candidates x mean and max"
                parts.append(complete(pl.DataFrame(row | {"value": value}), SCHEMA))
    empty = pl.DataFrame(schema=SCHEMA)
    return pl.concat([empty, *(with_q(pl.concat([empty, *parts])) for parts in tables.values())]).sort(
        "latent", "outcome", "value"
    )


def length_strata(lengths: Floats) -> NDArray[np.int64]:
    """Return the stratum of each length: quantiles of OF_EQUAL_LENGTH traces; a length at an edge is one of its own.

    Truncated traces all have the greatest length; among shorter ones they would make length a difference again.
    """
    strata = max(3, len(lengths) // OF_EQUAL_LENGTH)
    edges = np.unique(np.quantile(lengths, np.linspace(0, 1, strata + 1)[1:-1]))
    return np.searchsorted(edges, lengths, side="left") + np.searchsorted(edges, lengths, side="right")


def _outcome(values: Floats, lengths: Floats, positive: NDArray[np.bool_]) -> dict[str, Any]:
    area, of_length = auroc(values, positive), auroc(lengths[:, None], positive)
    within = stratified_auroc(values, positive, length_strata(lengths), MIN_CLASS)
    row = {"auroc": area.value, "low": area.low, "high": area.high, "p": area.p}
    row |= {"length_auroc": of_length.value[0], "length_low": of_length.low[0], "length_high": of_length.high[0]}
    if within is not None:
        row |= {"within_length": within.value, "within_low": within.low, "within_high": within.high}
        row["within_p"] = within.p
    return row
