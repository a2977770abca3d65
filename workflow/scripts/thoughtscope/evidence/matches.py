"""Room 6, evidence: what the model wrote. How much, and where in it the words of patterns are."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
import regex

from ..config import is_expression
from ..errors import InputError
from ..frames import Schema, complete, keys

MATCHES_SCHEMA = Schema(
    "where in a trace an entry of a pattern (or a reasoning word) is; those of one pattern may overlap",
    **keys("trace_id", "condition"),
    kind=(pl.Enum(["pattern", "reason_word"]), "what its name is one of"),
    name=(pl.String, "the pattern, or the reasoning word"),
    entry=(pl.String, "the entry of the pattern's lexicon"),
    start=(pl.UInt32, "position of its first token"),
    end=(pl.UInt32, "position after its last token"),
    text=(pl.String, "the text that matches"),
)


SECONDS = 10.0
"""Longest time an entry is searched for in one trace: some expressions take longer than anyone lives."""


def expression(entry: str) -> "regex.Pattern[str]":
    """Return the regular expression of a lexicon's entry.

    `/…/` is one already, searched as it is written. Other entries are words or phrases: whole words, any white space
    between them, in any case, unless the entry has a capital, which must then be there.
    """
    if is_expression(entry):
        try:
            return regex.compile(entry[1:-1])
        except (regex.error, OverflowError, RecursionError) as error:
            raise InputError(f"config: patterns, reason_words: {entry!r} is no regular expression ({error}).") from None
    words = r"\s+".join(map(regex.escape, entry.split()))
    return regex.compile(rf"(?<!\w){words}(?!\w)", 0 if any(map(str.isupper, entry)) else regex.IGNORECASE)


def matches(
    traces: pl.LazyFrame, vocabulary: pl.LazyFrame, *, patterns: str, reason_words: Sequence[str]
) -> pl.DataFrame:
    """Return where in what the model wrote each pattern and each reasoning word is, a row each.

    `patterns` is the config's section as JSON, `reason_words` its list. Entries are matched on the text and mapped to
    the tokens that carry it; each reasoning word is a `name` of its own.
    """
    lexicon = [
        ("pattern", name, entry, expression(entry))
        for name, entries in json.loads(patterns).items()
        for entry in entries
    ] + [("reason_word", entry, entry, expression(entry)) for entry in reason_words]
    text_of = dict(vocabulary.select("token_id", "text").collect().iter_rows())
    rows = []
    columns = ["trace_id", "condition", "prompt_ids", "generated_ids"]
    for trace_id, condition, prompt, written in traces.select(columns).collect().iter_rows():
        pieces = [text_of[token] for token in written]
        ends = np.cumsum([len(piece) for piece in pieces])
        text = "".join(pieces)
        for kind, name, entry, wanted in lexicon:
            try:
                spans = [match.span() for match in wanted.finditer(text, timeout=SECONDS)]
            except TimeoutError:
                raise InputError(
                    f"config: {'patterns.' + name if kind == 'pattern' else 'reason_words'}: {entry!r} takes more than"
                    f" {SECONDS:.0f} s in trace {trace_id} of condition {condition!r}; write it with fewer nested"
                    " repetitions."
                ) from None
            for start, end in spans:
                if start == end:
                    continue
                # The tokens that hold the first and the last character.
                first, last = np.searchsorted(ends, [start, end - 1], side="right") + len(prompt)
                rows.append((trace_id, condition, kind, name, entry, first, last + 1, text[start:end]))
    return pl.DataFrame(rows, schema=MATCHES_SCHEMA, orient="row")


PATTERN_COUNTS_SCHEMA = Schema(
    "a trace and pattern",
    **keys("trace_id", "condition"),
    pattern=(pl.String, "the pattern"),
    matches=(pl.UInt32, "places it is in the trace"),
    tokens=(pl.UInt32, "tokens the model wrote in it"),
    per_100_tokens=(pl.Float64, "matches per 100 of these tokens"),
)


def pattern_counts(matches: pl.LazyFrame, traces: pl.LazyFrame, *, patterns: str) -> pl.DataFrame:
    """Return how often each pattern is in each trace; `patterns` is the config's section as JSON."""
    names = pl.LazyFrame({"pattern": list(json.loads(patterns))}, schema={"pattern": pl.String})
    counts = (
        matches.filter(pl.col("kind") == "pattern")
        .group_by("trace_id", "condition", pl.col("name").alias("pattern"))
        .agg(matches=pl.struct("start", "end").n_unique())
    )
    table = (
        traces.select("trace_id", "condition", tokens=pl.col("generated_ids").list.len())
        .join(names, how="cross")
        .join(counts, on=["trace_id", "condition", "pattern"], how="left")
        .with_columns(pl.col("matches").fill_null(0))
        .with_columns(per_100_tokens=100 * pl.col("matches") / pl.col("tokens"))
        .sort("condition", "trace_id", "pattern")
    )
    return complete(table, PATTERN_COUNTS_SCHEMA)


def written(traces: pl.DataFrame, conditions: Sequence[str]) -> list[dict[str, Any]]:
    """Count what the model wrote under each condition, a row each.

    Keys: condition, traces, tokens, median (tokens of a trace), and how many traces are truncated, graded and correct.
    """
    rows = []
    for condition in conditions:
        under = traces.filter(condition=condition)
        lengths, graded = under["generated_ids"].list.len(), under["correct"].drop_nulls()
        rows.append(
            {
                "condition": condition,
                "traces": len(under),
                "tokens": int(lengths.sum()),
                "median": lengths.quantile(0.5, interpolation="linear"),
                "truncated": int((under["finish_reason"].cast(pl.String) == "length").sum()),
                "graded": len(graded),
                "correct": int(graded.sum()),
            }
        )
    return rows
