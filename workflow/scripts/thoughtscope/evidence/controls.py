"""Room 7, evidence: whether what recurs says anything. Controls, contrasts and outcomes, with the trace as the unit.

The first condition of the config is the one under study; each other is a control, on the same problems.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from .recurrence import complete, in_scope, latents_of
from ..statistics import MIN_CLASS, Auroc, Floats, auroc, fdr, matched_difference, mcnemar, paired, stratified_auroc

CONTROLS_SCHEMA = {
    "latent": pl.UInt32,
    "condition": pl.String,
    "control": pl.String,
    "traces": pl.UInt32,
    "traces_control": pl.UInt32,
    "of": pl.UInt32,
    "only_condition": pl.UInt32,
    "only_control": pl.UInt32,
    "excess": pl.Float64,
    "excess_low": pl.Float64,
    "excess_high": pl.Float64,
    "p": pl.Float64,
    "q": pl.Float64,
    "family": pl.String,
    "traces_with_sinks": pl.UInt32,
    "traces_control_with_sinks": pl.UInt32,
    "only_condition_with_sinks": pl.UInt32,
    "only_control_with_sinks": pl.UInt32,
    "p_with_sinks": pl.Float64,
    "q_with_sinks": pl.Float64,
    "family_with_sinks": pl.String,
    "tokens": pl.Float64,
    "tokens_control": pl.Float64,
    "sink_share": pl.Float64,
    "length_auroc": pl.Float64,
    "length_low": pl.Float64,
    "length_high": pl.Float64,
}


def controls(
    features: pl.LazyFrame,
    traces: pl.LazyFrame,
    *,
    most: int,
    min_traces: int,
    conditions: Sequence[str],
    include_sinks: bool,
) -> pl.DataFrame:
    """Compare in how many traces each latent recurs with each control, paired by problem; a row a latent and control.

    A latent is here if it is among the `most` latents with the largest maximum of at least `min_traces` traces of any
    condition, sinks counted or not. Columns:

    - traces, traces_control: in how many of the `of` problems it is one under the condition and under the control; a
      problem is compared if tokens were read under both
    - only_condition, only_control: problems with it under one alone; excess, excess_low, excess_high: the difference of
      the shares and its 95 % interval (Agresti and Min 2005); p: exact McNemar test; q: Benjamini-Hochberg over
      `family`, the latents that recur under either
    - tokens, tokens_control: mean length of the traces compared; unequal lengths are an explanation, too
    - …_with_sinks: the same with sink tokens counted (without `include_sinks` the first ones leave them out)
    - sink_share: share of its activation mass on generated tokens, under the condition, that is on sinks
    - length_auroc, length_low, length_high: how well a trace's length alone tells whether the latent is one of its top
      (DeLong's 95 % interval), where at least MIN_CLASS traces have it and as many lack it

    Without a control (one condition only) there is a row a latent, and what compares is null.
    """
    counted, along = (_relevant(features, most, sinks) for sinks in (include_sinks, True))
    first, *others = conditions
    recurring = [
        frame.group_by("latent", "condition").len().filter(pl.col("len") >= min_traces) for frame in (counted, along)
    ]
    candidates = pl.concat(recurring)["latent"].unique().sort().to_list()
    if not candidates:
        return pl.DataFrame(schema=CONTROLS_SCHEMA)
    lengths = {condition: _lengths(traces, condition) for condition in conditions}
    compared: list[str | None] = [*others] or [None]
    rows = []
    for control in compared:
        problems = sorted(set(lengths[first]) & set(lengths[control or first]))
        row: dict[str, Any] = {"latent": candidates, "condition": first, "control": control, "of": len(problems)}
        row |= {"sink_share": _sink_shares(features, candidates, first)}
        row["tokens"] = np.mean([lengths[first][problem] for problem in problems])
        if control is not None:
            row["tokens_control"] = np.mean([lengths[control][problem] for problem in problems])
        for frame, suffix in ((counted, ""), (along, "_with_sinks")):
            mine = _indicator(frame, first, candidates, problems)
            row[f"traces{suffix}"] = mine.sum(axis=0)
            if not suffix:
                row |= _length_areas(mine, np.array([float(lengths[first][problem]) for problem in problems]))
            if control is None:
                continue
            theirs = _indicator(frame, control, candidates, problems)
            only_mine, only_theirs = (mine & ~theirs).sum(axis=0), (theirs & ~mine).sum(axis=0)
            row |= {f"traces_control{suffix}": theirs.sum(axis=0)}
            row |= {f"only_condition{suffix}": only_mine, f"only_control{suffix}": only_theirs}
            if not suffix:
                low, high = matched_difference(only_mine, only_theirs, len(problems))
                row |= {"excess": (only_mine - only_theirs) / len(problems), "excess_low": low, "excess_high": high}
            # The family: what recurs under either; a latent outside of it is here for its other count.
            family = np.maximum(mine.sum(axis=0), theirs.sum(axis=0)) >= min_traces
            p = np.where(family, mcnemar(only_mine, only_theirs), np.nan)
            row |= {f"p{suffix}": p, f"q{suffix}": fdr(p)}
            row[f"family{suffix}"] = f"{int(family.sum())} latents recurring under {first} or {control}"
        rows.append(complete(pl.DataFrame(row, strict=False), CONTROLS_SCHEMA))
    return pl.concat(rows).sort("latent", "control")


def _relevant(features: pl.LazyFrame, most: int, include_sinks: bool) -> pl.DataFrame:
    """Return each trace's `most` latents with the largest maximum on generated tokens: trace_id, condition, latent."""
    keys = ["condition", "trace_id"]
    return (
        in_scope(features, include_sinks)
        .filter(pl.col("scope") == "generated")
        .group_by(*keys, "latent")
        .agg(pl.col("max").max())
        .sort(*keys, "max", "latent", descending=[False, False, True, False])
        .group_by(keys, maintain_order=True)
        .head(most)
        .select("trace_id", "condition", "latent")
        .collect()
    )


def _indicator(
    relevant: pl.DataFrame, condition: str, latents: Sequence[int], problems: Sequence[int]
) -> NDArray[np.bool_]:
    """Return in which problems' traces under a condition each latent is relevant, (problems, latents)."""
    table = np.zeros((len(problems), len(latents)), dtype=bool)
    mine = relevant.filter(
        pl.col("condition") == condition,
        pl.col("latent").is_in(list(latents)),
        pl.col("trace_id").is_in(list(problems)),
    )
    rows = np.searchsorted(problems, mine["trace_id"].to_numpy())
    table[rows, np.searchsorted(latents, mine["latent"].to_numpy())] = True
    return table


def _lengths(traces: pl.LazyFrame, condition: str) -> dict[int, int]:
    """Return how many tokens each trace under a condition has, of those with any that was read."""
    mine = traces.filter(pl.col("condition") == condition, pl.col("generated_ids").list.len() > 1)
    return dict(mine.select("trace_id", pl.col("generated_ids").list.len()).collect().iter_rows())


def _sink_shares(features: pl.LazyFrame, latents: Sequence[int], condition: str) -> Floats:
    found = (
        features.filter(pl.col("condition") == condition, pl.col("segment").cast(pl.String) != "prompt")
        .group_by("latent")
        .agg(share=pl.col("sum").filter("sink").sum() / pl.col("sum").sum())
        .collect()
    )
    of_latent = dict(found.iter_rows())
    return np.array([of_latent.get(latent, np.nan) for latent in latents], dtype=float)


def _length_areas(relevant: NDArray[np.bool_], lengths: Floats) -> dict[str, Floats]:
    areas = np.full((3, relevant.shape[1]), np.nan)
    for column, positive in enumerate(relevant.T):
        if min(positive.sum(), (~positive).sum()) >= MIN_CLASS:
            found = auroc(lengths[:, None], positive)
            areas[:, column] = found.value[0], found.low[0], found.high[0]
    return dict(zip(("length_auroc", "length_low", "length_high"), areas, strict=True))


def token_counts(traces: pl.LazyFrame, sinks: pl.LazyFrame, include_sinks: bool) -> pl.DataFrame:
    """Return how many tokens of each trace and segment count: those that were read, without sinks unless included.

    Columns: trace_id, condition, segment, tokens.
    """
    keys = ["trace_id", "condition", "segment"]
    lengths = (
        traces.with_columns(read=pl.col("prompt_ids").list.len() + pl.col("generated_ids").list.len() - 1)
        .explode("segments", empty_as_null=False)
        .unnest("segments")
        .with_columns(pl.col("segment").cast(pl.String))
        .group_by(keys)
        .agg(tokens=(pl.min_horizontal("end", "read").cast(pl.Int64) - pl.col("start").cast(pl.Int64)).sum())
    )
    if include_sinks:
        return lengths.sort(keys).collect()
    flagged = sinks.with_columns(pl.col("segment").cast(pl.String)).group_by(keys).agg(flagged=pl.len())
    return (
        lengths.join(flagged, on=keys, how="left")
        .select(*keys, tokens=pl.col("tokens") - pl.col("flagged").fill_null(0))
        .sort(keys)
        .collect()
    )


def trace_values(
    features: pl.LazyFrame,
    counts: pl.DataFrame,
    latents: Sequence[int],
    condition: str,
    segments: Sequence[str],
    include_sinks: bool,
) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats, Floats]:
    """Return trace ids, their tokens (both (traces,)), and each latent's mean and maximum there, (traces, latents).

    Over the tokens of `segments`, zeros included; only traces that have any.
    """
    lengths = (
        counts.filter(pl.col("condition") == condition, pl.col("segment").is_in(list(segments)))
        .group_by("trace_id")
        .agg(pl.col("tokens").sum())
        .filter(pl.col("tokens") > 0)
        .sort("trace_id")
    )
    ids, tokens = lengths["trace_id"].to_numpy().astype(np.int64), lengths["tokens"].to_numpy()
    rows = features.filter(
        pl.col("condition") == condition,
        pl.col("segment").cast(pl.String).is_in(list(segments)),
        pl.col("latent").is_in(list(latents)),
        pl.col("trace_id").is_in(ids.tolist()),
    )
    if not include_sinks:
        rows = rows.filter(~pl.col("sink"))
    found = rows.group_by("trace_id", "latent").agg(pl.col("sum").sum(), pl.col("max").max()).collect()
    place = np.searchsorted(ids, found["trace_id"].to_numpy()), np.searchsorted(latents, found["latent"].to_numpy())
    mean, largest = np.zeros((len(ids), len(latents))), np.zeros((len(ids), len(latents)))
    mean[place], largest[place] = found["sum"].to_numpy(), found["max"].to_numpy()
    return ids, tokens, mean / tokens[:, None], largest


