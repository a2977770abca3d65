"""Room 6, evidence: controls and contrasts, with the trace as the unit.

The first condition of the config is the one under study; each other is a control, on the same problems.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ..frames import Schema, complete, counted, keys, latents_of, portions, with_q
from ..statistics import Floats, fdr, matched_difference, mcnemar, mean_over_traces
from .recurrence import ranked_latents

CONTROLS_SCHEMA = Schema(
    "a latent and control (without one, a latent; what compares is null): latents that are among the"
    " `analysis.top_latents` with the largest maximum of at least `min_traces` traces of any condition, sinks counted"
    " or not; a problem is compared if tokens were read under both conditions",
    **keys("latent"),
    condition=(pl.String, "the condition under study"),
    control=(pl.String, "the control"),
    traces=(pl.UInt32, "problems for which it is among the top under the condition"),
    traces_control=(pl.UInt32, "problems for which it is among the top under the control"),
    of=(pl.UInt32, "problems compared"),
    only_condition=(pl.UInt32, "problems with it under the condition alone"),
    only_control=(pl.UInt32, "problems with it under the control alone"),
    excess=(pl.Float64, "difference of the shares"),
    excess_low=(pl.Float64, "95 % interval of that (Agresti and Min 2005): lower end"),
    excess_high=(pl.Float64, "95 % interval of that: upper end"),
    p=(pl.Float64, "exact McNemar test, two-sided"),
    q=(pl.Float64, "Benjamini-Hochberg q over the family"),
    family=(pl.String, "the tests that q is over: the latents that recur under either"),
    traces_with_sinks=(pl.UInt32, "traces, with sink tokens counted"),
    traces_control_with_sinks=(pl.UInt32, "traces_control, with sink tokens counted"),
    only_condition_with_sinks=(pl.UInt32, "only_condition, with sink tokens counted"),
    only_control_with_sinks=(pl.UInt32, "only_control, with sink tokens counted"),
    p_with_sinks=(pl.Float64, "p, with sink tokens counted"),
    q_with_sinks=(pl.Float64, "q, with sink tokens counted"),
    family_with_sinks=(pl.String, "family, with sink tokens counted"),
    tokens=(pl.Float64, "mean length of the traces compared, in tokens; unequal lengths are an explanation, too"),
    tokens_control=(pl.Float64, "mean length of those of the control, in tokens"),
)  # fmt: skip


def controls(
    features: pl.LazyFrame,
    traces: pl.LazyFrame,
    *,
    top_latents: int,
    min_traces: int,
    conditions: Sequence[str],
    include_sinks: bool,
) -> pl.DataFrame:
    """Compare in how many traces each latent is among the `top_latents` with each control, paired by problem."""
    by_count = {
        suffix: ranked_latents(features, top_latents, sinks, ["generated"])
        for suffix, sinks in (("", include_sinks), ("_with_sinks", True))
    }
    recurring = [
        relevant.group_by("latent", "condition").len().filter(pl.col("len") >= min_traces)
        for relevant in by_count.values()
    ]
    candidates = pl.concat(recurring)["latent"].unique().sort().to_list()
    if not candidates:
        return pl.DataFrame(schema=CONTROLS_SCHEMA)
    studied, *others = conditions
    lengths = {condition: _lengths(traces, condition) for condition in conditions}
    about = {"latent": candidates, "condition": studied}
    compared: Sequence[str | None] = others or [None]
    tables = []
    for control in compared:
        problems = sorted(set(lengths[studied]) & set(lengths[control or studied]))
        if not problems:
            continue
        tokens = np.array([float(lengths[studied][problem]) for problem in problems])
        row: dict[str, Any] = about | {"control": control, "of": len(problems), "tokens": tokens.mean()}
        if control is not None:
            row["tokens_control"] = np.mean([lengths[control][problem] for problem in problems])
        for suffix, relevant in by_count.items():
            is_top = _indicator(relevant, studied, candidates, problems)
            row[f"traces{suffix}"] = is_top.sum(axis=0)
            if control is None:
                continue
            is_top_control = _indicator(relevant, control, candidates, problems)
            only, only_control = (is_top & ~is_top_control).sum(axis=0), (is_top_control & ~is_top).sum(axis=0)
            row |= {f"traces_control{suffix}": is_top_control.sum(axis=0)}
            row |= {f"only_condition{suffix}": only, f"only_control{suffix}": only_control}
            if not suffix:
                low, high = matched_difference(only, only_control, len(problems))
                row |= {"excess": (only - only_control) / len(problems), "excess_low": low, "excess_high": high}
            # The family: what recurs under either; a latent outside of it is here for its other count.
            family = np.maximum(is_top.sum(axis=0), is_top_control.sum(axis=0)) >= min_traces
            p = np.where(family, mcnemar(only, only_control), np.nan)
            row |= {f"p{suffix}": p, f"q{suffix}": fdr(p)}
            row[f"family{suffix}"] = f"{int(family.sum())} latents recurring under {studied} or {control}"
        tables.append(complete(pl.DataFrame(row, strict=False), CONTROLS_SCHEMA))
    return pl.concat(tables).sort("latent", "control")


def _indicator(
    relevant: pl.DataFrame, condition: str, latents: Sequence[int], problems: Sequence[int]
) -> NDArray[np.bool_]:
    """Return in which problems' traces under a condition each latent is relevant, (problems, latents)."""
    table = np.zeros((len(problems), len(latents)), dtype=bool)
    chosen = relevant.filter(
        pl.col("condition") == condition,
        pl.col("latent").is_in(list(latents)),
        pl.col("trace_id").is_in(list(problems)),
    )
    rows = np.searchsorted(problems, chosen["trace_id"].to_numpy())
    table[rows, np.searchsorted(latents, chosen["latent"].to_numpy())] = True
    return table


