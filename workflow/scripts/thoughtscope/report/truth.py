"""Room 10, report: what was put into a taught model, and what was found, in words and in the numbers behind them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import polars as pl

from ..evidence.checks import BY_NAME, VERDICTS
from ..truth.found import ANY
from .words import agree, counted

HIGH_PROBE = 0.9
"""AUROC of a linear probe from which a state is there to be found."""


@dataclass(frozen=True)
class Truth:
    """What is known of a taught model: the kind of its lessons, and the tables of the room of truth."""

    kind: str
    traces: int
    truth: pl.DataFrame
    found: pl.DataFrame
    called: pl.DataFrame


class Score(NamedTuple):
    """What was put in and what was found, in numbers."""

    parsed: int
    """Traces whose whole thinking is of the lessons' grammar."""
    reachable: int
    """States that a linear probe reads at some site; of the sham none, as nothing was put in."""
    found: int
    """Of these, states that a thinking pattern marks however they are said."""
    called: int
    """Thinking patterns."""
    true: int
    """Of these, latents that mark a state however it is said; of the sham none."""
    words: int
    """Latents of a word itself, which is also where it means nothing."""
    words_called: int
    """Of these, thinking patterns."""


def score(of: Truth) -> Score:
    """Return what was put in and what was found, over all sites."""
    parsed = of.truth.filter("parsed").select("trace_id", "condition").unique().height
    states = of.found.filter(pl.col("site").is_null())
    counts = {(row["verdict"], row["kind"]): row["latents"] for row in of.called.iter_rows(named=True)}
    reachable = states.filter(pl.col("probe") >= HIGH_PROBE)
    called = sum(count for (verdict, _), count in counts.items() if verdict == VERDICTS[0])
    words = counts[ANY, "word"]
    is_real = of.kind == "states"
    return Score(
        parsed=parsed,
        reachable=len(reachable) if is_real else 0,
        found=len(reachable.filter(pl.col("called") > 0)) if is_real else 0,
        called=called,
        true=counts[VERDICTS[0], "state"] if is_real else 0,
        words=words,
        words_called=counts[VERDICTS[0], "word"],
    )


def sentences(of: Truth) -> list[str]:
    """Say what was put in and what was found."""
    known = score(of)
    share = f"{known.parsed} of {counted(of.traces, 'trace')} are wholly of the lessons’ grammar."
    if of.kind != "states":
        were = f"{counted(known.called, 'latent')} {agree(known.called, 'was', 'were')}" if known.called else "None was"
        return [
            f"The model was taught the words of thinking in random places, where no state is. {share}",
            f"Nothing was put in, so that each thinking pattern would be a false one. {were} called one.",
        ]
    row, every = (of.called.filter(verdict=name, kind="state").row(0, named=True) for name in (VERDICTS[0], ANY))
    is_, it = ("is", "it") if known.found == 1 else ("are", "each")
    lines = [
        f"The model was taught to think in {counted(of.found['state'].n_unique(), 'state')}, each of which follows from"
        f" what stands before and is said in words of the lexicon or in none of them. {share}",
        f"A linear probe reads {known.reachable} of these states from the model (AUROC {HIGH_PROBE} or more on"
        f" sentences without words of the lexicon); {known.found} of them {is_} found: a thinking"
        f" pattern marks {it} however it is said.",
    ]
    if known.called:
        lines.append(
            f"Of {counted(known.called, 'thinking pattern')}, {known.true} ({row['share']:.0%}, 95% interval"
            f" {row['low']:.0%} to {row['high']:.0%}) {agree(known.true, 'marks', 'mark')} a state however it is said;"
            f" of all latents, {every['share'] or 0:.0%} do."
        )
    else:
        lines.append("No latent is called a thinking pattern.")
    lines.append(
        f"{counted(known.words, 'latent')} {agree(known.words, 'answers', 'answer')} to a word of the lexicon itself,"
        f" also where it means nothing of the kind, as in quoted speech; {known.words_called or 'none'} of them"
        f" {agree(known.words_called, 'is', 'are')} called a thinking pattern."
    )
    return lines


def rows(of: Truth) -> Sequence[Mapping[str, Any]]:
    """Return a row a state, over all sites: what a probe reaches, what marks it, and by what it is found.

    None of a sham, whose words stand for no state.
    """
    if of.kind != "states":
        return []
    states = of.found.filter(pl.col("site").is_null())
    return [
        row | {"why": BY_NAME[row["removed_by"]].fails if row["removed_by"] else ""}
        for row in states.iter_rows(named=True)
    ]
