"""Room 6, evidence: ReasonScore, how much a latent responds to reasoning words, and to many of them."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse

from ..frames import Schema, complete, keys, latents_of, with_q
from ..statistics import Floats, percentiles, resamples
from .windows import Activations, Integers, enough_shifts, lay_out, shift_p

ENTROPY_POWER = 0.7
"""α of ReasonScore (Galichin et al. 2025)."""

SCHEMA = Schema(
    "a candidate latent",
    **keys("latent"),
    score=(pl.Float64, "ReasonScore: (μ⁺ / Σμ⁺) H^0.7 - μ⁻ / Σμ⁻, the sums over all of the SAE's latents"),
    low=(pl.Float64, "95 % bootstrap interval of that over traces: lower end"),
    high=(pl.Float64, "95 % bootstrap interval of that over traces: upper end"),
    mean_inside=(pl.Float64, "μ⁺: its mean activation (zeros included) inside the windows of all reasoning words"),
    mean_outside=(pl.Float64, "μ⁻: its mean activation outside of all of them"),
    entropy=(pl.Float64, "H: entropy of its mean activation over words, 0 to 1"),
    least_without_a_word=(pl.Float64, "the least score when one word is left out"),
    that_word=(pl.String, "that word"),
    p=(pl.Float64, "one-sided, from circular shifts of the windows within segments"),
    q=(pl.Float64, "Benjamini-Hochberg q over the family"),
    shifts=(
        pl.UInt32,
        "shifts seen: at most `analysis.shifts`, or as many more as let a single latent reach q < alpha",
    ),
    family=(pl.String, "the tests that q is over"),
    note=(pl.String, "why there is no number"),
)


def reason_scores(
    activations: pl.LazyFrame,
    traces: pl.LazyFrame,
    matches: pl.LazyFrame,
    candidates: pl.LazyFrame,
    *,
    reason_words: Sequence[str],
    condition: str,
    window_before: int,
    window_after: int,
    shifts: int,
    alpha: float,
    include_sinks: bool,
) -> pl.DataFrame:
    """Return each candidate latent's ReasonScore (Galichin et al. 2025, arXiv 2503.18878, eqs. 4 to 7).

    reason_words: R. μ⁺ and μ⁻ are mean activations inside and outside the windows of all of
    R, μ_r inside those of word r; p_r = μ_r / Σ_r μ_r, H = -Σ p_r ln p_r / ln |R|.
    """
    latents = latents_of(candidates)
    layout = lay_out(activations, traces, condition, include_sinks)
    places = matches.filter(pl.col("kind") == "reason_word", pl.col("condition") == condition).collect()
    masks = np.stack(
        [layout.windows(places.filter(pl.col("name") == word), window_before, window_after) for word in reason_words]
        or [np.zeros(len(layout.trace), dtype=bool)]
    )
    family = f"{len(latents)} recurring latents"
    if not masks.any() or masks.any(axis=0).all():
        note = "all tokens are inside the windows" if masks.any() else "no reasoning word in any trace"
        table = pl.DataFrame({"latent": latents}, schema={"latent": pl.UInt32})
        return complete(table.with_columns(note=pl.lit(note), family=pl.lit(family)), SCHEMA)
    most_shifts = enough_shifts(shifts, len(latents), alpha)
    tables = [complete(_score(part, masks, reason_words, most_shifts), SCHEMA) for part in layout.parts(latents)]
    return with_q(pl.concat(tables)).with_columns(family=pl.lit(family)).sort("latent")


class Sums(NamedTuple):
    """Sums over tokens, a row each trace, resample or shift."""

    activation: Floats
    """(rows, latents); `with_mass`: (rows, latents + 1), the last column is the mass of all of the SAE's latents."""
    tokens: Floats
    """(rows,), or one that holds for all."""

    def weighted(self, weights: Floats) -> "Sums":
        """Return sums of weighted traces, weights (rows, traces)."""
        return Sums(weights @ self.activation, weights @ self.tokens)


