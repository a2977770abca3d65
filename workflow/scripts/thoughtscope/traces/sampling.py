"""Sampling whose noise belongs to the trace: the same draw in any batch, block, order or number of inferences."""

import zlib
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import LogitsProcessor

NUCLEUS_GUESS = 64
"""Largest probabilities sorted at first; only a row whose nucleus is wider has 16 times as many sorted, and so on."""

STRETCH = 128
"""Tokens whose masses are summed in float32, of which the sums and the masses are then summed in float64."""

BELOW_ONE = 1 - 2**-53
"""The largest number that `uniforms` gives."""


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


def nucleus(probabilities: Tensor, top_p: float, guess: int = NUCLEUS_GUESS) -> tuple[Tensor, Tensor]:
    """Return the nucleus of each row: token ids, ascending, and their probabilities, not renormalised; (rows, width).

    The nucleus (Holtzman et al. 2020, eq. 2) is the smallest set of likeliest tokens whose mass reaches `top_p`.
    Tokens as likely as its last member belong to it too, so that it doesn't depend on how ties are sorted. Other
    tokens among the ids have probability 0. `guess` is how many tokens are looked at first.
    """
    vocabulary = probabilities.shape[-1]
    if top_p >= 1:
        return torch.arange(vocabulary, device=probabilities.device).expand(probabilities.shape), probabilities
    guess = min(guess, vocabulary)
    likeliest, ids = probabilities.topk(guess)
    mass = likeliest.double().cumsum(-1)
    last = (mass < top_p).sum(-1, keepdim=True).clamp(max=guess - 1)
    cutoff = likeliest.gather(-1, last)
    members = likeliest.where(likeliest >= cutoff, 0.0)
    ids, order = ids.sort(-1)
    members = members.gather(-1, order)
    # Where the last one looked at is a member, more may be: equal ones, or all that is missing to top_p.
    wide = (likeliest[:, -1:] >= cutoff)[:, 0].nonzero()[:, 0] if guess < vocabulary else ()
    if len(wide):
        wide_ids, wide_members = nucleus(probabilities[wide], top_p, 16 * guess)
        more = (0, wide_ids.shape[-1] - guess)
        ids, members = F.pad(ids, more), F.pad(members, more)
        ids[wide], members[wide] = wide_ids, wide_members
    return ids, members


def draw(logits: Tensor, noise: Tensor, temperature: float, top_p: float) -> Tensor:
    """Draw one token a row by inverting the cumulative distribution at `noise`; returns token ids, shape (rows,).

    logits: (rows, vocabulary); noise: (rows,), uniform in [0, 1). Temperature 0 takes the likeliest token.
    """
    if temperature == 0:
        return logits.argmax(-1)
    scaled = logits / torch.full((1,), temperature, device=logits.device)  # to float32 in the same pass
    ids, masses = nucleus(torch.softmax(scaled, dim=-1), top_p)
    # In two stages, a stretch of tokens and a token of it, float64 sums over the whole vocabulary aren't needed.
    stretches = F.pad(masses, (0, -masses.shape[-1] % STRETCH)).unflatten(-1, (-1, STRETCH))
    stretch, share = _invert(stretches.sum(-1), noise.to(masses.device))
    token, _ = _invert(stretches[torch.arange(len(ids), device=ids.device), stretch], share)
    return ids.gather(-1, (stretch * STRETCH + token)[:, None])[:, 0]


def _invert(masses: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Return per row the place at which a share `noise` of its masses is reached, and the share of that place's own."""
    cumulative = masses.double().cumsum(-1)
    target = noise[:, None] * cumulative[:, -1:]
    place = torch.searchsorted(cumulative, target, right=True)
    own = masses.gather(-1, place).double()
    share = 1 - (cumulative.gather(-1, place) - target) / own
    return place[:, 0], share[:, 0].clamp(0, BELOW_ONE)


class TraceSampler(LogitsProcessor):
    """Makes the draw inside greedy `generate`: leaves the drawn token as the only one possible.

    noise: (batch, steps), from `uniforms`. Before each draw `check` is called with its logits and which step it is, and
    `on_step` with the ids written so far, shape (batch, steps written).
    """

    def __init__(
        self,
        noise: Tensor,
        temperature: float,
        top_p: float,
        prompt_length: int,
        check: Callable[[Tensor, int], None],
        on_step: Callable[[Tensor], None],
    ) -> None:
        self.noise, self.temperature, self.top_p = noise, temperature, top_p
        self.prompt_length, self.check, self.on_step = prompt_length, check, on_step

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return scores (batch, vocabulary) that are 0 for each row's drawn token and -inf elsewhere."""
        step = input_ids.shape[1] - self.prompt_length
        self.on_step(input_ids[:, self.prompt_length :])
        self.check(scores, step)
        token = draw(scores, self.noise[:, step], self.temperature, self.top_p)
        return torch.full_like(scores, -torch.inf).scatter_(-1, token[:, None], 0.0)
