"""Room 6, evidence: what recurs. Every table is a reduction over blocks of features or activations.

Sink tokens are counted only where `include_sinks` says so; files say it in their metadata.
"""

from collections.abc import Sequence

import numpy as np
import polars as pl

from ..config import SEGMENTS
from ..frames import (
    SCOPES,
    Column,
    Schema,
    by_falling,
    complete,
    counted,
    in_parts,
    in_scope,
    keys,
    top,
    with_token,
)
from ..statistics import wilson

TOP_ACTIVATIONS_SCHEMA = Schema(
    "one of the `analysis.top_activations` largest activations of a scope and condition (per trace: of a trace), with"
    " or without sinks, in falling order",
    **keys("trace_id", "condition", "scope"),
    rank=(pl.UInt32, "rank among those that count, from 1; null for a sink that doesn't"),
    rank_with_sinks=(pl.UInt32, "rank among all, from 1; null where it isn't one of the largest of all"),
    activation=(pl.Float32, "the activation"),
    **keys("latent", "position", "token_id", "token", "sink"),
)


def top_activations(
    activations: pl.LazyFrame, vocabulary: pl.LazyFrame, *, top_activations: int, include_sinks: bool
) -> pl.DataFrame:
    """Return the `top_activations` largest activations over all traces of each condition and scope."""
    conditions = activations.select(pl.col("condition").unique()).collect(engine="streaming")["condition"]
    order = ["activation", "trace_id", "position", "latent"]
    # One at a time: together they would hold what they all read.
    largest = [
        in_scope(activations.filter(pl.col("condition") == condition), counted_too, [scope])
        .top_k(top_activations, by=order, reverse=[False, True, True, True])
        .collect(engine="streaming")
        for condition in conditions
        for scope in SCOPES
        for counted_too in {include_sinks, True}
    ]
    every = pl.concat(largest).unique().lazy()
    ranked = two_rankings(every, include_sinks, top_activations, ("condition", "scope"), ("trace_id",))
    return complete(with_token(ranked, vocabulary), TOP_ACTIVATIONS_SCHEMA)


def two_rankings(
    every: pl.LazyFrame, include_sinks: bool, most: int, within: Sequence[str], ties: Sequence[str] = ()
) -> pl.LazyFrame:
    """Return the rows among the `most` largest activations of those that count, or of all, with their ranks in both."""
    ties = (*ties, "position", "latent")
    identity = [*dict.fromkeys((*within, "trace_id")), "position", "latent"]
    without, along = (
        top(frame, most, "activation", within=within, ties=ties) for frame in (counted(every, include_sinks), every)
    )
    others = [name for name in every.collect_schema().names() if name not in identity]
    ranked = without.join(
        along.rename({"rank": "rank_with_sinks"}), on=identity, how="full", coalesce=True, suffix="_along"
    )
    return by_falling(
        ranked.with_columns(pl.coalesce(name, f"{name}_along").alias(name) for name in others),
        "activation", within=within, ties=ties,
    )  # fmt: skip


SINKS_SCHEMA = Schema(
    "a sink token on which any latent is active, by condition, trace and position",
    **keys("trace_id", "condition", "segment", "position", "token_id", "token"),
    active=(pl.UInt32, "latents active on it"),
    largest=(pl.Float32, "the largest of their activations"),
)


def sinks(activations: pl.LazyFrame, vocabulary: pl.LazyFrame) -> pl.DataFrame:
    """Return the sink tokens of every trace, but for those on which no latent is active."""
    tokens = (
        activations.filter(pl.col("sink"))
        .group_by("trace_id", "condition", "segment", "position", "token_id")
        .agg(active=pl.len(), largest=pl.col("activation").max())
        .sort("condition", "trace_id", "position")
    )
    return complete(with_token(tokens, vocabulary), SINKS_SCHEMA)


