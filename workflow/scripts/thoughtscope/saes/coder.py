"""Room 4, SAEs: k-sparse autoencoders applied exactly.

A k-SAE (Gao et al. 2024, "Scaling and evaluating sparse autoencoders") keeps the k largest pre-activations:
z = TopK(ReLU(W_enc (x - b_dec) + b_enc)), x̂ = W_decᵀ z + b_dec.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from ..devices import halving

CHUNK_VALUES = 2**27
"""Pre-activations held at a time while encoding: 0.5 GB of float32."""

BOUND_WEIGHTS = 2**23
"""Size of an encoder's matrix from which bounds in bfloat16 pay: at 2^23 1 to 1.9 times as fast, on a CPU."""

CANDIDATES = 3
"""Candidates for a token's top k, in multiples of k: where 2 prove 5% of tokens (random, 4,096 wide), 3 prove 95%."""

BFLOAT16_UNIT = 2.0**-8
"""Rounding to bfloat16 (8 significant bits, to nearest) changes a number by at most this share of it."""

UNDERFLOW = 2.0**-50
"""Added to norms, so that a bound stays one where numbers under 2^-126 are flushed to 0, as matrix units do."""


@dataclass(frozen=True)
class Encoder:
    """The encoder of a k-SAE, in float32: weight (latents, d_in), bias (latents,), b_dec (d_in,)."""

    weight: Tensor
    bias: Tensor
    b_dec: Tensor
    k: int

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the k largest activations of each row of x (tokens, d_in), descending, and their latents.

        Both are (tokens, k), and what sparsify's `SparseCoder.encode` gives in float32, rounding and ties aside. A
        large encoder where the hardware multiplies bfloat16 is first bounded in bfloat16. The dense pre-activations
        or bounds exist only for as many tokens at a time as CHUNK_VALUES allows.
        """
        bounded = self.weight.numel() >= BOUND_WEIGHTS and _multiplies_bfloat16(x.device)
        encode = self._encode_bounded if bounded else self._encode_dense
        chunks = x.float().split(max(1, CHUNK_VALUES // self.weight.shape[0]))
        values, indices = zip(
            *(halving(lambda rows: encode(rows - self.b_dec), chunk) for chunk in chunks), strict=True
        )
        return torch.cat(values), torch.cat(indices)

    def _encode_dense(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Encode centred states x (tokens, d_in) by all their pre-activations in float32."""
        top = F.relu(F.linear(x, self.weight, self.bias)).topk(self.k, dim=-1)
        return top.values, top.indices

    def _encode_bounded(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Encode centred states x (tokens, d_in) by the float32 pre-activations of those with the highest bounds.

        No other latent's is above the lowest of those bounds; where the k-th best activation is, that proves it the
        k-th best of all. Tokens without proof are encoded densely.
        """
        highest, candidates = self._bounds(x).topk(min(CANDIDATES * self.k, len(self.weight)), dim=-1)
        candidates = candidates.sort(dim=-1).values  # as a CSR matrix has them
        starts = torch.arange(0, candidates.numel() + 1, candidates.shape[1], device=x.device)
        biases, size = self.bias[candidates].flatten(), (len(x), len(self.weight))
        chosen = torch.sparse_csr_tensor(starts, candidates.flatten(), biases, size, check_invariants=False)
        exact = torch.sparse.sampled_addmm(chosen, x, self.weight.T).values().view_as(candidates)
        values, order = F.relu(exact).topk(self.k, dim=-1)
        indices = candidates.gather(-1, order)
        unproven = ~(values[:, -1] >= (1 + BFLOAT16_UNIT) * highest[:, -1].float())  # NaN proves nothing
        if unproven.any():
            values[unproven], indices[unproven] = self._encode_dense(x[unproven])
        return values, indices

    def _bounds(self, x: Tensor) -> Tensor:
        """Return y (tokens, latents), bfloat16, such that no float32 pre-activation is above y + BFLOAT16_UNIT |y|.

        With x̃ and w̃ the bfloat16 roundings of a centred state x and a row w of the encoder, and n = d_in,

            w·x = w̃·x̃ + w̃·(x - x̃) + (w - w̃)·x ≤ w̃·x̃ + ‖w̃‖ ‖x - x̃‖ + ‖w - w̃‖ ‖x‖    (Cauchy-Schwarz).

        A float32 sum of n products, in any order, is off by at most γ ‖w‖ ‖x‖, γ = nu / (1 - nu), u = 2^-24 (Higham
        2002, "Accuracy and stability of numerical algorithms", 3.1). Pre-activations in float32 have the one error, the
        product of w̃ and x̃ the other: `_margin` m covers both. With the bias b,

            w·x + b ≤ w̃·x̃ + ‖w̃‖ (‖x - x̃‖ + m ‖x‖) + ‖w - w̃‖ ‖x‖ + b + m |b|    (all rounding but y's included).

        The terms after the first are four more columns of both factors, rounded up, so that one product sums it all.
        y is that sum rounded to bfloat16.
        """
        rounded, norm = x.bfloat16(), _norms(x)
        one = torch.ones_like(rounded[:, :1])
        columns = [_up(_norms(x - rounded) + _margin(x) * norm), _up(norm), one, one]
        return F.linear(torch.cat([rounded, *columns], dim=-1), self._bound_weight)

    @cached_property
    def _bound_weight(self) -> Tensor:
        """The encoder's rows for `_bounds`, bfloat16, (latents, d_in + 4): w̃, ‖w̃‖, ‖w - w̃‖, b + m |b| in two parts."""
        parts, size = [], max(1, CHUNK_VALUES // self.weight.shape[1])
        for weight, bias in zip(self.weight.split(size), self.bias.unsqueeze(-1).split(size), strict=True):
            rounded, above = weight.bfloat16(), bias + _margin(weight) * bias.abs()
            columns = [_up(_norms(rounded)), _up(_norms(weight - rounded)), above.bfloat16()]
            parts.append(torch.cat([rounded, *columns, _up(above - above.bfloat16())], dim=-1))
        return torch.cat(parts)


def _margin(rows: Tensor) -> float:
    """Return m of `_bounds`: half as much again as the two sums over a row and four columns may be off, as a share."""
    return 1.5 * (rows.shape[-1] + 4) * 2 * 2.0**-24


def _norms(rows: Tensor) -> Tensor:
    """Return upper bounds of the norms of rows, float32, (rows, 1), with room for the rounding of their products."""
    norms = torch.linalg.vector_norm(rows, dim=-1, keepdim=True, dtype=torch.float32)
    return (1 + _margin(rows)) * norms + UNDERFLOW


def _up(values: Tensor) -> Tensor:
    """Return values in bfloat16, none smaller than it was."""
    return (values + 2 * BFLOAT16_UNIT * values.abs()).bfloat16()


def _multiplies_bfloat16(device: torch.device) -> bool:
    """Return whether bounds in bfloat16 are to be had: on a processor that multiplies it itself.

    A GPU's matrix units add up in ways of their own, which the bound doesn't cover; its float32 is fast enough.
    """
    return device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()


@dataclass(frozen=True)
class Decoder:
    """The decoder of a k-SAE, in float32: weight (latents, d_in), b_dec (d_in,)."""

    weight: Tensor
    b_dec: Tensor

    def decode(self, activations: Tensor, latents: Tensor) -> Tensor:
        """Return the reconstructions x̂ (tokens, d_in) of what `Encoder.encode` gives, both (tokens, k)."""
        return F.embedding_bag(latents, self.weight, per_sample_weights=activations, mode="sum") + self.b_dec
