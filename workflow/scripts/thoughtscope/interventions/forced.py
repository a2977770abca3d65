"""Room 7, interventions: what a trace's tokens are worth to the model while its states at a site are edited.

The model reads a trace as it was written (teacher forcing). An edit is a number of vectors that are added to the states
at one site: an arm takes away a latent, a_t d on each token t it is active on, or adds something. Below the site
nothing changes, so the model reads a trace once, and every arm begins with the site's block; many arms are one batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from .. import sites
from ..config import layer_of, parse_site
from ..readings.states import BATCH_TOKENS, check_finite

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PROBABILITIES_AT_ONCE = 2**26
"""Probabilities, one an arm, position and token of the vocabulary, that are held at a time: 0.25 GB of float32."""


class Read(NamedTuple):
    """A trace as the model reads it, unedited."""

    trace_id: int
    ids: Tensor
    """The tokens it read, (tokens,)."""
    entering: Tensor
    """What enters the site's block, in the model's precision, (tokens, width of the residual stream)."""
    states: Tensor
    """What it computes at the site, float32, (tokens, width)."""


class Change(NamedTuple):
    """How what the model makes of the tokens behind some positions changes, in nats, float32."""

    actual: Tensor
    """Change of the log-probability of the token that is there, (arms, positions)."""
    sets: Tensor
    """Change of the log-probability that it is one of a set of tokens, (arms, positions, sets)."""
    odds: Tensor
    """Change of the log-odds of the token that is there, log p / (1 - p), (arms, positions)."""
    sets_odds: Tensor
    """Change of the log-odds that it is one of a set of tokens, (arms, positions, sets)."""
    kl: Tensor
    """Divergence of the edited distribution q from the unedited p, Σ p log(p / q), (arms, positions)."""
    unedited: Tensor
    """Log-probability of the token that is there, where nothing is edited, (positions,)."""


@torch.no_grad()
def read(model: PreTrainedModel, site: str, trace_id: int, ids: Sequence[int]) -> Read:
    """Let the model read a trace as far as the site's block. Raises InputError for a state that isn't finite."""
    layer = layer_of(parse_site(site)[0])
    entry = f"{sites.blocks(model)[0]}.{layer}@residual_in"
    tokens = torch.tensor([list(ids)], device=model.device)
    with sites.stopping_after(model, layer), sites.reading(model, [entry, site]) as found:
        model.base_model(input_ids=tokens, use_cache=False)
    states = found[site][0].float()
    check_finite(states, "state", trace_id, site, 0, "set model.dtype to float32, or leave this layer out.")
    return Read(trace_id, tokens[0], found[entry][0], states)


def change(
    model: PreTrainedModel, site: str, trace: Read, deltas: Tensor, positions: Sequence[int], sets: Tensor
) -> Change:
    """Return what changes behind `positions` when `deltas` are added to the states at the site.

    deltas: float32, (arms, tokens, width). A position is that of the token last read; the one behind it is looked at,
    so the last position is the last token's but one. sets: which tokens of the vocabulary each has, bool, (sets,
    vocabulary). Each batch has an arm without an edit, to which its others are compared: rounding differs between
    batches of different sizes.
    """
    by_tokens = BATCH_TOKENS // len(trace.ids)
    size = max(1, min(by_tokens, PROBABILITIES_AT_ONCE // (len(positions) * sets.shape[1])) - 1)
    places = torch.tensor(positions, dtype=torch.long, device=trace.ids.device)
    parts = [_change(model, site, trace, part, places, sets.to(places.device)) for part in deltas.split(size)]
    fields = {name: torch.cat([getattr(part, name) for part in parts]) for name in Change._fields[:-1]}
    return Change(**fields, unedited=parts[0].unedited)


def changed_logits(model: PreTrainedModel, site: str, trace: Read, deltas: Tensor, positions: Sequence[int]) -> Tensor:
    """Return by how much the logits behind `positions` change with each of `deltas`, as `change` takes them.

    Float32, (arms, vocabulary): the mean over positions. What all logits change by alike is taken off: it changes no
    probability.
    """
    by_tokens = BATCH_TOKENS // len(trace.ids)
    size = max(1, min(by_tokens, PROBABILITIES_AT_ONCE // (len(positions) * model.config.vocab_size)) - 1)
    places = torch.tensor(positions, dtype=torch.long, device=trace.ids.device)
    parts = []
    for part in deltas.split(size):
        logits = _logits(model, site, trace, torch.cat([torch.zeros_like(part[:1]), part]), places).mean(1)
        changes = logits[1:] - logits[:1]
        parts.append(changes - changes.mean(-1, keepdim=True))
    return torch.cat(parts)


@torch.inference_mode()
def _logits(model: PreTrainedModel, site: str, trace: Read, added: Tensor, places: Tensor) -> Tensor:
    """Return the logits behind places with each arm's vectors added, float32, (arms, places, vocabulary)."""
    arms, layer = len(added), layer_of(parse_site(site)[0])

    def edit(states: Tensor) -> Tensor:
        return (states.float() + added).to(states.dtype)

    with (
        sites.starting_at(model, layer, trace.entering.expand(arms, -1, -1)),
        sites.replacing(model, site, edit),
    ):
        # The model's own head, by its own forward pass: some scale or cap what it gives.
        ids = trace.ids.expand(arms, -1)
        return model(input_ids=ids, use_cache=False, logits_to_keep=places).logits.float()


@torch.inference_mode()
def _change(model: PreTrainedModel, site: str, trace: Read, deltas: Tensor, places: Tensor, sets: Tensor) -> Change:
    """Return `change` of as many arms as are one batch."""
    added = torch.cat([torch.zeros_like(deltas[:1]), deltas])
    log_p = _logits(model, site, trace, added, places).log_softmax(-1)
    of_sets, against = (
        torch.stack([log_p[..., part].logsumexp(-1) for part in parts], dim=-1) if len(parts) else log_p[..., :0]
        for parts in (sets, ~sets)
    )
    actual, others = of_token(log_p, trace.ids[places + 1].expand(len(added), -1))
    kl = (log_p[:1].exp() * (log_p[:1] - log_p)).sum(-1)

    def less_unedited(values: Tensor) -> Tensor:
        return values[1:] - values[:1]

    return Change(
        actual=less_unedited(actual),
        sets=less_unedited(of_sets),
        odds=less_unedited(actual - others),
        sets_odds=less_unedited(of_sets - against),
        kl=kl[1:],
        unedited=actual[0],
    )


def of_token(log_p: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Return the log-probabilities (..., vocabulary) of tokens (...,), and those of all others, both (...,).

    The latter is summed up over the others: 1 - p has no digits left where p is nearly 1.
    """
    place = tokens.unsqueeze(-1)
    return log_p.gather(-1, place).squeeze(-1), log_p.scatter(-1, place, -torch.inf).logsumexp(-1)
