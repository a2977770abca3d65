"""Room 6, evidence: how much a latent's activation is a matter of which token it is on."""

from typing import Any

import numpy as np
import polars as pl
from scipy import sparse

from ..frames import Schema, complete, keys, latents_of
from ..statistics import share_over_traces
from .alike import BREAK, DIGIT, MARK, SPACE
from .alike import kinds as token_kinds
from .windows import Activations, Integers, lay_out

SCHEMA = Schema(
    "a candidate latent; null where it is active on no token",
    **keys("latent"),
    tokens=(pl.UInt32, "tokens it is active on"),
    traces=(pl.UInt32, "traces it is active in"),
    types=(pl.UInt32, "token types of these"),
    top_1=(pl.Float64, "share of its activation mass on its top type"),
    top_3=(pl.Float64, "share of its activation mass on its top three types; for this all digits are one type, and so"
                       " are all marks, and all white space"),
    typed=(pl.Float64, "share of its activation mass that the token's type alone would give: on each token at most what"
                       " it has on average on that type in the other traces; types of one trace only are left out"),
    low=(pl.Float64, "95 % interval of typed over traces (Hall 1992): lower end"),
    high=(pl.Float64, "95 % interval of typed: upper end"),
    in_words=(pl.Float64, "share of its activation mass on words of thinking patterns"),
    top_10=(pl.Float64, "share of its activation mass on its top ten types"),
    entropy=(pl.Float64, "entropy of the mass over types, in units of ln(all types in the traces)"),
    types_90=(pl.UInt32, "the fewest types that hold 90 % of the mass"),
    eta_squared=(pl.Float64, "share of the variance of its activation (zeros included) between token types (Fisher's"
                 " η², between over total sum of squares)"),
    eta_squared_by_chance=(pl.Float64, "what chance alone would give: (types in the traces - 1) / (tokens - 1)"),
    top_tokens=(pl.String, "its first three types"),
)  # fmt: skip


def lexicality(
    activations: pl.LazyFrame,
    traces: pl.LazyFrame,
    candidates: pl.LazyFrame,
    matches: pl.LazyFrame,
    vocabulary: pl.LazyFrame,
    *,
    condition: str,
    max_typed: float,
    include_sinks: bool,
) -> pl.DataFrame:
    """Return how much each candidate latent's activation is a matter of which token it is on."""
    layout = lay_out(activations, traces, condition, include_sinks)
    labels = dict(vocabulary.select("token_id", "token").collect().iter_rows())
    kinds, kind = np.unique(layout.token_ids, return_inverse=True)
    of_type = np.bincount(kind, minlength=len(kinds)).astype(float)
    tokens = len(kind)
    places = matches.filter(pl.col("kind") == "pattern", pl.col("condition") == condition).collect()
    _, in_words, _ = layout.beside(places, 0, 0)
    classes = _classes(kinds, vocabulary)
    elsewhere = _Elsewhere(kind, layout.trace, len(layout.trace_ids))
    chosen = sparse.csr_array((np.ones(tokens), (kind, np.arange(tokens))), shape=(len(kinds), tokens))
    rows = []
    for part in layout.parts(latents_of(candidates)):
        mass = sparse.csc_array(chosen @ part.values)  # (types, latents)
        squares = np.asarray(part.values.multiply(part.values).sum(axis=0)).ravel()
        active = np.diff(part.by_latent.indptr)
        word_mass = np.asarray(part.values.T @ in_words.astype(float))
        for column, latent in enumerate(part.latents):
            inside = slice(mass.indptr[column], mass.indptr[column + 1])
            order = np.lexsort((mass.indices[inside], -mass.data[inside]))
            values, types = mass.data[inside][order], mass.indices[inside][order]
            row: dict[str, Any] = {"latent": latent, "tokens": active[column], "types": len(values)}
            if len(values):
                share = values / values.sum()
                total = squares[column] - values.sum() ** 2 / tokens
                between = (values**2 / of_type[types]).sum() - values.sum() ** 2 / tokens
                row |= {
                    "top_1": share[:1].sum(), "top_10": share[:10].sum(), "in_words": word_mass[column] / values.sum(),
                    "entropy": float(-(share * np.log(share)).sum() / np.log(len(kinds))) if len(kinds) > 1 else 0.0,
                    "types_90": int(np.searchsorted(np.cumsum(share), 0.9 - 1e-12) + 1),
                    "eta_squared": between / total if total > 1e-12 * squares[column] else None,
                    "eta_squared_by_chance": (len(kinds) - 1) / (tokens - 1) if tokens > 1 else None,
                    "top_tokens": " ".join(labels[int(kinds[index])] for index in types[:3]),
                } | _typed(part, column, kind, elsewhere, max_typed)  # fmt: skip
                row["top_3"] = _top_three(part, column, classes[kind])
            rows.append(row)
    return complete(pl.DataFrame(rows, schema_overrides=SCHEMA, infer_schema_length=None), SCHEMA).sort("latent")


