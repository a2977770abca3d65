"""Room 10, report: how much of what was found the twins have too, in words."""

import polars as pl

from ..twins import TWINS
from .words import agree, counted


def sentences(table: pl.DataFrame) -> list[str]:
    """Say of each twin how many latents it has for those of the study's own; table: `twins`."""
    own = int(table.filter(reader="trained")["passing"].sum())
    at = counted(table["site"].n_unique(), "site")
    lines = [
        f"Twins are read by the same rules. At {at} {own or 'none'} of the study’s own latents"
        f" {agree(own, 'passes', 'pass')} all checks that a twin is put to, but for the fit of the SAE."
    ]
    for (reader,), rows in table.filter(pl.col("reader") != "trained").group_by("reader", maintain_order=True):
        passing, called, linked = (int(rows[column].sum()) for column in ("passing", "called", "linked"))
        with_fit = f", {called or 'none'} with an SAE that fits" if passing else ""
        lines.append(
            f"{name(str(reader))} ({TWINS[str(reader)]}): {passing or 'none'} {agree(passing, 'does', 'do')}"
            f"{_of_sites(rows)}{with_fit}; {linked or 'none'} of {int(rows['tested'].sum()):,} tested"
            f" {agree(linked, 'is', 'are')} linked to a pattern."
        )
        if reader == "random_sae" and own and passing > own / 2:
            lines.append(
                "So directions drawn at random are linked to patterns about as often as trained ones: the model’s"
                " states tell these patterns along many directions; it isn’t the training of the SAE that finds them."
            )
    return lines


def name(reader: str) -> str:
    """Return what a reader is called."""
    words = reader.replace("_", " ").capitalize().replace("sae", "SAE")
    return "The study’s own" if reader == "trained" else words


def _of_sites(rows: pl.DataFrame) -> str:
    """Say at which sites a twin has most for each of the study's own."""
    known = rows.drop_nulls("ratio").sort("ratio", descending=True)
    if known.is_empty():
        return ""
    worst = known.row(0, named=True)
    return (
        f" ({worst['ratio']:.2f} for each of the study’s own at {worst['site']}, 95% interval {worst['low']:.2f} to"
        f" {min(worst['high'], 99):.2f})"
    )