def _lengths(traces: pl.LazyFrame, condition: str) -> dict[int, int]:
    """Return how many tokens each trace under a condition has, of those with any that was read."""
    read = traces.filter(pl.col("condition") == condition, pl.col("generated_ids").list.len() > 1)
    return dict(read.select("trace_id", pl.col("generated_ids").list.len()).collect().iter_rows())


def token_counts(traces: pl.LazyFrame, sinks: pl.LazyFrame, include_sinks: bool) -> pl.DataFrame:
    """Return how many tokens of each trace and segment count: those that were read, without sinks unless included.

    Columns: trace_id, condition, segment, tokens.
    """
    within = ["trace_id", "condition", "segment"]
    lengths = (
        traces.with_columns(read=pl.col("prompt_ids").list.len() + pl.col("generated_ids").list.len() - 1)
        .explode("segments", empty_as_null=False)
        .unnest("segments")
        .with_columns(pl.col("segment").cast(pl.String))
        .group_by(within)
        .agg(tokens=(pl.min_horizontal("end", "read").cast(pl.Int64) - pl.col("start").cast(pl.Int64)).sum())
    )
    if include_sinks:
        return lengths.sort(within).collect()
    flagged = sinks.with_columns(pl.col("segment").cast(pl.String)).group_by(within).agg(flagged=pl.len())
    return (
        lengths.join(flagged, on=within, how="left")
        .select(*within, tokens=pl.col("tokens") - pl.col("flagged").fill_null(0))
        .sort(within)
        .collect()
    )


class TraceValues(NamedTuple):
    """What latents do in each trace that has any token that counts."""

    trace_ids: NDArray[np.int64]
    tokens: NDArray[np.int64]
    """Tokens of each trace."""
    mean: Floats
    """Mean activation there, zeros included, (traces, latents)."""
    max: Floats
    """Largest activation there, (traces, latents)."""


