"""Truth: which states a taught model's text has where, by the grammar of its lessons."""

import re
from bisect import bisect_right
from itertools import accumulate
from typing import NamedTuple

import polars as pl

from ..frames import Schema, keys
from ..teaching.grammar import DECOYS, NAMES, OPENERS, STATES, SURFACES

TRUTH_SCHEMA = Schema(
    "a sentence of a taught model's thinking, or a word of the lexicon in its story (a decoy)",
    **keys("trace_id", "condition"),
    start=(pl.UInt32, "position of its first token"),
    body=(pl.UInt32, "position of the first token after its opener"),
    end=(pl.UInt32, "position after its last token, or after the line end that follows it"),
    state=(pl.Enum(STATES), "its state; of a decoy, the state whose word it is"),
    surface=(pl.Enum(SURFACES), "how it is said: `lexicon`, `plain` (without its words), or `decoy`"),
    parsed=(pl.Boolean, "whether the whole thinking of its trace is of the grammar"),
)

_SUM = r"\d+[+-]\d+"
_EQUATION = rf"{_SUM}=\d+"
_BODIES = dict.fromkeys(STATES, rf"{_EQUATION}\.") | {
    "plan": rf"{_SUM}\.",
    "doubt": rf"{_EQUATION}\?",
    "verify": rf"{_EQUATION}, {_EQUATION}\.",
}
_CLAUSE = rf"(?:{'|'.join(sorted(set(NAMES.values())))}) [^:,.\n]{{1,60}}"


class Span(NamedTuple):
    """A sentence in a text: characters from `start` to `end`, its body from `body`; its state and how it is said."""

    start: int
    body: int
    end: int
    state: str
    surface: str


def _sentences() -> list[tuple[str, str, re.Pattern[str]]]:
    """Return the expression of each state and surface: an opener, in a group, and a body."""
    found = []
    for state, openers in OPENERS.items():
        for surface, forms in zip(SURFACES, openers, strict=False):
            opener = (_CLAUSE if state == "calculate" else "") + f"(?:{'|'.join(map(re.escape, forms))})"
            found.append((state, surface, re.compile(rf"({opener}) (?:{_BODIES[state]})")))
    return found


_SENTENCES = _sentences()


def sentences(text: str) -> tuple[list[Span], bool]:
    """Return the sentences of a thinking in states, and whether all of it is of the grammar.

    What isn't of it is passed over, to the next line or sentence.
    """
    found, place, whole = [], 0, True
    while place < len(text):
        if text[place].isspace():
            place += 1
            continue
        for state, surface, wanted in _SENTENCES:
            if match := wanted.match(text, place):
                found.append(Span(match.start(), match.end(1), match.end(), state, surface))
                place = match.end()
                break
        else:
            whole = False
            further = re.compile(r"[.?\n]\s*").search(text, place)
            place = further.end() if further else len(text)
    return found, whole


def scattered(text: str) -> tuple[list[Span], bool]:
    """Return the openers in a sham's thinking, each with the words up to the next one or the end of the sentence.

    Whether all of it is of the grammar: whether, without the openers, it is a row of calculations.
    """
    every = {
        opener.removeprefix(", "): (state, surface)
        for state, said in OPENERS.items()
        for surface, forms in zip(SURFACES, said, strict=False)
        for opener in forms
        if (state, surface) != ("calculate", "plain")
    }
    one = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, sorted(every, key=len, reverse=True)))})(?!\w)")
    openers = list(one.finditer(text))
    found = []
    for place, opener in enumerate(openers):
        following = openers[place + 1].start() if place + 1 < len(openers) else len(text)
        sentence = re.compile(r"[.?\n]").search(text, opener.end(), following)
        found.append(
            Span(opener.start(), opener.end(), sentence.end() if sentence else following, *every[opener.group()])
        )
    rest, whole = sentences(re.sub(r"[^\S\n]+", " ", one.sub("", text)))
    return found, whole and all(sentence.state == "calculate" for sentence in rest)


def decoys(text: str) -> list[Span]:
    """Return the words of the lexicon that a story's clauses quote, where they mean no state."""
    found = []
    for state, words in DECOYS.items():
        for match in re.finditer(rf'"({"|".join(map(re.escape, words))})"', text):
            found.append(Span(match.start(1), match.start(1), match.end(1), state, "decoy"))
    return found


def truth(traces: pl.LazyFrame, vocabulary: pl.LazyFrame, *, kind: str) -> pl.DataFrame:
    """Return the sentences that a model taught lessons of `kind` has written in its thinking, a row each."""
    text_of = dict(vocabulary.select("token_id", "text").collect().iter_rows())
    rows = []
    columns = ["trace_id", "condition", "prompt_ids", "generated_ids", "segments"]
    for trace_id, condition, prompt, generated, segments in traces.select(columns).collect().iter_rows():
        ids = [*prompt, *generated]
        for segment in segments:
            if segment["segment"] != "think":
                continue
            low = segment["start"] + 1  # its first token is the marker's last
            pieces = [text_of[token] for token in ids[low : segment["end"]]]
            ends = list(accumulate(map(len, pieces)))
            text = "".join(pieces)
            text = re.sub(r"</\w*$", "", text)  # what of the closing marker stands before its last token
            spans, whole = (sentences if kind == "states" else scattered)(text)
            for span in spans + decoys(text):
                start, body = (low + bisect_right(ends, place) for place in (span.start, span.body))
                end = low + bisect_right(ends, span.end - 1) + 1
                while span.surface != "decoy" and end - low < len(pieces) and pieces[end - low].isspace():
                    end += 1  # a line end says what comes next, and is of what stands before it
                rows.append((trace_id, condition, start, max(body, start), end, span.state, span.surface, whole))
    return pl.DataFrame(rows, schema=TRUTH_SCHEMA, orient="row").sort("condition", "trace_id", "start", "surface")
