"""Room 9, report: what each leading latent is on, as a rule that is learnt from half of the traces and tried on others.

As N2G (Foote et al. 2023, arXiv 2305.19911) turns a neuron into a graph of tokens with the contexts they need, a rule
here is a set of tokens, joined by "and" with sets of what stands before them and where: the tokens before, the words
that the sentence and the one before it begin with, the place in the sentence, the segment, the place in it. No model of
language is asked. A rule proposes a name; the verdict never reads it.

A latent is on where its activation is at least half of its mean where it is active: on is what is to be told. A rule is
grown greedily, always by the set that raises its F1 most. For one property, with all others as they are, the best set
holds the classes of the largest precision, as many of them as raise F1 (Lipton et al. 2014, arXiv 1402.1892). Counts
are shrunk for that, so that what is seen once counts for little.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ..config import SEGMENTS
from ..evidence.alike import sentence_ends
from ..evidence.verdict import leading
from ..evidence.windows import Integers, Layout, lay_out
from ..frames import Schema, complete, keys
from ..statistics import Floats, share_over_traces, wilson

Mask = NDArray[np.bool_]

LEAST_GAIN = 0.01
"""F1 that a further condition must add, or its removal lose, on the traces that a rule is learnt from."""

MOST_CONDITIONS = 4
"""Conditions of a rule."""

SHRINK = 2.0
"""Tokens' worth of the rate at large by which the precision of a class is shrunk."""

SHUFFLES = 5
"""Times that a rule is learnt of a latent moved against the text."""

MOST_TOKENS = 300_000
"""Tokens that rules are learnt from and tried on; of more, traces are taken evenly."""

LEAST_TRACES = 40
"""Traces that are taken however long they are, where there are as many."""

NAMED = 8
"""Classes of a condition that its text names."""

PLACES = 8
"""Places in a sentence that are told apart, from its start."""

PARTS = 5
"""Parts of a segment that are told apart."""

PROPERTIES = {
    "token": "on {}",
    "before": "right after {}",
    "second_before": "two after {}",
    "sentence": "in sentences that begin with {}",
    "last_sentence": "after a sentence that begins with {}",
    "place": "as {} of the sentence",
    "segment": "in {}",
    "part": "in {} of the segment",
}
"""What a rule may ask of a token, as its text says it. All but the last are known when the token is read."""

SCHEMA = Schema(
    "a leading latent; only its name where too few traces have it on for a rule to be learnt and tried",
    **keys("latent"),
    rule=(pl.String, "the rule in words: proposed, and used by no check; null where none says more than always"),
    tokens=(pl.UInt32, "tokens of the other half of the traces that it is on: active with at least half of its mean"),
    fires=(pl.UInt32, "tokens of these that the rule says it is on"),
    precision=(pl.Float64, "share of those that the rule names on which it is on"),
    precision_low=(
        pl.Float64,
        "95 % interval over traces (Fieller 1954), no narrower than that of a share of as many traces as have such"
        " tokens (Wilson 1927): lower end",
    ),
    precision_high=(pl.Float64, "upper end"),
    recall=(pl.Float64, "share of those it is on that the rule names"),
    recall_low=(pl.Float64, "95 % interval over traces, likewise: lower end"),
    recall_high=(pl.Float64, "upper end"),
    f1=(pl.Float64, "harmonic mean of precision and recall"),
    mass=(pl.Float64, "share of its activation that is on tokens that the rule names"),
    always=(pl.Float64, "F1 of saying that it is always on"),
    shuffled=(
        pl.Float64,
        f"F1 of rules learnt and tried likewise on activations moved around in each trace, mean of {SHUFFLES}",
    ),
    **{
        name: (pl.List(pl.String), f"of which one must hold: {text.format('…')}; null where the rule doesn't ask it")
        for name, text in PROPERTIES.items()
    },
)


