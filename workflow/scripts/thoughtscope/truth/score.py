"""Truth: how well single latents mark the states that a taught model's text has."""

from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ..frames import CELLS_AT_ONCE, Schema, keys
from ..teaching.grammar import STATES, SURFACES
from .tokens import Tokens, aurocs, tokens

OUTCOME = "outcome"
MARKED = {state: (index,) for index, state in enumerate(STATES)} | {
    OUTCOME: (STATES.index("back"), STATES.index("confirm"))
}
"""What latents may mark: each state, and what both outcomes of a verification have in common, as indices in STATES."""

KINDS = ("state", "after words", "word")
"""What a latent that answers to a state marks: the `state` however it is said, its sentences only `after words` of the
lexicon, or such a `word` itself, also where it stands for nothing of the kind (a decoy)."""

LATENT_MARKS_SCHEMA = Schema(
    "a state and latent, by state, falling F1",
    state=(pl.Enum(list(MARKED)), "the state; `outcome`: of a verification, back or confirm"),
    **keys("latent"),
    kind=(pl.Enum(KINDS), "what it marks: the `state` however it is said, its sentences only `after words` of the"
                          " lexicon, or the `word` itself; null for none of these"),
    f1=(pl.Float64, "F1 over sentences: those in which it is above the threshold on a token that is no sign of the"
                    " state"),
    f1_chosen=(pl.Float64, "the same on the half of traces on which threshold and best latent are chosen"),
    precision=(pl.Float64, "share of the sentences it is active in that are of the state"),
    lexicon=(pl.Float64, "share of the state's sentences with words of the lexicon that it is active in"),
    plain=(pl.Float64, "share of the state's sentences without them that it is active in"),
    decoys=(pl.Float64, "share of the state's words in stories, where they mean nothing of the kind, that it is active"
                        " on"),
    in_words=(pl.Float64, "share of its activation mass that is on the state's words, in openers and in stories"),
    sentences=(pl.UInt32, "sentences of the state in that half of traces"),
    auroc=(pl.Float64, "AUROC of its activation over tokens: those of the state against all others of the thinking;"
                       " null of `outcome`"),
    token_f1=(pl.Float64, "F1 over these tokens, above the threshold"),
    threshold=(pl.Float64, "activation above which F1 is largest on the half on which it is chosen"),
)  # fmt: skip

FEWEST_TOKENS = 10
"""Tokens a latent must be active on to be scored, as for the tests of the evidence."""

LEAST_ON_WORDS = 0.5
"""Share of its mass on a state's words, and of decoys it is active on, from which a latent is one of the word."""

LEAST_PRECISION = 0.5
"""Share of the sentences it is active in that must be of a state for a latent to mark it."""

LEAST_PLAIN = 0.5
"""How often, to how often it is active in the state's sentences with words of the lexicon, a latent must be active in
those without: one that marks the state, and not the words, has about 1."""


