"""Room 7, evidence: what recurs. Every table is a reduction over blocks of features or activations.

Each has a `scope` column: `all` counts prompt and generated tokens, `generated` what the model wrote. Sink tokens are
counted only where `include_sinks` says so; files say it in their metadata. Ties are broken by the smaller position,
latent or token id, so that a table is a function of its input alone.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from ..config import layer_of, parse_site
from ..statistics import percentiles, resamples, wilson

SCOPES = ("all", "generated")
"""Which tokens a table counts."""


def in_scope(frame: pl.LazyFrame, include_sinks: bool) -> pl.LazyFrame:
    """Repeat a frame with a `segment` column once per scope, as a `scope` column; leave out sinks unless included."""
    if not include_sinks:
        frame = frame.filter(~pl.col("sink"))
    chosen = {"all": frame, "generated": frame.filter(pl.col("segment") != "prompt")}
    return pl.concat([chosen[scope].with_columns(scope=pl.lit(scope)) for scope in SCOPES])


def _top(frame: pl.LazyFrame, most: int, by: str, within: Sequence[str], ties: Sequence[str]) -> pl.LazyFrame:
    """Return the `most` rows with the largest `by` of each group, ranked from 1, groups in ascending order."""
    return (
        frame.sort(*within, by, *ties, descending=[False] * len(within) + [True] + [False] * len(ties))
        .with_columns(rank=pl.int_range(1, pl.len() + 1, dtype=pl.UInt32).over(*within))
        .filter(pl.col("rank") <= most)
    )


def _with_token(frame: pl.LazyFrame, vocabulary: pl.LazyFrame) -> pl.LazyFrame:
    return frame.join(vocabulary.select("token_id", "token"), on="token_id", how="left", maintain_order="left")


def latents_of(table: pl.LazyFrame) -> list[int]:
    """Return the latents in a table, in order."""
    return table.select(pl.col("latent").unique().sort()).collect()["latent"].to_list()


def complete(frame: pl.DataFrame, schema: Mapping[str, Any]) -> pl.DataFrame:
    """Return the frame with all columns of a schema; those missing are null, and so is what isn't a number."""
    missing = [pl.lit(None, dtype).alias(name) for name, dtype in schema.items() if name not in frame.columns]
    frame = frame.with_columns(missing) if frame.width else pl.DataFrame(schema=schema)
    return frame.select(*schema).cast(dict(schema)).with_columns(pl.col(pl.Float64).fill_nan(None))  # type: ignore[arg-type]


def trace_top_activations(
    activations: pl.LazyFrame, vocabulary: pl.LazyFrame, *, most: int, include_sinks: bool
) -> pl.DataFrame:
    """Return the `most` largest activations of each trace and scope, whatever their latents, with and without sinks.

    Columns: trace_id, condition, scope, rank (among those that count; null for a sink that doesn't), rank_with_sinks
    (among all; null beyond `most`), activation, latent, position, token_id, token, sink.
    """
    within = ("condition", "trace_id", "scope")
    every = in_scope(activations, include_sinks=True)
    top = _two_rankings(every, every if include_sinks else every.filter(~pl.col("sink")), most, within)
    columns = [
        "trace_id",
        "condition",
        "scope",
        *RANKS,
        "activation",
        "latent",
        "position",
        "token_id",
        "token",
        "sink",
    ]
    return _with_token(top, vocabulary).select(columns).collect()


def top_activations(per_trace: pl.LazyFrame, *, most: int) -> pl.DataFrame:
    """Return the `most` largest activations over all traces of each condition and scope, from those of each trace.

    The columns are those of `trace_top_activations`.
    """
    every, counted = (per_trace.filter(pl.col(rank).is_not_null()).drop(RANKS) for rank in reversed(RANKS))
    columns = per_trace.collect_schema().names()
    return _two_rankings(every, counted, most, ("condition", "scope"), ("trace_id",)).select(columns).collect()


RANKS = ("rank", "rank_with_sinks")


