"""Room 4, SAEs: what an SAE does to states, in a few lines of mathematics. `bounded` does the same faster."""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

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
class TopK:
    """A k-SAE (Gao et al. 2024, "Scaling and evaluating sparse autoencoders"), in float32.

    z = TopK(ReLU(W_enc (x - b_dec) + b_enc)), x̂ = W_decᵀ z + b_dec. Here W_enc is `encoder`, b_enc `bias` (latents,),
    W_dec `decoder`; both matrices are (latents, d_in).
    """

    encoder: Tensor
    bias: Tensor
    decoder: Tensor
    b_dec: Tensor
    k: int

    @property
    def latents(self) -> int:
        """Rows of W_dec."""
        return len(self.decoder)

    def encode(self, x: Tensor) -> Codes:
        """Return the k largest activations of each state."""
        activations, latents = F.relu(F.linear(x.float() - self.b_dec, self.encoder, self.bias)).topk(self.k, dim=-1)
        return Codes(activations, latents)

    def decode(self, codes: Codes) -> Tensor:
        """Return the sum of the active latents' directions, each times its activation, and b_dec."""
        weights, latents = codes
        return F.embedding_bag(latents, self.decoder, per_sample_weights=weights, mode="sum") + self.b_dec

    def direction(self, latents: Tensor) -> Tensor:
        """Return rows of W_dec."""
        return self.decoder[latents]
