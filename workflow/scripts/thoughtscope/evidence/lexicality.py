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
    low=(pl.Float64, "95 % interval of top_3 over traces (Hall 1992): lower end, of types chosen by the other traces"),
    high=(pl.Float64, "95 % interval of top_3: upper end"),
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
    max_top_3: float,
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
                } | _top_three(part, column, classes[kind], max_top_3)  # fmt: skip
            rows.append(row)
    return complete(pl.DataFrame(rows, schema_overrides=SCHEMA, infer_schema_length=None), SCHEMA).sort("latent")


def _classes(types: Integers, vocabulary: pl.LazyFrame) -> Integers:
    """Return the class of each token type: its own, or that of all digits, marks or white space."""
    kind = token_kinds(vocabulary)[types]
    shared = {DIGIT: -1, MARK: -2, BREAK: -3, SPACE: -3}
    return np.array([shared.get(int(one), index) for index, one in enumerate(kind)], dtype=np.int64)


TRIED = 8
"""Classes with the most mass, among which the top three of all traces but one are looked for."""


def _top_three(part: Activations, column: int, of_token: Integers, margin: float) -> dict[str, float]:
    """Return `traces`, `top_3`, `low` and `high` of SCHEMA for a latent; of_token: each token's class, (tokens,).

    What is the top three here is by chance higher than what these types will have in other traces, so the lower end is
    of each trace's share on the three that lead in all the others.
    """
    inside = slice(part.by_latent.indptr[column], part.by_latent.indptr[column + 1])
    rows, values = part.by_latent.indices[inside], part.by_latent.data[inside]
    traces, count = part.layout.trace[rows], len(part.layout.trace_ids)
    names, classes = np.unique(of_token[rows], return_inverse=True)
    mass = np.bincount(classes, weights=values, minlength=len(names))
    leading = np.argsort(-mass, kind="stable")[:TRIED]
    place = np.full(len(names), -1)
    place[leading] = np.arange(len(leading))
    kept = place[classes] >= 0
    table = np.zeros((count, len(leading)))
    np.add.at(table, (traces[kept], place[classes[kept]]), values[kept])
    whole = np.bincount(traces, weights=values, minlength=count).astype(np.float64)[:, None]
    here, others = table[:, :3].sum(axis=1, keepdims=True), table.sum(axis=0) - table
    ranked = np.argsort(-others, axis=1, kind="stable")[:, :3]
    elsewhere = np.take_along_axis(table, ranked, axis=1).sum(axis=1, keepdims=True)
    result = {"traces": int((whole > 0).sum()), "top_3": float(here.sum() / whole.sum())}
    return result | {
        "low": float(share_over_traces(elsewhere, whole, margin).low[0]),
        "high": float(share_over_traces(here, whole, margin).high[0]),
    }
