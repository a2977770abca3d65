"""Truth: what was put in and what was found, by the verdict that doesn't know of it."""

from typing import Any

import numpy as np
import polars as pl

from ..evidence.checks import VERDICTS
from ..frames import Schema, complete, keys
from ..statistics import wilson
from ..teaching.grammar import STATES
from .score import KINDS

FOUND_SCHEMA = Schema(
    "a site and state; after them, without a site, each state over all sites",
    **keys("site"),
    state=(pl.Enum(STATES), "the state"),
    probe=(pl.Float64, "AUROC of a linear probe (see `probes`); over all sites, the largest"),
    marking=(pl.UInt32, "latents that mark the state however it is said (see `latent_marks`)"),
    judged=(pl.UInt32, "of these candidates for the verdict"),
    called=(pl.UInt32, "of these called thinking patterns"),
    by=(pl.UInt32, "of the thinking patterns that mark it the one that does so best"),
    by_at=(pl.String, "the site of that one"),
    by_f1=(pl.Float64, "F1 of that one over sentences"),
    **keys("latent"),
    at=(pl.String, "the site of the latent that marks it best on the half that it is chosen on"),
    f1=(pl.Float64, "F1 of that latent over sentences"),
    auroc=(pl.Float64, "AUROC of that latent over tokens"),
    token_f1=(pl.Float64, "F1 of that latent over tokens"),
    verdict=(pl.String, "the verdict on that latent, or `not a candidate`"),
    removed_by=(pl.String, "the first check that it fails"),
)

CALLED_SCHEMA = Schema(
    "a verdict's result and what latents mark, over all sites",
    verdict=(pl.String, "the verdict; `not a candidate` for a latent that it wasn't put to; `any` for all latents"),
    kind=(pl.String, "what the latents mark (see `latent_marks`), of several states the best; `none` of these"),
    latents=(pl.UInt32, "how many they are"),
    share=(pl.Float64, "share of all with that verdict"),
    low=(pl.Float64, "95 % interval of the share (Wilson 1927): lower end"),
    high=(pl.Float64, "95 % interval of the share: upper end"),
)

NOT_JUDGED, ANY = "not a candidate", "any"
"""What stands for a verdict where there is none, and for all latents."""


def found(latent_marks: pl.LazyFrame, verdict: pl.LazyFrame, probes: pl.LazyFrame) -> pl.DataFrame:
    """Return for each site and state what a probe reaches, what latents mark it, and what the verdict says of these."""
    marks = _with_verdicts(latent_marks, verdict)
    reached = {
        (site, state): value for site, state, value in probes.select("site", "state", "auroc").collect().iter_rows()
    }
    sites = list(dict.fromkeys(site for site, _ in reached))
    rows = []
    for site in [*sites, None]:
        for state in STATES:
            of_state = marks.filter((pl.col("state") == state) & ((pl.col("site") == site) if site else True))
            marking = of_state.filter(pl.col("kind") == "state")
            known = [
                value for (at, of), value in reached.items() if of == state and site in (None, at) and value is not None
            ]
            row: dict[str, Any] = {"site": site, "state": state, "probe": max(known, default=None)}
            row |= {
                "marking": len(marking),
                "judged": len(marking.filter(pl.col("verdict") != NOT_JUDGED)),
                "called": len(marking.filter(pl.col("verdict") == VERDICTS[0])),
            }
            best = of_state.sort("f1_chosen", "site", "latent", descending=[True, False, False], nulls_last=True)
            for leader in best.head(1).iter_rows(named=True):
                names = ("latent", "f1", "auroc", "token_f1", "verdict", "removed_by")
                row |= {name: leader[name] for name in names} | {"at": leader["site"]}
            is_found = (pl.col("kind") == "state") & (pl.col("verdict") == VERDICTS[0])
            for leader in best.filter(is_found).head(1).iter_rows(named=True):
                row |= {"by": leader["latent"], "by_at": leader["site"], "by_f1": leader["f1"]}
            rows.append(row)
    return complete(pl.DataFrame(rows, infer_schema_length=None), FOUND_SCHEMA)


def called(latent_marks: pl.LazyFrame, verdict: pl.LazyFrame) -> pl.DataFrame:
    """Return what the latents of each verdict mark. Of thinking patterns, the share of `state` is the precision."""
    marks = _with_verdicts(latent_marks, verdict)
    rank = {"word": 0, "state": 1, "after words": 2, None: 3}  # a latent of a word isn't made one of a state by others
    best = (
        marks.with_columns(rank=pl.col("kind").cast(pl.String).replace_strict(rank, return_dtype=pl.UInt8))
        .sort("rank")
        .unique(["site", "latent"], keep="first", maintain_order=True)
        .with_columns(kind=pl.col("kind").cast(pl.String).fill_null("none"))
    )
    rows = []
    for name in (*VERDICTS, NOT_JUDGED, ANY):
        of_verdict = best if name == ANY else best.filter(verdict=name)
        for kind in (*KINDS, "none"):
            count, total = len(of_verdict.filter(kind=kind)), len(of_verdict)
            low, high = map(float, wilson(np.array(count), total)) if total else (None, None)
            rows.append(
                {"verdict": name, "kind": kind, "latents": count, "share": count / total if total else None}
                | {"low": low, "high": high}
            )
    return complete(pl.DataFrame(rows, infer_schema_length=None), CALLED_SCHEMA)


def _with_verdicts(latent_marks: pl.LazyFrame, verdict: pl.LazyFrame) -> pl.DataFrame:
    judged = verdict.select("site", "latent", pl.col("verdict").cast(pl.String), "removed_by")
    joined = latent_marks.join(judged, on=["site", "latent"], how="left", maintain_order="left")
    return joined.with_columns(pl.col("verdict").fill_null(NOT_JUDGED)).collect()
