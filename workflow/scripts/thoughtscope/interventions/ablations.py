"""Room 7, interventions: latents taken away and added under teacher forcing, and controls of each likewise.

What an arm changes at a pattern is held against what it changes at places alike without the pattern, in the same trace;
and a latent against controls that do as much to the states: other latents as frequent and as strong, the latent's own
amounts along directions drawn as the site's states are spread, and its own amounts at other places.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import polars as pl
import torch
from torch import Tensor

from .. import sites
from ..frames import Schema, keys
from ..job import every_few_seconds
from ..statistics import MIN_TOKENS
from . import forced, targets

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from ..saes.coder import Codes, SparseCoder

ARMS = {
    "zero": "the latent taken away, a_t d on each generated token but sinks",
    "mean": "its mean activation put in place of its own there",
    "matched_latent": "another latent taken away, about as frequent and as strong",
    "random_direction": "as much taken away, ‖a_t d‖, along a direction at right angles to d, drawn with the covariance"
    " of the site's states",
    "shifted": "as much taken away, a_t d, at other tokens: its activation shifted within each segment",
    "add": "`strength` times its mean activation where active added at the places compared to",
    "add_random": "as much added there along the random direction",
}
"""The kinds of edits, and what each does to the states at the site."""

CONTROLS = ("matched_latent", "random_direction", "shifted")
"""The arms that a latent's own ablation is held against."""

CHOSEN = ("link", "prediction")
"""By what latents are chosen."""

SCHEMA = Schema(
    "a trace, a latent and an edit of the states at its site; numbers are means over `pairs` of places, in nats",
    **keys("trace_id", "latent"),
    chosen=(pl.Enum(CHOSEN), "by what it was: its `link` to a pattern, among candidates, those first that stand out (see"
                             " `headline`) and whose effect on it is predicted to be largest; or the effect that is"
                             " predicted, on any pattern, among all latents (see `attribution`)"),
    pattern=(pl.String, "the pattern that is by"),
    window=(pl.String, "window of that. `before`: places are those from which the pattern's first word is next;"
                       " `after`: those up to `analysis.tokens_after` after it"),
    arm=(pl.Enum(list(ARMS)), "; ".join(f"`{arm}`: {text}" for arm, text in ARMS.items())),
    strength=(pl.Float64, "how many times its usual activation is added; null where none is"),
    draw=(pl.UInt8, "which of several controls of the kind"),
    other=(pl.UInt32, "the latent that was taken away instead, of a `matched_latent`"),
    pairs=(pl.UInt32, "places at the pattern, each with one compared to: the nearest in the segment, after a token of"
                      " the same class"),
    pattern_at=(pl.Float64, "change, there, of the log-odds, log p / (1 - p), that a word of the pattern is next"),
    pattern_matched=(pl.Float64, "the same at the places compared to"),
    actual_at=(pl.Float64, "change of the log-odds of the token that is next there"),
    actual_matched=(pl.Float64, "the same at the places compared to"),
    log_p_at=(pl.Float64, "change of its log-probability there; with `before`, of a word of the pattern"),
    log_p_matched=(pl.Float64, "the same at the places compared to"),
    kl_at=(pl.Float64, "divergence there of what is next as edited from what it is unedited"),
    kl_matched=(pl.Float64, "the same at the places compared to"),
)  # fmt: skip


class Arm(NamedTuple):
    """An edit of a trace's states: amounts (tokens,) along a direction (width,)."""

    kind: str
    amounts: Tensor
    direction: Tensor
    strength: float | None = None
    draw: int = 0
    other: int | None = None


class Seen(NamedTuple):
    """A trace, what the model reads of it, and what the SAE says of it."""

    trace: forced.Read
    text: targets.Text
    codes: Codes
    counted: Tensor
    """Which tokens an edit is of: generated, not sinks, (tokens,)."""

    def activation(self, latent: int) -> Tensor:
        """Return a latent's activation on the tokens that count, zero elsewhere, (tokens,)."""
        return torch.where(self.codes.latents == latent, self.codes.activations, 0.0).sum(-1) * self.counted


def under_study(
    candidates: pl.DataFrame, headline: pl.DataFrame, attribution: pl.DataFrame, site: str, alpha: float, most: int
) -> pl.DataFrame:
    """Return the candidates of a site, with the pattern and window each is linked to, that are tried for the link.

    Those that stand out (q below alpha) go first; among them, those of which the largest effect on their own pattern is
    predicted, by the lower end of its interval, then the surest.
    """
    linked = headline.filter(pl.col("site") == site, pl.col("pattern").is_not_null())
    predicted = attribution.select("latent", "pattern", pl.col("window").cast(pl.String), "low")
    chosen = (
        candidates.select("latent")
        .join(linked, on="latent")
        .join(predicted, on=["latent", "pattern", "window"], how="left")
        .sort(
            (pl.col("q") < alpha).fill_null(value=False), "low", "p", "p_link", "latent",
            descending=[True, True, False, False, False], nulls_last=True,
        )
    )  # fmt: skip
    return chosen.head(most).select("latent", "pattern", "window")


