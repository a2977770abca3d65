"""Room 6, evidence: which latents are judged."""

import numpy as np
import polars as pl

from ..frames import Schema, complete, keys
from ..statistics import share_over_traces

SCHEMA = Schema(
    "a latent that is judged: it recurs under the condition under study by the original study's count, sinks counted as"
    " configured or all of them (see `controls`), or it is linked to a pattern",
    **keys("latent"),
    recurs=(pl.Boolean, "whether it recurs"),
    original=(pl.Boolean, "whether it does with sinks counted, so that the original study would call it a feature"),
    traces=(pl.UInt32, "traces it is among the top of, under the condition under study"),
    of=(pl.UInt32, "traces of that condition"),
    sink_traces=(pl.UInt32, "traces in which it is active on a sink"),
    sink_share=(pl.Float64, "share of its activation on that condition's generated tokens that is on sinks"),
    sink_low=(pl.Float64, "95 % interval of that over traces (Hall 1992): lower end"),
    sink_high=(pl.Float64, "95 % interval of that: upper end"),
)


def candidates(
    features: pl.LazyFrame,
    controls: pl.LazyFrame,
    relevant: pl.LazyFrame,
    headline: pl.LazyFrame,
    *,
    site: str,
    condition: str,
    min_traces: int,
    alpha: float,
    max_sink_share: float,
) -> pl.DataFrame:
    """Return the latents that are judged, with what share of each is on sinks.

    Besides those that recur: latents linked to a pattern (q below `alpha`), or by less, with a p below `alpha` of
    not being thinking patterns. The family of `headline` counts every latent that could have been one of them.
    """
    compared = controls.group_by("latent").agg(pl.col("traces_with_sinks").first())
    among = (
        relevant.filter(pl.col("condition") == condition, pl.col("scope") == "generated")
        .group_by("latent")
        .agg(traces=pl.len())
        .join(compared, on="latent", how="full", coalesce=True)
    )
    apart = (pl.col("q_link") < alpha) | (pl.col("p") < alpha)
    linked = headline.filter(pl.col("site") == site, apart).select("latent").collect()
    table = (
        pl.concat([compared.select("latent"), linked.lazy()]).unique().join(among, on="latent", how="left").collect()
    )
    studied = features.filter(pl.col("condition") == condition, pl.col("segment") != "prompt")
    count = studied.select(pl.col("trace_id").n_unique()).collect(engine="streaming").item()
    shares = _sink_shares(studied, table["latent"].to_list(), max_sink_share)
    enough = pl.col("traces") >= min_traces, pl.col("traces_with_sinks") >= min_traces
    table = table.join(shares, on="latent", how="left").with_columns(
        of=count, original=enough[1].fill_null(value=False), recurs=(enough[0] | enough[1]).fill_null(value=False)
    )
    table = table.filter(pl.col("recurs") | pl.col("latent").is_in(linked["latent"].to_list()))
    return complete(table.with_columns(pl.col("traces").fill_null(0)), SCHEMA).sort("latent")


def _sink_shares(features: pl.LazyFrame, latents: list[int], margin: float) -> pl.DataFrame:
    """Return what share of latents' activation is on sinks."""
    sums = (
        features.filter(pl.col("latent").is_in(latents))
        .group_by("latent", "trace_id")
        .agg(on=pl.col("sum").filter("sink").sum(), all=pl.col("sum").sum())
        .collect(engine="streaming")
    )
    traces, rows = np.unique(sums["trace_id"].to_numpy(), return_inverse=True)
    active, columns = np.unique(sums["latent"].to_numpy(), return_inverse=True)
    on, whole = np.zeros((2, len(traces), len(active)))
    on[rows, columns], whole[rows, columns] = sums["on"].to_numpy(), sums["all"].to_numpy()
    share = share_over_traces(on, whole, margin)
    on_sinks = (on > 0).sum(axis=0)
    value = on.sum(axis=0) / np.maximum(whole.sum(axis=0), 1e-300)
    names = {
        "latent": active,
        "sink_traces": on_sinks,
        "sink_share": value,
        "sink_low": share.low,
        "sink_high": share.high,
    }
    return pl.DataFrame(names, schema_overrides={"latent": pl.UInt32})
