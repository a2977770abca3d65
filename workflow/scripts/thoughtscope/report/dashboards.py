"""Room 9, report: the tables behind the dashboards of a site's leading latents, over all traces.

They hold what SAEDashboard and Neuronpedia show of a latent: where it is most active and where less so, how its
activations are distributed, in which traces it recurs, and which latents are active with it. All are about generated
tokens that were read; sink tokens count only where `include_sinks` says so. Rows are by latent, then by condition in
the order given; ties are broken by the smaller trace, position or latent.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ..evidence.controls import token_counts
from ..evidence.verdict import leading
from ..frames import complete
from ..statistics import MIN_TOKENS, Floats

BEFORE = 16
"""Tokens of a passage before its peak."""

AFTER = 8
"""Tokens of a passage after its peak."""

TOP = 8
"""Passages of the band `top`."""

PER_BAND = 4
"""Passages of each other band."""

BANDS = ("top", "q4", "q3", "q2", "q1")
"""Where passages are from: the largest activations, then the quarters of all activations, the highest first."""


def tables(
    activations: pl.LazyFrame,
    features: pl.LazyFrame,
    traces: pl.LazyFrame,
    sinks: pl.LazyFrame,
    verdict: pl.LazyFrame,
    *,
    conditions: Sequence[str],
    latents: int,
    include_sinks: bool,
) -> dict[str, pl.DataFrame]:
    """Return the dashboards' tables of the `latents` leading latents; the first condition is the one under study."""
    leaders = leading(verdict.collect(), latents)["latent"].to_list()
    chosen: dict[str, Any] = {"latents": leaders, "include_sinks": include_sinks}
    studied = conditions[0]
    return {
        "passages": passages(activations, traces, condition=studied, **chosen),
        "histograms": latent_histograms(activations, traces, sinks, conditions=conditions, **chosen),
        "strips": strips(features, conditions=conditions, **chosen),
        "coactivation": coactivation(activations, traces, sinks, condition=studied, **chosen),
    }


PASSAGES_SCHEMA: dict[str, Any] = {
    "latent": pl.UInt32,
    "band": pl.Enum(BANDS),
    "rank": pl.UInt32,
    "condition": pl.String,
    "trace_id": pl.UInt32,
    "peak": pl.UInt32,
    "start": pl.UInt32,
    "activation": pl.Float32,
    "token_ids": pl.List(pl.UInt32),
    "values": pl.List(pl.Float32),
}


def _counted(include_sinks: bool) -> pl.Expr:
    """Return whether a row is about generated tokens that count."""
    written = pl.col("segment") != "prompt"
    return written if include_sinks else written & ~pl.col("sink")


def passages(
    activations: pl.LazyFrame,
    traces: pl.LazyFrame,
    *,
    latents: Sequence[int],
    condition: str,
    include_sinks: bool,
    seed: int = 0,
) -> pl.DataFrame:
    """Return where each latent is most active under a condition, and where it is less so, in PASSAGES_SCHEMA.

    A passage is the tokens from BEFORE before its peak to AFTER behind it, cut at the trace's ends; the context may
    reach into the prompt, only the peak must count. Columns:

    - band, rank: `top`, the TOP traces with the largest maximum, each with the passage of that maximum; then up to
      PER_BAND passages of each quarter of the latent's activations, drawn at random. Ranks are by falling activation
    - condition, trace_id, peak and start (positions of the peak and of the first token shown), activation (at the peak)
    - token_ids; values: the latent's activation on each of these, sinks too, 0 where it isn't active, null on the
      trace's last token, which was never read

    The quarters are cut at the quartiles of its activations, interpolated linearly; a value on a cut belongs to the
    quarter above. So equal values are all in `q4`, and with few or equal values quarters may be empty. Tokens are drawn
    for each seed, latent and quarter by itself, whatever other latents are asked for: first from traces that the
    quarter has no passage of yet, then such that no token is shown again; what meets neither is drawn only if nothing
    else is left.
    """
    studied = pl.col("condition") == condition
    joined = pl.concat_list("prompt_ids", "generated_ids")
    ids_of = dict(traces.filter(studied).select("trace_id", joined).collect().iter_rows())
    active = (
        activations.filter(studied, pl.col("latent").is_in(list(latents)))
        .select("latent", "trace_id", "position", "activation", counted=_counted(include_sinks))
        .sort("latent", "trace_id", "position")
        .collect()
    )
    rows = []
    for (latent,), mine in active.group_by("latent", maintain_order=True):
        peaks = mine.filter("counted")
        for band, chosen in _peaks(peaks, ids_of, int(latent), seed).items():
            for rank, (trace_id, peak, value) in enumerate(peaks[chosen].select(PEAK).iter_rows(), 1):
                ids = ids_of[trace_id]
                start, end = max(0, peak - BEFORE), min(len(ids), peak + AFTER + 1)
                values: list[float | None] = [0.0] * (end - start)
                shown = mine.filter(pl.col("trace_id") == trace_id, pl.col("position").is_between(start, end - 1))
                for position, activation in shown.select("position", "activation").iter_rows():
                    values[position - start] = activation
                if end == len(ids):
                    values[-1] = None
                rows.append((latent, band, rank, condition, trace_id, peak, start, value, ids[start:end], values))
    return pl.DataFrame(rows, schema=PASSAGES_SCHEMA, orient="row")


