"""Room 4, SAEs: what an SAE does to states, in a few lines of mathematics. `bounded` does the same faster."""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK_VALUES = 2**26
"""Pre-activations held at a time while encoding: 0.25 GB of float32."""


class Codes(NamedTuple):
    """The active latents of states: their activations, descending, and which they are, both (tokens, most a token has).

    A token with fewer latents than that is filled up with activations of 0.
    """

    activations: Tensor
    latents: Tensor


class SparseCoder(Protocol):
    """What the rooms ask of an SAE, whatever its kind; `formats.load` makes one of what is on disk."""

    @property
    def latents(self) -> int:
        """How many latents it has."""

    def encode(self, x: Tensor) -> Codes:
        """Return the codes of states x (tokens, d_in)."""

    def decode(self, codes: Codes) -> Tensor:
        """Return the reconstructions x̂ (tokens, d_in)."""

    def direction(self, latents: Tensor) -> Tensor:
        """Return what a unit of each latent's activation adds to x̂, (..., d_in)."""


@dataclass(frozen=True)
class Weights:
    """What all SAEs are made of, in float32: matrices are (latents, d_in).

    Pre-activations are W_enc (x - b_dec) + b_enc, and x̂ = W_decᵀ z + b_dec of the activations z. Here W_enc is
    `encoder`, b_enc `bias` (latents,), W_dec `decoder`.
    """

    encoder: Tensor
    bias: Tensor
    decoder: Tensor
    b_dec: Tensor

    @property
    def latents(self) -> int:
        """Rows of W_dec."""
        return len(self.decoder)

    def decode(self, codes: Codes) -> Tensor:
        """Return the sum of the active latents' directions, each times its activation, and b_dec."""
        weights, latents = codes
        return F.embedding_bag(latents, self.decoder, per_sample_weights=weights, mode="sum") + self.b_dec

    def direction(self, latents: Tensor) -> Tensor:
        """Return rows of W_dec."""
        return self.decoder[latents]


@dataclass(frozen=True)
class TopK(Weights):
    """A k-SAE (Gao et al. 2024, "Scaling and evaluating sparse autoencoders"): z = TopK(ReLU(pre-activations))."""

    k: int

    def encode(self, x: Tensor) -> Codes:
        """Return the k largest activations of each state."""
        activations, latents = F.relu(F.linear(x.float() - self.b_dec, self.encoder, self.bias)).topk(self.k, dim=-1)
        return Codes(activations, latents)


@dataclass(frozen=True)
class Thresholded(Weights):
    """An SAE whose latents are active above a threshold of their own: JumpReLU (Rajamanoharan et al. 2024), and with
    one of 0 a plain ReLU. z is the pre-activation where that is above the threshold and 0, else 0."""

    threshold: Tensor

    def encode(self, x: Tensor) -> Codes:
        """Return the activations of each state, descending, filled up with zeros to the most that one has."""
        size = max(1, CHUNK_VALUES // len(self.encoder))
        found = [self._encode(rows) for rows in x.float().split(size)] or [self._encode(x.float())]
        most = max(codes.activations.shape[1] for codes in found)
        parts = [[F.pad(values, (0, most - values.shape[1])) for values in codes] for codes in found]
        return Codes(*map(torch.cat, zip(*parts, strict=True)))

    def _encode(self, x: Tensor) -> Codes:
        before = F.linear(x - self.b_dec, self.encoder, self.bias)
        values = torch.where(before > self.threshold, F.relu(before), 0.0)
        most = int((values > 0).sum(-1).max()) if len(values) else 0
        return Codes(*values.topk(max(1, most), dim=-1))  # one at least: decoding needs something to sum up
