"""Room 7, interventions: which tokens a latent makes likelier (TokenChange, Gur-Arieh et al. 2025, arXiv 2501.08319).

A latent is held at its largest activation on every token that was written, and it is seen which logits rise and fall.
Whatever is amplified raises some tokens, so what counts is what is beyond the site's other latents, each held so.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import torch

from ..evidence.verdict import leading
from ..job import every_few_seconds
from ..statistics import mean_over_traces
from . import forced, targets
from .ablations import see
from .tables import TOKEN_CHANGES_SCHEMA

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from ..saes.coder import SparseCoder

TRACES, PLACES, LONGEST = 6, 4, 128
"""Traces that a latent is held in, places in each that are looked at, and tokens written that are read at most."""

MOST = 10
"""Tokens at each end of what changes."""


@torch.no_grad()
def token_changes(
    traces: pl.DataFrame,
    features: pl.LazyFrame,
    verdict: pl.DataFrame,
    vocabulary: pl.LazyFrame,
    *,
    model: PreTrainedModel,
    sae: SparseCoder,
    site: str,
    latents: int,
    log: logging.Logger,
) -> pl.DataFrame:
    """Return the tokens whose logits each of the `latents` leading latents changes most, in TOKEN_CHANGES_SCHEMA.

    traces and features are of the condition under study. The states of every generated token but sinks get
    (max - a_t) d; changes are means over up to PLACES places of each of TRACES traces, less their mean over all tokens.
    """
    leaders = leading(verdict, latents)["latent"].to_list()
    counted = features.filter(pl.col("segment") != "prompt", ~pl.col("sink"), pl.col("latent").is_in(leaders))
    largest = dict(counted.group_by("latent").agg(pl.col("max").max()).collect().iter_rows())
    leaders = [latent for latent in leaders if latent in largest]
    names = vocabulary.select("token_id", "token").collect().sort("token_id")["token"]
    if not leaders:
        return pl.DataFrame(schema=TOKEN_CHANGES_SCHEMA)
    chosen = torch.tensor(leaders, device=model.device)
    directions = sae.direction(chosen).float()
    tops = torch.tensor([largest[latent] for latent in leaders], device=model.device)
    found: list[np.ndarray] = []
    tick = every_few_seconds(log.info)
    for trace in traces.iter_rows(named=True):
        whole = targets.text_of(trace)
        able = whole.has_next[whole.has_next < len(trace["prompt_ids"]) + LONGEST]
        places = able[targets.evenly(len(able), PLACES)].tolist() if len(able) else []
        if not places:
            continue
        text = targets.Text(whole.ids[: places[-1] + 2], whole.run[: places[-1] + 2])
        one = see(trace["trace_id"], text, model, sae, site)
        own = torch.stack([one.activation(latent) for latent in leaders])
        deltas = ((tops[:, None] - own) * one.counted).unsqueeze(-1) * directions.unsqueeze(1)
        found.append(forced.changed_logits(model, site, one.trace, deltas, places)[:, : len(names)].cpu().numpy())
        tick(f"{len(found)} of {min(TRACES, len(traces))} traces")
        if len(found) == TRACES:
            break
    if not found:
        return pl.DataFrame(schema=TOKEN_CHANGES_SCHEMA)
    changes = np.stack(found)
    others = (changes.sum(1, keepdims=True) - changes) / max(1, len(leaders) - 1)
    beyond = changes - others
    rows = []
    for index, latent in enumerate(leaders):
        mean = beyond[:, index].mean(0)
        for side, order in (("top", np.argsort(-mean, kind="stable")), ("bottom", np.argsort(mean, kind="stable"))):
            picked = order[:MOST]
            interval = mean_over_traces(beyond[:, index, picked].astype(float))
            rows += [
                {
                    "latent": latent, "side": side, "rank": rank, "token_id": token, "token": names[int(token)],
                    "change": changes[:, index, token].mean(), "others": others[:, index, token].mean(),
                    "low": interval.low[rank - 1], "high": interval.high[rank - 1], "traces": len(found),
                }
                for rank, token in enumerate(picked, 1)
            ]  # fmt: skip
    return pl.DataFrame(rows, schema=TOKEN_CHANGES_SCHEMA).with_columns(pl.col("low", "high").fill_nan(None))
