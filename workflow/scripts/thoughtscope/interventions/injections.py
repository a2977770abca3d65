"""Room 7, interventions: does a latent answer to its words wherever they are put, and does it need them where they are?

What a latent is most active on, a token, two in a row or three, is put into text without thinking (the prompts), and
tokens alike at the same place (of the same class and shape, about as frequent, on which the latent is hardly active);
and in a trace the token it is most active on is left out, or one alike before it. Both arms of a pair differ in the cue
alone (Ma et al. 2026, arXiv 2601.05679, had neither tokens alike nor pairs).
"""

from __future__ import annotations

import logging
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import polars as pl
import torch
from torch import Tensor

from .. import sites
from ..config import layer_of, parse_site
from ..evidence.windows import Integers
from ..job import every_few_seconds
from ..readings.states import BATCH_TOKENS
from . import targets
from .ablations import under_study
from .tables import CUES, INJECTIONS_SCHEMA, REACH

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from ..saes.coder import SparseCoder

OWN = 0.1
"""Share of a token's places from which on a latent is active on it: such a token is none alike."""

LENGTHS = {"token": 1, "bigram": 2, "trigram": 3}
"""Tokens of a cue that is put in."""

MARKER = re.compile(r"\s*<.*>\s*")
"""What a token is called that isn't text: a chat template's, or the end of it."""


class Arm(NamedTuple):
    """A text, and where in it the latent's activation is summed up: from one position up to another."""

    ids: list[int]
    first: int
    last: int


class Lexicon(NamedTuple):
    """What tokens of a study's text are like, by id."""

    classes: Integers
    shapes: Sequence[tuple[bool, bool, int]]
    """Whether one begins with a blank, and with a capital, and its length."""
    counts: Mapping[int, int]
    """How often each was written."""

    def alike(self, token: int, barred: set[int]) -> int | None:
        """Return the token of the same class and shape that is most nearly as frequent; None where there is none."""
        blank, capital, length = self.shapes[token]
        able = [
            (abs(np.log(count / max(1, self.counts.get(token, 1)))), abs(self.shapes[other][2] - length), other)
            for other, count in self.counts.items()
            if other not in barred and other != token and self.classes[other] == self.classes[token]
            and self.shapes[other][:2] == (blank, capital)
        ]  # fmt: skip
        return min(able)[2] if able else None


@torch.no_grad()
def injections(
    traces: pl.DataFrame,
    activations: pl.LazyFrame,
    candidates: pl.DataFrame,
    headline: pl.DataFrame,
    attribution: pl.DataFrame,
    vocabulary: pl.LazyFrame,
    *,
    model: PreTrainedModel,
    sae: SparseCoder,
    site: str,
    alpha: float,
    latents: int,
    named: Sequence[int],
    traces_each: int,
    log: logging.Logger,
) -> pl.DataFrame:
    """Return what latents do where their cues are put in, or left out, beside tokens alike, in INJECTIONS_SCHEMA.

    traces and activations are of the condition under study. Tried are the latents that `ablations` has by name or for
    their link.
    """
    studied = under_study(candidates, headline, attribution, site, alpha, latents, named, log)
    texts = {trace["trace_id"]: targets.text_of(trace) for trace in traces.iter_rows(named=True)}
    names = dict(vocabulary.select("token_id", "text").collect().iter_rows())
    read = (int(token) for text in texts.values() for token in text.ids[:-1][text.run[:-1] >= 0])
    written = Counter(token for token in read if not MARKER.fullmatch(names[token]))  # none that the model obeys
    shapes = [(text[:1] == " ", text.strip()[:1].isupper(), len(text)) for _, text in sorted(names.items())]
    lexicon = Lexicon(targets.token_classes(vocabulary), shapes, written)
    active = activations.filter(pl.col("latent").is_in(studied["latent"].to_list()), ~pl.col("sink"))
    by_latent = (
        active.select("latent", "trace_id", "position", "activation").collect().partition_by("latent", as_dict=True)
    )
    rows: list[dict[str, Any]] = []
    tick = every_few_seconds(log.info)
    for count, (latent, pattern) in enumerate(studied.select("latent", "pattern").iter_rows(), 1):
        peaks = by_latent.get((latent,))
        if peaks is None:
            continue
        pairs = list(_pairs(peaks, texts, lexicon, traces_each, latent))
        sums = sums_of(latent, [arm for pair in pairs for arm in pair["arms"]], model, sae, site)
        for pair, with_cue, with_alike in zip(pairs, sums[::2], sums[1::2], strict=True):
            row = {name: pair[name] for name in ("strategy", "trace_id", "in_place")}
            row |= {name: "".join(names[token] for token in pair[name]) for name in ("cue", "alike")}
            rows.append(row | {"latent": latent, "pattern": pattern, "with_cue": with_cue, "with_alike": with_alike})
        tick(f"{count} of {len(studied)} latents")
    return pl.DataFrame(rows, schema=INJECTIONS_SCHEMA)