@dataclass(frozen=True)
class Text:
    """Tokens and their properties; each is a class of every token, (tokens,), and the names of the classes."""

    layout: Layout
    classes: Mapping[str, Integers]
    names: Mapping[str, Sequence[str]]
    learnt: Mask
    """Which tokens rules are learnt from; they are tried on the others."""


def text_of(layout: Layout, vocabulary: pl.LazyFrame) -> Text:
    """Return the properties of a layout's tokens."""
    types, of = np.unique(layout.token_ids, return_inverse=True)
    labels = dict(vocabulary.select("token_id", "token").collect().iter_rows())
    names = [labels.get(int(token), f"[{token}]") for token in types]
    none = len(names)  # before the first token of a segment there is none
    index, starts = np.arange(len(of)), layout.run_starts[layout.run]

    def back(steps: int) -> Integers:
        return np.where(index - steps >= starts, of[np.maximum(index - steps, 0)], none)

    ends = np.isin(layout.token_ids, sentence_ends(vocabulary))
    # A sentence begins behind an end; ends in a row, such as a full stop and a line break, are one.
    begins = (index == starts) | (np.concatenate([[True], ends[:-1]]) & ~ends)
    first = np.maximum.accumulate(np.where(begins, index, 0))
    first_before = np.where(first - 1 >= starts, first[np.maximum(first - 1, 0)], -1)
    within = (index - starts) * PARTS // np.maximum(layout.run_lengths[layout.run], 1)
    nth = ["the first token", "the second", "the third", *(f"the {place}th" for place in range(4, PLACES + 1))]
    parts = ["the first fifth", "the second fifth", "the third fifth", "the fourth fifth", "the last fifth"]
    return Text(
        layout=layout,
        classes={
            "token": of, "before": back(1), "second_before": back(2), "sentence": of[first],
            "last_sentence": np.where(first_before >= 0, of[np.maximum(first_before, 0)], none),
            "place": np.minimum(index - first, PLACES), "segment": layout.segment, "part": within,
        },
        names={
            "token": names, "before": [*names, "nothing"], "second_before": [*names, "nothing"], "sentence": names,
            "last_sentence": [*names, "nothing, as there is none"], "place": [*nth, "a later token"],
            "segment": list(SEGMENTS), "part": parts,
        },
        learnt=layout.trace % 2 == 0,
    )  # fmt: skip


ORDERED = ("place", "segment", "part")
"""Properties whose classes have an order, and are no tokens."""

Rule = dict[str, Mask]
"""Which classes of each property that it asks for may hold."""


def fires(text: Text, rule: Rule) -> Mask:
    """Return which tokens a rule names, (tokens,)."""
    holds = np.ones(len(text.learnt), dtype=bool)
    for name, allowed in rule.items():
        holds &= allowed[text.classes[name]]
    return holds


def f1(hits: float, named: float, there: float) -> float:
    """Return F1 of `hits` among those `named` and those that are `there`."""
    return 2 * hits / (named + there) if named + there else 0.0


def _best_set(of: Integers, on: Mask, size: int, there: float) -> tuple[Mask, float]:
    """Return which classes of tokens make the best set, and its F1, by counts that are shrunk.

    of: the class of each token that meets the rule's other conditions; on: whether the latent is on there; there:
    tokens that it is on at all.
    """
    named = np.bincount(of, minlength=size).astype(float)
    hits = np.bincount(of[on], minlength=size)
    rate = on.sum() / max(1, len(on))
    precision = (hits + SHRINK * rate) / (named + SHRINK)
    order = np.argsort(-precision, kind="stable")
    order = order[hits[order] > 0]
    scores = 2 * np.cumsum((named * precision)[order]) / (np.cumsum(named[order]) + there)
    chosen = np.zeros(size, dtype=bool)
    if not len(scores):
        return chosen, 0.0
    best = int(np.argmax(scores))
    chosen[order[: best + 1]] = True
    return chosen, float(scores[best])