CONTRASTS_SCHEMA = {
    "latent": pl.UInt32,
    "contrast": pl.String,
    "pairs": pl.UInt32,
    "mean_first": pl.Float64,
    "mean_second": pl.Float64,
    "effect": pl.Float64,
    "p": pl.Float64,
    "q": pl.Float64,
    "family": pl.String,
    "note": pl.String,
}

WRITTEN = ("think", "answer")
"""The segments the model wrote."""


def contrasts(
    features: pl.LazyFrame,
    traces: pl.LazyFrame,
    sinks: pl.LazyFrame,
    candidates: pl.LazyFrame,
    *,
    conditions: Sequence[str],
    include_sinks: bool,
) -> pl.DataFrame:
    """Compare each candidate latent's per-trace mean activation between segments and between conditions.

    A row a latent and contrast: `think - answer` within the traces of the condition under study, and that condition
    minus each other on the same problem. Columns: pairs; mean_first, mean_second (over the pairs); effect (matched
    rank-biserial, -1 to 1); p (Wilcoxon signed-rank, two-sided); q, Benjamini-Hochberg over `family`; note, where no
    pair exists.
    """
    latents = latents_of(candidates)
    counts = token_counts(traces, sinks, include_sinks)
    first, *others = conditions
    sides: list[tuple[str, tuple[str, Sequence[str]], tuple[str, Sequence[str]]]] = [
        ("think - answer", (first, ("think",)), (first, ("answer",)))
    ]
    sides += [(f"{first} - {other}", (first, WRITTEN), (other, WRITTEN)) for other in others]
    frames = []
    for name, *both in sides:
        (ids, _, one, _), (other_ids, _, two, _) = (
            trace_values(features, counts, latents, condition, segments, include_sinks) for condition, segments in both
        )
        _, left, right = np.intersect1d(ids, other_ids, return_indices=True)
        row: dict[str, Any] = {"latent": latents, "contrast": name, "pairs": len(left)}
        row["family"] = f"{len(latents)} recurring latents"
        if len(left):
            found = paired(one[left] - two[right])
            row |= {"mean_first": one[left].mean(axis=0), "mean_second": two[right].mean(axis=0)}
            row |= {"effect": found.effect, "p": found.p, "q": fdr(found.p)}
        else:
            row["note"] = "no trace has both"
        frames.append(complete(pl.DataFrame(row) if latents else pl.DataFrame(), CONTRASTS_SCHEMA))
    return pl.concat(frames).sort("latent", "contrast")