def _pairs(
    peaks: pl.DataFrame, texts: Mapping[int, targets.Text], lexicon: Lexicon, most: int, latent: int
) -> Iterator[dict[str, Any]]:
    """Yield the pairs of arms of a latent: strategy, trace_id, cue, alike, arms, and what it does in place.

    peaks: where it is active (trace_id, position, activation).
    """
    value: dict[int, np.ndarray] = {}
    for (trace_id,), group in peaks.group_by("trace_id"):
        value[trace_id] = np.zeros(len(texts[trace_id].ids))
        value[trace_id][group["position"].to_numpy()] = group["activation"].to_numpy()
    places = [
        (trace_id, int(position))
        for trace_id, of_trace in sorted(value.items())
        for position in np.flatnonzero((of_trace > 0) & (texts[trace_id].run >= 0))
    ]
    types = Counter(int(texts[trace_id].ids[position]) for trace_id, position in places)
    barred = {token for token, count in types.items() if count >= OWN * lexicon.counts.get(token, 0)}

    for strategy, length in LENGTHS.items():
        total: dict[tuple[int, ...], float] = defaultdict(float)
        found: Counter[tuple[int, ...]] = Counter()
        for trace_id, position in places:
            text = texts[trace_id]
            stretch = slice(max(0, position - length + 1), position + 1)  # with a prompt's token it is of two segments
            cue = tuple(text.ids[stretch].tolist())
            if (text.run[stretch] == text.run[position]).all() and all(token in lexicon.counts for token in cue):
                total[cue] += float(value[trace_id][position : position + REACH].sum())
                found[cue] += 1
        for cue in sorted(total, key=lambda cue: (-total[cue], cue))[:CUES]:
            others = [lexicon.alike(token, barred | set(cue)) for token in cue]
            if None in others:
                continue
            for trace_id in sorted(texts)[:most]:
                text = texts[trace_id]
                plain = text.ids[text.run < 0].tolist()
                chance = np.random.default_rng([latent, trace_id, length])
                first = max(1, len(plain) // 4)  # position 0 is a sink
                place = int(chance.integers(first, max(first + 1, 3 * len(plain) // 4)))
                arms = [
                    Arm(plain[:place] + list(put) + plain[place:], place + length - 1, place + length - 1 + REACH)
                    for put in (cue, others)
                ]
                yield {"strategy": strategy, "trace_id": trace_id, "cue": cue, "alike": others, "arms": arms,
                       "in_place": total[cue] / found[cue]}  # fmt: skip
    done = 0
    for trace_id, of_trace in sorted(value.items()):
        text = texts[trace_id]
        at = int(np.where(text.run >= 0, of_trace, 0).argmax())
        before = [
            place for place in range(at - 1, -1, -1)
            if text.run[place] == text.run[at] and of_trace[place] == 0
            and lexicon.classes[text.ids[place]] == lexicon.classes[text.ids[at]]
        ]  # fmt: skip
        if of_trace[at] == 0 or not before or done == most:
            continue
        done += 1
        ids = text.ids.tolist()
        arms = [Arm(ids[:gone] + ids[gone + 1 :], at, at + REACH - 1) for gone in (at, before[0])]
        yield {"strategy": "deletion", "trace_id": trace_id, "cue": [ids[at]], "alike": [ids[before[0]]], "arms": arms,
               "in_place": float(of_trace[at + 1 : at + REACH].sum())}  # fmt: skip


def sums_of(latent: int, arms: Sequence[Arm], model: PreTrainedModel, sae: SparseCoder, site: str) -> list[float]:
    """Return the sum of a latent's activation in each arm's stretch, of tokens that aren't sinks."""
    found = [0.0] * len(arms)
    layer = layer_of(parse_site(site)[0])
    by_length: dict[int, list[int]] = {}
    for index, arm in enumerate(arms):
        by_length.setdefault(len(arm.ids), []).append(index)
    with sites.stopping_after(model, layer), sites.reading(model, [site]) as states:
        for length, members in by_length.items():
            for start in range(0, len(members), size := max(1, BATCH_TOKENS // length)):
                part = members[start : start + size]
                ids = torch.tensor([arms[index].ids for index in part], device=model.device)
                model.base_model(input_ids=ids, use_cache=False)
                for index, of_text in zip(part, states[site].float(), strict=True):
                    found[index] = _sum(latent, of_text, arms[index], sae)
    return found


def _sum(latent: int, states: Tensor, arm: Arm, sae: SparseCoder) -> float:
    sinks = sites.sinks(states.norm(dim=-1))
    codes = sae.encode(states[arm.first : arm.last])
    values = torch.where(codes.latents == latent, codes.activations, 0.0).sum(-1)
    return float((values * ~sinks[arm.first : arm.last]).sum())
