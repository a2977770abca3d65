"""Room 5, readings: all that one SAE says of one block of traces, from one pass of the model and one load of both."""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import TYPE_CHECKING, Any, NamedTuple

import polars as pl
import torch
from torch import Tensor

from .. import sites
from . import activations, features, reconstruction
from .states import check_finite, read_states
from ..saes.coder import Codes

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from ..saes.coder import SparseCoder


class Reading(NamedTuple):
    """A block's tables, each in the SCHEMA of the module of its name."""

    activations: pl.DataFrame
    features: pl.DataFrame
    reconstruction: pl.DataFrame


@torch.inference_mode()
def read(
    traces: pl.DataFrame,
    *,
    model: PreTrainedModel,
    sae: SparseCoder,
    site: str,
    compared: Collection[str],
    log: logging.Logger,
) -> Reading:
    """Read a block of traces: what is active at `site`, and how well the SAE reconstructs at the sites `compared`.

    The model reads each trace once, as far as the last of the sites. States are encoded once a site, a batch of traces
    at a time: all tokens of `site`, and of the others only those that reconstruction counts.
    """
    tables: dict[int, pl.DataFrame] = {}
    rows: list[dict[str, Any]] = []
    names = list(dict.fromkeys([*compared, site]))
    for batch in read_states(traces, model=model, names=names, log=log):
        for name in names:
            # Of other sites than the one read, only what was generated counts.
            starts = [0 if name == site else len(trace["prompt_ids"]) for trace, _ in batch]
            encoded = _encode(sae, [states[name][start:] for (_, states), start in zip(batch, starts, strict=True)])
            for (trace, states), start, codes in zip(batch, starts, encoded, strict=True):
                sinks, prompt = sites.sinks(states[name].norm(dim=-1)), len(trace["prompt_ids"])
                too_large = "the SAE isn't made for states as large as these."
                check_finite(codes.activations, "activation", trace["trace_id"], name, start, too_large)
                if name == site:
                    tables[trace["trace_id"]] = activations.tabulate(trace, sinks, codes)
                if name in compared:
                    generated = Codes(*(part[prompt - start :] for part in codes))
                    row = reconstruction.measure(states[name][prompt:], sinks[prompt:], generated, sae)
                    rows.append({"trace_id": trace["trace_id"], "condition": trace["condition"], "site": name} | row)
    active = pl.concat([tables[trace_id] for trace_id in traces["trace_id"]])
    measured = pl.DataFrame(rows, schema=reconstruction.SCHEMA).sort("trace_id", maintain_order=True)
    return Reading(active, features.summarize(active), measured)


def _encode(sae: SparseCoder, states: list[Tensor]) -> list[Codes]:
    """Encode the states of several traces as one matrix."""
    lengths = [len(x) for x in states]
    activations, latents = (part.split(lengths) for part in sae.encode(torch.cat(states)))
    return [Codes(*pair) for pair in zip(activations, latents, strict=True)]