FREQUENCIES_SCHEMA = Schema(
    "a latent active under a condition and in a scope, the most frequent first",
    **keys("condition", "scope", "latent"),
    tokens=(pl.UInt32, "tokens it is active on, over all traces"),
    traces=(pl.UInt32, "traces it is active in"),
    mean=(pl.Float64, "mean of its activation where it is active"),
    max=(pl.Float32, "its largest activation"),
)


def frequencies(features: pl.LazyFrame, *, include_sinks: bool) -> pl.DataFrame:
    """Return on how many tokens each latent is active over all traces, per condition and scope."""

    within = ("condition", "scope", "latent")

    def count(part: pl.LazyFrame) -> pl.LazyFrame:
        return (
            in_scope(part, include_sinks)
            .group_by(within)
            .agg(pl.col("tokens", "sum").sum(), traces=pl.col("trace_id").n_unique(), max=pl.col("max").max())
        )

    table = (
        in_parts(features, count, by="trace_id")
        .group_by(within)
        .agg(pl.col("tokens", "traces", "sum").sum(), pl.col("max").max())
        .with_columns(mean=pl.col("sum") / pl.col("tokens"))
    )
    return complete(by_falling(table, "tokens", within=("condition", "scope")), FREQUENCIES_SCHEMA)


RELEVANT_LATENTS_SCHEMA = Schema(
    "one of the `analysis.top_latents` distinct latents with the largest maximum activation of a trace and scope",
    **keys("trace_id", "condition", "scope"),
    rank=(pl.UInt32, "its rank among them, from 1"),
    **keys("latent"),
    max=(pl.Float32, "its largest activation; the first position, token_id and token it has that on follow"),
    **keys("position", "token_id", "token"),
)


def relevant_latents(
    features: pl.LazyFrame, vocabulary: pl.LazyFrame, *, top_latents: int, include_sinks: bool
) -> pl.DataFrame:
    """Return each trace's relevant latents: the `top_latents` distinct ones with the largest maximum, by scope."""
    ranked = ranked_latents(features, top_latents, include_sinks)
    return complete(with_token(ranked.lazy(), vocabulary), RELEVANT_LATENTS_SCHEMA)


ROWS_OF_A_LATENT = 2 * len(SEGMENTS)
"""Rows of features that a latent has at most in a trace: of each segment, on sinks and elsewhere."""


def ranked_latents(
    features: pl.LazyFrame, most: int, include_sinks: bool, scopes: Sequence[str] = SCOPES
) -> pl.DataFrame:
    """Return each trace's `most` latents with the largest maximum, ranked, with the first position that is at."""
    within, columns = ("condition", "trace_id", "scope"), ["latent", "max", "max_position", "max_token_id"]

    def largest(part: pl.LazyFrame) -> pl.LazyFrame:
        # The largest rows are sure to have so many different latents.
        rows = pl.col(columns).top_k_by(
            ["max", "latent", "max_position"], most * ROWS_OF_A_LATENT, reverse=[False, True, True]
        )
        return in_scope(part, include_sinks, scopes).group_by(within).agg(rows).explode(columns)

    latents = (
        by_falling(in_parts(features, largest, by="trace_id"), "max", within=within, ties=("latent", "max_position"))
        .unique([*within, "latent"], keep="first", maintain_order=True)
        .rename({"max_position": "position", "max_token_id": "token_id"})
    )
    return top(latents, most, "max", within=within, ties=("latent",)).collect()


RECURRENCE_SCHEMA = Schema(
    "a latent that is relevant in any trace of a condition, by scope; the most recurrent first",
    **keys("condition", "scope", "latent"),
    traces=(pl.UInt32, "traces it is one of the relevant latents of"),
    of=(pl.UInt32, "traces there are"),
    share=(pl.Float64, "traces / of"),
    best_rank=(pl.UInt32, "its best rank in those traces"),
    mean_rank=(pl.Float64, "its mean rank in those traces"),
    max=(pl.Float32, "its largest activation in those traces"),
    low=(pl.Float64, "95 % Wilson interval of the share: lower end"),
    high=(pl.Float64, "95 % Wilson interval of the share: upper end"),
)


