"""Room 4, SAEs: the codes of a k-SAE as `coder.TopK` has them, exactly, in less time and memory."""

import math
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from . import coder
from ..devices import halving

BOUND_WEIGHTS = 2**23
"""Size of an encoder's matrix from which bounds in bfloat16 pay: at 2^23 1 to 1.9 times as fast, on a CPU."""

CANDIDATES = 3
"""Candidates for a token's top k, in multiples of k: where 2 prove 5% of tokens (random, 4,096 wide), 3 prove 95%."""

BFLOAT16_UNIT = 2.0**-8
"""Rounding to bfloat16 (8 significant bits, to nearest) changes a number by at most this share of it."""

SHORT_ROW = 4096
"""Columns under which a row's `topk` is as fast as taking maxima first."""

UNDERFLOW = 2.0**-50
"""Added to norms, so that a bound stays one where numbers under 2^-126 are flushed to 0, as matrix units do."""


class BoundedTopK(coder.TopK):
    """A k-SAE whose large encoder is first bounded in bfloat16, where the hardware multiplies that.

    Its codes are what sparsify's `SparseCoder.encode` gives in float32, rounding and ties aside.
    """

    def encode(self, x: Tensor) -> coder.Codes:
        """Return the k largest activations of each state, descending.

        The dense pre-activations or bounds exist only for as many tokens at a time as coder.CHUNK_VALUES allows.
        """
        return coder.Codes(*halving(self._encode_chunks, x.float()))

    @torch.no_grad()
    def _encode_chunks(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Encode states, a chunk after the other, all in the same memory."""
        encode = self._encode_bounded if self._is_bounded else self._encode_dense
        chunks = x.split(max(1, coder.CHUNK_VALUES // len(self.encoder)))
        # A GPU's allocator keeps memory itself, and where there is little, less may do.
        space = self._space(len(chunks[0])) if x.is_cuda else self._kept_space
        values, latents = zip(*(encode(rows - self.b_dec, space[: len(rows)]) for rows in chunks), strict=True)
        return torch.cat(values), torch.cat(latents)

    @property
    def _is_bounded(self) -> bool:
        return self.encoder.numel() >= BOUND_WEIGHTS and _multiplies_bfloat16(self.encoder.device)

    @torch.inference_mode(False)  # so that it can be written to in any mode
    def _space(self, tokens: int) -> Tensor:
        """Return memory for the pre-activations, or their bounds, of so many tokens."""
        dtype = torch.bfloat16 if self._is_bounded else torch.float32
        return torch.empty(tokens, len(self.encoder), dtype=dtype, device=self.encoder.device)

    @cached_property
    def _kept_space(self) -> Tensor:
        """A chunk's memory, kept from call to call: as new memory it costs a processor a tenth of the product."""
        return self._space(max(1, coder.CHUNK_VALUES // len(self.encoder)))

    def _encode_dense(self, x: Tensor, space: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Encode centred states x (tokens, d_in) by all their pre-activations in float32, written to `space`."""
        values, latents = largest(torch.addmm(self.bias, x, self.encoder.T, out=space), self.k)
        return F.relu(values), latents

    def _encode_bounded(self, x: Tensor, space: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Encode centred states x (tokens, d_in) by the float32 pre-activations of those with the highest bounds.

        No other latent's is above the lowest of those bounds; where the k-th best activation is, that proves it the
        k-th best of all. Tokens without proof are encoded densely. The bounds are written to `space`.
        """
        highest, candidates = largest(self._bounds(x, space), min(CANDIDATES * self.k, len(self.encoder)))
        candidates = candidates.sort(dim=-1).values  # as a CSR matrix has them
        starts = torch.arange(0, candidates.numel() + 1, candidates.shape[1], device=x.device)
        biases, size = self.bias[candidates].flatten(), (len(x), len(self.encoder))
        chosen = torch.sparse_csr_tensor(starts, candidates.flatten(), biases, size, check_invariants=False)
        exact = torch.sparse.sampled_addmm(chosen, x, self.encoder.T).values().view_as(candidates)
        values, order = F.relu(exact).topk(self.k, dim=-1)
        latents = candidates.gather(-1, order)
        unproven = ~(values[:, -1] >= (1 + BFLOAT16_UNIT) * highest[:, -1].float())  # NaN proves nothing
        if unproven.any():
            values[unproven], latents[unproven] = self._encode_dense(x[unproven])
        return values, latents

    def _bounds(self, x: Tensor, space: Tensor | None = None) -> Tensor:
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
        return torch.mm(torch.cat([rounded, *columns], dim=-1), self._bound_weight.T, out=space)

    @cached_property
    def _bound_weight(self) -> Tensor:
        """The encoder's rows for `_bounds`, bfloat16, (latents, d_in + 4): w̃, ‖w̃‖, ‖w - w̃‖, b + m |b| in two parts."""
        parts, size = [], max(1, coder.CHUNK_VALUES // self.encoder.shape[1])
        for weight, bias in zip(self.encoder.split(size), self.bias.unsqueeze(-1).split(size), strict=True):
            rounded, above = weight.bfloat16(), bias + _margin(weight) * bias.abs()
            columns = [_up(_norms(rounded)), _up(_norms(weight - rounded)), above.bfloat16()]
            parts.append(torch.cat([rounded, *columns, _up(above - above.bfloat16())], dim=-1))
        return torch.cat(parts)


def largest(rows: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the `count` largest numbers of each row, descending, and their columns: `topk`, ties aside.

    They are among the groups of columns with the `count` largest maxima: were one in another group, each of these would
    have a number at least as large. That reads the rows once, `topk` several times. A group's columns lie far apart, so
    that the maxima of neighbouring groups are taken together.
    """
    width = rows.shape[-1]
    # Where there are about as many groups as columns in the chosen ones.
    size = next(size for size in range(max(1, math.isqrt(width // count)), 0, -1) if width % size == 0)
    if size == 1 or width < SHORT_ROW:
        return rows.topk(count, dim=-1)
    grouped = rows.unflatten(-1, (size, width // size))
    groups = largest(grouped.amax(1), count)[1]
    values, order = grouped.gather(-1, groups.unsqueeze(1).expand(-1, size, -1)).flatten(1).topk(count, dim=-1)
    return values, order // count * (width // size) + groups.gather(-1, order % count)


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
