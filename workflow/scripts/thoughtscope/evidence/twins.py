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

from collections.abc import Iterator
from typing import Any

import numpy as np
import polars as pl

from numpy.typing import NDArray

from ..frames import Schema, complete, keys
from ..statistics import Floats
from .checks import CHECKS, RESULTS

COMPARED = tuple(check.name for check in CHECKS if check.name != "fits_its_site" and check.asked_by is None)
"""The checks that a latent and its twins' must pass to be compared."""

SCHEMA = Schema(
    "a site and who reads it: the study's own SAE and model (`trained`) and each twin",
    **keys("site", "reader"),
    tested=(pl.UInt32, "latents tested for a link to a pattern"),
    linked=(pl.UInt32, "latents linked to one (q of the link below `analysis.alpha`, over all sites of the reader)"),
    candidates=(pl.UInt32, "latents that are judged"),
    passing=(pl.UInt32, f"of these, those that pass {', '.join(f'`{name}`' for name in COMPARED)}"),
    called=(pl.UInt32, "of these, those whose SAE fits the site, too"),
    fits=(pl.Enum(RESULTS), "whether its SAE fits the site"),
    ratio=(pl.Float64, "of a twin: `passing` for each of the study's own"),
    low=(pl.Float64, "95 % interval of that (see `ratio_of_counts`): lower end"),
    high=(pl.Float64, "95 % interval of that: upper end"),
)


def twins(headlines: pl.LazyFrame, verdicts: pl.LazyFrame, *, alpha: float) -> pl.DataFrame:
    """Return how many latents each reader has at each site: tested, linked, judged, and passing what is compared."""
    tested = headlines.group_by("site", "reader").agg(tested=pl.len(), linked=(pl.col("q_link") < alpha).sum())
    judged = verdicts.group_by("site", "reader").agg(
        candidates=pl.len(),
        passing=passes().sum(),
        called=(passes() & fits()).sum(),
        fits=pl.col("fits_its_site").first(),
    )
    table = tested.join(judged, on=["site", "reader"], how="full", coalesce=True).collect()
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


def against_twins(own: pl.DataFrame, others: pl.DataFrame) -> Iterator[list[dict[str, Any]]]:
    """Yield for each latent of a site what speaks of each twin: reader, own, twins, and their ratio, low and high.

    own: a row a latent with its `p` (null where it has none), whether it `passes`, and whether its SAE `fits`; others:
    likewise, of the twins, with `reader`. Counted are those with a p at most as large as the latent's, or than a larger
    one of the site's where that tells more: what holds of many latents holds of the surest among them.
    """
    tables = {}
    for (reader,), group in others.group_by("reader", maintain_order=True):
        ours, theirs = (_counted(table, reader) for table in (own, group))
        n, m = np.arange(1, len(ours) + 1), np.searchsorted(theirs, ours, side="right")
        tables[reader] = (ours, n, m, *ratio_of_counts(m, n))
    for p in own["p"]:
        rows: list[dict[str, Any]] = []
        for reader, (ours, n, m, low, high) in tables.items():
            start = len(ours) if p is None else int(np.searchsorted(ours, p, side="left"))
            if start == len(ours):
                rows.append({"reader": reader, "own": None})
                continue
            best = start + int(high[start:].argmin())
            row = {"reader": reader, "own": int(n[best]), "twins": int(m[best])}
            rows.append(row | {"ratio": m[best] / n[best], "low": float(low[best]), "high": float(high[best])})
        yield rows


def _counted(table: pl.DataFrame, reader: Any) -> Floats:
    """Return the p, ascending, of latents that count where a twin is held against the study's own."""
    kept = table.filter(pl.col("passes") & (pl.col("fits") | (reader != "random_sae")), pl.col("p").is_not_null())
    return np.sort(kept["p"].to_numpy())
