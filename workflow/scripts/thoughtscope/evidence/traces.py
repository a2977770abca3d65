"""Room 6, evidence: the original study's tables of each trace of a block."""

import numpy as np
import polars as pl

from ..frames import Schema, by_falling, complete, in_scope, keys, with_token
from .recurrence import BINS, TOP_ACTIVATIONS_SCHEMA, relevant_latents, top_types, two_rankings


def trace_tables(
    activations: pl.LazyFrame,
    features: pl.LazyFrame,
    vocabulary: pl.LazyFrame,
    *,
    top_activations: int,
    top_latents: int,
    top_tokens: int,
    histogram_bins: int,
    include_sinks: bool,
) -> dict[str, pl.DataFrame]:
    """Return the tables of a block's traces, by name."""
    activations, features = activations.collect().lazy(), features.collect().lazy()  # each is read several times
    relevant = relevant_latents(features, vocabulary, top_latents=top_latents, include_sinks=include_sinks)
    return {
        "top_activations": trace_top_activations(activations, vocabulary, top_activations, include_sinks),
        "frequencies": trace_frequencies(features, include_sinks),
        "histograms": trace_histograms(activations, histogram_bins, include_sinks),
        "relevant_latents": relevant,
        "top_tokens": trace_top_tokens(activations, relevant.lazy(), vocabulary, top_tokens, include_sinks),
    }


def trace_top_activations(
    activations: pl.LazyFrame, vocabulary: pl.LazyFrame, most: int, include_sinks: bool
) -> pl.DataFrame:
    """Return the `most` largest activations of each trace and scope, whatever their latents, with and without sinks."""
    every = in_scope(activations, include_sinks=True)
    ranked = two_rankings(every, include_sinks, most, ("condition", "trace_id", "scope"))
    return complete(with_token(ranked, vocabulary), TOP_ACTIVATIONS_SCHEMA)


FREQUENCIES_SCHEMA = Schema(
    "a latent active in a trace and scope, the most frequent first",
    **keys("trace_id", "condition", "scope", "latent"),
    tokens=(pl.UInt32, "tokens it is active on"),
    sum=(pl.Float64, "sum of its activation"),
    max=(pl.Float32, "its largest activation"),
)


def trace_frequencies(features: pl.LazyFrame, include_sinks: bool) -> pl.DataFrame:
    """Return on how many tokens each latent is active, per trace and scope."""
    within = ("condition", "trace_id", "scope")
    table = (
        in_scope(features, include_sinks)
        .group_by(*within, "latent")
        .agg(pl.col("tokens").sum(), pl.col("sum").sum(), pl.col("max").max())
    )
    return complete(by_falling(table, "tokens", within=within), FREQUENCIES_SCHEMA)


HISTOGRAMS_SCHEMA = Schema(
    "one of `analysis.histogram_bins` equal bins from the smallest to the largest activation of a trace and scope",
    **keys("trace_id", "condition", "scope"),
    **BINS,
)


def trace_histograms(activations: pl.LazyFrame, bins: int, include_sinks: bool) -> pl.DataFrame:
    """Return the histogram of all activations of each trace and scope: `bins` equal bins from smallest to largest."""
    within = ("trace_id", "condition", "scope")
    values = in_scope(activations, include_sinks).select(*within, "activation").collect()
    tables = [pl.DataFrame(schema=HISTOGRAMS_SCHEMA)]
    for names, group in values.group_by(within, maintain_order=True):
        counts, edges = np.histogram(group["activation"].to_numpy(), bins=bins)
        table = pl.DataFrame({"bin": np.arange(bins), "lower": edges[:-1], "upper": edges[1:], "count": counts})
        table = table.with_columns(pl.lit(name).alias(key) for key, name in zip(within, names, strict=True))
        tables.append(complete(table, HISTOGRAMS_SCHEMA))
    return pl.concat(tables).sort("trace_id", "scope", "bin")


TOP_TOKENS_SCHEMA = Schema(
    "one of the `analysis.top_tokens` token types with the largest maximum activation of a relevant latent of a trace",
    **keys("trace_id", "condition", "scope", "latent"),
    rank=(pl.UInt32, "its rank among them, from 1"),
    **keys("token_id", "token"),
    max=(pl.Float32, "the latent's largest activation on it"),
    tokens=(pl.UInt32, "tokens of this type that the latent is active on"),
)


def trace_top_tokens(
    activations: pl.LazyFrame, relevant: pl.LazyFrame, vocabulary: pl.LazyFrame, most: int, include_sinks: bool
) -> pl.DataFrame:
    """Return, for each relevant latent of each trace, its `most` token types with the largest maximum activation."""
    types = top_types(activations, relevant, ("condition", "trace_id", "scope", "latent"), most, include_sinks)
    return complete(with_token(types, vocabulary), TOP_TOKENS_SCHEMA)
