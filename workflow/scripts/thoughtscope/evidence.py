"""Room 7, evidence: what recurs. Every table is a reduction over blocks of features or activations.

Each has a `scope` column: `all` counts prompt and generated tokens, `generated` what the model wrote. Sink tokens are
counted only where `include_sinks` says so; files say it in their metadata. Ties are broken by the smaller position,
latent or token id, so that a table is a function of its input alone.
"""

from collections.abc import Sequence

import numpy as np
import polars as pl

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


def trace_top_activations(
    activations: pl.LazyFrame, vocabulary: pl.LazyFrame, *, most: int, include_sinks: bool
) -> pl.DataFrame:
    """Return the `most` largest activations of each trace and scope, whatever their latents.

    Columns: trace_id, condition, scope, rank, activation, latent, position, token_id, token.
    """
    top = _top(
        in_scope(activations, include_sinks),
        most,
        "activation",
        within=("condition", "trace_id", "scope"),
        ties=("position", "latent"),
    )
    columns = ["trace_id", "condition", "scope", "rank", "activation", "latent", "position", "token_id", "token"]
    return _with_token(top, vocabulary).select(columns).collect()


def top_activations(per_trace: pl.LazyFrame, *, most: int) -> pl.DataFrame:
    """Return the `most` largest activations over all traces of each condition and scope, from those of each trace."""
    return _top(
        per_trace, most, "activation", within=("condition", "scope"), ties=("trace_id", "position", "latent")
    ).collect()


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

    Columns: condition, scope, latent, traces (the count), of (traces there are), share, best_rank, mean_rank, max (the
    latent's largest activation in those traces).
    """
    return (
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


def layers(frequencies: pl.LazyFrame, recurrence: pl.LazyFrame, relevant: pl.LazyFrame) -> pl.DataFrame:
    """Compare sites. The frames have a `site` column beside their own, one row a site, condition and scope comes out.

    Columns: site, condition, scope, active (latents active at all), relevant (latents relevant in any trace),
    recurring (in two or more), top_latent and top_traces (the most recurrent and its count), of (traces there are),
    peaks (different positions at which a trace's relevant latents have their maxima, mean over traces).
    """
    keys = ["site", "condition", "scope"]
    active = frequencies.group_by(keys).agg(active=pl.len())
    recurring = (
        recurrence.sort("traces", "mean_rank", "latent", descending=[True, False, False])
        .group_by(keys, maintain_order=True)
        .agg(
            relevant=pl.len(),
            recurring=(pl.col("traces") >= 2).sum(),
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
    return active.join(recurring, on=keys, how="left").join(peaks, on=keys, how="left").sort(keys).collect()
