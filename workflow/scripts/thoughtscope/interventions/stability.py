"""Room 7, interventions: would the model write a pattern's word there again?

Text is drawn, so a word may stand where it stands by chance: in published traces 93 % of keyword hits didn't recur
when the model wrote on from the same place (arXiv 2604.02113). Read up to the place before a match, the model says
itself how likely it was; and it can write on, some times over, from there.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import torch
from torch import Tensor

from ..frames import complete
from ..job import every_few_seconds
from ..traces.decoding import Draws, write
from ..traces.sampling import nucleus, uniforms
from . import targets
from .tables import CONTINUED, CONTINUED_MATCHES, STABILITY_SCHEMA

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from .steering import Sampling


@torch.no_grad()
def stability(
    traces: pl.DataFrame,
    matches: pl.DataFrame,
    vocabulary: pl.LazyFrame,
    *,
    model: PreTrainedModel,
    sampling: Sampling,
    patterns: str,
    continuations: int,
    log: logging.Logger,
) -> pl.DataFrame:
    """Return how likely the model was to write each match of a pattern, in STABILITY_SCHEMA.

    traces and matches are of the condition under study; patterns: the config's section as JSON. With `continuations`
    above 0 it also writes on as often from up to CONTINUED_MATCHES matches of each pattern.
    """
    places = matches.filter(pl.col("kind").cast(pl.String) == "pattern").unique(["trace_id", "name", "start", "end"])
    openers = {
        name: torch.from_numpy(targets.first_tokens(traces, places, name, model.config.vocab_size)).to(model.device)
        for name in places["name"].unique().sort()
    }
    tick, rows = every_few_seconds(log.info), []
    of_trace = places.sort("start", "end", "name").partition_by("trace_id", as_dict=True)
    for count, trace in enumerate(traces.iter_rows(named=True), 1):
        found = of_trace.get((trace["trace_id"],))
        if found is None:
            continue
        ids = torch.tensor([trace["prompt_ids"] + trace["generated_ids"]], device=model.device)
        before = torch.tensor([start - 1 for start in found["start"]], device=model.device)
        logits = model(input_ids=ids, use_cache=False, logits_to_keep=before).logits[0]
        likely = drawn_with(logits, sampling.temperature, sampling.top_p)
        for row, masses in zip(found.iter_rows(named=True), likely, strict=True):
            rows.append(row | {"probability": masses[openers[row["name"]]].sum().clamp(max=1.0).item()})
        tick(f"{count} of {len(traces)} traces")
    table = pl.DataFrame(rows, schema={**places.schema, "probability": pl.Float64}, orient="row")
    again = _written_again(traces, table, vocabulary, model, sampling, patterns, continuations, log)
    table = table.join(again, on=["trace_id", "name", "start", "end"], how="left")
    return complete(table, STABILITY_SCHEMA).sort("trace_id", "start", "end", "name")


def drawn_with(logits: Tensor, temperature: float, top_p: float) -> Tensor:
    """Return the probabilities with which tokens are drawn, (rows, vocabulary), from logits likewise."""
    if temperature == 0:
        return torch.nn.functional.one_hot(logits.argmax(-1), logits.shape[-1]).float()
    ids, masses = nucleus(torch.softmax(logits.float() / temperature, dim=-1), top_p)
    return torch.zeros_like(logits, dtype=torch.float32).scatter_add_(-1, ids, masses / masses.sum(-1, keepdim=True))


def _written_again(
    traces: pl.DataFrame,
    table: pl.DataFrame,
    vocabulary: pl.LazyFrame,
    model: PreTrainedModel,
    sampling: Sampling,
    patterns: str,
    continuations: int,
    log: logging.Logger,
) -> pl.DataFrame:
    """Return of some matches in what share of continuations a word of their pattern is again: `recurs`."""
    keys = {name: table.schema[name] for name in ("trace_id", "name", "start", "end")}
    if not continuations or table.is_empty():
        return pl.DataFrame(schema={**keys, "recurs": pl.Float64})
    by_name = table.sort("trace_id", "start").partition_by("name")
    chosen = pl.concat([rows[targets.evenly(len(rows), CONTINUED_MATCHES)] for rows in by_name])
    ids_of = {trace["trace_id"]: trace["prompt_ids"] + trace["generated_ids"] for trace in traces.iter_rows(named=True)}
    places = [(row, again) for row in chosen.iter_rows(named=True) for again in range(continuations)]
    prompts = [ids_of[row["trace_id"]][: row["start"]] for row, _ in places]
    noise = torch.cat([
        uniforms(sampling.seed, f"again {row['start']} {again}", [row["trace_id"]], CONTINUED) for row, again in places
    ])  # fmt: skip
    draws = Draws(noise, sampling.temperature, sampling.top_p, [row["trace_id"] for row, _ in places])
    written = write(
        model, prompts, draws, max_new_tokens=CONTINUED, stop_ids=sampling.stop_ids, batch_size=sampling.batch_size,
        log=log,
    )  # fmt: skip
    found = targets.matches_in(written, vocabulary, patterns)
    there = set(found.select("trace_id", "name").iter_rows())
    hits = [(index, row["name"]) in there for index, (row, _) in enumerate(places)]
    shares = np.array(hits, dtype=float).reshape(len(chosen), continuations).mean(axis=1)
    return chosen.select(*keys).with_columns(recurs=pl.Series(shares))