PEAK = ("trace_id", "position", "activation")


def _peaks(peaks: pl.DataFrame, ids_of: dict[int, list[int]], latent: int, seed: int) -> dict[str, list[int]]:
    """Return the rows of one latent's peaks that are shown, by band; `peaks` is sorted by trace and position."""
    if peaks.is_empty():
        return {}
    trace, position = (peaks[name].to_numpy().astype(np.int64) for name in PEAK[:2])
    value = peaks["activation"].to_numpy().astype(np.float64)
    length = np.array([len(ids_of[trace_id]) for trace_id in peaks["trace_id"]])
    start, end = np.maximum(position - BEFORE, 0), np.minimum(position + AFTER + 1, length)
    # A stable order: of equal values the one of the smaller trace and position is first.
    falling = np.argsort(-value, kind="stable")
    firsts = np.sort(np.unique(trace[falling], return_index=True)[1])
    chosen: dict[str, list[int]] = {"top": falling[firsts[:TOP]].tolist()}
    overlaps = np.zeros(len(value), dtype=bool)

    def show(row: int) -> None:
        overlaps[(trace == trace[row]) & (start < end[row]) & (start[row] < end)] = True

    for row in chosen["top"]:
        show(row)
    quarter = np.searchsorted(np.quantile(value, (0.25, 0.5, 0.75)), value, side="right")  # 0 to 3
    for number, band in zip((3, 2, 1, 0), BANDS[1:], strict=True):
        left = np.random.default_rng([seed, latent, number]).permutation(np.flatnonzero(quarter == number))
        drawn: list[int] = []
        while len(drawn) < PER_BAND and len(left):
            row = left[np.argmin(2 * np.isin(trace[left], trace[drawn]) + overlaps[left])]
            show(row)
            drawn.append(int(row))
            left = left[left != row]
        chosen[band] = sorted(drawn, key=lambda row: (-value[row], row))
    return chosen


HISTOGRAMS_SCHEMA: dict[str, Any] = {
    "latent": pl.UInt32,
    "condition": pl.String,
    "tokens_active": pl.UInt32,
    "tokens": pl.UInt32,
    "largest": pl.Float32,
    "counts": pl.List(pl.UInt32),
    "quartiles": pl.List(pl.Float32),
}


def latent_histograms(
    activations: pl.LazyFrame,
    traces: pl.LazyFrame,
    sinks: pl.LazyFrame,
    *,
    latents: Sequence[int],
    conditions: Sequence[str],
    include_sinks: bool,
    bins: int = 30,
) -> pl.DataFrame:
    """Return the histogram of each latent's activations under each condition, in HISTOGRAMS_SCHEMA.

    A row for every latent and condition, active or not. Columns: tokens_active; tokens (that count, active or not);
    largest (activation under any of the conditions; 0 if it is never active); counts, of `bins` equal bins from 0 to
    the largest, which belongs to the last; quartiles of its activations under the condition, interpolated linearly,
    after the least and before the largest: five numbers, none if it is never active there.
    """
    chosen = pl.col("condition").is_in(list(conditions)), pl.col("latent").is_in(list(latents))
    values = (
        activations.filter(_counted(include_sinks), *chosen)
        .select("latent", "condition", pl.col("activation").cast(pl.Float64))
        .collect(engine="streaming")
        .with_columns(largest=pl.col("activation").max().over("latent"))
    )
    found = (
        values.with_columns(bin=(pl.col("activation") / pl.col("largest") * bins).floor().clip(0, bins - 1))
        .group_by("latent", "condition", pl.col("bin").cast(pl.UInt32), "largest")
        .agg(tokens=pl.len())
    )
    cuts = [pl.col("activation").quantile(share, "linear") for share in (0.0, 0.25, 0.5, 0.75, 1.0)]
    per_condition = values.group_by("latent", "condition").agg(cuts=pl.concat_list(cuts))
    quartiles = {(latent, condition): row for latent, condition, row in per_condition.iter_rows()}
    largest = dict(found.select("latent", "largest").iter_rows())
    counts = {(latent, condition): [0] * bins for latent in sorted(latents) for condition in conditions}
    for latent, condition, index, tokens in found.select("latent", "condition", "bin", "tokens").iter_rows():
        counts[latent, condition][index] = tokens
    read = _tokens(traces, sinks, include_sinks)
    rows = [
        (*key, sum(count), read.get(key[1], 0), largest.get(key[0], 0.0), count, quartiles.get(key, []))
        for key, count in counts.items()
    ]
    return pl.DataFrame(rows, schema=HISTOGRAMS_SCHEMA, orient="row")


