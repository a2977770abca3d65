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
from ..errors import InputError
from ..frames import complete
from ..job import every_few_seconds
from ..statistics import MIN_TOKENS
from . import forced, targets
from .tables import ABLATIONS_SCHEMA, TOKEN_EFFECTS_SCHEMA

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from ..saes.coder import Codes, SparseCoder


class Tables(NamedTuple):
    """What edits changed: means over places, and token by token."""

    ablations: pl.DataFrame
    token_effects: pl.DataFrame


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
    candidates: pl.DataFrame,
    headline: pl.DataFrame,
    attribution: pl.DataFrame,
    site: str,
    alpha: float,
    most: int,
    named: Sequence[int],
    log: logging.Logger,
) -> pl.DataFrame:
    """Return the latents of a site that are tried: those named, and the first `most` candidates linked to a pattern.

    Columns: latent, pattern and window (those it is linked to; of a named one without a link, those of its largest
    predicted effect), and by what it is chosen. Those that stand out (q below alpha) go first; among them, those of
    which the largest effect on their own pattern is predicted, by the lower end of its interval, then the surest.
    """
    linked = headline.filter(pl.col("site") == site, pl.col("pattern").is_not_null())
    predicted = attribution.select("latent", "pattern", pl.col("window").cast(pl.String), "low")
    largest = predicted.sort("low", "latent", descending=[True, False], nulls_last=True)
    places = pl.concat([linked.select("latent", "pattern", "window"), largest.drop("low")])
    known = places.unique("latent", keep="first", maintain_order=True)
    by_name = pl.DataFrame({"latent": named}, schema={"latent": pl.UInt32}).join(known, "latent", maintain_order="left")
    if missing := sorted(set(named) - set(by_name["latent"])):
        log.warning("not tried, as they are hardly active in the traces: %s", ", ".join(map(str, missing)))
    chosen = (
        candidates.select("latent")
        .filter(~pl.col("latent").is_in(list(named)))
        .join(linked, on="latent")
        .join(predicted, on=["latent", "pattern", "window"], how="left")
        .sort(
            (pl.col("q") < alpha).fill_null(value=False), "low", "p", "p_link", "latent",
            descending=[True, True, False, False, False], nulls_last=True,
        )
    )  # fmt: skip
    by_link = chosen.head(most).select("latent", "pattern", "window", chosen=pl.lit("link"))
    return pl.concat([by_name.with_columns(chosen=pl.lit("name")), by_link])


def predicted_most(attribution: pl.DataFrame, barred: Sequence[int], most: int) -> pl.DataFrame:
    """Return the latents of which the largest effect is predicted, by the lower end of its interval, if above 0.

    Columns as `under_study` has them. `barred` ones are none.
    """
    able = attribution.filter(pl.col("low") > 0, ~pl.col("latent").is_in(list(barred)))
    best = able.sort("low", "latent", descending=[True, False]).unique("latent", keep="first", maintain_order=True)
    return best.head(most).select("latent", "pattern", pl.col("window").cast(pl.String), chosen=pl.lit("prediction"))


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
    named: Sequence[int],
    traces_each: int,
    draws: int,
    strengths: Sequence[float],
    tokens_before: int,
    tokens_after: int,
    log: logging.Logger,
) -> Tables:
    """Edit the states of up to `traces_each` traces for each of the `named` and up to 2 `latents` latents.

    As many are candidates linked to a pattern as have the largest effects predicted on any. traces, matches
    and features are of the condition under study; of the traces those are edited that no prediction is from.
    Raises InputError for a name that no latent has.
    """
    if beyond := [latent for latent in named if latent >= sae.latents]:
        raise InputError(
            f"config: interventions.named: there is no latent {beyond[0]} at {site}; its SAE has {sae.latents}, 0 to"
            f" {sae.latents - 1}."
        )
    traces = targets.half(traces, 1)
    linked = under_study(candidates, headline, attribution, site, alpha, latents, named, log)
    foretold = predicted_most(attribution, linked["latent"].to_list(), latents)
    studied = pl.concat([linked, foretold])
    chosen_by = dict(studied.select("latent", "chosen").iter_rows())
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
    tried: dict[int, list[int]] = {}
    for _, _, members, found, _ in groups:
        for trace_id in found:
            tried.setdefault(trace_id, []).extend(members)
    by_token = [token_effects(latents, seen[trace_id], model, sae, site) for trace_id, latents in sorted(tried.items())]
    return Tables(
        pl.DataFrame(rows, schema=ABLATIONS_SCHEMA), pl.concat([pl.DataFrame(schema=TOKEN_EFFECTS_SCHEMA), *by_token])
    )


def token_effects(
    latents: Sequence[int], one: Seen, model: PreTrainedModel, sae: SparseCoder, site: str
) -> pl.DataFrame:
    """Return what taking each latent away changes at every token that was written in a trace, TOKEN_EFFECTS_SCHEMA."""
    places = one.text.has_next
    at_once = max(1, forced.PROBABILITIES_AT_ONCE // (2 * model.config.vocab_size))
    directions = sae.direction(torch.tensor(latents, device=one.counted.device)).float()
    amounts = torch.stack([one.activation(latent) for latent in latents])
    none = torch.zeros((0, model.config.vocab_size), dtype=torch.bool)
    deltas = -amounts.unsqueeze(-1) * directions.unsqueeze(1)
    parts = [
        forced.change(model, site, one.trace, deltas, places[start : start + at_once].tolist(), none).actual
        for start in range(0, len(places), at_once)
    ]
    frames = [
        pl.DataFrame(
            {"latent": latent, "trace_id": one.trace.trace_id, "position": places + 1, "change": values.cpu().numpy()}
        )
        for latent, values in zip(latents, torch.cat(parts, dim=1), strict=True)
    ]
    return complete(pl.concat(frames), TOKEN_EFFECTS_SCHEMA).sort("latent", "position")


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
