"""Room 9, report: whether the passages that a latent is on are alike, by an encoder of words, without an explanation.

Two scores of delphi's kind (Paulo et al. 2024, arXiv 2410.13928; intruders: arXiv 2507.08473), with static embeddings
of 256 dimensions (WordLlama, which its package ships) in place of a language model's judgement. They see words, not
what these mean in their place: a latent of a state that is said in many ways may score low, one of a word scores high.
"""

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from ..evidence.verdict import leading
from ..evidence.windows import Integers, Layout, lay_out
from ..frames import Schema, complete, keys
from ..statistics import MIN_TRACES, Floats, auroc, wilson
from .descriptions import evenly

BEFORE, AFTER = 10, 4
"""Tokens of a passage before and behind the one that it is about."""

GROUP = 5
"""Passages among which the intruder is to be found."""

DRAWS = 10
"""Times that passages are put into groups anew."""

MOST_TRACES = 2000
"""Traces that passages are looked for in, of more evenly chosen."""

MOST_PASSAGES = 400
"""Passages of a latent in each half of the traces."""

SCHEMA = Schema(
    f"a leading latent; only its name where fewer than {MIN_TRACES} traces of a half have it, or are without it",
    **keys("latent"),
    passages=(
        pl.UInt32,
        f"passages it is on: the strongest of each trace of the second half that has it, {MOST_PASSAGES} at most",
    ),
    embedding=(
        pl.Float64,
        "AUROC by which likeness to its strongest passages in the first half (cosine with their mean) tells these from"
        " passages of the same traces, of the second half, that it isn't on; 0.5 by chance",
    ),
    low=(pl.Float64, "95 % interval (DeLong et al. 1988): lower end"),
    high=(pl.Float64, "upper end"),
    groups=(pl.UInt32, f"groups of {GROUP - 1} passages that it is on and one that it isn't on"),
    intruder=(
        pl.Float64,
        f"share of groups in which the one least like the others is that one, mean of {DRAWS} ways to make groups;"
        f" {1 / GROUP:g} by chance",
    ),
    intruder_low=(pl.Float64, "95 % interval (Wilson 1927), by the number of groups: lower end"),
    intruder_high=(pl.Float64, "upper end"),
)

Encoder = Callable[[list[str]], Floats]
"""Turns texts into vectors of length 1, (texts, dimensions)."""


@cache
def encoder() -> Encoder:
    """Return the encoder, from the files that its package ships."""
    import wordllama

    # As of 0.4.0 the package looks for its own tokenizer beside the folder that it is in; a cache is looked in rightly.
    model = wordllama.WordLlama.load(cache_dir=Path(wordllama.__file__).parent, disable_download=True)

    def encode(texts: list[str]) -> Floats:
        vectors = np.asarray(model.embed(texts), dtype=float)
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)

    return encode


def coherence(
    activations: pl.LazyFrame,
    traces: pl.LazyFrame,
    verdict: pl.LazyFrame,
    vocabulary: pl.LazyFrame,
    *,
    condition: str,
    latents: int,
    include_sinks: bool,
) -> pl.DataFrame:
    """Return how alike the passages are that each leading latent is on, in SCHEMA."""
    leaders = leading(verdict.collect(), latents)["latent"].to_list()
    studied = traces.filter(pl.col("condition") == condition)
    step = -(-studied.select(pl.len()).collect().item() // MOST_TRACES)
    layout = lay_out(activations, evenly(studied, step), condition, include_sinks)
    text_of = dict(vocabulary.select("token_id", "text").collect().iter_rows())
    texts = [text_of.get(int(token), "") for token in layout.token_ids]
    rows: list[dict[str, Any]] = [
        {"latent": latent, **of_latent(layout, texts, values, encoder(), np.random.default_rng([0, latent]))}
        for latent, values in layout.each(leaders)
    ]
    return complete(pl.DataFrame(rows, schema_overrides=SCHEMA, infer_schema_length=None), SCHEMA).sort("latent")


def of_latent(
    layout: Layout, texts: Sequence[str], values: Floats, encode: Encoder, chance: np.random.Generator
) -> dict[str, Any]:
    """Return a latent's row of SCHEMA but its number; values: its activation on each token, texts: of each token."""
    inside, outside = _strongest(layout, values), _elsewhere(layout, values, chance)
    second = np.arange(len(inside)) % 2 == 1
    both = second & (inside >= 0) & (outside >= 0)
    examples = inside[~second & (inside >= 0)][:MOST_PASSAGES]
    others, odd = inside[both][:MOST_PASSAGES], outside[both][:MOST_PASSAGES]
    if min(len(examples), len(others)) < MIN_TRACES:
        return {}

    def vectors(places: Integers) -> Floats:
        return encode([passage(layout, texts, int(place)) for place in places])

    sample, on, off = vectors(examples), vectors(others), vectors(odd)
    likeness = np.concatenate([on, off]) @ sample.mean(axis=0)
    area = auroc(likeness[:, None], np.arange(len(likeness)) < len(on))
    found, groups = _intruders(on, off, chance)
    low, high = wilson(np.array([found * groups]), groups)
    return {
        "passages": len(on), "embedding": area.value[0], "low": area.low[0], "high": area.high[0], "groups": groups,
        "intruder": found, "intruder_low": low[0], "intruder_high": high[0],
    }  # fmt: skip


def passage(layout: Layout, texts: Sequence[str], place: int) -> str:
    """Return the text around a token, within its trace."""
    first, last = layout.starts[layout.trace[place]], layout.starts[layout.trace[place] + 1]
    return "".join(texts[max(first, place - BEFORE) : min(last, place + AFTER + 1)])


def _strongest(layout: Layout, values: Floats) -> Integers:
    """Return the token of each trace where it is most active, the first of equal ones; -1 where it isn't, (traces,)."""
    best = np.full(len(layout.trace_ids), -1)
    order = np.lexsort((-np.arange(len(values)), values))  # the last of a trace is what stays
    order = order[values[order] > 0]
    best[layout.trace[order]] = order
    return best


def _elsewhere(layout: Layout, values: Floats, chance: np.random.Generator) -> Integers:
    """Return a token of each trace that it isn't active near; or if there is none, not on; -1 if none, (traces,)."""
    before = np.concatenate([[0], np.cumsum(values > 0)])
    index = np.arange(len(values))
    first, last = layout.starts[:-1][layout.trace], layout.starts[1:][layout.trace]
    near = before[np.minimum(index + AFTER + 1, last)] - before[np.maximum(index - BEFORE, first)]
    chosen = np.full(len(layout.trace_ids), -1)
    for able in (values == 0, near == 0):  # the second goes over the first
        drawn = chance.permutation(np.flatnonzero(able))
        chosen[layout.trace[drawn]] = drawn
    return chosen


def _intruders(on: Floats, off: Floats, chance: np.random.Generator) -> tuple[float, int]:
    """Return in what share of groups the passage least like the others is the one it isn't on, and how many groups."""
    groups = min(len(on) // (GROUP - 1), len(off))
    found = 0
    for _ in range(DRAWS):
        inside = on[chance.permutation(len(on))[: groups * (GROUP - 1)]].reshape(groups, GROUP - 1, -1)
        odd = off[chance.permutation(len(off))[:groups]]
        every = np.concatenate([inside, odd[:, None]], axis=1)
        likeness = np.einsum("gid,gjd->gi", every, every) - 1  # to the others; to itself it is 1
        found += int((likeness.argmin(axis=1) == GROUP - 1).sum())
    return found / (groups * DRAWS), groups
