"""Room 7, interventions: what the model writes while a latent is added to its states, or taken from them.

From the end of the first sentence of its thinking on, γ times the latent's usual contribution is added at its site to
every token that is written. The noise of each draw is the trace's own, the one it was written with, so that a steered
text and the unsteered one differ by the steering alone, and are compared trace by trace.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import polars as pl
import torch
from torch import Tensor

from .. import sites
from ..config import is_expression
from ..traces import grading
from ..traces.decoding import Draws, write
from ..traces.sampling import uniforms
from . import targets
from .ablations import Seen, matched_latents, random_directions, see, under_study, usual_activation
from .tables import GRAM, STEERING_SCHEMA

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from ..saes.coder import SparseCoder


class Sampling(NamedTuple):
    """How the traces were sampled; `generate.sampling_of` has it."""

    seed: int
    temperature: float
    top_p: float
    max_new_tokens: int
    stop_ids: Sequence[int]
    batch_size: int


Start = tuple[dict[str, Any], int, Seen]
"""A trace, the position from which it is continued, and what model and SAE read in it."""


def first_sentence(text: targets.Text, classes: np.ndarray, prompt: int) -> int | None:
    """Return the position after the first sentence that was written; None where there is nothing behind it."""
    ends = np.flatnonzero(classes[text.ids[prompt:-1]] >= targets.KINDS)
    return None if not len(ends) else prompt + int(ends[0]) + 1


@torch.no_grad()
def steering(
    traces: pl.DataFrame,
    features: pl.LazyFrame,
    candidates: pl.DataFrame,
    headline: pl.DataFrame,
    attribution: pl.DataFrame,
    vocabulary: pl.LazyFrame,
    *,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    sae: SparseCoder,
    site: str,
    condition: str,
    sampling: Sampling,
    patterns: str,
    ask: Callable[[str, int], Sequence[int]] | None,
    alpha: float,
    latents: int,
    named: Sequence[int],
    traces_each: int,
    strengths: Sequence[float],
    log: logging.Logger,
) -> pl.DataFrame:
    """Steer the first `traces_each` traces by those named and `latents` candidates of a site; return STEERING_SCHEMA.

    traces and features are of the condition under study; patterns: the config's section as JSON. ask: returns the ids
    of a prompt that asks for a pattern, by its name and the trace's id; without it there is no such arm.
    """
    studied = under_study(candidates, headline, attribution, site, alpha, latents, named, log)
    classes = targets.token_classes(vocabulary)
    starts: list[Start] = []
    for trace in traces.iter_rows(named=True):
        if len(starts) == traces_each:
            break
        text = targets.text_of(trace)
        place = first_sentence(text, classes, len(trace["prompt_ids"]))
        if place is not None:
            starts.append((trace, place, see(trace["trace_id"], text, model, sae, site)))
    if studied.is_empty() or not starts:
        return pl.DataFrame(schema=STEERING_SCHEMA)
    seen = [one for _, _, one in starts]
    others = matched_latents(features, studied["latent"].to_list(), candidates["latent"].to_list(), sae, 1)
    drawn = random_directions(seen, 1)[0]
    plan: list[tuple[int | None, str | None, str, float, Tensor]] = []
    for latent, pattern in studied.select("latent", "pattern").iter_rows():
        direction = sae.direction(torch.tensor(latent, device=model.device)).float()
        size = usual_activation(latent, seen)[1] * direction.norm()
        along = _unit(direction)
        directions = {"latent": along, "random_direction": _unit(drawn - (drawn @ along) * along)}
        for other in others[latent]:
            directions["matched_latent"] = _unit(sae.direction(torch.tensor(other, device=model.device)).float())
        plan += [
            (latent, pattern, arm, strength, strength * size * unit)
            for arm, unit in directions.items()
            for strength in strengths
        ]
    named_patterns = studied["pattern"].unique().sort().to_list()
    times = len(plan) + 1 + (len(named_patterns) if ask else 0)
    log.info("%d continuations of %d traces, up to %d tokens", times, len(starts),
             times * len(starts) * sampling.max_new_tokens)  # fmt: skip
    nothing = torch.zeros_like(drawn)
    unsteered = _continue(starts, nothing, model, site, condition, sampling, log)
    rows: list[dict[str, Any]] = []
    for pattern in named_patterns:
        about = {"latent": None, "pattern": pattern, "strength": 0.0}
        rows += _rows(starts, unsteered, tokenizer, vocabulary, patterns, sampling, about | {"arm": "none"})
        if ask:
            asked = [_behind(start, ask(pattern, start[0]["trace_id"])) for start in starts]
            written = _continue(asked, nothing, model, site, condition, sampling, log)
            rows += _rows(asked, written, tokenizer, vocabulary, patterns, sampling, about | {"arm": "prompt"})
    for count, (latent, pattern_of, arm, strength, added) in enumerate(plan, 1):
        written = _continue(starts, added, model, site, condition, sampling, log)
        about = {"latent": latent, "pattern": pattern_of, "arm": arm, "strength": strength}
        rows += _rows(starts, written, tokenizer, vocabulary, patterns, sampling, about)
        log.info("%d of %d: latent %s, %s, ×%g", count, len(plan), latent, arm, strength)
    return pl.DataFrame(rows, schema=STEERING_SCHEMA)


def _behind(start: Start, prompt_ids: Sequence[int]) -> Start:
    """Return the same beginning of a trace behind another prompt."""
    trace, place, seen = start
    return trace | {"prompt_ids": list(prompt_ids)}, place - len(trace["prompt_ids"]) + len(prompt_ids), seen


WORDS = 5
"""Words of a pattern that an instruction names."""


def instruction_of(pattern: str, entries: Sequence[str], instruction: str) -> str:
    """Return an instruction with {words} filled in: the pattern's first plain ones, or its name if it has none."""
    plain = [f"“{entry}”" for entry in entries if not is_expression(entry)][:WORDS]
    return instruction.replace("{words}", ", ".join(plain) or pattern.replace("_", " "))


