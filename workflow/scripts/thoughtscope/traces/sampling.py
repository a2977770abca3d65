"""Sampling whose noise belongs to the trace: the same draw in any batch, block, order or number of inferences."""

import zlib
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from transformers import LogitsProcessor

NUCLEUS_GUESS = 256
"""Largest probabilities sorted at first; only a row whose nucleus is wider has its whole vocabulary sorted."""


def uniforms(seed: int, condition: str, trace_ids: Sequence[int], steps: int) -> Tensor:
    """Return the noise of every draw: uniform numbers in [0, 1), float64, shape (traces, steps).

    Row i is a Philox stream (Salmon et al. 2011) of its own, keyed by seed, condition and trace id; more steps leave
    the earlier ones as they are.
    """
    rows = [
        np.random.Generator(
            np.random.Philox(np.random.SeedSequence([seed, zlib.crc32(condition.encode()), trace_id]))
        ).random(steps)
        for trace_id in trace_ids
    ]
    return torch.from_numpy(np.stack(rows))


def nucleus(probabilities: Tensor, top_p: float) -> Tensor:
    """Return `probabilities` with all but the nucleus set to 0, not renormalised; shape (rows, vocabulary).

    The nucleus (Holtzman et al. 2020, eq. 2) is the smallest set of likeliest tokens whose mass reaches `top_p`.
    Tokens as likely as its last member belong to it too, so that it doesn't depend on how ties are sorted.
    """
    if top_p >= 1:
        return probabilities
    guess = min(NUCLEUS_GUESS, probabilities.shape[-1])
    cutoff, reached = _cutoff(probabilities.topk(guess).values, top_p)
    for row in (~reached).nonzero().flatten().tolist():
        cutoff[row] = _cutoff(probabilities[row].sort(descending=True).values[None], top_p)[0][0]
    return torch.where(probabilities >= cutoff[:, None], probabilities, 0.0)


def _cutoff(descending: Tensor, top_p: float) -> tuple[Tensor, Tensor]:
    """Return per row the probability of the nucleus's last member, and whether the row reached `top_p` at all."""
    mass = descending.double().cumsum(-1)
    last = (mass < top_p).sum(-1).clamp(max=descending.shape[-1] - 1)
    return descending.gather(-1, last[:, None])[:, 0], mass[:, -1] >= top_p


def draw(logits: Tensor, noise: Tensor, temperature: float, top_p: float) -> Tensor:
    """Draw one token a row by inverting the cumulative distribution at `noise`; returns token ids, shape (rows,).

    logits: (rows, vocabulary); noise: (rows,), uniform in [0, 1). Temperature 0 takes the likeliest token.
    """
    if temperature == 0:
        return logits.argmax(-1)
    probabilities = nucleus(torch.softmax(logits.float() / temperature, dim=-1), top_p)
    cumulative = probabilities.double().cumsum(-1)
    target = noise.to(cumulative)[:, None] * cumulative[:, -1:]
    return torch.searchsorted(cumulative, target, right=True)[:, 0]


class TraceSampler(LogitsProcessor):
    """Makes the draw inside greedy `generate`: leaves the drawn token as the only one possible.

    noise: (batch, steps), from `uniforms`. `on_step` is called before each draw with the ids written so far, shape
    (batch, steps written).
    """

    def __init__(
        self, noise: Tensor, temperature: float, top_p: float, prompt_length: int, on_step: Callable[[Tensor], None]
    ) -> None:
        self.noise, self.temperature, self.top_p = noise, temperature, top_p
        self.prompt_length, self.on_step = prompt_length, on_step

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return scores (batch, vocabulary) that are 0 for each row's drawn token and -inf elsewhere."""
        step = input_ids.shape[1] - self.prompt_length
        self.on_step(input_ids[:, self.prompt_length :])
        token = draw(scores, self.noise[:, step], self.temperature, self.top_p)
        return torch.full_like(scores, -torch.inf).scatter_(-1, token[:, None], 0.0)