def predicted_most(attribution: pl.DataFrame, barred: Sequence[int], most: int) -> pl.DataFrame:
    """Return the latents of which the largest effect is predicted, by the lower end of its interval, if above 0.

    Columns: latent, pattern and window of that. `barred` ones are none.
    """
    able = attribution.filter(pl.col("low") > 0, ~pl.col("latent").is_in(list(barred)))
    best = able.sort("low", "latent", descending=[True, False]).unique("latent", keep="first", maintain_order=True)
    return best.head(most).select("latent", "pattern", pl.col("window").cast(pl.String))


def matched_latents(
    features: pl.LazyFrame, latents: Sequence[int], barred: Sequence[int], sae: SparseCoder, count: int
) -> dict[int, list[int]]:
    """Return for each latent the `count` others that are most alike in how often and how much they are active.

    Alike in the logarithms of the tokens each is active on and of its mean contribution there, a ‖d‖. features: of the
    condition under study. `barred` ones are none.
    """
    sums = (
        features.filter(pl.col("segment") != "prompt", ~pl.col("sink"))
        .group_by("latent")
        .agg(pl.col("tokens").sum(), pl.col("sum").sum())
        .filter(pl.col("tokens") >= MIN_TOKENS)
        .sort("latent")
        .collect(engine="streaming")
    )
    known, tokens = sums["latent"].to_numpy(), sums["tokens"].to_numpy().astype(float)
    norms = sae.direction(torch.from_numpy(known.astype(np.int64))).norm(dim=-1)
    mean = sums["sum"].to_numpy() / tokens * norms.cpu().numpy()
    place = np.stack([np.log(tokens), np.log(np.maximum(mean, 1e-30))], axis=1)
    free = ~np.isin(known, list(barred))
    found: dict[int, list[int]] = {}
    for latent in latents:
        own = np.flatnonzero(known == latent)
        if not len(own):
            found[latent] = []
            continue
        distance = np.square(place[free] - place[own[0]]).sum(axis=1)
        found[latent] = known[free][np.argsort(distance, kind="stable")[:count]].tolist()
    return found


@torch.no_grad()
def ablations(
    traces: pl.DataFrame,
    matches: pl.DataFrame,
    features: pl.LazyFrame,
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
    traces_each: int,
    draws: int,
    strengths: Sequence[float],
    tokens_before: int,
    tokens_after: int,
    log: logging.Logger,
) -> pl.DataFrame:
    """Edit the states of up to `traces_each` traces for each of up to 2 `latents` latents; return SCHEMA.

    As many are candidates linked to a pattern as have the largest effects predicted on any. traces, matches
    and features are of the condition under study; of the traces those are edited that no prediction is from.
    """
    traces = targets.half(traces, 1)
    linked = under_study(candidates, headline, attribution, site, alpha, latents)
    foretold = predicted_most(attribution, linked["latent"].to_list(), latents)
    studied = pl.concat([linked, foretold])
    chosen_by = dict.fromkeys(linked["latent"], "link") | dict.fromkeys(foretold["latent"], "prediction")
    barred = [*candidates["latent"], *foretold["latent"]]
    classes = targets.token_classes(vocabulary)
    others = matched_latents(features, studied["latent"].to_list(), barred, sae, draws)
    places = matches.filter(pl.col("kind") == "pattern")
    seen: dict[int, Seen] = {}
    groups = []
    for (pattern, window), group in studied.group_by("pattern", "window", maintain_order=True):
        spans = targets.spans_of(places, pattern)
        found: dict[int, targets.Pairs] = {}
        for trace_id, text, chosen in targets.with_pairs(
            traces, spans, window, classes, tokens_before, tokens_after, traces_each
        ):
            found[trace_id] = chosen
            seen[trace_id] = seen.get(trace_id) or see(trace_id, text, model, sae, site)
        if not found:
            log.warning("%s, %s: no trace has it and a place to compare it to", pattern, window)
            continue
        words = torch.from_numpy(targets.first_tokens(traces, places, pattern, model.config.vocab_size))
        groups.append((pattern, window, group["latent"].to_list(), found, words.unsqueeze(0)))
    directions = random_directions(list(seen.values()), draws)
    total, done, started = sum(len(found) * len(members) for _, _, members, found, _ in groups), 0, time.monotonic()
    tick = every_few_seconds(log.info)
    rows: list[dict[str, Any]] = []
    for pattern, window, members, found, words in groups:
        usual = {latent: usual_activation(latent, [seen[trace_id] for trace_id in found]) for latent in members}
        for trace_id, chosen in found.items():
            one, behind, count = seen[trace_id], chosen.at + chosen.matched, len(chosen.at)
            for latent in members:
                arms = list(
                    arms_of(latent, one, chosen.matched, sae, others[latent], directions, usual[latent], strengths)
                )
                deltas = torch.stack([arm.amounts[:, None] * arm.direction for arm in arms])
                change = forced.change(model, site, one.trace, deltas, behind, words)
                for index, arm in enumerate(arms):
                    row = {"trace_id": trace_id, "latent": latent, "chosen": chosen_by[latent]}
                    row |= {"pattern": pattern, "window": window}
                    row |= {"arm": arm.kind, "strength": arm.strength, "draw": arm.draw, "other": arm.other}
                    row["pairs"] = count
                    log_p = change.sets[..., 0] if window == "before" else change.actual
                    for name, values in (("pattern", change.sets_odds[..., 0]), ("actual", change.odds),
                                         ("log_p", log_p), ("kl", change.kl)):  # fmt: skip
                        row[f"{name}_at"] = values[index, :count].mean().item()
                        row[f"{name}_matched"] = values[index, count:].mean().item()
                    rows.append(row)
            done += len(members)
            tick(f"{done} of {total} latents and traces")
    log.info("%d latents, %d edits of traces, %.0f s", len(studied), len(rows), time.monotonic() - started)
    return pl.DataFrame(rows, schema=SCHEMA)


