"""Room 6, evidence: how much of what is found a twin has too, one that can't think or doesn't.

A latent's p of not being a thinking pattern is exact for what it assumes; a twin has what nobody thought of. If with at
most so large a p N latents of a site pass the other checks, and M of the twin's do, about M of the N would be there
without a model that thinks (target and decoy, Elias and Gygi 2007).

Whether its SAE fits the site isn't asked of a twin whose states aren't the study's: an SAE may fit these or not, and
that says nothing of thinking. Of a random SAE it is asked. It reads the same states, in which what a probe can read is
seen along many a direction: its latents do mark states, most of them where that is known (docs/organisms.md). What
tells a trained SAE from it is that what it reads is made up of its latents, which is the fit. How many of the random
one's latents pass all else is counted and said.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import polars as pl

from numpy.typing import NDArray

from ..frames import Schema, complete, keys
from ..statistics import Floats
from .checks import CHECKS, RESULTS

COMPARED = tuple(
    check.name for check in CHECKS if check.asked_by is None and check.name not in ("fits_its_site", "beyond_chance")
)
"""The checks that a latent and its twins' must pass to be compared. Not that it is beyond chance: its q would be by how
much there is in the twin, and a p as small as the study's own is what is asked."""

LEAST = 20
"""Latents of the study's own, the surest, that are counted at least: of fewer no ratio can be told."""

SCHEMA = Schema(
    "a site and who reads it: the study's own SAE and model (`trained`) and each twin",
    **keys("site", "reader"),
    tested=(pl.UInt32, "latents tested for a link to a pattern"),
    linked=(pl.UInt32, "latents linked to one (q of the link below `analysis.alpha`, over all sites of the reader)"),
    candidates=(pl.UInt32, "latents that are judged"),
    passing=(
        pl.UInt32,
        f"of these, those that pass {', '.join(f'`{name}`' for name in COMPARED)}, with a p at most the"
        " largest of those of the study's own that are beyond chance, too",
    ),
    called=(pl.UInt32, "of these, those whose SAE fits the site, too"),
    fits=(pl.Enum(RESULTS), "whether its SAE fits the site"),
    ratio=(pl.Float64, "of a twin: `passing` for each of the study's own"),
    low=(pl.Float64, "95 % interval of that (see `ratio_of_counts`): lower end"),
    high=(pl.Float64, "95 % interval of that: upper end"),
)


def twins(
    headlines: pl.LazyFrame, verdicts: pl.LazyFrame, *, alpha: float, readers: Sequence[str], sites: Sequence[str]
) -> pl.DataFrame:
    """Return how many latents each of `readers` has at each of `sites`: tested, linked, judged, and passing."""
    stand_out = passes() & (pl.col("beyond_chance").cast(pl.String) == "pass") & (pl.col("reader") == "trained")
    largest = verdicts.filter(stand_out).group_by("site").agg(cut=pl.col("p").max())
    verdicts = verdicts.join(largest, on="site", how="left").with_columns(
        passes=passes() & (pl.col("p") <= pl.col("cut")).fill_null(value=False)
    )
    tested = headlines.group_by("site", "reader").agg(tested=pl.len(), linked=(pl.col("q_link") < alpha).sum())
    judged = verdicts.group_by("site", "reader").agg(
        candidates=pl.len(),
        passing=pl.col("passes").sum(),
        called=(pl.col("passes") & fits()).sum(),
        fits=pl.col("fits_its_site").first(),
    )
    every = pl.LazyFrame({"site": sites}).join(pl.LazyFrame({"reader": readers}), how="cross")
    keys_ = ["site", "reader"]
    table = every.join(tested, on=keys_, how="left").join(judged, on=keys_, how="left").collect()
    counts = pl.col("tested", "linked", "candidates", "passing", "called").fill_null(0)
    table = table.with_columns(counts).sort("site", pl.col("reader") != "trained", "reader")
    own = dict(table.filter(reader="trained").select("site", "passing").iter_rows())
    rows = []
    for row in table.iter_rows(named=True):
        if row["reader"] != "trained" and (ours := own.get(row["site"], 0)):
            low, high = ratio_of_counts(np.array([row["passing"]]), np.array([ours]))
            row |= {"ratio": row["passing"] / ours, "low": low.item(), "high": high.item()}
        rows.append(row)
    return complete(pl.DataFrame(rows, infer_schema_length=None), SCHEMA)


def passes() -> pl.Expr:
    """Return whether a row of a verdict's table passes what is asked of every twin."""
    return pl.all_horizontal(pl.col(name).cast(pl.String) == "pass" for name in COMPARED)


def fits() -> pl.Expr:
    """Return whether the SAE of a row of a verdict's table fits its site."""
    return pl.col("fits_its_site").cast(pl.String) == "pass"


def ratio_of_counts(theirs: NDArray[Any], ours: NDArray[Any]) -> tuple[Floats, Floats]:
    """Return the 95 % interval of the ratio of two rates, from their counts: lower and upper ends.

    Given the sum of two Poisson counts the first is binomial, so that the interval of its share (Clopper and Pearson
    1934) is one of the ratio (Przyborowski and Wilenski 1940). Infinite above where `ours` is 0.
    """
    from scipy import stats

    with np.errstate(divide="ignore"):
        low = np.where(theirs > 0, stats.beta.ppf(0.025, np.maximum(theirs, 1), ours + 1), 0.0)
        high = np.where(ours > 0, stats.beta.ppf(0.975, theirs + 1, np.maximum(ours, 1)), 1.0)
        return low / (1 - low), high / (1 - high)


def against_twins(own: pl.DataFrame, others: pl.DataFrame, readers: Sequence[str]) -> Iterator[list[dict[str, Any]]]:
    """Yield for each latent of a site what speaks of each twin: reader, own, twins, and their ratio, low and high.

    own: a row a latent with its `p` (null where it has none), whether it `passes`, and whether its SAE `fits`; others:
    likewise, of the twins, with `reader`. Counted are those with a p at most as large as the latent's, or as that of
    the LEAST surest of the site: which they are is no matter of the twin, so the interval is what it says.
    """
    counted = {
        reader: tuple(_counted(table, reader) for table in (own, others.filter(reader=reader))) for reader in readers
    }
    for p in own["p"]:
        rows: list[dict[str, Any]] = []
        for reader, (ours, theirs) in counted.items():
            if p is None or not len(ours):
                rows.append({"reader": reader, "own": None})
                continue
            cut = max(p, ours[min(LEAST, len(ours)) - 1])
            n, m = (np.searchsorted(values, [cut], side="right") for values in (ours, theirs))
            low, high = ratio_of_counts(m, n)
            row = {"reader": reader, "own": int(n.item()), "twins": int(m.item()), "ratio": m.item() / n.item()}
            rows.append(row | {"low": low.item(), "high": high.item()})
        yield rows


def _counted(table: pl.DataFrame, reader: str) -> Floats:
    """Return the p, ascending, of latents that count where a twin is held against the study's own."""
    kept = table.filter(pl.col("passes") & (pl.col("fits") | (reader != "random_sae")), pl.col("p").is_not_null())
    return np.sort(kept["p"].to_numpy())