def learn(text: Text, on: Mask) -> Rule:
    """Return the rule of a latent that is `on` some tokens, (tokens,), from those that are learnt from."""
    rule: Rule = {}
    learnt, there = text.learnt, float((on & text.learnt).sum())
    classes = {name: of[learnt] for name, of in text.classes.items()}
    is_on = on[learnt]
    score = f1(there, float(learnt.sum()), there)

    def held(without: str) -> Mask:
        holds = np.ones(len(is_on), dtype=bool)
        for name, allowed in rule.items():
            if name != without:
                holds &= allowed[classes[name]]
        return holds

    for _ in range(3 * MOST_CONDITIONS):
        found = []
        for name, of in classes.items():
            if name not in rule and len(rule) == MOST_CONDITIONS:
                continue
            holds = held(name)
            allowed, reached = _best_set(of[holds], is_on[holds], len(text.names[name]), there)
            found.append((reached, name, allowed))
        reached, name, allowed = max(found, key=lambda each: each[0])
        if reached < score + LEAST_GAIN:
            break
        rule[name], score = allowed, reached
    for name in list(rule):  # what a later condition made needless
        holds = held(name)
        if (
            f1((holds & is_on).sum(), holds.sum(), there)
            > f1((holds & is_on & rule[name][classes[name]]).sum(), (holds & rule[name][classes[name]]).sum(), there)
            - LEAST_GAIN
        ):
            del rule[name]
    for name, allowed in rule.items():
        seen = np.bincount(classes[name], minlength=len(allowed)) > 0
        if _is_said_by_what_is_left_out(allowed, seen):
            np.logical_or(allowed, ~seen, out=allowed)  # what was never seen isn't left out
    return rule