def _two_rankings(
    every: pl.LazyFrame, counted: pl.LazyFrame, most: int, within: Sequence[str], ties: Sequence[str] = ()
) -> pl.LazyFrame:
    """Return the rows among the `most` largest activations of `every` or of `counted`, with their RANKS in both."""
    ties = (*ties, "position", "latent")
    keys = [*dict.fromkeys((*within, "trace_id")), "position", "latent"]
    without, along = (_top(frame, most, "activation", within=within, ties=ties) for frame in (counted, every))
    others = [name for name in every.collect_schema().names() if name not in keys]
    return (
        without.join(along.rename({"rank": "rank_with_sinks"}), on=keys, how="full", coalesce=True, suffix="_along")
        .with_columns(pl.coalesce(name, f"{name}_along").alias(name) for name in others)
        .sort(*within, "activation", *ties, descending=[False] * len(within) + [True] + [False] * len(ties))
    )


def sinks(activations: pl.LazyFrame, vocabulary: pl.LazyFrame) -> pl.DataFrame:
    """Return the sink tokens of every trace, but for those on which no latent is active.

    Columns: trace_id, condition, segment, position, token_id, token, active (latents), largest (activation).
    """
    keys = ["trace_id", "condition", "segment", "position", "token_id"]
    tokens = (
        activations.filter(pl.col("sink"))
        .group_by(keys)
        .agg(active=pl.len(), largest=pl.col("activation").max())
        .sort("condition", "trace_id", "position")
    )
    return _with_token(tokens, vocabulary).select(*keys, "token", "active", "largest").collect()


def trace_frequencies(features: pl.LazyFrame, *, include_sinks: bool) -> pl.DataFrame:
    """Return on how many tokens each latent is active, per trace and scope; most frequent first.

    Columns: trace_id, condition, scope, latent, tokens, sum and max of its activation.
    """
    return (
        in_scope(features, include_sinks)
        .group_by("trace_id", "condition", "scope", "latent")
        .agg(pl.col("tokens").sum(), pl.col("sum").sum(), pl.col("max").max())
        .sort("trace_id", "scope", "tokens", "latent", descending=[False, False, True, False])
        .collect()
    )


def frequencies(features: pl.LazyFrame, *, include_sinks: bool) -> pl.DataFrame:
    """Return on how many tokens each latent is active over all traces, per condition and scope; most frequent first.

    Columns: condition, scope, latent, tokens, traces (with the latent active at all), mean (of its activation where
    active), max.
    """
    return (
        in_scope(features, include_sinks)
        .group_by("condition", "scope", "latent")
        .agg(
            pl.col("tokens").sum(),
            traces=pl.col("trace_id").n_unique(),
            mean=pl.col("sum").sum() / pl.col("tokens").sum(),
            max=pl.col("max").max(),
        )
        .sort("condition", "scope", "tokens", "latent", descending=[False, False, True, False])
        .collect()
    )


def relevant_latents(
    features: pl.LazyFrame, vocabulary: pl.LazyFrame, *, most: int, include_sinks: bool
) -> pl.DataFrame:
    """Return each trace's relevant latents: the `most` distinct ones with the largest maximum activation, by scope.

    Columns: trace_id, condition, scope, rank, latent, max, and the position, token_id and token of that maximum.
    """
    largest = (
        in_scope(features, include_sinks)
        .sort("max", "max_position", descending=[True, False])
        .group_by("condition", "trace_id", "scope", "latent")
        .agg(pl.col("max", "max_position", "max_token_id").first())
    )
    top = _top(largest, most, "max", within=("condition", "trace_id", "scope"), ties=("latent",))
    top = top.rename({"max_position": "position", "max_token_id": "token_id"})
    columns = ["trace_id", "condition", "scope", "rank", "latent", "max", "position", "token_id", "token"]
    return _with_token(top, vocabulary).select(columns).collect()


