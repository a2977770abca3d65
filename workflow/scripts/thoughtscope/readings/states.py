"""Room 5, readings: what the model computes at a site, having read each token of a trace (teacher forcing)."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import polars as pl
import torch
from torch import Tensor

from .. import sites
from ..config import layer_of, parse_site
from ..devices import in_batches
from ..errors import InputError
from ..job import every_few_seconds

if TYPE_CHECKING:
    from transformers import PreTrainedModel

BATCH_TOKENS = 4096
"""Tokens per forward pass, padding included."""


def read_states(
    traces: pl.DataFrame, *, model: PreTrainedModel, names: Sequence[str], log: logging.Logger
) -> Iterator[list[tuple[dict[str, Any], dict[str, Tensor]]]]:
    """Yield batches of traces, longest first, each with its states at the sites `names`, float32, (tokens, width) each.

    A trace is its row of the traces file, with `ids`: the tokens the model read, which are all but the last it wrote.
    The model reads them in one pass (teacher forcing) up to the last site's block. Raises InputError for a state that
    isn't finite.
    """
    rows = [row | {"ids": row["prompt_ids"] + row["generated_ids"][:-1]} for row in traces.iter_rows(named=True)]
    rows.sort(key=lambda row: -len(row["ids"]))  # alike in length, so that little is padding
    last = max(layer_of(parse_site(name)[0]) for name in names)
    started, read, total = time.monotonic(), 0, sum(len(row["ids"]) for row in rows)
    tick = every_few_seconds(log.info)

    def take(rows: Sequence[dict[str, Any]], most_tokens: int) -> int:
        return max(1, min(len(rows), most_tokens // len(rows[0]["ids"])))

    @torch.inference_mode()
    def work(batch: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        # Padded on the right: under causal attention no token sees what follows it, so no mask is needed.
        longest = len(batch[0]["ids"])
        padded = [row["ids"] + [0] * (longest - len(row["ids"])) for row in batch]
        with sites.stopping_after(model, last), sites.reading(model, names) as states:
            model.base_model(input_ids=torch.tensor(padded, device=model.device), use_cache=False)
        return states

    for batch, states in in_batches(rows, BATCH_TOKENS, take, work, log):
        found = []
        for index, row in enumerate(batch):
            found.append((row, {name: state[index, : len(row["ids"])].float() for name, state in states.items()}))
            for name, state in found[-1][1].items():
                check_finite(
                    state, "state", row["trace_id"], name, 0, "set model.dtype to float32, or leave this layer out."
                )
            read += len(row["ids"])
        yield found
        tick(f"{read} of {total} tokens, {read / (time.monotonic() - started):.0f} tokens/s")
    log.info("%d traces, %d tokens, %.0f tokens/s", len(rows), total, total / (time.monotonic() - started))


def check_finite(x: Tensor, what: str, trace_id: int, site: str, start: int, remedy: str) -> None:
    """Raise InputError for the first row of x (tokens, width) that isn't finite; `start`: where x starts."""
    finite = x.isfinite().all(-1)
    if not finite.all():
        position = start + int((~finite).nonzero()[0])
        raise InputError(f"trace {trace_id} has a non-finite {what} at {site}, position {position}; {remedy}")
