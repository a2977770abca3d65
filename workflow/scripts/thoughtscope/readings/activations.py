"""Room 5, activations: the k active latents of every token, read at one site.

The activation at position t is what the model computed having read token t. The last token of a trace was written but
never read, so it has none; the original study's hidden states end there too.
"""

import logging
from collections.abc import Mapping
from typing import Any

import polars as pl
import torch
from torch import Tensor
from transformers import PreTrainedModel

from .. import sites
from ..config import SEGMENTS
from ..frames import Schema, keys
from ..saes.coder import Encoder
from .states import read_states

SCHEMA = Schema(
    "a token and latent active on it, by trace, position, falling activation",
    **keys("trace_id", "condition", "position", "token_id", "segment", "sink", "latent"),
    activation=(pl.Float32, "its activation, what the model computed having read that token; not 0"),
)


@torch.inference_mode()
def encode(
    traces: pl.DataFrame, *, model: PreTrainedModel, encoder: Encoder, site: str, log: logging.Logger
) -> pl.DataFrame:
    """Return the active latents of every token of each trace that the model read, in SCHEMA.

    Latents with activation 0 are not active and have no row.
    """
    frames = {
        trace["trace_id"]: _encode_trace(trace, states[site], encoder)
        for trace, states in read_states(traces, model=model, names=[site], log=log)
    }
    return pl.concat([frames[trace_id] for trace_id in traces["trace_id"]])


def _encode_trace(trace: Mapping[str, Any], x: Tensor, encoder: Encoder) -> pl.DataFrame:
    """Encode the states x (tokens, width) of one trace."""
    activations, latents = encoder.encode(x)
    tokens, k = activations.shape
    segment = [part["segment"] for part in trace["segments"] for _ in range(part["start"], part["end"])]
    token = pl.DataFrame(
        {
            "trace_id": pl.repeat(trace["trace_id"], tokens, dtype=pl.UInt32, eager=True),
            "condition": pl.repeat(trace["condition"], tokens, dtype=pl.String, eager=True),
            "position": pl.arange(tokens, dtype=pl.UInt32, eager=True),
            "token_id": pl.Series(trace["ids"], dtype=pl.UInt32),
            "segment": pl.Series(segment[:tokens], dtype=pl.Enum(SEGMENTS)),
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
        .select(*SCHEMA)
    )