def _score(part: Activations, masks: NDArray[np.bool_], words: Sequence[str], shifts: int) -> pl.DataFrame:
    """Return the columns of SCHEMA that are each latent's own, from the windows of each word (words, tokens)."""
    layout, union = part.layout, np.asarray(masks.any(axis=0))

    def sums(mask: NDArray[np.bool_]) -> Sums:
        return Sums(part.per_trace(mask.astype(float)), layout.per_trace(mask.astype(float)))

    def with_mass(mask: NDArray[np.bool_]) -> Sums:
        activation, tokens = sums(mask)
        return Sums(np.column_stack([activation, layout.per_trace(layout.mass * mask)]), tokens)

    everything, inside, of_words = with_mass(np.ones_like(union)), with_mass(union), [sums(mask) for mask in masks]
    once = np.ones((1, len(layout.trace_ids)))

    def score(weights: Floats, inside: Sums, of_words: Sequence[Sums]) -> Floats:
        return reason_score(
            inside.weighted(weights), everything.weighted(weights), [word.weighted(weights) for word in of_words]
        )

    observed = score(once, inside, of_words)[0]
    low, high = percentiles(score(resamples(len(layout.trace_ids)), inside, of_words))
    without = np.full((len(words), len(observed)), np.inf)
    for index in range(len(words) if len(words) > 1 else 0):
        others = with_mass(np.asarray(np.delete(masks, index, axis=0).any(axis=0)))
        scores = score(once, others, of_words[:index] + of_words[index + 1 :])[0]
        without[index] = np.where(np.isnan(scores), np.inf, scores)
    least = without.min(axis=0)
    of_mass = Activations(layout, part.latents[:0], sparse.csr_array(layout.mass[:, None]))
    total = everything.weighted(once)

    def under_shifts(drawn: Integers, columns: Integers) -> Floats:
        def shifted(mask: NDArray[np.bool_]) -> Sums:
            sums = part.shifted_sums(mask.astype(float), drawn, columns)
            return Sums(sums, np.array([float(mask.sum())]))

        activation, tokens = shifted(union)
        mass = of_mass.shifted_sums(union.astype(float), drawn, slice(None))
        known = Sums(total.activation[:, np.append(columns, len(part.latents))], total.tokens)
        moved = Sums(np.column_stack([activation, mass]), tokens)
        return reason_score(moved, known, [shifted(mask) for mask in masks])

    whole = everything.activation.sum(axis=0)
    chance = shift_p(layout.run_lengths, observed, whole[:-1] / whole[-1], under_shifts, shifts, seed=0)
    (of_union,), count = inside.weighted(once).activation[:, :-1], int(union.sum())
    return pl.DataFrame({"latent": part.latents}).with_columns(
        score=observed, low=low, high=high, mean_inside=of_union / count,
        mean_outside=(whole[:-1] - of_union) / (len(union) - count),
        entropy=entropy([word.weighted(once) for word in of_words])[0],
        least_without_a_word=np.where(np.isfinite(least), least, np.nan),
        that_word=pl.Series([words[index] for index in without.argmin(axis=0)], dtype=pl.String),
        p=chance.p, shifts=chance.shifts,
    )  # fmt: skip


def reason_score(inside: Sums, everything: Sums, of_words: Sequence[Sums]) -> Floats:
    """Return the ReasonScores (rows, latents).

    From sums over the windows of all words together and over all tokens, both with mass, and over each word's windows.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        positive = inside.activation / inside.tokens[:, None]
        negative = (everything.activation - inside.activation) / (everything.tokens - inside.tokens)[:, None]
        spread = entropy(of_words) ** ENTROPY_POWER
        return positive[:, :-1] / positive[:, -1:] * spread - negative[:, :-1] / negative[:, -1:]


def entropy(of_words: Sequence[Sums]) -> Floats:
    """Return H of each latent, (rows, latents): 0 where it is active in no window, 1 if there is but one word."""
    if len(of_words) < 2:
        return np.ones_like(of_words[0].activation)  # as in the authors' code: one word can't be spread over
    with np.errstate(divide="ignore", invalid="ignore"):
        means = np.stack(
            [np.where(word.tokens[:, None] > 0, word.activation / word.tokens[:, None], 0.0) for word in of_words]
        )
        shares = np.nan_to_num(means / means.sum(axis=0))
        terms: Floats = np.where(shares > 0, -shares * np.log(shares), 0.0)
    return np.asarray(terms.sum(axis=0) / np.log(len(of_words)))
