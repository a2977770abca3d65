"""Room 6, evidence: how well each SAE reconstructs what it reads, and what it could be mistaken to read."""

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from ..config import layer_of, parse_site
from ..frames import Schema, complete
from ..statistics import Floats, percentiles, resamples

log = logging.getLogger(__name__)

PLACES = ("site", "residual_in", "residual_out", "below", "above")
"""Where a SAE is tried, from its own site outwards: there, around its block, and its module one block down or up."""

SCHEMA = Schema(
    "a place where the SAE was tried, from its own site outwards, and a condition; counted are generated tokens x"
    " without sinks",
    hookpoint=(pl.String, "the SAE's hookpoint"),
    condition=(pl.String, "the condition; null: all of them together"),
    place=(pl.String, f"which place that is from the hookpoint: {', '.join(PLACES)}"),
    site=(pl.String, "the place's site"),
    used=(pl.Boolean, "whether the study reads it there"),
    traces=(pl.UInt32, "traces"),
    tokens=(pl.UInt64, "tokens counted"),
    sinks=(pl.UInt64, "sink tokens left out"),
    fvu=(pl.Float64, "Σ‖x - x̂‖² / Σ‖x - x̄‖², x̄ the mean over all tokens counted; null without variance"),
    fvu_low=(pl.Float64, "95 % bootstrap interval (percentiles, Efron 1979) over problems, whose traces under all"
             " conditions go together: lower end; of 16 problems it holds the truth in about nine cases of ten"),
    fvu_high=(pl.Float64, "95 % bootstrap interval: upper end"),
    cosine=(pl.Float64, "mean of cos(x, x̂)"),
    mean_norm=(pl.Float64, "mean of ‖x‖"),
    median_norm=(pl.Float64, "median of ‖x‖"),
    l0=(pl.Float64, "mean number of active latents"),
    fired=(pl.Float64, "share of the SAE's latents that are active on any token"),
)  # fmt: skip


def fit(reconstruction: pl.LazyFrame, sae: Mapping[str, Any], *, site: str) -> pl.DataFrame:
    """Return how well an SAE reconstructs what it is given, at its own site and at those around it.

    reconstruction: its reconstruction files; sae: its info.json, of which `num_latents` is read; site: where the study
    reads it.
    """
    hookpoint, rows = parse_site(site)[0], []
    for name in reconstruction.select(pl.col("site").unique(maintain_order=True)).collect()["site"]:
        about = {"hookpoint": hookpoint, "site": name, "place": place(hookpoint, name), "used": name == site}
        # A site at a time: a row holds a vector as wide as the model.
        traces = reconstruction.filter(site=name).collect()
        rows.append(about | {"condition": None} | _pool(traces, sae["num_latents"]))
        for (condition,), group in traces.group_by("condition", maintain_order=True):
            rows.append(about | {"condition": condition} | _pool(group, sae["num_latents"]))
    return pl.DataFrame(rows, schema=SCHEMA).sort(pl.col("place").cast(pl.Enum(PLACES)), "condition")


def place(hookpoint: str, site: str) -> str:
    """Return which of PLACES a site is, seen from the hookpoint of an SAE."""
    module, read_from = parse_site(site)
    if read_from != "hookpoint":
        return read_from
    step = layer_of(module) - layer_of(hookpoint)
    return "site" if step == 0 else "above" if step > 0 else "below"


def _pool(group: pl.DataFrame, num_latents: int) -> dict[str, Any]:
    """Pool rows of reconstruction files: the columns of `fit` that are numbers."""
    of_problem = group.group_by("trace_id", maintain_order=True).agg(
        pl.col("tokens", "squares", "residual_squares").sum(), pl.col("sum")
    )
    tokens, squares, residual = (
        of_problem[name].to_numpy().astype(float) for name in ("tokens", "squares", "residual_squares")
    )
    sums = np.stack([np.sum(rows.to_list(), axis=0) for rows in of_problem["sum"]])
    fvu = _fvu(np.ones((1, len(tokens))), tokens, sums, squares, residual)[0]
    low, high = None, None
    if len(tokens) > 1 and np.isfinite(fvu):
        # The same resamples of problems at every site.
        low, high = map(float, percentiles(_fvu(resamples(len(tokens)), tokens, sums, squares, residual)))
    count = int(tokens.sum())
    norms = group["norms"].explode(empty_as_null=False)
    return {
        "traces": len(group),
        "tokens": count,
        "sinks": group["sinks"].sum(),
        "fvu": float(fvu) if np.isfinite(fvu) else None,
        "fvu_low": low,
        "fvu_high": high,
        "cosine": group["cosines"].sum() / count if count else None,
        "mean_norm": norms.mean(),
        "median_norm": norms.median(),
        "l0": group["active"].sum() / count if count else None,
        "fired": group["latents"].explode(empty_as_null=False).n_unique() / num_latents,
    }


def _fvu(weights: Floats, tokens: Floats, sums: Floats, squares: Floats, residual: Floats) -> Floats:
    """Return the FVU of each row of weights over problems, (resamples, problems); not a number without variance.

    Σ‖x - x̄‖² = Σ‖x‖² - ‖Σx‖² / n.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        variance = weights @ squares - np.square(weights @ sums).sum(1) / (weights @ tokens)
        # Rounding leaves a trace of variance where there is none.
        return np.where(variance > 1e-12 * (weights @ squares), weights @ residual / variance, np.nan)


def site_gate(fits: pl.LazyFrame, *, max_fvu: float) -> pl.DataFrame:
    """Put the fits of all SAEs into one table, and warn where one doesn't fit what it reads."""
    table = complete(fits, SCHEMA)
    for line in gate_warnings(table, max_fvu):
        log.warning("warning: %s", line)
    return table


def gate_warnings(gate: pl.DataFrame, max_fvu: float) -> list[str]:
    """Return what a site gate's table speaks against, one line each; none where all is well.

    For each SAE: another place than the one used fits better, or the FVU there is over `max_fvu`.
    """
    lines = []
    pooled = gate.filter(pl.col("condition").is_null(), pl.col("fvu").is_not_null())
    for (hookpoint,), group in pooled.group_by("hookpoint", maintain_order=True):
        best = group.sort("fvu").row(0, named=True)
        for row in group.filter("used").iter_rows(named=True):
            if row["fvu"] > max_fvu:
                lines.append(
                    f"{row['site']}: the SAE leaves {row['fvu']:.0%} of the variance unexplained (FVU {row['fvu']:.3g},"
                    f" over analysis.max_fvu = {max_fvu:g}); its latents say little about what it reads there."
                )
            if best["fvu"] < row["fvu"]:
                remedy = (
                    "set sae.read_from: hookpoint, unless you mean to."
                    if best["place"] == "site"
                    else f"sae.read_from: {best['place']} reads it there; check what the SAE was trained on."
                    if best["place"].startswith("residual")
                    else "check sae.hookpoint and what the SAE was trained on."
                )
                overlap = row["fvu_low"] is not None and best["fvu_high"] >= row["fvu_low"]
                lines.append(
                    f"{row['site']}: the SAE of {hookpoint} fits {best['site']} better, FVU {best['fvu']:.3g}"
                    f" against {row['fvu']:.3g}{', though their intervals overlap' if overlap else ''}; {remedy}"
                )
    return lines
