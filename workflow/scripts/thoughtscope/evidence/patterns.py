"""Room 6, evidence: which thinking patterns a latent responds to."""

import json

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ..frames import Schema, complete, keys, latents_of, with_q
from ..statistics import Floats, percentiles, resamples
from .windows import Activations, Integers, enough_shifts, lay_out, shift_p

SCHEMA = Schema(
    "a candidate latent and pattern; all numbers are over the traces with tokens inside and outside its windows (none:"
    " no number), means and rates over tokens first, then over traces",
    **keys("latent"),
    pattern=(pl.String, "the pattern"),
    traces=(pl.UInt32, "these traces"),
    active_traces=(pl.UInt32, "those of them in which the latent is active at all"),
    active_tokens=(pl.UInt32, "tokens it is active on"),
    tokens_inside=(pl.UInt32, "tokens inside the windows"),
    rate_inside=(pl.Float64, "share of the tokens inside that it is active on"),
    rate_outside=(pl.Float64, "share of the tokens outside that it is active on"),
    mean_inside=(pl.Float64, "its mean activation inside, zeros included"),
    mean_outside=(pl.Float64, "its mean activation outside, zeros included"),
    difference=(pl.Float64, "mean_inside - mean_outside"),
    low=(pl.Float64, "95 % bootstrap interval of that over traces: lower end"),
    high=(pl.Float64, "95 % bootstrap interval of that over traces: upper end"),
    p=(pl.Float64, "one-sided, from circular shifts of the windows within segments"),
    q=(pl.Float64, "Benjamini-Hochberg q over the family"),
    shifts=(
        pl.UInt32,
        "shifts seen: at most `analysis.shifts`, or as many more as let a single latent reach q < alpha",
    ),
    family=(pl.String, "the tests that q is over"),
    note=(pl.String, "why there is no number"),
)


def pattern_tests(
    activations: pl.LazyFrame,
    traces: pl.LazyFrame,
    matches: pl.LazyFrame,
    candidates: pl.LazyFrame,
    *,
    patterns: str,
    condition: str,
    window_before: int,
    window_after: int,
    shifts: int,
    alpha: float,
    include_sinks: bool,
) -> pl.DataFrame:
    """Compare each candidate latent's activation inside and outside each pattern's windows (see `windows`).

    patterns: the config's section as JSON, of which the names count; window_before, window_after: tokens around a
    match that belong to its window.
    """
    names, latents = sorted(json.loads(patterns)), latents_of(candidates)
    layout = lay_out(activations, traces, condition, include_sinks)
    places = matches.filter(pl.col("kind") == "pattern", pl.col("condition") == condition).collect()
    masks = {name: layout.windows(places.filter(pl.col("name") == name), window_before, window_after) for name in names}
    sizes = {name: layout.per_trace(mask.astype(float)) for name, mask in masks.items()}
    testable = [name for name in names if ((sizes[name] > 0) & (sizes[name] < layout.lengths)).any()]
    most_shifts = enough_shifts(shifts, len(testable) * len(latents), alpha)
    frames = [pl.DataFrame(schema=SCHEMA)]
    for part in layout.parts(latents):
        for number, name in enumerate(names):
            table = pl.DataFrame({"latent": part.latents, "pattern": name}, schema_overrides={"latent": pl.UInt32})
            if name in testable:
                table = table.with_columns(**_compare(part, masks[name], most_shifts, seed=number))
            else:
                note = "all tokens are inside its windows" if masks[name].any() else "in no trace"
                table = table.with_columns(traces=0, note=pl.lit(note))
            frames.append(complete(table, SCHEMA))
    family = f"{len(latents) * len(testable)} tests: recurring latents x patterns that occur"
    return with_q(pl.concat(frames)).with_columns(family=pl.lit(family)).sort("latent", "pattern")


def _compare(part: Activations, mask: NDArray[np.bool_], shifts: int, seed: int) -> dict[str, Floats | Integers | int]:
    """Return the columns of SCHEMA that are numbers, for the windows `mask` (tokens,)."""
    layout = part.layout
    inside = np.bincount(layout.trace[mask], minlength=len(layout.trace_ids))
    outside = layout.lengths - inside
    tested = (inside > 0) & (outside > 0)
    count = int(tested.sum())
    per_inside = np.where(tested, 1 / np.maximum(inside, 1), 0.0)
    per_outside = np.where(tested, 1 / np.maximum(outside, 1), 0.0)
    weights_inside, weights_outside = mask * per_inside[layout.trace], (~mask) * per_outside[layout.trace]
    means_inside, means_outside = (part.per_trace(weights)[tested] for weights in (weights_inside, weights_outside))
    differences = means_inside - means_outside
    scale = means_inside.mean(axis=0) + means_outside.mean(axis=0)
    # What rounding leaves of two equal means is no difference.
    observed = np.where(np.abs(differences.mean(axis=0)) > 1e-12 * scale, differences.mean(axis=0), 0.0)
    # mean inside - mean outside = Σ_inside a (1/inside + 1/outside) - Σ a / outside, linear in what is inside.
    weight = mask * (per_inside + per_outside)[layout.trace] / count
    constant = part.per_trace(per_outside[layout.trace]).sum(axis=0) / count

    def under_shifts(drawn: Integers, columns: Integers) -> Floats:
        return part.shifted_sums(weight, drawn, columns) - constant[columns]

    chance = shift_p(layout.run_lengths, observed, scale + constant, under_shifts, shifts, seed)
    low, high = percentiles(resamples(count) @ differences / count)
    on = part.switched_on
    active = on.per_trace(tested[layout.trace].astype(float))
    return {
        "traces": count, "active_traces": (active > 0).sum(axis=0), "active_tokens": active.sum(axis=0),
        "tokens_inside": int(inside[tested].sum()), "rate_inside": on.per_trace(weights_inside)[tested].mean(axis=0),
        "rate_outside": on.per_trace(weights_outside)[tested].mean(axis=0), "mean_inside": means_inside.mean(axis=0),
        "mean_outside": means_outside.mean(axis=0), "difference": observed, "low": low, "high": high, "p": chance.p,
        "shifts": chance.shifts,
    }  # fmt: skip
