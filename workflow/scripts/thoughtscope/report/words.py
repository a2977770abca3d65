"""Room 9, report: what is said of verdicts, in words."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import polars as pl

from ..evidence.checks import BY_NAME, asked
from ..evidence.links import WINDOWS
from ..evidence.verdict import waterfall

PLACES = {
    "site": "at its site",
    "residual_in": "entering the block",
    "residual_out": "leaving it",
    "below": "one block below",
    "above": "one above",
}
"""The places where an SAE is tried."""


def headline(table: pl.DataFrame, *, too_small: bool) -> str:
    """Say in a sentence how many of a verdict's latents survive, and what removed the rest.

    too_small: whether the study is, see `needs.too_small`; then none that survives is no news.
    """
    *steps, survivors = waterfall(table)
    candidates, last = steps[0].left, steps[-1].left
    small = "The study is too small to find a thinking pattern" if too_small and not survivors.left else ""
    if not candidates:
        return f"{small or 'No latent is a candidate'}: there is nothing to judge."
    removed = [
        f"{before.left - step.left} {BY_NAME[step.name].fails}"
        for before, step in pairwise(steps)
        if before.left > step.left
    ]
    undecided = last - survivors.left
    passing = f"{survivors.left or 'none'} {agree(survivors.left, 'passes', 'pass')} all {len(asked(table))} checks, "
    text = (
        f"{f'{small}; of' if small else 'Of'} {counted(candidates, 'candidate latent')}, {'' if small else passing}"
        f"{undecided or 'none'} {agree(undecided, 'is', 'are')} undecided"
    )
    if not removed:
        return f"{text}, none is removed."
    return f"{text}, {candidates - last} removed, by the first they fail: {'; '.join(removed)}."


def why(row: Mapping[str, Any]) -> str:
    """Return what a latent is by the checks it fails, or which leave it undecided, or else its link.

    row: its row of the verdict's table.
    """
    failed = ", ".join(check.fails for check in BY_NAME.values() if row[check.name] == "fail")
    open_ = ", ".join(check.label for check in BY_NAME.values() if row[check.name] == "undecided")
    return failed or open_ or link(row["pattern"], row["window"])


def link(pattern: str | None, window: str | None) -> str:
    """Return what a latent has to do with a pattern; "" without one."""
    return "" if pattern is None or window is None else f"{pattern}: {WINDOWS[window]}"


def counted(number: int, noun: str) -> str:
    """Return a number and its noun, with an s where there isn't one."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def agree(number: int, one: str, many: str) -> str:
    """Return the word that goes with a number: `one` with 1 and with none."""
    return one if number < 2 else many