def recurrence(relevant: pl.LazyFrame, *, inferences: int) -> pl.DataFrame:
    """Return in how many traces each latent is a relevant one, per condition and scope; most recurrent first.

    Columns: condition, scope, latent, traces (the count), of (traces there are), share, low and high (its 95 % Wilson
    interval), best_rank, mean_rank, max (the latent's largest activation in those traces).
    """
    table = (
        relevant.group_by("condition", "scope", "latent")
        .agg(
            traces=pl.len(),
            of=pl.lit(inferences, dtype=pl.UInt32),
            share=pl.len() / inferences,
            best_rank=pl.col("rank").min(),
            mean_rank=pl.col("rank").mean(),
            max=pl.col("max").max(),
        )
        .sort("condition", "scope", "traces", "mean_rank", "latent", descending=[False, False, True, False, False])
        .collect()
    )
    low, high = wilson(table["traces"].to_numpy(), inferences)
    return table.with_columns(low=low, high=high)


def leading_latents(recurrence: pl.DataFrame, scope: str, most: int) -> list[int]:
    """Return the leading latents: relevant in the most traces of any condition, ties by mean rank."""
    return (
        recurrence.filter(pl.col("scope") == scope)
        .group_by("latent")
        .agg(pl.col("traces").max(), pl.col("mean_rank").min())
        .sort("traces", "mean_rank", "latent", descending=[True, False, False])
        .head(most)["latent"]
        .to_list()
    )


def leading_tokens(top_tokens: pl.DataFrame, scope: str) -> pl.DataFrame:
    """Return each latent's token types by maximum activation over all conditions: latent, token_id, token, max."""
    return (
        top_tokens.filter(pl.col("scope") == scope)
        .group_by("latent", "token_id", "token")
        .agg(pl.col("max").max())
        .sort("latent", "max", "token_id", descending=[False, True, False])
    )


def trace_top_tokens(
    activations: pl.LazyFrame,
    relevant: pl.LazyFrame,
    vocabulary: pl.LazyFrame,
    *,
    most: int,
    include_sinks: bool,
) -> pl.DataFrame:
    """Return, for each relevant latent of each trace, its `most` token types with the largest maximum activation.

    Columns: trace_id, condition, scope, latent, rank, token_id, token, max, tokens (of that type with it active).
    """
    types = (
        in_scope(activations, include_sinks)
        .join(relevant, on=["condition", "trace_id", "scope", "latent"], how="semi")
        .group_by("condition", "trace_id", "scope", "latent", "token_id")
        .agg(max=pl.col("activation").max(), tokens=pl.len())
    )
    top = _top(types, most, "max", within=("condition", "trace_id", "scope", "latent"), ties=("token_id",))
    columns = ["trace_id", "condition", "scope", "latent", "rank", "token_id", "token", "max", "tokens"]
    return _with_token(top, vocabulary).select(columns).collect()


def top_tokens(
    activations: pl.LazyFrame, recurrence: pl.LazyFrame, vocabulary: pl.LazyFrame, *, most: int, include_sinks: bool
) -> pl.DataFrame:
    """Return, for each latent that is relevant in any trace, its `most` top token types over all traces.

    Per condition and scope. Columns: condition, scope, latent, rank, token_id, token, max, tokens, traces.
    """
    types = (
        in_scope(activations, include_sinks)
        .join(recurrence, on=["condition", "scope", "latent"], how="semi")
        .group_by("condition", "scope", "latent", "token_id")
        .agg(max=pl.col("activation").max(), tokens=pl.len(), traces=pl.col("trace_id").n_unique())
    )
    top = _top(types, most, "max", within=("condition", "scope", "latent"), ties=("token_id",))
    columns = ["condition", "scope", "latent", "rank", "token_id", "token", "max", "tokens", "traces"]
    return _with_token(top, vocabulary).select(columns).collect()


HISTOGRAM_SCHEMA = {"bin": pl.UInt16, "lower": pl.Float64, "upper": pl.Float64, "count": pl.UInt64}
"""Columns of a histogram, beside the keys it is made by."""


