"""Room 6, evidence: which latents an SAE trained from another seed has, too, and whether they are judged alike there.

SAEs of one text and size that start from different weights share a part of their latents only (Paulo and Belrose 2025,
arXiv 2501.16615). A finding that hangs on the seed is one of the SAE more than of the model.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from ..frames import Schema, complete, keys
from ..matrices import Matrix, blocks, matrices
from ..saes import record
from .checks import VERDICTS

SHARED = 0.7
"""|cos| of two directions from which on the latents count as the same, as in the paper."""

MOST = 8192
"""Latents of an SAE that are matched, those linked to a pattern most surely: a matrix of 0.25 GB, seconds of work."""

SCHEMA = Schema(
    "a latent that was tested for a link to a pattern, in the study's own SAE",
    **keys("latent"),
    other=(pl.UInt32, "the tested latent of the SAE of `sae.second_seed` that it is matched with: one to one, so that"
                      " the sum of |cos| is largest (Kuhn 1955); null where that SAE has fewer"),
    cosine=(pl.Float32, "|cos| of the two decoder directions"),
    nearest=(pl.Float32, "largest |cos| with the direction of any latent of that SAE, tested or not"),
    verdict=(pl.Enum(VERDICTS), "the verdict on the latent; null where it is no candidate"),
    other_verdict=(pl.Enum(VERDICTS), "the verdict on the other, by the same rules; null likewise"),
)  # fmt: skip


def seeds(
    headlines: pl.LazyFrame,
    verdicts: pl.LazyFrame,
    weights: Path,
    info: Mapping[str, Any],
    other_weights: Path,
    other_info: Mapping[str, Any],
    *,
    site: str,
    readers: tuple[str, str],
) -> pl.DataFrame:
    """Return the latents of a site beside those of an SAE of another seed, in SCHEMA. readers: their names, in order.

    Raises InputError for weights that aren't those that were trained.
    """
    both = []
    for reader, path, about in zip(readers, (weights, other_weights), (info, other_info), strict=True):
        record.check(about, path.parent, [path.name])
        tested = headlines.filter(pl.col("reader") == reader, pl.col("site") == site).collect()
        latents = tested.sort("p_link", "latent", nulls_last=True).head(MOST)["latent"].sort().to_list()
        decoder = matrices(path)["W_dec"]
        both.append((latents, decoder, verdicts.filter(pl.col("reader") == reader).collect()))
    (own, decoder, judged), (others, other_decoder, other_judged) = both
    if not own:
        return pl.DataFrame(schema=SCHEMA)
    directions = _unit(decoder[own])
    found = pl.DataFrame({"latent": own, "nearest": _nearest(directions, other_decoder)})
    matched = _matched(own, directions, others, _unit(other_decoder[others])) if others else {}
    rows = [matched.get(latent, (None, None)) for latent in own]
    found = found.with_columns(other=pl.Series([row[0] for row in rows], dtype=pl.UInt32),
                               cosine=pl.Series([row[1] for row in rows], dtype=pl.Float32))  # fmt: skip
    judged, other_judged = (
        table.select("latent", pl.col("verdict").cast(pl.String)) for table in (judged, other_judged)
    )
    found = complete(found, SCHEMA).drop("verdict", "other_verdict").join(judged, on="latent", how="left")
    found = found.join(other_judged.rename({"latent": "other", "verdict": "other_verdict"}), on="other", how="left")
    return complete(found, SCHEMA).sort("latent")


def _unit(rows: np.ndarray) -> np.ndarray:
    """Return rows of length 1, float32; rows of zeros as they are."""
    rows = rows.astype(np.float32)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-30)


def _matched(own: list[int], mine: np.ndarray, others: list[int], theirs: np.ndarray) -> dict[int, tuple[int, float]]:
    """Return for each latent that has one its counterpart and their |cos|, one to one, with the largest sum."""
    from scipy.optimize import linear_sum_assignment

    cosines = np.abs(mine @ theirs.T)
    pairs = zip(*linear_sum_assignment(cosines, maximize=True), strict=True)
    return {own[row]: (others[column], float(cosines[row, column])) for row, column in pairs}


def _nearest(directions: np.ndarray, decoder: Matrix) -> np.ndarray:
    """Return the largest |cos| of each direction with any row of a decoder, (directions,)."""
    best = np.zeros(len(directions), dtype=np.float32)
    for _, rows in blocks(decoder, len(decoder)):
        best = np.maximum(best, np.abs(directions @ _unit(rows).T).max(axis=1))
    return best
