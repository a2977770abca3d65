"""Room 9, report: the tables behind the dashboards of a site's leading latents, over all traces.

They hold what SAEDashboard and Neuronpedia show of a latent: where it is most active and where less so, how its
activations are distributed, in which traces it recurs, and which latents are active with it. All are about generated
tokens that were read; sink tokens count only where `include_sinks` says so. Rows are by latent, then by condition in
the order given; ties are broken by the smaller trace, position or latent.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ..evidence.controls import token_counts
from ..evidence.verdict import leading
from ..frames import ROWS_AT_ONCE, Schema, complete, keys
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


PASSAGES_SCHEMA = Schema(
    f"a passage of a leading latent: the tokens from {BEFORE} before its peak to {AFTER} behind it, cut at the trace's"
    " ends; by latent, band and rank",
    **keys("latent"),
    band=(
        pl.Enum(BANDS),
        f"`top`: the {TOP} traces with the largest maximum, each with the passage of that; else the quarter of its"
        f" activations, from the highest (q4) to the lowest, of which up to {PER_BAND} passages are drawn",
    ),
    rank=(pl.UInt32, "from 1 within the band, by falling activation"),
    **keys("condition", "trace_id"),
    peak=(pl.UInt32, "position of the peak"),
    start=(pl.UInt32, "position of the first token shown"),
    activation=(pl.Float32, "at the peak"),
    token_ids=(pl.List(pl.UInt32), "the tokens shown, also those of the prompt"),
    values=(
        pl.List(pl.Float32),
        "its activation on each, sinks too: 0 where it isn't active, null on the trace's last token, which wasn't read",
    ),
)


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

    The context of a peak may reach into the prompt, only the peak must count.

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
    for (latent,), of_latent in active.group_by("latent", maintain_order=True):
        peaks = of_latent.filter("counted")
        for band, chosen in _peaks(peaks, ids_of, int(latent), seed).items():
            for rank, (trace_id, peak, value) in enumerate(peaks[chosen].select(PEAK).iter_rows(), 1):
                ids = ids_of[trace_id]
                start, end = max(0, peak - BEFORE), min(len(ids), peak + AFTER + 1)
                values: list[float | None] = [0.0] * (end - start)
                shown = of_latent.filter(pl.col("trace_id") == trace_id, pl.col("position").is_between(start, end - 1))
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


LATENT_HISTOGRAMS_SCHEMA = Schema(
    "a leading latent and condition, active or not",
    **keys("latent", "condition"),
    tokens_active=(pl.UInt32, "tokens it is active on"),
    tokens=(pl.UInt32, "tokens that count"),
    largest=(pl.Float32, "its largest activation under any of the conditions; 0 if it is never active"),
    counts=(pl.List(pl.UInt32), "tokens in each of equal bins from 0 to the largest, which belongs to the last"),
    quartiles=(
        pl.List(pl.Float32),
        "of its activations under the condition: least, three quartiles, interpolated linearly, and largest; none if it"
        " isn't active",
    ),
)


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
    """Return the histogram of each latent's activations under each condition, in LATENT_HISTOGRAMS_SCHEMA."""
    chosen = pl.col("condition").is_in(list(conditions)), pl.col("latent").is_in(list(latents))
    values = (
        activations.filter(_counted(include_sinks), *chosen)
        .select("latent", "condition", pl.col("activation").cast(pl.Float64))
        .collect(engine="streaming")
        .with_columns(largest=pl.col("activation").max().over("latent"))
    )
    bin_counts = (
        values.with_columns(bin=(pl.col("activation") / pl.col("largest") * bins).floor().clip(0, bins - 1))
        .group_by("latent", "condition", pl.col("bin").cast(pl.UInt32), "largest")
        .agg(tokens=pl.len())
    )
    cuts = [pl.col("activation").quantile(share, "linear") for share in (0.0, 0.25, 0.5, 0.75, 1.0)]
    per_condition = values.group_by("latent", "condition").agg(cuts=pl.concat_list(cuts))
    quartiles = {(latent, condition): row for latent, condition, row in per_condition.iter_rows()}
    largest = dict(bin_counts.select("latent", "largest").iter_rows())
    counts = {(latent, condition): [0] * bins for latent in sorted(latents) for condition in conditions}
    for latent, condition, index, tokens in bin_counts.select("latent", "condition", "bin", "tokens").iter_rows():
        counts[latent, condition][index] = tokens
    read = _tokens(traces, sinks, include_sinks)
    rows = [
        (*key, sum(count), read.get(key[1], 0), largest.get(key[0], 0.0), count, quartiles.get(key, []))
        for key, count in counts.items()
    ]
    return pl.DataFrame(rows, schema=LATENT_HISTOGRAMS_SCHEMA, orient="row")


