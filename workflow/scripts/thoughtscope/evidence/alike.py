"""Room 6, evidence: windows against tokens that are alike, of the same type and at a like place.

A latent that follows a word, the start of a sentence or the end of a trace is more active in the windows of any
pattern that has more of these. So its activation is compared with what it is on tokens alike: with a_t = α_run + x_t β
+ w_t θ, where a run is a segment of a trace, x_t says which token t is and where it stands, w_t whether it is in the
window, θ is how much more active the latent is there than alike tokens have it. By Frisch, Waugh (1933) and Lovell
(1963) θ = Σ ŵ_t a_t / Σ ŵ_t², ŵ the window less what x says of it; the sums over each trace are what its test rests
on. A trace's sum takes x_t β off the activation, too: an error in β then matters only times one in ŵ (Chernozhukov et
al. 2018).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import linalg, sparse

from ..config import SEGMENTS
from ..statistics import Floats
from .windows import Activations, Integers, Layout

MOST_TYPES = 2000
"""Token types, the most frequent, that are told apart; the rest by kind."""

MOST_BEFORE = 300
"""Types, the most frequent, that are told apart in the token before."""

MIN_OF_TYPE = 4
"""Tokens a type needs to be told apart."""

RIDGE = 0.05
"""Tokens' worth of shrinkage: blocks of indicators that sum to 1 have no unique solution without."""

KINDS = 5
WORD, DIGIT, BREAK, MARK, SPACE = range(KINDS)
"""Kinds of tokens: digits are numbers only, a break has a line break, a mark neither letters nor digits."""

NEAR = 8
"""Tokens on either side among which digits are counted."""


def kinds(vocabulary: pl.LazyFrame) -> Integers:
    """Return the kind of every token id, (ids,)."""
    text = vocabulary.select("token_id", "text").sort("token_id").collect()
    kind = np.full(int(text["token_id"].max()) + 1 if len(text) else 0, WORD)  # type: ignore[arg-type]
    for token_id, letters in text.iter_rows():
        bare = letters.strip()
        if "\n" in letters:
            kind[token_id] = BREAK
        elif not bare:
            kind[token_id] = SPACE
        elif bare.isdigit():
            kind[token_id] = DIGIT
        elif not any(map(str.isalnum, bare)):
            kind[token_id] = MARK
    return kind


def sentence_ends(vocabulary: pl.LazyFrame) -> Integers:
    """Return the token ids that end a sentence: those with a full stop, question or exclamation mark, or line break."""
    ends = pl.col("text").str.contains(r"[.!?。！？][\"'”’)\]*]*\s*$|\n")
    return vocabulary.filter(ends).select("token_id").collect()["token_id"].to_numpy().astype(np.int64)


def _since(ends: NDArray[np.bool_], run_starts: Integers, run: Integers) -> Integers:
    """Return how many tokens each is behind the last that ends something, or the start of its run, (tokens,)."""
    index = np.arange(len(ends))
    begins = np.where(np.concatenate([[False], ends[:-1]]), index, 0)
    return index - np.maximum(np.maximum.accumulate(begins), run_starts[run])


def _steps(distance: Integers) -> Integers:
    """Return the class of a distance: each by itself up to 40, then in steps of a fifth."""
    beyond = np.log(np.maximum(distance, 1) / 40) / np.log(1.2)
    return np.where(distance <= 40, distance, 41 + np.maximum(beyond, 0).astype(np.int64))


def _blocks(layout: Layout, vocabulary: pl.LazyFrame) -> Iterator[tuple[Integers, bool]]:
    """Yield what the model says of tokens: the class of each, (tokens,), and whether that is of its place alone."""
    kind = kinds(vocabulary)[layout.token_ids]
    types, of = np.unique(layout.token_ids, return_inverse=True)
    counts = np.bincount(of, minlength=len(types))
    frequent = np.argsort(-counts, kind="stable")[:MOST_TYPES]
    column = np.full(len(types), -1)
    column[frequent] = np.arange(len(frequent))
    column[counts < MIN_OF_TYPE] = -1
    yield np.where(column[of] >= 0, column[of] + 5, kind), False

    run, starts, segment = layout.run, layout.run_starts, layout.segment
    ends, breaks = np.isin(layout.token_ids, sentence_ends(vocabulary)), kind == BREAK
    index, last = np.arange(len(run)), starts[1:][run] - 1
    since = _since(ends, starts, run)
    next_end = np.minimum.accumulate(np.where(ends, index, len(ends))[::-1])[::-1]
    yield np.minimum(since, 16), False
    yield np.minimum(np.minimum(next_end, last) - index, 6), False
    yield kind + 5 * np.minimum(since, 3), False
    yield np.minimum(_since(breaks, starts, run), 12), False
    # What it follows: a word, or a comma early in a sentence ("Wait, ...").
    first = index == starts[run]
    known = column[np.concatenate([of[:1], of[:-1]])]
    before = np.concatenate([kind[:1], kind[:-1]])
    yield (
        np.where(first, MOST_BEFORE + 5, np.where((known >= 0) & (known < MOST_BEFORE), known, MOST_BEFORE + before)),
        False,
    )
    since_mark = _since(np.isin(kind, (MARK, BREAK)), starts, run)
    yield np.minimum(since_mark, 4) * 5 + np.minimum(since, 4), False
    digits = np.concatenate([[0], np.cumsum(kind == DIGIT)])
    around = digits[np.minimum(index + NEAR, last) + 1] - digits[np.maximum(index - NEAR, starts[run])]
    yield np.minimum(around, 12), False

    total = np.concatenate([[0], np.cumsum(breaks)])
    lines_before, lines_after = total[index] - total[starts[run]], total[last + 1] - total[index]
    for place in (
        _steps(index - starts[run]), _steps(last - index), np.minimum(lines_before, 4), np.minimum(lines_after, 3)
    ):  # fmt: skip
        yield place * len(SEGMENTS) + segment, True


