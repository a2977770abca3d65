"""Room 9, report: what it would take: whether a study can find anything at all, and what would decide the rest."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import polars as pl

from ..evidence.checks import asked
from ..statistics import MIN_TOKENS, MIN_TRACES
from .words import agree, counted

FEW_TRACES = 30
"""Below so many traces, a share's 95 % interval spans a third of all there is (Wilson 1927) or more."""


def command(traces: int) -> str:
    """Return the command that brings a study to so many traces a condition."""
    return f"`snakemake --cores all --config inferences={traces}`"


def about(traces: int | None) -> int | None:
    """Return a number of traces, rounded up to two digits: it is an estimate."""
    if traces is None:
        return None
    step = 10 ** max(0, len(str(traces)) - 2)
    return -(-traces // step) * step


def with_pattern(matches: pl.DataFrame, condition: str) -> dict[str, int]:
    """Return in how many traces of a condition each pattern is, of those that are in any."""
    seen = matches.filter(pl.col("kind") == "pattern", pl.col("condition") == condition)
    return dict(seen.group_by("name").agg(pl.col("trace_id").n_unique()).sort("name").iter_rows())


def least_traces(links: int, family: int, alpha: float) -> int:
    """Return in how many traces a latent must be active to stand out by itself, with q < alpha, among a family.

    The least n with 2^-n, the smallest p of n traces, times the links tested and the family, below alpha.
    """
    return math.floor(math.log2(links * family / alpha)) + 1


def too_small(
    *, traces: int, conditions: Sequence[str], matches: pl.DataFrame, headline: pl.DataFrame, alpha: float
) -> str | None:
    """Say why a study can't find a thinking pattern, whatever its latents do, and what to do; None where it can.

    traces: those of the condition under study, the first of `conditions`; headline: the study's table of that name.
    """
    problems: list[tuple[str, str]] = []
    if len(conditions) < 2:
        problems.append(("there is no control to recur beyond", "Add a second condition to `conditions`"))
    found = with_pattern(matches, conditions[0])
    most = max(found, key=lambda name: found[name], default=None)
    if traces < MIN_TRACES:
        why = f"it has {counted(traces, 'problem')}, and no test works with fewer than {MIN_TRACES}"
        problems.append((why, _more(FEW_TRACES)))
    elif most is None or found[most] < MIN_TRACES:
        why = f"no pattern is in {MIN_TRACES} traces under “{conditions[0]}”"
        if most is None:
            problems.append((f"{why}, or in any", "Look for other words (`patterns`), or in a model that reasons"))
        else:
            why += f" (the most frequent, {most}, is in {found[most]} of {traces})"
            problems.append((why, _more(MIN_TRACES * traces / found[most])))
    elif headline.is_empty():
        why = f"no latent could be tested (none is active on {MIN_TOKENS} tokens in {MIN_TRACES} traces)"
        problems.append((why, _more(2 * traces)))
    else:
        links, family = (int(headline[name].to_numpy().min()) for name in ("links", "family"))
        needed = least_traces(links, family, alpha)
        if traces < needed:
            why = (
                f"with {traces} traces not even a latent that shows its pattern in every one of them would stand out"
                f" by itself among the {family:,} tested"
            )
            problems.append((why, _more(needed)))
    if not problems:
        return None
    whys, ways = zip(*problems, strict=True)
    return f"This study is too small to find a thinking pattern: {'; and '.join(whys)}. {'. '.join(ways)}."


def _more(traces: float) -> str:
    enough = about(max(FEW_TRACES, math.ceil(traces)))
    return f"About {enough} problems would be a start: {command(enough or 0)}"


class Needed(NamedTuple):
    """What would decide the latents that a check leaves open."""

    check: str
    """Its label, or `verdict`."""
    undecided: int
    """Latents that are undecided for it, of those with that verdict."""
    known: int
    """Of these, those of which it can be said."""
    half: int | None
    """Traces at which half of those would be decided, if they went on like these."""
    all: int | None
    """Traces at which all of those would be."""


def needed(verdicts: pl.DataFrame) -> list[Needed]:
    """Return what each check leaves open of the undecided latents, and at last what the verdict does."""
    undecided = verdicts.filter(pl.col("verdict").cast(pl.String) == "undecided")
    open_ = {
        check.label: undecided.filter(pl.col(check.name).cast(pl.String) == "undecided")[f"{check.name}_needs"]
        for check in asked(verdicts)
    } | {"verdict": undecided["needs"]}
    rows = []
    for label, needs in open_.items():
        known = needs.drop_nulls().sort().to_list()
        half, whole = (known[(len(known) - 1) // 2], known[-1]) if known else (None, None)
        rows.append(Needed(label, len(needs), len(known), about(half), about(whole)))
    return [row for row in rows if row.undecided]


def advice(rows: Sequence[Needed], traces: int) -> str | None:
    """Say what would decide half of what is undecided, with the command; None where nothing is. rows: of `needed`."""
    if not rows:
        return None
    verdict = rows[-1]
    opening = f"{counted(verdict.undecided, 'latent')} {agree(verdict.undecided, 'is', 'are')} undecided"
    # Where it can be said of few verdicts, then of the check of which it can be said most often.
    row = verdict if 2 * verdict.known >= verdict.undecided else max(rows, key=lambda row: row.known)
    if row.half is None:
        return f"{opening}; how many traces would decide {agree(verdict.undecided, 'it', 'them')} can’t be said yet."
    whom = "it" if row.undecided == 1 else "half of them" if row.known == row.undecided else (
        "the one of which that can be said" if row.known == 1 else f"half of the {row.known} of which that can be said"
    )  # fmt: skip
    what = whom if row is verdict else f"“{row.check}” for {whom}"
    return (
        f"{opening}. If traces went on like the {traces} there are, about {row.half:,} a condition would decide {what}:"
        f" {command(row.half)}, with this run’s `--configfile`, if it had one."
    )


def in_words(row: Mapping[str, int | None], name: str = "needs") -> str:
    """Return what would decide a latent, or one check of it, in words: "" where none would, or it can't be said."""
    traces = about(row[name])
    return "" if traces is None else f"about {traces:,} traces would decide it"
