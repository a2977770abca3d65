"""Room 5, activations: how well an SAE reconstructs what it is given, at its site and at others around it.

An SAE read off its site still gives k active latents a token; only what it fails to reconstruct shows that they mean
nothing. All sums are in float64, a row a trace, so that blocks merge exactly and traces can be resampled.
"""

from collections.abc import Mapping
from typing import Any

import polars as pl
import torch.nn.functional as F
from torch import Tensor

from ..config import is_block, layer_of
from ..frames import Schema, keys
from ..saes.coder import Codes, SparseCoder

SCHEMA = Schema(
    "a trace and a site the SAE is tried at; counted are generated tokens x without sinks",
    **keys("trace_id", "condition", "site"),
    tokens=(pl.UInt32, "tokens counted"),
    sinks=(pl.UInt32, "sink tokens left out"),
    sum=(pl.List(pl.Float64), "Σx"),
    squares=(pl.Float64, "Σ‖x‖²"),
    residual_squares=(pl.Float64, "Σ‖x - x̂‖²"),
    cosines=(pl.Float64, "Σcos(x, x̂)"),
    norms=(pl.List(pl.Float32), "‖x‖ of each"),
    active=(pl.UInt64, "active latents, over all tokens"),
    latents=(pl.List(pl.UInt32), "which they are"),
)


def compared_sites(hookpoint: str, manifest: Mapping[str, Any]) -> list[str]:
    """Return the sites an SAE for `hookpoint` is tried at: its own, the residual stream, the blocks below and above.

    The residual stream entering and leaving the block only where it is as wide as the module's output. A block's own
    output is the residual stream leaving it, and that of the block below the one entering it: each is named once.
    """
    widths, layer = manifest["widths"], layer_of(hookpoint)
    names, others = [hookpoint], [layer - 1, layer + 1]
    if is_block(hookpoint):
        names, others = [hookpoint, f"{hookpoint}@residual_in"], [layer + 1]
    elif widths[hookpoint] == manifest["hidden_size"]:
        names += [f"{hookpoint}@residual_in", f"{hookpoint}@residual_out"]
    parts = hookpoint.split(".")
    index = parts.index(str(layer))
    neighbours = [".".join([*parts[:index], str(other), *parts[index + 1 :]]) for other in others]
    return names + [name for name in neighbours if widths.get(name) == widths[hookpoint]]


def measure(x: Tensor, sinks: Tensor, codes: Codes, sae: SparseCoder) -> dict[str, Any]:
    """Return what FVU, cosine, L0 and norms are made from, the columns of SCHEMA from `tokens` on.

    x (tokens, width) are the states of a trace's generated tokens at one site, `sinks` (tokens,) and `codes` theirs.
    """
    x, codes = x[~sinks], Codes(*(part[~sinks] for part in codes))
    x_hat = sae.decode(codes)
    active = codes.activations > 0
    return {
        "tokens": len(x),
        "sinks": int(sinks.sum()),
        "sum": x.double().sum(0).tolist(),
        "squares": x.double().square().sum().item(),
        "residual_squares": (x_hat - x).double().square().sum().item(),
        "cosines": F.cosine_similarity(x, x_hat, dim=-1).double().sum().item(),
        "norms": x.norm(dim=-1).tolist(),
        "active": int(active.sum()),
        "latents": codes.latents[active].unique().tolist(),
    }