def _is_said_by_what_is_left_out(allowed: Mask, seen: Mask) -> bool:
    return bool((allowed & seen).sum() > NAMED and (~allowed & seen).sum() <= NAMED // 2)


def in_words(text: Text, rule: Rule, on: Mask) -> str:
    """Return a rule in words; the classes it is most often on are named first."""
    parts = []
    everywhere = fires(text, rule) & on & text.learnt
    for name, template in PROPERTIES.items():
        if name in rule:
            allowed, of = rule[name], text.classes[name]
            seen = np.bincount(of[text.learnt], minlength=len(allowed)) > 0
            names = text.names[name]
            if _is_said_by_what_is_left_out(allowed, seen):
                others = np.flatnonzero(~allowed & seen).tolist()
                said = f"anything but {_listed([names[index] for index in others], ' ')}"
            else:
                often = np.bincount(of[everywhere], minlength=len(allowed))
                order = np.flatnonzero(allowed) if name in ORDERED else np.argsort(-often, kind="stable")
                between = " or " if name in ORDERED else " "
                said = _listed([names[index] for index in order.tolist() if allowed[index]], between)
            parts.append(template.format(said))
    return ", ".join(parts)


def _listed(names: Sequence[str], between: str) -> str:
    more = len(names) - NAMED
    return between.join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")


def descriptions(
    activations: pl.LazyFrame,
    traces: pl.LazyFrame,
    verdict: pl.LazyFrame,
    vocabulary: pl.LazyFrame,
    *,
    condition: str,
    latents: int,
    include_sinks: bool,
) -> pl.DataFrame:
    """Return the rule of each leading latent, and how well it does on traces that it wasn't learnt from, in SCHEMA."""
    leaders = leading(verdict.collect(), latents)["latent"].to_list()
    layout = lay_out(activations, some(traces, condition), condition, include_sinks)
    text = text_of(layout, vocabulary)
    rows: list[dict[str, Any]] = [
        {"latent": latent, **describe(text, values, np.random.default_rng([0, latent]))}
        for latent, values in layout.each(leaders)
    ]
    return complete(pl.DataFrame(rows, schema_overrides=SCHEMA, infer_schema_length=None), SCHEMA).sort("latent")


def some(traces: pl.LazyFrame, condition: str) -> pl.LazyFrame:
    """Return traces of a condition, evenly chosen: of about MOST_TOKENS tokens, or LEAST_TRACES of them."""
    studied = traces.filter(pl.col("condition") == condition)
    total, count = studied.select(pl.col("generated_ids").list.len().sum(), pl.len()).collect().row(0)
    return evenly(studied, min(-(-(total or 0) // MOST_TOKENS), count // LEAST_TRACES))


def evenly(traces: pl.LazyFrame, step: int) -> pl.LazyFrame:
    """Return every so-many-th trace of a condition, the first among them."""
    chosen = (pl.col("trace_id").rank("dense").cast(pl.Int64) - 1) % max(1, step) == 0
    return traces.filter(chosen) if step > 1 else traces


def describe(text: Text, values: Floats, chance: np.random.Generator) -> dict[str, Any]:
    """Return a latent's row of SCHEMA but its number; values: its activation on each token, (tokens,)."""
    of_learnt = values[text.learnt & (values > 0)]
    if not len(of_learnt):
        return {}
    on = values >= of_learnt.mean() / 2
    tried = ~text.learnt
    if not (on & tried).any():
        return {}
    rule = learn(text, on)
    always = f1(float((on & tried).sum()), float(tried.sum()), float((on & tried).sum()))
    if not rule:
        return {"tokens": int((on & tried).sum()), "always": always}
    named = fires(text, rule)
    traces, layout = np.arange(len(text.layout.trace_ids)) % 2 == 1, text.layout

    def per_trace(mask: NDArray[Any]) -> Floats:
        return layout.per_trace((mask & tried).astype(float))[traces][:, None]

    hits = per_trace(on & named)
    (precision_low, precision_high), (recall_low, recall_high) = (
        _interval(hits, per_trace(whole)) for whole in (named, on)
    )
    there, said, both = (float((mask & tried).sum()) for mask in (on, named, on & named))
    shuffled = []
    for _ in range(SHUFFLES):
        moved = _moved(text.layout, on, chance)
        other = fires(text, learn(text, moved))
        shuffled.append(f1((other & moved & tried).sum(), (other & tried).sum(), (moved & tried).sum()))
    return {
        "rule": in_words(text, rule, on), "tokens": int(there), "fires": int(said),
        "precision": both / said if said else None, "precision_low": precision_low, "precision_high": precision_high,
        "recall": both / there, "recall_low": recall_low, "recall_high": recall_high, "f1": f1(both, said, there),
        "mass": values[tried & named].sum() / values[tried].sum(),
        "always": always, "shuffled": float(np.mean(shuffled)),
    } | {
        name: [text.names[name][index] for index in np.flatnonzero(allowed).tolist()] for name, allowed in rule.items()
    }  # fmt: skip


def _interval(part: Floats, whole: Floats) -> tuple[float | None, float | None]:
    """Return the 95 % interval of a share Σ part / Σ whole, of (traces, 1): over traces, and at least Wilson's."""
    count, share = int((whole > 0).sum()), part.sum() / max(1.0, whole.sum())
    if not count:
        return None, None
    over = share_over_traces(part, whole, 0.5)
    low, high = wilson(np.array([share * count]), count)
    return float(np.nanmin([low[0], max(0.0, over.low[0])])), float(np.nanmax([high[0], min(1.0, over.high[0])]))


def _moved(layout: Layout, on: Mask, chance: np.random.Generator) -> Mask:
    """Move a mask around within each trace, as far as chance has it; what leaves its end enters at its start."""
    lengths, starts = layout.lengths[layout.trace], layout.starts[:-1][layout.trace]
    by = chance.integers(0, np.maximum(layout.lengths, 1))[layout.trace]
    index = np.arange(len(on))
    return on[starts + (index - starts - by) % np.maximum(lengths, 1)]
