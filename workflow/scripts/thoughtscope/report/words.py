"""Room 9, report: what is said of verdicts, in words."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import polars as pl

from ..evidence.checks import BY_NAME, CHECKS
from ..evidence.verdict import waterfall

PLACES = {
    "site": "at its site",
    "residual_in": "entering the block",
    "residual_out": "leaving it",
    "below": "one block below",
    "above": "one above",
}
"""The places where an SAE is tried."""


def headline(table: pl.DataFrame) -> str:
    """Say in a sentence how many of a verdict's latents survive, and what removed the rest."""
    *steps, survivors = waterfall(table)
    candidates, last = steps[0].left, steps[-1].left
    if not candidates:
        return "No latent recurs: there is nothing to judge."
    removed = [
        f"{before.left - step.left} {BY_NAME[step.name].fails}"
        for before, step in pairwise(steps)
        if before.left > step.left
    ]
    undecided = last - survivors.left
    text = (
        f"Of {counted(candidates, 'recurring latent')}, {survivors.left or 'none'}"
        f" {agree(survivors.left, 'passes', 'pass')} all {len(CHECKS)} checks, {undecided or 'none'}"
        f" {agree(undecided, 'is', 'are')} undecided"
    )
    if not removed:
        return f"{text}, none is removed."
    return f"{text}, {candidates - last} removed, by the first they fail: {'; '.join(removed)}."


def why(row: Mapping[str, Any]) -> str:
    """Return what a latent is by the checks it fails, or else which leave it undecided; "" if it passes all.

    row: its row of the verdict's table.
    """
    failed = ", ".join(check.fails for check in CHECKS if row[check.name] == "fail")
    return failed or ", ".join(check.label for check in CHECKS if row[check.name] == "undecided")


def counted(number: int, noun: str) -> str:
    """Return a number and its noun, with an s where there isn't one."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def agree(number: int, one: str, many: str) -> str:
    """Return the word that goes with a number: `one` with 1 and with none."""
    return one if number < 2 else many