def latent_marks(
    activations: pl.LazyFrame, truth: pl.LazyFrame, traces: pl.LazyFrame, *, condition: str
) -> pl.DataFrame:
    """Return how well each latent marks each state: chosen on half of the traces, measured on the other.

    A sentence counts as marked where the latent is above the threshold on one of its shared tokens: not of its opener,
    and not of a type that is a sign of the state by itself (more than half of it is in sentences of that state, as the
    question mark is of a doubt).
    """
    every = tokens(truth.collect(), traces.collect(), condition)
    active = _active(activations.filter(pl.col("condition") == condition), every)
    latents = active["latent"].unique().sort()
    most = max(1, CELLS_AT_ONCE // max(1, len(every.position)))
    parts = [latents[first : first + most] for first in range(0, max(1, len(latents)), most)]
    found = pl.concat(_marks(part, active.filter(pl.col("latent").is_in(part.implode())), every) for part in parts)
    return found.sort("state", "f1", "latent", descending=[False, True, False], nulls_last=True)


def _marks(latents: pl.Series, active: pl.DataFrame, every: Tokens) -> pl.DataFrame:
    """Return the rows of `latent_marks` of some latents, from their rows of `_active`."""
    dense = np.zeros((len(latents), len(every.position)), np.float32)
    dense[np.searchsorted(latents, active["latent"]), active["row"]] = active["activation"]
    tables = []
    rest = ~every.chosen_on
    areas = aurocs(dense[:, rest], every.state[rest])
    for state, members in MARKED.items():
        inside = np.isin(every.state, members)
        shared = every.content & ~_signs(every, inside)
        choose, measure = (_Sentences.of(every, dense, among & shared, inside) for among in (every.chosen_on, rest))
        threshold, f1_chosen = choose.best()
        marked = measure.maxima > threshold[:, None]
        lexicon, plain = (
            _share(marked[:, measure.of_state & (measure.surface == SURFACES.index(name))]) for name in SURFACES[:2]
        )
        with np.errstate(invalid="ignore"):
            precision = (marked & measure.of_state).sum(1) / marked.sum(1)
        of_state = inside[rest]
        words = np.isin(every.word, members)
        with np.errstate(invalid="ignore"):
            in_words = dense[:, words].sum(1) / dense.sum(1)
        table = pl.DataFrame(
            {
                "latent": latents,
                "f1": _f1(marked, measure.of_state),
                "f1_chosen": f1_chosen,
                "precision": precision,
                "lexicon": lexicon,
                "plain": plain,
                "decoys": _on_decoys(dense, every, words),
                "in_words": in_words.astype(np.float64),
                "auroc": areas[:, members[0]] if len(members) == 1 else np.full(len(dense), np.nan),
                "token_f1": _f1(dense[:, rest] > threshold[:, None], of_state),
                "threshold": threshold.astype(np.float64),
            }
        ).with_columns(pl.col(pl.Float64).fill_nan(None))
        marks = pl.col("precision") > LEAST_PRECISION
        said = pl.col("plain") >= LEAST_PLAIN * pl.col("lexicon")
        is_word = (pl.col("in_words") > LEAST_ON_WORDS) & (pl.col("decoys") > LEAST_ON_WORDS)
        kind = pl.when(is_word).then(pl.lit("word")).when(marks & said).then(pl.lit("state"))
        tables.append(
            table.with_columns(
                state=pl.lit(state),
                sentences=pl.lit(int(measure.of_state.sum())),
                kind=kind.when(marks).then(pl.lit("after words")),
            )
        )
    return pl.concat(tables).select(*LATENT_MARKS_SCHEMA).cast(LATENT_MARKS_SCHEMA)  # type: ignore[arg-type]


def _signs(every: Tokens, of_state: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which tokens are of a type that is a sign of a state: more than half of it is in its sentences."""
    _, types = np.unique(every.token_id, return_inverse=True)
    inside = np.bincount(types, weights=every.content & of_state)
    return (inside > np.bincount(types) / 2)[types]


def _active(activations: pl.LazyFrame, every: Tokens) -> pl.DataFrame:
    """Return the activations on the tokens (`row`) of latents that are active on enough of them to be scored."""
    places = pl.LazyFrame(
        {"trace_id": every.trace_id, "position": every.position, "row": np.arange(len(every.position))},
        schema_overrides={"trace_id": pl.UInt32, "position": pl.UInt32},
    )
    return (
        activations.filter(~pl.col("sink"))
        .select("trace_id", "position", "latent", "activation")
        .join(places, on=["trace_id", "position"])
        .filter(pl.len().over("latent") >= FEWEST_TOKENS)
        .collect()
    )


class _Sentences(NamedTuple):
    """The sentences of some traces: whether each is of a state, how it is said, and each latent's maximum in it."""

    of_state: NDArray[np.bool_]
    surface: NDArray[np.int64]
    maxima: NDArray[np.float32]
    """Shape (latents, sentences)."""

    @classmethod
    def of(
        cls, every: Tokens, dense: NDArray[np.float32], counted: NDArray[np.bool_], of_state: NDArray[np.bool_]
    ) -> "_Sentences":
        """Take the sentences that have a token that is `counted`, and the maxima on these."""
        inside = np.flatnonzero(counted)
        ids, first = np.unique(every.sentence[inside], return_index=True)
        if not len(ids):
            return cls(np.zeros(0, bool), np.zeros(0, int), np.zeros((len(dense), 0), np.float32))
        maxima = np.maximum.reduceat(dense[:, inside], first, axis=1)
        return cls(of_state[inside][first], every.surface[inside][first], maxima)

    def best(self) -> tuple[NDArray[np.float32], NDArray[np.floating]]:
        """Return for each latent the threshold at which its F1 is largest, and that F1."""
        if not self.maxima.size:
            return np.zeros(len(self.maxima), np.float32), np.full(len(self.maxima), np.nan)
        order = np.argsort(-self.maxima, axis=1, kind="stable")
        hits = np.cumsum(self.of_state[order], axis=1)
        f1 = 2 * hits / (np.arange(1, len(self.of_state) + 1) + max(self.of_state.sum(), 1))
        falling = np.take_along_axis(self.maxima, order, axis=1)
        following = np.hstack([falling[:, 1:], np.zeros((len(order), 1), np.float32)])
        f1 = np.where(falling > following, f1, 0)  # ties are one threshold
        best = f1.argmax(axis=1)[:, None]
        threshold = (np.take_along_axis(falling, best, 1) + np.take_along_axis(following, best, 1)) / 2
        return threshold[:, 0], np.take_along_axis(f1, best, 1)[:, 0]


def _on_decoys(dense: NDArray[np.float32], every: Tokens, words: NDArray[np.bool_]) -> NDArray[np.floating]:
    """Return on what share of the decoys among a state's words each latent is active, shape (latents,)."""
    inside = np.flatnonzero(words & (every.decoy >= 0))
    ids, first = np.unique(every.decoy[inside], return_index=True)
    if not len(ids):
        return np.full(len(dense), np.nan)
    return (np.maximum.reduceat(dense[:, inside], first, axis=1) > 0).mean(axis=1)


def _share(active: NDArray[np.bool_]) -> NDArray[np.floating]:
    return active.mean(axis=1) if active.shape[1] else np.full(len(active), np.nan)


def _f1(active: NDArray[np.bool_], positive: NDArray[np.bool_]) -> NDArray[np.floating]:
    return 2 * (active & positive).sum(1) / np.maximum(active.sum(1) + positive.sum(), 1)