def _tokens(traces: pl.LazyFrame, sinks: pl.LazyFrame, include_sinks: bool) -> dict[str, int]:
    """Return how many generated tokens of each condition count."""
    counts = token_counts(traces, sinks, include_sinks).filter(pl.col("segment") != "prompt")
    return dict(counts.group_by("condition").agg(pl.col("tokens").sum()).iter_rows())


STRIPS_SCHEMA: dict[str, Any] = {
    "latent": pl.UInt32,
    "condition": pl.String,
    "trace_id": pl.UInt32,
    "rank": pl.UInt32,
    "max": pl.Float32,
    "tokens": pl.UInt32,
}


def strips(
    features: pl.LazyFrame, *, latents: Sequence[int], conditions: Sequence[str], include_sinks: bool
) -> pl.DataFrame:
    """Return each latent's place in every trace in which it is active, in STRIPS_SCHEMA.

    Columns: rank (among all latents of the trace, by maximum activation, ties by the smaller latent: as in
    `evidence.relevant_latents`, without its limit), max (its maximum), tokens (it is active on).
    """
    trace = ["condition", "trace_id"]
    return (
        features.filter(_counted(include_sinks), pl.col("condition").is_in(list(conditions)))
        .group_by(*trace, "latent")
        .agg(pl.col("max").max(), pl.col("tokens").sum())
        .sort(*trace, "max", "latent", descending=[False, False, True, False])
        .with_columns(rank=pl.int_range(1, pl.len() + 1, dtype=pl.UInt32).over(trace))
        .filter(pl.col("latent").is_in(list(latents)))
        .sort("latent", pl.col("condition").cast(pl.Enum(list(conditions))), "trace_id")
        .select(*STRIPS_SCHEMA)
        .cast(STRIPS_SCHEMA)  # type: ignore[arg-type]
        .collect()
    )


COACTIVATION_SCHEMA: dict[str, Any] = {
    "latent": pl.UInt32,
    "rank": pl.UInt32,
    "neighbour": pl.UInt32,
    "phi": pl.Float32,
    "both": pl.UInt32,
    "tokens": pl.UInt32,
}


def coactivation(
    activations: pl.LazyFrame,
    traces: pl.LazyFrame,
    sinks: pl.LazyFrame,
    *,
    latents: Sequence[int],
    condition: str,
    include_sinks: bool,
    most: int = 10,
) -> pl.DataFrame:
    """Return the `most` latents nearest to each latent by co-activation under a condition, in COACTIVATION_SCHEMA.

    Columns: rank (by falling phi), neighbour; both (tokens both are active on), tokens (the neighbour is active on);
    phi (Yule 1912), the Pearson correlation, over the tokens that count, of whether the one and the other is active: of
    n tokens, the latent is active on a, the neighbour on b and both on c, and

        phi = (n c - a b) / sqrt(a (n - a) b (n - b))

    Left out are the latent itself, neighbours active on fewer than MIN_TOKENS tokens, and what is active on all tokens:
    where the root is 0, there is no correlation.
    """
    rows = (
        activations.filter(pl.col("condition") == condition, _counted(include_sinks))
        .select("trace_id", "position", "latent")
        .collect()
    )
    total = _tokens(traces, sinks, include_sinks).get(condition, 0)
    active, token = rows["latent"].to_numpy(), _token(rows)
    tokens = np.bincount(active)
    known = np.flatnonzero((tokens >= MIN_TOKENS) & (tokens < total))
    with_it = np.zeros(token.max(initial=-1) + 1, dtype=bool)
    found = []
    for latent in sorted(latents):
        mine = token[active == latent]
        if not 0 < len(mine) < total:
            continue
        with_it[mine] = True
        both = np.bincount(active[with_it[token]], minlength=len(tokens))
        with_it[mine] = False
        others = known[known != latent]
        phi = _phi(total, len(mine), tokens[others], both[others])
        nearest = np.argsort(-phi, kind="stable")[:most]
        names = others[nearest]
        columns = {"neighbour": names, "phi": phi[nearest], "both": both[names], "tokens": tokens[names]}
        found.append(pl.DataFrame({"rank": np.arange(1, len(names) + 1)} | columns).with_columns(latent=latent))
    return pl.concat(complete(part, COACTIVATION_SCHEMA) for part in [pl.DataFrame(), *found])


def _token(rows: pl.DataFrame) -> NDArray[np.int64]:
    """Return a number for the token of each row (trace_id, position), the same for rows of the same token."""
    _, trace = np.unique(rows["trace_id"].to_numpy(), return_inverse=True)
    position = rows["position"].to_numpy().astype(np.int64)
    return trace * (position.max(initial=0) + 1) + position


def _phi(n: int, a: int, b: NDArray[np.int64], c: NDArray[np.int64]) -> Floats:
    # The root factor by factor: the product of all four may not fit 64 bits.
    return (n * c - a * b) / (np.sqrt(a * (n - a)) * np.sqrt(b * (n - b)))
