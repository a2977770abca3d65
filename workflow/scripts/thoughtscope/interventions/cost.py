"""Room 7, interventions: what it costs the model to go on with the SAE's reconstruction in place of its own states.

As in Gao et al. 2024 (arXiv 2406.04093, 4.2) and SAELens' evaluation, by cross-entropy and by divergence; held against
the site's mean state in place of every state, which is what a site is worth to the model at all.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import torch

from .. import sites
from ..frames import Schema, complete
from ..job import every_few_seconds
from ..statistics import Floats, mean_over_traces, share_over_traces
from . import forced, targets

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from ..saes.coder import SparseCoder

MOST_POSITIONS = 256
"""Positions of a trace that are looked at, evenly over what was written: a vocabulary of probabilities each."""

SCHEMA = Schema(
    "a part of what was written: `all` of it, the thinking (`think`), the `answer`; nats a token, each trace's mean"
    " first, sinks left as they are",
    part=(pl.String, "the part"),
    traces=(pl.UInt32, "traces that have it"),
    tokens=(pl.UInt32, "tokens that were looked at"),
    ce=(pl.Float64, "cross-entropy of the tokens that are there, as the model is"),
    ce_spliced=(pl.Float64, "the same with reconstructions in place of the site's states"),
    ce_spliced_low=(pl.Float64, "95 % interval over traces (Hall 1992) of ce_spliced - ce: lower end"),
    ce_spliced_high=(pl.Float64, "95 % interval of ce_spliced - ce: upper end"),
    ce_mean=(pl.Float64, "the same with the site's mean state in place of its states"),
    ce_score=(pl.Float64, "share of what the site is worth that reconstructions keep: 1 - (ce_spliced - ce) /"
                          " (ce_mean - ce)"),
    kl=(pl.Float64, "divergence of what is next with reconstructions from what it is"),
    kl_mean=(pl.Float64, "the same with the mean state"),
    kl_score=(pl.Float64, "1 - kl / kl_mean"),
    kl_score_low=(pl.Float64, "95 % interval of that over traces (Fieller 1954): lower end"),
    kl_score_high=(pl.Float64, "95 % interval of that: upper end"),
)  # fmt: skip

PARTS = ("all", "think", "answer")


@torch.no_grad()
def cost(
    traces: pl.DataFrame,
    *,
    model: PreTrainedModel,
    sae: SparseCoder,
    site: str,
    traces_each: int,
    log: logging.Logger,
) -> pl.DataFrame:
    """Return what reconstructions at a site cost in the first `traces_each` traces, in SCHEMA.

    traces: of the condition under study. Raises InputError for states that aren't finite.
    """
    chosen = traces.head(traces_each)
    seen = []
    for trace in chosen.iter_rows(named=True):
        text = targets.text_of(trace)
        if len(text.ids) > len(trace["prompt_ids"]) + 1:
            seen.append((trace, text, forced.read(model, site, trace["trace_id"], text.ids.tolist())))
    if not seen:
        return pl.DataFrame(schema=SCHEMA)
    total = sum(one.states.double().sum(0) for _, _, one in seen)
    mean = (total / sum(len(one.states) for _, _, one in seen)).float()  # type: ignore[union-attr]
    none = torch.zeros(0, model.config.vocab_size, dtype=torch.bool)
    tick = every_few_seconds(log.info)
    rows = []
    for count, (trace, text, one) in enumerate(seen, 1):
        kept = sites.sinks(one.states.norm(dim=-1)).unsqueeze(-1)
        spliced = sae.decode(sae.encode(one.states)) - one.states
        deltas = torch.stack([spliced, mean - one.states]).masked_fill(kept, 0.0)
        first, last = len(trace["prompt_ids"]) - 1, len(text.ids) - 2
        positions = np.unique(np.linspace(first, last, min(MOST_POSITIONS, last - first + 1)).round().astype(int))
        change = forced.change(model, site, one, deltas, positions.tolist(), none)
        names = {index: part["segment"] for index, part in enumerate(trace["segments"])}
        segment = np.array([names[run] for run in text.run[positions + 1]])
        values = torch.cat([-change.unedited[None], -change.actual, change.kl]).double().cpu().numpy()
        for part in PARTS:
            inside = np.ones(len(segment), dtype=bool) if part == "all" else segment == part
            if inside.any():
                rows.append((part, int(inside.sum()), values[:, inside].mean(axis=1)))
        tick(f"{count} of {len(seen)} traces")
    return complete(
        pl.DataFrame([_row(part, [row[1:] for row in rows if row[0] == part]) for part in PARTS], orient="row"), SCHEMA
    ).filter(pl.col("traces") > 0)


def _row(part: str, rows: list[tuple[int, Floats]]) -> dict[str, Any]:
    """Return the row of a part from each trace's tokens and means: ce, what is lost by both, divergence by both."""
    if not rows:
        return {"part": part, "traces": 0}
    ce, lost, lost_mean, kl, kl_mean = np.stack([values for _, values in rows], axis=1)
    row = {"part": part, "traces": len(rows), "tokens": sum(tokens for tokens, _ in rows)}
    row |= {"ce": ce.mean(), "ce_spliced": (ce + lost).mean(), "ce_mean": (ce + lost_mean).mean()}
    row |= {"kl": kl.mean(), "kl_mean": kl_mean.mean()}
    row["ce_score"] = 1 - lost.mean() / lost_mean.mean() if lost_mean.mean() > 0 else None
    row["kl_score"] = 1 - kl.mean() / kl_mean.mean() if kl_mean.mean() > 0 else None
    more = mean_over_traces(lost[:, None])
    row |= {"ce_spliced_low": more.low[0], "ce_spliced_high": more.high[0]}
    share = share_over_traces(kl[:, None], kl_mean[:, None], 0.5)
    return row | {"kl_score_low": 1 - share.high[0], "kl_score_high": 1 - share.low[0]}
