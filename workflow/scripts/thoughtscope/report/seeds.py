"""Room 10, report: which latents and verdicts SAEs of another seed give, too, in words."""

from collections.abc import Mapping
from typing import Any

import polars as pl

from ..evidence.checks import VERDICTS
from ..evidence.seeds import SHARED
from .words import agree, counted


def sentences(tables: Mapping[str, pl.DataFrame]) -> list[str]:
    """Say how many latents and thinking patterns SAEs of another seed have, too; tables: `seeds`, by site."""
    total = {name: sum(row[name] for row in rows(tables)) for name in ("tested", "shared", "called", "kept", "survive")}
    if not total["tested"]:
        return ["No latent was tested for a link to a pattern, so none was looked for in SAEs of another seed."]
    lines = [
        f"SAEs trained from another seed have a counterpart (|cos| of at least {SHARED:g}) of"
        f" {total['shared']:,} of {total['tested']:,} tested latents ({total['shared'] / total['tested']:.0%})."
    ]
    if called := total["called"]:
        lines.append(
            f"Of {counted(called, 'thinking pattern')} {total['kept'] or 'none'} {agree(total['kept'], 'has', 'have')}"
            f" one, and of {total['survive'] or 'none'} the counterpart is called a thinking pattern there, too."
        )
    return lines


def rows(tables: Mapping[str, pl.DataFrame]) -> list[dict[str, Any]]:
    """Return a row a site: latents tested, shared, thinking patterns, those shared, those called so there, too."""
    found = []
    for site, table in tables.items():
        shared = (pl.col("cosine") >= SHARED).fill_null(value=False)
        called, too = (pl.col(name).cast(pl.String) == VERDICTS[0] for name in ("verdict", "other_verdict"))
        counts = table.select(
            tested=pl.len(), shared=shared.sum(), called=called.sum(), kept=(called & shared).sum(),
            survive=(called & shared & too).sum(), cosine=pl.col("cosine").median(), nearest=pl.col("nearest").median(),
        )  # fmt: skip
        found.append({"site": site} | counts.row(0, named=True))
    return found