def _classes(types: Integers, vocabulary: pl.LazyFrame) -> Integers:
    """Return the class of each token type: its own, or that of all digits, marks or white space."""
    kind = token_kinds(vocabulary)[types]
    shared = {DIGIT: -1, MARK: -2, BREAK: -3, SPACE: -3}
    return np.array([shared.get(int(one), index) for index, one in enumerate(kind)], dtype=np.int64)


def _top_three(part: Activations, column: int, of_token: Integers) -> float:
    """Return a latent's share of mass on its top three classes; of_token: each token's class, (tokens,)."""
    inside = slice(part.by_latent.indptr[column], part.by_latent.indptr[column + 1])
    _, classes = np.unique(of_token[part.by_latent.indices[inside]], return_inverse=True)
    mass = np.sort(np.bincount(classes, weights=part.by_latent.data[inside]))
    return float(mass[-3:].sum() / mass.sum())


class _Elsewhere:
    """How many tokens of a type there are in other traces than one."""

    def __init__(self, kind: Integers, trace: Integers, traces: int) -> None:
        self.traces = traces
        self.of_type = np.bincount(kind)
        self.pairs, self.counts = np.unique(kind.astype(np.int64) * traces + trace, return_counts=True)

    def count(self, pairs: Integers, kind: Integers) -> Integers:
        """Return it for pairs of type and trace that there are, numbered type * traces + trace."""
        return self.of_type[kind] - self.counts[np.searchsorted(self.pairs, pairs)]


def _typed(
    part: Activations, column: int, kind: Integers, elsewhere: _Elsewhere, margin: float
) -> dict[str, float | int | None]:
    """Return `traces`, `typed`, `low` and `high` of SCHEMA for a latent; kind: each token's type, (tokens,).

    What the type alone gives, E[a | type], is estimated by the other traces. The part of an activation up to it is what
    a detector of that type would have too: all of it where a latent is always as active on the type, a tenth where it
    is active on one in ten of its tokens.
    """
    inside = slice(part.by_latent.indptr[column], part.by_latent.indptr[column + 1])
    rows, values = part.by_latent.indices[inside], part.by_latent.data[inside].astype(np.float64)
    traces, types = part.layout.trace[rows], kind[rows]
    pairs = types.astype(np.int64) * elsewhere.traces + traces
    _, of_type = np.unique(types, return_inverse=True)
    _, of_pair = np.unique(pairs, return_inverse=True)
    here = np.bincount(of_pair, weights=values)[of_pair]
    others = np.maximum(np.bincount(of_type, weights=values)[of_type] - here, 0)
    tokens = elsewhere.count(pairs, types)
    known = tokens > 0
    expected = np.minimum(values, others / np.maximum(tokens, 1)) * known
    count = elsewhere.traces
    numerator = np.bincount(traces, weights=expected, minlength=count).astype(np.float64)[:, None]
    whole = np.bincount(traces, weights=values * known, minlength=count).astype(np.float64)[:, None]
    if not whole.any():
        return {"traces": len(np.unique(traces)), "typed": None, "low": None, "high": None}
    share = share_over_traces(numerator, whole, margin)
    return {
        "traces": len(np.unique(traces)),
        "typed": float(numerator.sum() / whole.sum()),
        "low": float(share.low[0]),
        "high": float(share.high[0]),
    }