def see(trace_id: int, text: targets.Text, model: PreTrainedModel, sae: SparseCoder, site: str) -> Seen:
    """Let model and SAE read a trace."""
    trace = forced.read(model, site, trace_id, text.ids.tolist())
    sinks = sites.sinks(trace.states.norm(dim=-1))
    generated = torch.from_numpy(text.run >= 0).to(sinks.device)
    return Seen(trace, text, sae.encode(trace.states), generated & ~sinks)


def usual_activation(latent: int, seen: Sequence[Seen]) -> tuple[float, float]:
    """Return a latent's mean activation over all tokens that count, and over those on which it is active."""
    values = torch.cat([one.activation(latent)[one.counted] for one in seen])
    active = values[values > 0]
    return values.mean().item() if len(values) else 0.0, active.mean().item() if len(active) else 0.0


def random_directions(seen: Sequence[Seen], count: int, seed: int = 0) -> Tensor:
    """Return directions drawn with the covariance of the states of the tokens that count, (count, width).

    Σ_t z_t (x_t - x̄) with z_t standard normal has that covariance, but for its scale.
    """
    states = torch.cat([one.trace.states[one.counted] for one in seen]) if seen else torch.zeros(0, 1)
    chance = torch.Generator().manual_seed(seed)
    z = torch.randn(count, len(states), generator=chance).to(states.device)
    return z @ (states - states.mean(0)) if len(states) else torch.zeros(count, 1)


def arms_of(
    latent: int,
    one: Seen,
    matched: Sequence[int],
    sae: SparseCoder,
    others: Sequence[int],
    directions: Tensor,
    usual: tuple[float, float],
    strengths: Sequence[float],
) -> Iterator[Arm]:
    """Yield all edits of a trace for a latent. usual: its mean activation, and that where it is active."""
    activation = one.activation(latent)
    direction = sae.direction(torch.tensor(latent, device=activation.device)).float()
    norm = direction.norm()
    mean, active = usual
    aside = directions - torch.outer(directions @ direction, direction) / norm**2
    aside /= aside.norm(dim=-1, keepdim=True).clamp_min(1e-30)
    yield Arm("zero", -activation, direction)
    yield Arm("mean", (mean - activation) * one.counted, direction)
    for draw, other in enumerate(others):
        of_other = sae.direction(torch.tensor(other, device=activation.device)).float()
        yield Arm("matched_latent", -one.activation(other), of_other, draw=draw, other=other)
    for draw, drawn in enumerate(aside):
        yield Arm("random_direction", -activation * norm, drawn, draw=draw)
        shifted = shift(activation, one.text.run, np.random.default_rng([latent, one.trace.trace_id, draw]))
        yield Arm("shifted", -shifted * one.counted, direction, draw=draw)
    there = torch.zeros_like(activation)
    there[list(matched)] = active
    for strength in strengths:
        yield Arm("add", strength * there, direction, strength)
        yield Arm("add_random", strength * there * norm, aside[0], strength)


def shift(values: Tensor, run: np.ndarray, chance: np.random.Generator) -> Tensor:
    """Return values (tokens,) shifted in a circle within each segment, by a quarter to three of its length."""
    shifted = values.clone()
    for part in np.unique(run[run >= 0]):
        inside = torch.from_numpy(np.flatnonzero(run == part)).to(values.device)
        least, most = len(inside) // 4, max(1, 3 * len(inside) // 4)
        shifted[inside] = values[inside].roll(int(chance.integers(min(least, most - 1), most)))
    return shifted