def trace_histograms(activations: pl.LazyFrame, *, bins: int, include_sinks: bool) -> pl.DataFrame:
    """Return the histogram of all activations of each trace and scope: `bins` equal bins from smallest to largest.

    Columns: trace_id, condition, scope, bin, lower, upper, count. The upper edge belongs to the last bin only.
    """
    values = in_scope(activations, include_sinks).select("trace_id", "condition", "scope", "activation").collect()
    frames = []
    for (trace_id, condition, scope), group in values.group_by("trace_id", "condition", "scope", maintain_order=True):
        counts, edges = np.histogram(group["activation"].to_numpy(), bins=bins)
        keys = {"trace_id": pl.lit(trace_id, pl.UInt32), "condition": pl.lit(condition), "scope": pl.lit(scope)}
        frames.append(
            pl.DataFrame(
                {"bin": np.arange(bins), "lower": edges[:-1], "upper": edges[1:], "count": counts},
                schema_overrides=HISTOGRAM_SCHEMA,
            ).select(**keys, **{name: pl.col(name) for name in HISTOGRAM_SCHEMA})
        )
    return pl.concat(frames).sort("trace_id", "scope", "bin")


def histogram(activations: pl.LazyFrame, *, bins: int, include_sinks: bool) -> pl.DataFrame:
    """Return the histogram of all activations over all traces, per condition and scope.

    All conditions of a scope share `bins` equal bins from 0 to its largest activation, which belongs to the last.
    Columns: condition, scope, bin, lower, upper, count.
    """
    values = in_scope(activations, include_sinks).select("condition", "scope", pl.col("activation").cast(pl.Float64))
    largest = values.group_by("scope").agg(largest=pl.col("activation").max())
    counts = (
        values.join(largest, on="scope")
        .with_columns(bin=(pl.col("activation") / pl.col("largest") * bins).floor().clip(0, bins - 1))
        .group_by("condition", "scope", "largest", "bin")
        .agg(count=pl.len())
        .collect(engine="streaming")
        .cast({"bin": pl.UInt16, "count": pl.UInt64})
    )
    # A bin that nothing falls into has a row too.
    every = (
        counts.select("condition", "scope", "largest")
        .unique()
        .join(pl.DataFrame({"bin": range(bins)}, schema={"bin": pl.UInt16}), how="cross")
    )
    width = pl.col("largest") / bins
    return (
        every.join(counts, on=["condition", "scope", "largest", "bin"], how="left")
        .with_columns(
            lower=pl.col("bin") * width, upper=(pl.col("bin") + 1) * width, count=pl.col("count").fill_null(0)
        )
        .select("condition", "scope", *HISTOGRAM_SCHEMA)
        .sort("condition", "scope", "bin")
    )


def layers(
    frequencies: pl.LazyFrame,
    recurrence: pl.LazyFrame,
    relevant: pl.LazyFrame,
    sinks: pl.LazyFrame,
    top_activations: pl.LazyFrame,
    *,
    min_traces: int,
) -> pl.DataFrame:
    """Compare sites. The frames have a `site` column beside their own, one row a site, condition and scope comes out.

    Columns: site, condition, scope, active (latents active at all), relevant (latents relevant in any trace),
    recurring (in `min_traces` or more), top_latent and top_traces (the most recurrent and its count), of (traces there
    are), peaks (different positions at which a trace's relevant latents have their maxima, mean over traces), sinks
    (tokens), sinks_on_top (how many of the `listed` largest activations are on sinks, where those count),
    largest_on_sinks and largest_elsewhere (activation).
    """
    keys = ["site", "condition", "scope"]
    active = frequencies.group_by(keys).agg(active=pl.len())
    recurring = (
        recurrence.sort("traces", "mean_rank", "latent", descending=[True, False, False])
        .group_by(keys, maintain_order=True)
        .agg(
            relevant=pl.len(),
            recurring=(pl.col("traces") >= min_traces).sum(),
            top_latent=pl.col("latent").first(),
            top_traces=pl.col("traces").first(),
            of=pl.col("of").first(),
        )
    )
    peaks = (
        relevant.group_by(*keys, "trace_id")
        .agg(pl.col("position").n_unique())
        .group_by(keys)
        .agg(peaks=pl.col("position").mean())
    )
    flagged = in_scope(sinks.with_columns(sink=True), include_sinks=True).group_by(keys).agg(sinks=pl.len())
    top = top_activations.group_by(keys).agg(
        sinks_on_top=(pl.col("sink") & pl.col("rank_with_sinks").is_not_null()).sum(),
        listed=pl.col("rank_with_sinks").count(),
        largest_on_sinks=pl.col("activation").filter("sink").max(),
        largest_elsewhere=pl.col("activation").filter(~pl.col("sink")).max(),
    )
    table = active
    for frame in (recurring, peaks, flagged, top):
        table = table.join(frame, on=keys, how="left")
    return table.with_columns(pl.col("sinks").fill_null(0)).sort(keys).collect()