OUTCOMES_SCHEMA = {
    "latent": pl.UInt32,
    "outcome": pl.String,
    "value": pl.String,
    "positive": pl.UInt32,
    "negative": pl.UInt32,
    "auroc": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "p": pl.Float64,
    "q": pl.Float64,
    "family": pl.String,
    "length_auroc": pl.Float64,
    "length_low": pl.Float64,
    "length_high": pl.Float64,
    "within_length": pl.Float64,
    "within_low": pl.Float64,
    "within_high": pl.Float64,
    "within_p": pl.Float64,
    "note": pl.String,
}

LENGTH_STRATA = 3
"""Strata of trace length, of about as many traces each."""


def outcomes(
    features: pl.LazyFrame,
    traces: pl.LazyFrame,
    sinks: pl.LazyFrame,
    candidates: pl.LazyFrame,
    *,
    condition: str,
    include_sinks: bool,
) -> pl.DataFrame:
    """Ask whether each candidate latent tells how a trace of the condition under study ends, and more than length does.

    A row a latent, outcome (`correct`, `truncated`) and value (its per-trace `mean` or `max`). Columns: positive,
    negative (traces); auroc with DeLong's 95 % interval (low, high), p (Mann-Whitney), q (Benjamini-Hochberg over
    `family`); length_auroc, length_low, length_high: the same of the trace's length alone; within_length, within_low,
    within_high, within_p: the latent's area over pairs of traces of about the same length (LENGTH_STRATA quantiles). A
    class of fewer than MIN_CLASS traces: no number, and a note says `too few`.
    """
    latents = latents_of(candidates)
    counts = token_counts(traces, sinks, include_sinks)
    ids, tokens, mean, largest = trace_values(features, counts, latents, condition, WRITTEN, include_sinks)
    about = (
        traces.filter(pl.col("condition") == condition)
        .select("trace_id", "correct", truncated=pl.col("finish_reason").cast(pl.String) == "length")
        .collect()
    )
    frames = []
    for outcome in ("correct", "truncated"):
        known = about.filter(pl.col(outcome).is_not_null(), pl.col("trace_id").is_in(ids.tolist())).sort("trace_id")
        rows = np.searchsorted(ids, known["trace_id"].to_numpy())
        positive = known[outcome].to_numpy().astype(bool)
        classes = int(positive.sum()), int((~positive).sum())
        row: dict[str, Any] = {"latent": latents, "outcome": outcome, "positive": classes[0], "negative": classes[1]}
        if not latents:
            continue
        if min(classes) < MIN_CLASS:
            row["note"] = f"too few: {classes[0]} {outcome} and {classes[1]} not, {MIN_CLASS} needed of each"
            both = [row | {"value": value} for value in ("mean", "max")]
        else:
            length = tokens[rows].astype(float)
            both = [
                row | {"value": value} | _outcome(table[rows], length, positive)
                for value, table in (("mean", mean), ("max", largest))
            ]
            q = np.split(fdr(np.concatenate([part["p"] for part in both])), 2)
            family = f"{2 * len(latents)} tests: recurring latents x mean and max"
            both = [part | {"q": mine, "family": family} for part, mine in zip(both, q, strict=True)]
        frames += [complete(pl.DataFrame(part), OUTCOMES_SCHEMA) for part in both]
    return pl.concat(frames).sort("latent", "outcome", "value") if frames else pl.DataFrame(schema=OUTCOMES_SCHEMA)


def length_strata(lengths: Floats) -> NDArray[np.int64]:
    """Return the stratum of each length: LENGTH_STRATA quantiles; a length at an edge is a stratum of its own.

    Truncated traces all have the greatest length; among shorter ones they would make length a difference again.
    """
    edges = np.unique(np.quantile(lengths, np.linspace(0, 1, LENGTH_STRATA + 1)[1:-1]))
    return np.searchsorted(edges, lengths, side="left") + np.searchsorted(edges, lengths, side="right")


def _outcome(values: Floats, lengths: Floats, positive: NDArray[np.bool_]) -> dict[str, Any]:
    found = auroc(values, positive)
    of_length = auroc(lengths[:, None], positive)
    within: Auroc | None = stratified_auroc(values, positive, length_strata(lengths), MIN_CLASS)
    row = {"auroc": found.value, "low": found.low, "high": found.high, "p": found.p}
    row |= {"length_auroc": of_length.value[0], "length_low": of_length.low[0], "length_high": of_length.high[0]}
    if within is not None:
        row |= {"within_length": within.value, "within_low": within.low, "within_high": within.high}
        row["within_p"] = within.p
    return row