@dataclass(frozen=True)
class Alike:
    """What tokens are and where they stand."""

    layout: Layout
    x: sparse.csr_array
    """Indicators, (tokens, columns)."""
    of_place: NDArray[np.bool_]
    """Which columns say where a token stands in its segment, (columns,)."""

    def aside(self, masks: Floats) -> "Alike":
        """Return the same with each of `masks` (tokens, masks) as one more thing that is said of tokens."""
        x = sparse.csr_array(sparse.hstack([self.x, sparse.csr_array(masks)], format="csr"))
        return Alike(self.layout, x, np.append(self.of_place, np.zeros(masks.shape[1], dtype=bool)))

    @cached_property
    def _run_sums(self) -> sparse.csr_array:
        return self._of_runs @ self.x

    @cached_property
    def _of_runs(self) -> sparse.csr_array:
        """Which tokens a run has, (runs, tokens)."""
        runs, tokens = len(self.layout.run_starts) - 1, len(self.layout.run)
        return sparse.csr_array((np.ones(tokens), np.arange(tokens), self.layout.run_starts), shape=(runs, tokens))

    def _within_runs(self, values: sparse.csr_array | Floats) -> Floats:
        """Return x' (values less their run's mean), (columns, columns of values), from values (tokens, …)."""
        weights = sparse.diags_array(1 / np.maximum(self.layout.run_lengths, 1))
        product = self.x.T @ values - self._run_sums.T @ (weights @ (self._of_runs @ values))
        return np.asarray(product.toarray() if sparse.issparse(product) else product)

    @cached_property
    def _gram(self) -> Floats:
        return self._within_runs(self.x) + RIDGE * np.eye(self.x.shape[1])

    @cached_property
    def _factor(self) -> tuple[Floats, bool]:
        return linalg.cho_factor(self._gram, lower=True)

    def coefficients(self, values: sparse.csr_array | Floats) -> Floats:
        """Return β of values (tokens, …), (columns, …)."""
        return linalg.cho_solve(self._factor, self._within_runs(values))

    def left(self, windows: Floats) -> Floats:
        """Return windows (tokens, windows) less what tokens alike have of them."""
        return self._less(windows, self.x @ self.coefficients(windows))

    def _less(self, windows: Floats, alike: Floats) -> Floats:
        rest = windows - alike
        means = (self._of_runs @ rest) / np.maximum(self.layout.run_lengths, 1)[:, None]
        return np.asarray(rest - means[self.layout.run])

    def told_apart(self, windows: Floats) -> Floats:
        """Return the share of the windows' variance within segments that their place there leaves, (windows,)."""
        x = self.x[:, self.of_place]
        gram, sums = self._gram[np.ix_(self.of_place, self.of_place)], self._within_runs(windows)[self.of_place]
        by_place = x @ linalg.solve(gram, sums, assume_a="pos")
        whole = np.square(self._less(windows, np.zeros_like(windows))).sum(axis=0)
        rest = np.square(self._less(windows, by_place)).sum(axis=0)
        return np.divide(rest, whole, out=np.zeros(len(whole)), where=whole > 0)

    def scores(self, part: Activations, left: Sequence[Floats]) -> Iterator[Floats]:
        """Yield for each window what `left` of it sums to with the latents' activation, less x β, (traces, latents)."""
        if not left:
            return
        # What is explained is taken off to make the sums steadier; as it adds up to nothing, single precision does.
        beta = self.coefficients(part.values).astype(np.float32)
        for column in left:
            explained = (self._of_traces(column.astype(np.float32)) @ self._single).toarray() @ beta
            yield part.per_trace(column) - explained

    @cached_property
    def _single(self) -> sparse.csr_array:
        return self.x.astype(np.float32)

    def _of_traces(self, weights: NDArray[np.float32]) -> sparse.csr_array:
        shape = (len(self.layout.trace_ids), len(weights))
        return sparse.csr_array((weights, np.arange(len(weights)), self.layout.starts), shape=shape)


def alike(layout: Layout, vocabulary: pl.LazyFrame) -> Alike:
    """Return what the tokens of a layout are and where they stand: type, sentence, line, digits near, segment."""
    parts, of_place = [], []
    for classes, is_place in _blocks(layout, vocabulary):
        _, columns = np.unique(classes, return_inverse=True)
        count = int(columns.max()) + 1 if len(columns) else 0
        tokens = np.arange(len(columns))
        parts.append(sparse.csr_array((np.ones(len(columns)), (tokens, columns)), shape=(len(columns), count)))
        of_place += [is_place] * count
    return Alike(layout, sparse.csr_array(sparse.hstack(parts, format="csr")), np.array(of_place, dtype=bool))