def fit(reconstruction: pl.LazyFrame, *, hookpoint: str, num_latents: int, used: str) -> pl.DataFrame:
    """Return how well an SAE reconstructs what it is given, at its own site and at those around it.

    `reconstruction` has the columns of a reconstruction file, `hookpoint` is that of the SAE, `used` the site read.
    Counted are generated tokens without sinks. A row a site and condition, where a null condition is all of them
    together. Columns:

    - hookpoint, site; place: `site`, `residual_in`, `residual_out`, `below`, `above` (the module one block down or up);
      used
    - traces, tokens, sinks (left out)
    - fvu: Σ‖x - x̂‖² / Σ‖x - x̄‖², x̄ the mean over all tokens counted (null without variance); fvu_low and fvu_high: 95 %
      bootstrap interval (percentiles, Efron 1979), problems resampled, whose traces under other conditions go along; of
      few problems it is too narrow (of 16, it holds the truth in about nine cases of ten)
    - cosine: mean of cos(x, x̂); mean_norm, median_norm: of ‖x‖; l0: mean number of active latents
    - fired: share of the SAE's latents that are active on any token
    """
    rows = []
    for site in reconstruction.select(pl.col("site").unique(maintain_order=True)).collect()["site"]:
        about = {"hookpoint": hookpoint, "site": site, "place": place(hookpoint, site), "used": site == used}
        # A site at a time: a row holds a vector as wide as the model.
        of_site = reconstruction.filter(site=site).collect()
        rows.append(about | {"condition": None} | _pool(of_site, num_latents))
        for (condition,), group in of_site.group_by("condition", maintain_order=True):
            rows.append(about | {"condition": condition} | _pool(group, num_latents))
    return pl.DataFrame(rows, schema=FIT_SCHEMA).sort(pl.col("place").cast(pl.Enum(PLACES)), "condition")


PLACES = ("site", "residual_in", "residual_out", "below", "above")
"""Where a SAE is tried, from its own site outwards."""

FIT_SCHEMA = {
    "hookpoint": pl.String,
    "condition": pl.String,
    "place": pl.String,
    "site": pl.String,
    "used": pl.Boolean,
    "traces": pl.UInt32,
    "tokens": pl.UInt64,
    "sinks": pl.UInt64,
    "fvu": pl.Float64,
    "fvu_low": pl.Float64,
    "fvu_high": pl.Float64,
    "cosine": pl.Float64,
    "mean_norm": pl.Float64,
    "median_norm": pl.Float64,
    "l0": pl.Float64,
    "fired": pl.Float64,
}


def place(hookpoint: str, site: str) -> str:
    """Return which of PLACES a site is, seen from the hookpoint of an SAE."""
    module, read_from = parse_site(site)
    if read_from != "hookpoint":
        return read_from
    step = layer_of(module) - layer_of(hookpoint)
    return "site" if step == 0 else "above" if step > 0 else "below"


