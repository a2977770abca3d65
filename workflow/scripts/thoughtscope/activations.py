"""Room 5, activations: the k active latents of every token, read at one site.

The activation at position t is what the model computed having read token t.
"""

import logging
import time
from typing import Any

import polars as pl
import torch
from torch import Tensor
from transformers import PreTrainedModel

from . import sites
from .config import SEGMENTS, layer_of, parse_site
from .errors import InputError
from .job import every_few_seconds
from .saes import Encoder

BATCH_TOKENS = 4096
"""Tokens per forward pass, padding included."""

SCHEMA = {
    "trace_id": pl.UInt32,
    "condition": pl.String,
    "position": pl.UInt32,
    "token_id": pl.UInt32,
    "segment": pl.Enum(SEGMENTS),
    "sink": pl.Boolean,
    "latent": pl.UInt32,
    "activation": pl.Float32,
}
"""Columns of an activations file: one row per token and active latent, by trace, position, falling activation."""


def batches(lengths: list[int], most_tokens: int) -> list[list[int]]:
    """Group rows into batches of at most `most_tokens` padded tokens, longest rows first, so that little is padding."""
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    grouped: list[list[int]] = []
    for row in order:
        if grouped and lengths[grouped[-1][0]] * (len(grouped[-1]) + 1) <= most_tokens:
            grouped[-1].append(row)
        else:
            grouped.append([row])
    return grouped


@torch.inference_mode()
def encode(
    traces: pl.DataFrame, *, model: PreTrainedModel, encoder: Encoder, site: str, log: logging.Logger
) -> pl.DataFrame:
    """Return the active latents of every token of each trace, in SCHEMA.

    The model reads prompt and generated tokens in one pass (teacher forcing) up to the site's block. Latents with
    activation 0 are not active and have no row. Raises InputError for an activation that isn't finite.
    """
    sites.cut_after(model, layer_of(parse_site(site)[0]))
    seen: list[Tensor] = []
    handle = sites.read(model, site, seen.append)
    rows = traces.select("trace_id", pl.concat_list("prompt_ids", "generated_ids"), "segments").rows()
    frames: dict[int, pl.DataFrame] = {}
    started, read, total = time.monotonic(), 0, sum(len(ids) for _, ids, _ in rows)
    tick = every_few_seconds(log.info)
    for batch in batches([len(ids) for _, ids, _ in rows], BATCH_TOKENS):
        longest = max(len(rows[row][1]) for row in batch)
        # Padded on the right: under causal attention no token sees what follows it, so no mask is needed.
        padded = [rows[row][1] + [0] * (longest - len(rows[row][1])) for row in batch]
        seen.clear()
        model.base_model(input_ids=torch.tensor(padded, device=model.device), use_cache=False)
        for row, states in zip(batch, seen[0], strict=True):
            trace_id, ids, segments = rows[row]
            frames[row] = _encode_trace(trace_id, ids, segments, states[: len(ids)].float(), encoder, site)
            read += len(ids)
        tick(f"{read} of {total} tokens, {read / (time.monotonic() - started):.0f} tokens/s")
    handle.remove()
    log.info("%d traces, %d tokens, %.0f tokens/s", len(rows), total, total / (time.monotonic() - started))
    return (
        pl.concat([frames[row] for row in range(len(rows))])
        .join(traces.select("trace_id", "condition"), on="trace_id", how="left", maintain_order="left")
        .select(*SCHEMA)
    )


def _encode_trace(
    trace_id: int, ids: list[int], segments: list[dict[str, Any]], x: Tensor, encoder: Encoder, site: str
) -> pl.DataFrame:
    """Encode the states x (tokens, width) of one trace."""
    finite = x.isfinite().all(-1)
    if not finite.all():
        position = int((~finite).nonzero()[0])
        raise InputError(
            f"trace {trace_id} has a non-finite state at {site}, position {position}; set model.dtype to float32,"
            " or leave this layer out."
        )
    activations, latents = encoder.encode(x)
    tokens, k = activations.shape
    segment = [part["segment"] for part in segments for _ in range(part["start"], part["end"])]
    token = pl.DataFrame(
        {
            "trace_id": pl.repeat(trace_id, tokens, dtype=pl.UInt32, eager=True),
            "position": pl.arange(tokens, dtype=pl.UInt32, eager=True),
            "token_id": pl.Series(ids, dtype=pl.UInt32),
            "segment": pl.Series(segment, dtype=pl.Enum(SEGMENTS)),
            "sink": sites.sinks(x.norm(dim=-1)).cpu().numpy(),
        }
    )
    return (
        token.select(pl.all().repeat_by(k).explode())
        .with_columns(
            latent=pl.Series(latents.flatten().cpu().numpy()).cast(pl.UInt32),
            activation=pl.Series(activations.flatten().cpu().numpy()),
        )
        .filter(pl.col("activation") > 0)
    )
