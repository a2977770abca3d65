"""Room 7, interventions: where the effect of an edit is looked at. At a pattern, and at places alike without it."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from ..evidence.alike import KINDS, kinds, sentence_ends
from ..evidence.matches import matches
from ..evidence.windows import Integers

MOST_PAIRS = 12
"""Pairs of a trace at most, evenly over it: one trace with many counts as one with few."""


class Pairs(NamedTuple):
    """Places in a trace at which a pattern is next, or goes on, each with the place it is compared to, (pairs,).

    A place is the position of the token last read; what is looked at is the one behind it.
    """

    at: list[int]
    matched: list[int]


class Text(NamedTuple):
    """A trace as places are looked for in it."""

    ids: Integers
    """All its tokens, the last one too, (tokens,)."""
    run: Integers
    """Which segment each is of, (tokens,); -1 in the prompt."""

    @property
    def has_next(self) -> Integers:
        """Places with a token behind them in the same segment, and not in the prompt."""
        return np.flatnonzero((self.run[:-1] == self.run[1:]) & (self.run[:-1] >= 0))


def half(traces: pl.DataFrame, which: int) -> pl.DataFrame:
    """Return every second trace: 0 those that latents are chosen on, 1 those that they are tried in."""
    return traces.filter(pl.col("trace_id") % 2 == which)


def text_of(trace: Mapping[str, Any]) -> Text:
    """Return a trace (a row of the traces file) as places are looked for in it."""
    ids = np.array(trace["prompt_ids"] + trace["generated_ids"], dtype=np.int64)
    run = np.full(len(ids), -1)
    for index, part in enumerate(trace["segments"]):
        if part["segment"] != "prompt":
            run[part["start"] : part["end"]] = index
    return Text(ids, run)


def token_classes(vocabulary: pl.LazyFrame) -> Integers:
    """Return the class of every token id: its kind (word, number, ...), and whether it ends a sentence, (ids,)."""
    classes = kinds(vocabulary)
    classes[sentence_ends(vocabulary)] += KINDS
    return classes


def pairs(
    text: Text, spans: Sequence[tuple[int, int]], window: str, classes: Integers, before: int, after: int
) -> Pairs:
    """Return the places of a pattern's window in a trace and those they are compared to.

    spans: (start, end) of its matches. Window `before`: the place from which its first word is next; `after`: up to
    `after` places from its last word on. What is compared: the nearest place in the same segment after a token of the
    same class (by token id), with no word of the pattern within `before` tokens ahead or `after` behind. Where there is
    none the place is left out.
    """
    if not spans:
        return Pairs([], [])
    near = np.zeros(len(text.ids), dtype=bool)
    for start, end in spans:
        near[max(0, start - 1 - before) : end + after] = True
    able = text.has_next
    free = able[~near[able]]
    able_set = set(able.tolist())
    if window == "before":
        wanted = sorted({start - 1 for start, _ in spans} & able_set)
    else:
        inside = {place for start, end in spans for place in range(start, end - 1)}
        wanted = sorted({place for _, end in spans for place in range(end - 1, end - 1 + after)} & able_set - inside)
    found = Pairs([], [])
    for place in wanted:
        alike = free[(text.run[free] == text.run[place]) & (classes[text.ids[free]] == classes[text.ids[place]])]
        if len(alike):
            found.at.append(place)
            found.matched.append(int(alike[np.abs(alike - place).argmin()]))
    chosen = evenly(len(found.at), MOST_PAIRS)
    return Pairs(*([column[index] for index in chosen] for column in found))


def evenly(count: int, most: int) -> list[int]:
    """Return up to `most` of the places 0 … count-1, evenly over them."""
    return np.unique(np.linspace(0, count - 1, min(most, count)).round().astype(int)).tolist()


def matches_in(written: Sequence[Sequence[int]], vocabulary: pl.LazyFrame, patterns: str) -> pl.DataFrame:
    """Return where patterns are in what was written, as `matches` does; trace_id is the place in `written`."""
    texts = pl.LazyFrame(
        {"trace_id": range(len(written)), "condition": "", "prompt_ids": [[]] * len(written), "generated_ids": written},
        schema={"trace_id": pl.UInt32, "condition": pl.String, "prompt_ids": pl.List(pl.UInt32),
                "generated_ids": pl.List(pl.UInt32)},
    )  # fmt: skip
    return matches(texts, vocabulary, patterns=patterns, reason_words=[])


def first_tokens(traces: pl.DataFrame, matches: pl.DataFrame, pattern: str, size: int) -> np.ndarray:
    """Return which of `size` tokens of a vocabulary the matches of a pattern begin with, bool, (size,)."""
    members = np.zeros(size, dtype=bool)
    of_trace = dict(matches.filter(name=pattern).group_by("trace_id").agg("start").iter_rows())
    for trace_id, prompt, written in traces.select("trace_id", "prompt_ids", "generated_ids").iter_rows():
        ids = prompt + written
        members[[ids[start] for start in of_trace.get(trace_id, [])]] = True
    return members


def spans_of(matches: pl.DataFrame, pattern: str) -> dict[int, list[tuple[int, int]]]:
    """Return where a pattern is in each trace, by trace: (start, end) of each match, once each."""
    chosen = matches.filter(name=pattern).select("trace_id", "start", "end").unique().sort("trace_id", "start", "end")
    found: dict[int, list[tuple[int, int]]] = {}
    for trace_id, start, end in chosen.iter_rows():
        found.setdefault(trace_id, []).append((start, end))
    return found


def with_pairs(
    traces: pl.DataFrame,
    spans: Mapping[int, Sequence[tuple[int, int]]],
    window: str,
    classes: Integers,
    before: int,
    after: int,
    most: int,
) -> Iterator[tuple[int, Text, Pairs]]:
    """Yield the first `most` of some traces that have pairs of a pattern's window, with them: trace_id, text, pairs."""
    left = most
    for trace in traces.iter_rows(named=True):
        if left == 0:
            return
        text = text_of(trace)
        found = pairs(text, spans.get(trace["trace_id"], []), window, classes, before, after)
        if found.at:
            left -= 1
            yield trace["trace_id"], text, found
