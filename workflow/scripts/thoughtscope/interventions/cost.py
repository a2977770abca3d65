"""Room 7, interventions: what it costs the model to go on with the SAE's reconstruction in place of its own states.

As in Gao et al. 2024 (arXiv 2406.04093, 4.2) and SAELens' evaluation, by cross-entropy and by divergence; held against
the site's mean state in place of every state, which is what a site is worth to the model at all.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
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
    "a part of what was written, `all` of it, the thinking (`think`), the `answer`; or the text that the SAE's training"
    " held out (`text`); nats a token, each trace's mean first, or each sequence's; sinks left as they are",
    part=(pl.String, "the part"),
    traces=(pl.UInt32, "traces that have it; sequences of the text"),
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
    text: Sequence[Sequence[int]],
    *,
    model: PreTrainedModel,
    sae: SparseCoder,
    site: str,
    traces_each: int,
    log: logging.Logger,
) -> pl.DataFrame:
    """Return what reconstructions at a site cost in the first `traces_each` traces and sequences of text, in SCHEMA.

    traces: of the condition under study; text: token ids of what the SAE's training held out, none if that isn't
    known. Raises InputError for states that aren't finite.
    """
    written = []
    for trace in traces.head(traces_each).iter_rows(named=True):
        names = [part["segment"] for part in trace["segments"]]
        written.append((targets.text_of(trace), len(trace["prompt_ids"]), names))
    held_out = [(targets.Text(np.array(ids), np.zeros(len(ids), dtype=int)), 1, ["text"]) for ids in text[:traces_each]]
    rows = [*_cost(written, PARTS, model, sae, site, log), *_cost(held_out, ("text",), model, sae, site, log)]
    return complete(pl.DataFrame(rows, infer_schema_length=None), SCHEMA).filter(pl.col("traces") > 0)


def _cost(
    texts: Sequence[tuple[targets.Text, int, Sequence[str]]],
    parts: Sequence[str],
    model: PreTrainedModel,
    sae: SparseCoder,
    site: str,
    log: logging.Logger,
) -> Iterator[dict[str, Any]]:
    """Yield the rows of some texts, each with the position of the first token looked at and the names of its runs."""
    seen = [
        (text, first, names, forced.read(model, site, index, text.ids.tolist()))
        for index, (text, first, names) in enumerate(texts)
        if len(text.ids) > first + 1
    ]
    if not seen:
        return
    states = [one.states for *_, one in seen]
    total = torch.stack([of_text.double().sum(0) for of_text in states]).sum(0)
    mean = (total / sum(map(len, states))).float()
    none = torch.zeros(0, model.config.vocab_size, dtype=torch.bool)
    tick = every_few_seconds(log.info)
    found: dict[str, list[tuple[int, Floats]]] = {part: [] for part in parts}
    for count, (text, first, names, one) in enumerate(seen, 1):
        kept = sites.sinks(one.states.norm(dim=-1)).unsqueeze(-1)
        spliced = sae.decode(sae.encode(one.states)) - one.states
        deltas = torch.stack([spliced, mean - one.states]).masked_fill(kept, 0.0)
        last = len(text.ids) - 2
        places = np.linspace(first - 1, last, min(MOST_POSITIONS, last - first + 2)).round().astype(int)
        positions = np.unique(places)
        change = forced.change(model, site, one, deltas, positions.tolist(), none)
        segment = np.array([names[run] for run in text.run[positions + 1]])
        values = torch.cat([-change.unedited[None], -change.actual, change.kl]).double().cpu().numpy()
        for part in parts:
            inside = np.ones(len(segment), dtype=bool) if part == "all" else segment == part
            if inside.any():
                found[part].append((int(inside.sum()), values[:, inside].mean(axis=1)))
        tick(f"{count} of {len(seen)} texts")
    for part, rows in found.items():
        yield _row(part, rows)


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