def _pool(group: pl.DataFrame, num_latents: int) -> dict[str, Any]:
    """Pool rows of reconstruction files: the columns of `fit` that are numbers."""
    of_problem = group.group_by("trace_id", maintain_order=True).agg(
        pl.col("tokens", "squares", "residual_squares").sum(), pl.col("sum")
    )
    tokens, squares, residual = (
        of_problem[name].to_numpy().astype(float) for name in ("tokens", "squares", "residual_squares")
    )
    sums = np.stack([np.sum(rows.to_list(), axis=0) for rows in of_problem["sum"]])
    fvu = _fvu(np.ones((1, len(tokens))), tokens, sums, squares, residual)[0]
    low, high = None, None
    if len(tokens) > 1 and np.isfinite(fvu):
        # The same resamples of problems at every site.
        low, high = map(float, percentiles(_fvu(resamples(len(tokens)), tokens, sums, squares, residual)))
    count = int(tokens.sum())
    norms = group["norms"].explode(empty_as_null=False)
    return {
        "traces": len(group),
        "tokens": count,
        "sinks": group["sinks"].sum(),
        "fvu": float(fvu) if np.isfinite(fvu) else None,
        "fvu_low": low,
        "fvu_high": high,
        "cosine": group["cosines"].sum() / count if count else None,
        "mean_norm": norms.mean(),
        "median_norm": norms.median(),
        "l0": group["active"].sum() / count if count else None,
        "fired": group["latents"].explode(empty_as_null=False).n_unique() / num_latents,
    }


def _fvu(
    weights: np.ndarray, tokens: np.ndarray, sums: np.ndarray, squares: np.ndarray, residual: np.ndarray
) -> np.ndarray:
    """Return the FVU of each row of weights over problems, (resamples, problems); not a number without variance.

    Σ‖x - x̄‖² = Σ‖x‖² - ‖Σx‖² / n.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        variance = weights @ squares - np.square(weights @ sums).sum(1) / (weights @ tokens)
        # Rounding leaves a trace of variance where there is none.
        return np.where(variance > 1e-12 * (weights @ squares), weights @ residual / variance, np.nan)


def written(traces: pl.DataFrame, conditions: Sequence[str]) -> list[dict[str, Any]]:
    """Count what the model wrote under each condition, a row each.

    Keys: condition, traces, tokens, median (tokens of a trace), and how many traces are truncated, graded and correct.
    """
    rows = []
    for condition in conditions:
        mine = traces.filter(condition=condition)
        lengths, graded = mine["generated_ids"].list.len(), mine["correct"].drop_nulls()
        rows.append(
            {
                "condition": condition,
                "traces": len(mine),
                "tokens": int(lengths.sum()),
                "median": lengths.quantile(0.5, interpolation="linear"),
                "truncated": int((mine["finish_reason"].cast(pl.String) == "length").sum()),
                "graded": len(graded),
                "correct": int(graded.sum()),
            }
        )
    return rows


def gate_warnings(gate: pl.DataFrame, max_fvu: float) -> list[str]:
    """Return what a site gate's table speaks against, one line each; none where all is well.

    For each SAE: another place than the one used fits better, or the FVU there is over `max_fvu`.
    """
    lines = []
    pooled = gate.filter(pl.col("condition").is_null(), pl.col("fvu").is_not_null())
    for (hookpoint,), group in pooled.group_by("hookpoint", maintain_order=True):
        best = group.sort("fvu").row(0, named=True)
        for row in group.filter("used").iter_rows(named=True):
            if row["fvu"] > max_fvu:
                lines.append(
                    f"{row['site']}: the SAE leaves {row['fvu']:.0%} of the variance unexplained (FVU {row['fvu']:.3g},"
                    f" over analysis.max_fvu = {max_fvu:g}); its latents say little about what it reads there."
                )
            if best["fvu"] < row["fvu"]:
                remedy = (
                    "set sae.read_from: hookpoint, unless you mean to."
                    if best["place"] == "site"
                    else f"sae.read_from: {best['place']} reads it there; check what the SAE was trained on."
                    if best["place"].startswith("residual")
                    else "check sae.hookpoint and what the SAE was trained on."
                )
                overlap = row["fvu_low"] is not None and best["fvu_high"] >= row["fvu_low"]
                lines.append(
                    f"{row['site']}: the SAE of {hookpoint} fits {best['site']} better, FVU {best['fvu']:.3g}"
                    f" against {row['fvu']:.3g}{', though their intervals overlap' if overlap else ''}; {remedy}"
                )
    return lines
