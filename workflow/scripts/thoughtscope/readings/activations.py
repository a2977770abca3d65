"""Room 5, activations: the k active latents of every token, read at one site.

The activation at position t is what the model computed having read token t. The last token of a trace was written but
never read, so it has none; the original study's hidden states end there too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import polars as pl

from ..config import SEGMENTS
from ..frames import Schema, keys

if TYPE_CHECKING:
    from torch import Tensor

    from ..saes.coder import Codes

SCHEMA = Schema(
    "a token and latent active on it, by trace, position, falling activation",
    **keys("trace_id", "condition", "position", "token_id", "segment", "sink", "latent"),
    activation=(pl.Float32, "its activation, what the model computed having read that token; not 0"),
)


def tabulate(trace: Mapping[str, Any], sinks: Tensor, codes: Codes) -> pl.DataFrame:
    """Return the active latents of every token of a trace that the model read, in SCHEMA.

    `trace` is as `read_states` gives it, `sinks` (tokens,) flags its sinks. Latents with activation 0 have no row.
    """
    tokens, k = codes.activations.shape
    segment = [part["segment"] for part in trace["segments"] for _ in range(part["start"], part["end"])]
    token = pl.DataFrame(
        {
            "trace_id": pl.repeat(trace["trace_id"], tokens, dtype=pl.UInt32, eager=True),
            "condition": pl.repeat(trace["condition"], tokens, dtype=pl.String, eager=True),
            "position": pl.arange(tokens, dtype=pl.UInt32, eager=True),
            "token_id": pl.Series(trace["ids"], dtype=pl.UInt32),
            "segment": pl.Series(segment[:tokens], dtype=pl.Enum(SEGMENTS)),
            "sink": sinks.cpu().numpy(),
        }
    )
    return (
        token.select(pl.all().repeat_by(k).explode())
        .with_columns(
            latent=pl.Series(codes.latents.flatten().cpu().numpy()).cast(pl.UInt32),
            activation=pl.Series(codes.activations.flatten().cpu().numpy()),
        )
        .filter(pl.col("activation") > 0)
        .select(*SCHEMA)
    )
