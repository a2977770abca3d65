"""Room 6, evidence: which thinking patterns a latent leads to, goes with, or is the word of."""

import json
from typing import Any

import numpy as np
import polars as pl

from ..frames import Schema, complete, keys
from ..statistics import MIN_TOKENS, MIN_TRACES, Floats, share_over_traces
from .alike import alike
from .links import RANKED, WINDOWS
from .windows import Layout, lay_out, testable

SCHEMA = Schema(
    f"a latent (active on {MIN_TOKENS} tokens and in {MIN_TRACES} traces at least), pattern and window: up to"
    " `analysis.tokens_before` tokens before its words, they themselves, up to `tokens_after` after them, within the"
    " segment",
    **keys("latent"),
    pattern=(pl.String, "the pattern"),
    window=(pl.Enum(list(WINDOWS)), "; ".join(f"`{name}`: {words}" for name, words in WINDOWS.items())),
    traces=(pl.UInt32, "traces with the window"),
    active_traces=(pl.UInt32, "traces in which the latent is active"),
    tokens_inside=(pl.UInt32, "tokens inside"),
    mean_inside=(pl.Float64, "its mean activation inside, zeros included"),
    mean_alike=(pl.Float64, "what it would be there by which tokens these are and where they stand (see `alike`)"),
    share=(pl.Float64, "selectivity: share of its activation that is inside beyond that, mean_inside - mean_alike times"
                       " tokens_inside over the sum of all its activation"),
    low=(pl.Float64, "95 % interval of the share over traces (Hall 1992): lower end"),
    high=(pl.Float64, "95 % interval of the share: upper end"),
    p=(pl.Float64, "one-sided, of a share of `analysis.min_share` or less"),
    rank=(pl.Float64, f"share of the tested latents with no larger share in this window; null below {RANKED} of them"),
    told_apart=(pl.Float64, "share of the window's variance within segments that its place there doesn't explain"),
    note=(pl.String, "why there is no number"),
)  # fmt: skip


def pattern_tests(
    activations: pl.LazyFrame,
    traces: pl.LazyFrame,
    matches: pl.LazyFrame,
    vocabulary: pl.LazyFrame,
    *,
    patterns: str,
    condition: str,
    tokens_before: int,
    tokens_after: int,
    min_share: float,
    include_sinks: bool,
) -> pl.DataFrame:
    """Compare each latent's activation before, in and after each pattern's words with what it is on tokens alike.

    patterns: the config's section as JSON, of which the names count. All latents that can be tested are. Where matches
    have a `probability`, their windows count as much, the most probable of several.
    """
    layout = lay_out(activations, traces, condition, include_sinks)
    places = matches.filter(pl.col("kind") == "pattern", pl.col("condition") == condition).collect()
    names: list[tuple[str, str]] = []
    masks: list[Floats] = []
    _, any_word, _ = layout.beside(places, 0, 0)
    for name in sorted(json.loads(patterns)):
        before, at, after = _windows(layout, places.filter(pl.col("name") == name), tokens_before, tokens_after)
        names += [(name, window) for window in WINDOWS]
        # A word of one pattern may stand beside those of another: what is active on it is of the word, too.
        masks += [before * ~any_word, at, after * ~any_word]
    latents = testable(layout)
    if not latents or not names:
        return pl.DataFrame(schema=SCHEMA)
    windows = np.array(masks).T
    inside = np.array([layout.per_trace(mask) for mask in masks])  # (windows, traces)
    traces_with, tokens_inside = (inside > 0).sum(axis=1), inside.sum(axis=1)
    able = np.flatnonzero(traces_with >= MIN_TRACES)
    # On its own words, whatever a latent does there must not move what it is expected to do beside them.
    on_words = np.array([window == "at" for _, window in names])
    tokens = alike(layout, vocabulary)
    groups = [(tokens, able[on_words[able]]), (tokens.aside(windows[:, on_words]), able[~on_words[able]])]
    left: dict[int, tuple[Floats, float]] = {}
    for known, chosen in groups:
        if len(chosen):
            rest, apart = known.left(windows[:, chosen]), known.told_apart(windows[:, chosen])
            left |= {index: (rest[:, column], float(apart[column])) for column, index in enumerate(chosen.tolist())}
    frames = []
    for part in layout.parts(latents):
        of_trace = part.per_trace(np.ones(len(layout.trace)))  # activation, (traces, latents)
        active = (of_trace > 0).sum(axis=0)
        sums_inside = np.asarray(part.values.T @ windows)  # (latents, windows)
        scores: dict[int, Floats] = {}
        for known, chosen in groups:
            rests = [left[index][0] for index in chosen.tolist()]
            scores |= dict(zip(chosen.tolist(), known.scores(part, rests), strict=True))
        for index, (name, window) in enumerate(names):
            row: dict[str, Any] = {"latent": part.latents, "pattern": name, "window": window}
            row |= {"traces": traces_with[index], "tokens_inside": int(tokens_inside[index]), "active_traces": active}
            if index not in scores:
                row["note"] = f"in {traces_with[index]} traces; {MIN_TRACES} are needed"
            elif (spread := float(np.square(left[index][0]).sum())) < 1:
                row["note"] = "its windows are where such tokens always are"
            else:
                row["mean_inside"] = sums_inside[:, index] / tokens_inside[index]
                row["told_apart"] = left[index][1]
                more = scores[index] * (tokens_inside[index] / spread)
                share = share_over_traces(more, of_trace, min_share)
                row |= {"share": share.value, "low": share.low, "high": share.high}
                row["p"] = np.maximum(share.p, 0.5**active)  # a sign test's, of the traces that say anything
                row["mean_alike"] = row["mean_inside"] - more.sum(axis=0) / tokens_inside[index]
            frames.append(complete(pl.DataFrame(row), SCHEMA))
    table = pl.concat(frames)
    if len(latents) >= RANKED:
        rank = pl.col("share").rank("max").over("pattern", "window") / pl.col("share").count().over("pattern", "window")
        table = table.with_columns(rank=rank)
    return table.sort("latent", "pattern", "window")


LEVELS = 20
"""Steps to which the weights of matches are rounded, upwards."""


def _windows(layout: Layout, places: pl.DataFrame, before: int, after: int) -> tuple[Floats, Floats, Floats]:
    """Return how much each token is before, in and after matches, (tokens,): 0 or 1.

    With probabilities, before and after are these, of the likeliest match, for each of the most probable's: only how
    they compare matters to what is made of them.
    """
    if "probability" not in places.columns:
        earlier, at, later = (mask.astype(np.float64) for mask in layout.beside(places, before, after))
        return earlier, at, later
    _, inside, _ = layout.beside(places, 0, 0)
    weighted = np.zeros((2, len(inside)))
    steps = places.select((pl.col("probability") * LEVELS).ceil().clip(1, LEVELS))["probability"]
    for step in steps.unique().sort():
        beside = layout.beside(places.filter(steps == step), before, after)
        for index, mask in enumerate((beside[0], beside[2])):
            weighted[index, mask & ~inside] = step
    weighted /= max(1, weighted.max(initial=0))
    return weighted[0], inside.astype(np.float64), weighted[1]