def _unit(direction: Tensor) -> Tensor:
    return direction / direction.norm().clamp_min(1e-30)


def _continue(
    starts: Sequence[Start],
    added: Tensor,
    model: PreTrainedModel,
    site: str,
    condition: str,
    sampling: Sampling,
    log: logging.Logger,
) -> list[list[int]]:
    """Return what is written on from each start while `added` (width,) is added at the site."""
    ids = [(trace["prompt_ids"] + trace["generated_ids"])[:place] for trace, place, _ in starts]
    written = [place - len(trace["prompt_ids"]) for trace, place, _ in starts]
    trace_ids = [trace["trace_id"] for trace, _, _ in starts]
    noise = uniforms(sampling.seed, condition, trace_ids, sampling.max_new_tokens)
    # The draw that each trace would have had next, had it not been stopped.
    shifted = torch.stack([row.roll(-count) for row, count in zip(noise, written, strict=True)])
    draws = Draws(shifted, sampling.temperature, sampling.top_p, trace_ids)

    def edit(states: Tensor) -> Tensor | None:
        # What is read at once is what was written before.
        return (states.float() + added).to(states.dtype) if states.shape[1] == 1 else None

    with sites.replacing(model, site, edit):
        found = write(
            model, ids, draws, max_new_tokens=sampling.max_new_tokens - min(written), stop_ids=sampling.stop_ids,
            batch_size=sampling.batch_size, log=log,
        )  # fmt: skip
    return [row[: sampling.max_new_tokens - count] for row, count in zip(found, written, strict=True)]


def _rows(
    starts: Sequence[Start],
    written: Sequence[list[int]],
    tokenizer: PreTrainedTokenizerBase,
    vocabulary: pl.LazyFrame,
    patterns: str,
    sampling: Sampling,
    about: dict[str, Any],
) -> list[dict[str, Any]]:
    """Return the rows of an arm."""
    places = targets.matches_in(written, vocabulary, patterns)
    ours = places.filter(name=about["pattern"]).group_by("trace_id").agg(pl.struct("start", "end").n_unique())
    counts = dict(ours.iter_rows())
    rows = []
    for index, ((trace, place, _), ids) in enumerate(zip(starts, written, strict=True)):
        prompt = len(trace["prompt_ids"])
        whole = trace["generated_ids"][: place - prompt] + ids
        finished = whole[-1] in sampling.stop_ids
        text = tokenizer.decode(whole[:-1] if finished else whole, clean_up_tokenization_spaces=False)
        rows.append(
            about
            | {
                "trace_id": trace["trace_id"],
                "same": whole == trace["generated_ids"],
                "prefix": place - prompt,
                "tokens": len(ids),
                "matches": counts.get(index, 0),
                "truncated": not finished,
                "repeated": repeated(ids),
                "correct": grading.grade(text, finished, trace["reference"])[1],
                "text": tokenizer.decode(ids[:-1] if finished else ids, clean_up_tokenization_spaces=False),
            }
        )
    return rows


def repeated(ids: Sequence[int]) -> float:
    """Return the share of runs of GRAM tokens that are there already (seq-rep-n, Welleck et al. 2020); 0 of none."""
    grams = [tuple(ids[index : index + GRAM]) for index in range(len(ids) - GRAM + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0