def recurrence(relevant: pl.LazyFrame, *, inferences: int) -> pl.DataFrame:
    """Return in how many of `inferences` traces each latent is a relevant one, per condition and scope."""
    table = (
        relevant.group_by("condition", "scope", "latent")
        .agg(
            traces=pl.len(),
            of=inferences,
            share=pl.len() / inferences,
            best_rank=pl.col("rank").min(),
            mean_rank=pl.col("rank").mean(),
            max=pl.col("max").max(),
        )
        .sort("condition", "scope", "traces", "mean_rank", "latent", descending=[False, False, True, False, False])
        .collect()
    )
    low, high = wilson(table["traces"].to_numpy(), inferences)
    return complete(table.with_columns(low=low, high=high), RECURRENCE_SCHEMA)


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


TOP_TOKENS_SCHEMA = Schema(
    "one of the `analysis.top_tokens` token types with the largest maximum activation of a latent that is relevant in"
    " any trace",
    **keys("condition", "scope", "latent"),
    rank=(pl.UInt32, "its rank among them, from 1"),
    **keys("token_id", "token"),
    max=(pl.Float32, "the latent's largest activation on it"),
    tokens=(pl.UInt32, "tokens of this type that the latent is active on"),
    traces=(pl.UInt32, "traces they are in"),
)


def top_tokens(
    activations: pl.LazyFrame,
    recurrence: pl.LazyFrame,
    vocabulary: pl.LazyFrame,
    *,
    top_tokens: int,
    include_sinks: bool,
) -> pl.DataFrame:
    """Return, for each latent that is relevant in any trace, its `top_tokens` top token types over all traces."""
    types = top_types(activations, recurrence, ("condition", "scope", "latent"), top_tokens, include_sinks)
    return complete(with_token(types, vocabulary), TOP_TOKENS_SCHEMA)


def top_types(
    activations: pl.LazyFrame, chosen: pl.LazyFrame, within: Sequence[str], most: int, include_sinks: bool
) -> pl.LazyFrame:
    """Return the `most` token types with the largest maximum of each group of activations that is in `chosen`."""

    def rank(part: pl.LazyFrame) -> pl.LazyFrame:
        types = (
            in_scope(part, include_sinks)
            .join(chosen, on=within, how="semi")
            .group_by(*within, "token_id")
            .agg(max=pl.col("activation").max(), tokens=pl.len(), traces=pl.col("trace_id").n_unique())
        )
        return top(types, most, "max", within=within, ties=("token_id",))

    return in_parts(activations, rank, by="latent").sort(*within, "rank")


def leading_tokens(top_tokens: pl.DataFrame, scope: str) -> pl.DataFrame:
    """Return each latent's token types by maximum activation over all conditions: latent, token_id, token, max."""
    return (
        top_tokens.filter(pl.col("scope") == scope)
        .group_by("latent", "token_id", "token")
        .agg(pl.col("max").max())
        .sort("latent", "max", "token_id", descending=[False, True, False])
    )


BINS: dict[str, Column] = {
    "bin": (pl.UInt16, "number of the bin, from 0"),
    "lower": (pl.Float64, "the activation it begins at"),
    "upper": (pl.Float64, "the activation it ends at, which belongs to the next one, if there is one"),
    "count": (pl.UInt64, "activations in it"),
}

HISTOGRAM_SCHEMA = Schema(
    "one of `analysis.histogram_bins` equal bins from 0 to a scope's largest activation under any condition",
    **keys("condition", "scope"),
    **BINS,
)