def trace_values(
    features: pl.LazyFrame,
    counts: pl.DataFrame,
    latents: Sequence[int],
    condition: str,
    segments: Sequence[str],
    include_sinks: bool,
) -> TraceValues:
    """Return what the latents do on the tokens of `segments` in each trace under a condition; counts: token_counts."""
    lengths = (
        counts.filter(pl.col("condition") == condition, pl.col("segment").is_in(list(segments)))
        .group_by("trace_id")
        .agg(pl.col("tokens").sum())
        .filter(pl.col("tokens") > 0)
        .sort("trace_id")
    )
    trace_ids, tokens = lengths["trace_id"].to_numpy().astype(np.int64), lengths["tokens"].to_numpy()
    chosen = counted(features, include_sinks).filter(
        pl.col("condition") == condition,
        pl.col("segment").cast(pl.String).is_in(list(segments)),
        pl.col("latent").is_in(list(latents)),
        pl.col("trace_id").is_in(trace_ids.tolist()),
    )
    values = (
        chosen.group_by("trace_id", "latent").agg(pl.col("sum").sum(), pl.col("max").max()).collect(engine="streaming")
    )
    cells = (
        np.searchsorted(trace_ids, values["trace_id"].to_numpy()),
        np.searchsorted(latents, values["latent"].to_numpy()),
    )
    sums, largest = np.zeros((2, len(trace_ids), len(latents)))
    sums[cells], largest[cells] = values["sum"].to_numpy(), values["max"].to_numpy()
    return TraceValues(trace_ids, tokens, sums / tokens[:, None], largest)


CONTRASTS_SCHEMA = Schema(
    "a candidate latent and contrast",
    **keys("latent"),
    contrast=(pl.String, "`think - answer` within the traces of the condition under study, or that condition minus"
              " another on the same problem"),
    pairs=(pl.UInt32, "traces with both segments, or problems with both traces"),
    mean_first=(pl.Float64, "its mean activation in the first (tokens first, then the pairs)"),
    mean_second=(pl.Float64, "its mean activation in the second"),
    effect=(pl.Float64, "mean_first - mean_second over their sum, -1 to 1; unlike ranks, means don't depend on length"),
    low=(pl.Float64, "95 % interval of that over pairs (Hall 1992): lower end"),
    high=(pl.Float64, "95 % interval of that: upper end"),
    p=(pl.Float64, "of an effect of 0, two-sided"),
    q=(pl.Float64, "Benjamini-Hochberg q over the family"),
    family=(pl.String, "the tests that q is over"),
    note=(pl.String, "why there is no number"),
)  # fmt: skip

WRITTEN = ("think", "answer")
"""The segments the model wrote."""


class Side(NamedTuple):
    """One side of a contrast."""

    condition: str
    segments: Sequence[str]


def contrasts(
    features: pl.LazyFrame,
    traces: pl.LazyFrame,
    sinks: pl.LazyFrame,
    candidates: pl.LazyFrame,
    *,
    conditions: Sequence[str],
    include_sinks: bool,
) -> pl.DataFrame:
    """Compare each candidate latent's per-trace mean activation between segments and between conditions."""
    latents, counts = latents_of(candidates), token_counts(traces, sinks, include_sinks)
    studied, *others = conditions
    sides = {"think - answer": (Side(studied, ("think",)), Side(studied, ("answer",)))}
    sides |= {f"{studied} - {other}": (Side(studied, WRITTEN), Side(other, WRITTEN)) for other in others}
    tables = [pl.DataFrame(schema=CONTRASTS_SCHEMA)]
    for name, pair in sides.items():
        parts = []
        for portion in portions(latents):
            first, second = (trace_values(features, counts, portion, *side, include_sinks) for side in pair)
            _, left, right = np.intersect1d(first.trace_ids, second.trace_ids, return_indices=True)
            row: dict[str, Any] = {"latent": portion, "contrast": name, "pairs": len(left)}
            row["family"] = f"{len(latents)} candidates"
            if len(left):
                means = first.mean[left], second.mean[right]
                row |= {"mean_first": means[0].mean(axis=0), "mean_second": means[1].mean(axis=0)}
                difference, scale = means[0] - means[1], np.maximum((means[0] + means[1]).mean(axis=0), 1e-300)
                more, less = mean_over_traces(difference), mean_over_traces(-difference)
                row |= {"effect": difference.mean(axis=0) / scale, "low": more.low / scale, "high": more.high / scale}
                row["p"] = np.minimum(1.0, 2 * np.minimum(more.p, less.p))
            else:
                row["note"] = "no trace has both"
            parts.append(complete(pl.DataFrame(row) if portion else pl.DataFrame(), CONTRASTS_SCHEMA))
        tables.append(with_q(pl.concat(parts)))
    return pl.concat(tables).sort("latent", "contrast")