def _tokens(traces: pl.LazyFrame, sinks: pl.LazyFrame, include_sinks: bool) -> dict[str, int]:
    """Return how many generated tokens of each condition count."""
    counts = token_counts(traces, sinks, include_sinks).filter(pl.col("segment") != "prompt")
    return dict(counts.group_by("condition").agg(pl.col("tokens").sum()).iter_rows())


STRIPS_SCHEMA = Schema(
    "a leading latent and a trace in which it is active",
    **keys("latent", "condition", "trace_id"),
    rank=(pl.UInt32, "among all latents of the trace, from 1, by falling maximum; of equal ones the smaller first"),
    max=(pl.Float32, "its maximum there"),
    tokens=(pl.UInt32, "tokens it is active on"),
)


def strips(
    features: pl.LazyFrame, *, latents: Sequence[int], conditions: Sequence[str], include_sinks: bool
) -> pl.DataFrame:
    """Return each latent's place in every trace in which it is active, in STRIPS_SCHEMA.

    Ranks are those of `recurrence.relevant_latents`, without its limit.
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


COACTIVATION_SCHEMA = Schema(
    "a leading latent and rank",
    **keys("latent"),
    rank=(pl.UInt32, "from 1, by falling phi; of equal ones the smaller latent first"),
    neighbour=(pl.UInt32, "the other latent, of all the SAE's"),
    phi=(pl.Float32, "correlation, over the tokens that count, of the one's and the other's being active"),
    both=(pl.UInt32, "tokens both are active on"),
    tokens=(pl.UInt32, "tokens the neighbour is active on"),
)


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

    phi (Yule 1912) is the Pearson correlation of being active: of n tokens, the latent is active on a, the neighbour on
    b and both on c, and

        phi = (n c - a b) / sqrt(a (n - a) b (n - b))

    Left out are the latent itself, neighbours active on fewer than MIN_TOKENS tokens, and what is active on all tokens:
    where the root is 0, there is no correlation.
    """
    studied = activations.filter(pl.col("condition") == condition, _counted(include_sinks))
    size, largest = studied.select(pl.len(), pl.col("latent").max()).collect().row(0)
    width, leaders, parts = (
        0 if largest is None else largest + 1,
        sorted(latents),
        max(1, math.ceil(size / ROWS_AT_ONCE)),
    )
    tokens, both = np.zeros(width, dtype=np.int64), np.zeros((len(leaders), width), dtype=np.int64)
    for part in range(parts):  # by traces: the counts of all add up
        rows = studied.filter(pl.col("trace_id") % parts == part).select("trace_id", "position", "latent").collect()
        active, token = rows["latent"].to_numpy(), _token(rows)
        tokens += np.bincount(active, minlength=width)
        with_it = np.zeros(token.max(initial=-1) + 1, dtype=bool)
        for place, latent in enumerate(leaders):
            with_it[token[active == latent]] = True
            both[place] += np.bincount(active[with_it[token]], minlength=width)
            with_it[:] = False
    total = _tokens(traces, sinks, include_sinks).get(condition, 0)
    known = np.flatnonzero((tokens >= MIN_TOKENS) & (tokens < total))
    tables = [pl.DataFrame(schema=COACTIVATION_SCHEMA)]
    for latent, together in zip(leaders, both, strict=True):
        if latent >= width or not 0 < tokens[latent] < total:
            continue
        others = known[known != latent]
        phi = _phi(total, int(tokens[latent]), tokens[others], together[others])
        nearest = np.argsort(-phi, kind="stable")[:most]
        names = others[nearest]
        columns = {"neighbour": names, "phi": phi[nearest], "both": together[names], "tokens": tokens[names]}
        table = pl.DataFrame({"rank": np.arange(1, len(names) + 1)} | columns).with_columns(latent=latent)
        tables.append(complete(table, COACTIVATION_SCHEMA))
    return pl.concat(tables)


def _token(rows: pl.DataFrame) -> NDArray[np.int64]:
    """Return a number for the token of each row (trace_id, position), the same for rows of the same token."""
    _, trace = np.unique(rows["trace_id"].to_numpy(), return_inverse=True)
    position = rows["position"].to_numpy().astype(np.int64)
    return trace * (position.max(initial=0) + 1) + position


def _phi(n: int, a: int, b: NDArray[np.int64], c: NDArray[np.int64]) -> Floats:
    # The root factor by factor: the product of all four may not fit 64 bits.
    return (n * c - a * b) / (np.sqrt(a * (n - a)) * np.sqrt(b * (n - b)))