def histogram(activations: pl.LazyFrame, *, histogram_bins: int, include_sinks: bool) -> pl.DataFrame:
    """Return the histogram of all activations over all traces, per condition and scope.

    All conditions of a scope share `histogram_bins` equal bins from 0 to its largest activation.
    """
    bins, within = histogram_bins, ("condition", "scope", "bin")
    values = in_scope(activations, include_sinks).select("condition", "scope", pl.col("activation").cast(pl.Float64))
    # Collected by itself, so that the values are read twice, and not held.
    largest = values.group_by("scope").agg(largest=pl.col("activation").max()).collect(engine="streaming").lazy()
    counts = (
        values.join(largest, on="scope")
        .group_by("condition", "scope", bin=(pl.col("activation") / pl.col("largest") * bins).floor().clip(0, bins - 1))
        .agg(count=pl.len())
        .collect(engine="streaming")
        .cast({"bin": pl.UInt16})
        .lazy()
    )
    # A bin that nothing falls into has a row too.
    every = (
        counts.select("condition", "scope")
        .unique()
        .join(pl.LazyFrame({"bin": np.arange(bins, dtype=np.uint16)}), how="cross")
    )
    width = pl.col("largest") / bins
    table = (
        every.join(largest, on="scope")
        .join(counts, on=within, how="left")
        .with_columns(
            lower=pl.col("bin") * width, upper=(pl.col("bin") + 1) * width, count=pl.col("count").fill_null(0)
        )
        .sort(within)
    )
    return complete(table, HISTOGRAM_SCHEMA)


LAYERS_SCHEMA = Schema(
    "a site, condition and scope",
    **keys("site", "condition", "scope"),
    active=(pl.UInt32, "latents active at all"),
    relevant=(pl.UInt32, "latents relevant in any trace"),
    recurring=(pl.UInt32, "latents relevant in `analysis.min_traces` traces or more"),
    top_latent=(pl.UInt32, "the most recurrent latent"),
    top_traces=(pl.UInt32, "traces that one is relevant in"),
    of=(pl.UInt32, "traces there are"),
    peaks=(pl.Float64, "different positions at which a trace's relevant latents have their maxima, mean over traces"),
    sinks=(pl.UInt32, "sink tokens"),
    sinks_on_top=(pl.UInt32, "how many of the `listed` largest activations are on sinks, where those count"),
    listed=(pl.UInt32, "largest activations that are listed, sinks counted"),
    largest_on_sinks=(pl.Float32, "the largest activation on a sink"),
    largest_elsewhere=(pl.Float32, "the largest activation on another token"),
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
    """Compare sites. The frames are the tables of all of them, with a `site` column beside their own."""
    within = ["site", "condition", "scope"]
    recurring = (
        recurrence.sort("traces", "mean_rank", "latent", descending=[True, False, False])
        .group_by(within, maintain_order=True)
        .agg(
            relevant=pl.len(),
            recurring=(pl.col("traces") >= min_traces).sum(),
            top_latent=pl.col("latent").first(),
            top_traces=pl.col("traces").first(),
            of=pl.col("of").first(),
        )
    )
    peaks = (
        relevant.group_by(*within, "trace_id")
        .agg(pl.col("position").n_unique())
        .group_by(within)
        .agg(peaks=pl.col("position").mean())
    )
    flagged = in_scope(sinks.with_columns(sink=True), include_sinks=True).group_by(within).agg(sinks=pl.len())
    largest = top_activations.group_by(within).agg(
        sinks_on_top=(pl.col("sink") & pl.col("rank_with_sinks").is_not_null()).sum(),
        listed=pl.col("rank_with_sinks").count(),
        largest_on_sinks=pl.col("activation").filter("sink").max(),
        largest_elsewhere=pl.col("activation").filter(~pl.col("sink")).max(),
    )
    table = frequencies.group_by(within).agg(active=pl.len())
    for frame in (recurring, peaks, flagged, largest):
        table = table.join(frame, on=within, how="left")
    return complete(table.with_columns(pl.col("sinks").fill_null(0)).sort(within), LAYERS_SCHEMA)
