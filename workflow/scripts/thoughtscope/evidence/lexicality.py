"""Room 6, evidence: how much a latent's activation is a matter of which token it is on."""

from typing import Any

import numpy as np
import polars as pl
from scipy import sparse

from ..frames import Schema, complete, keys, latents_of
from ..statistics import MIN_TOKENS
from .windows import lay_out

SCHEMA = Schema(
    "a candidate latent; null where it is active on no token",
    **keys("latent"),
    tokens=(pl.UInt32, "tokens it is active on"),
    types=(pl.UInt32, "token types of these"),
    top_1=(pl.Float64, "share of its activation mass on its top type"),
    top_3=(pl.Float64, "share of its activation mass on its top three types"),
    top_10=(pl.Float64, "share of its activation mass on its top ten types"),
    entropy=(pl.Float64, "entropy of the mass over types, in units of ln(all types in the traces)"),
    types_90=(pl.UInt32, "the fewest types that hold 90 % of the mass"),
    eta_squared=(pl.Float64, "share of the variance of its activation (zeros included) between token types (Fisher's"
                 " η², between over total sum of squares)"),
    eta_squared_by_chance=(pl.Float64, "what chance alone would give: (types in the traces - 1) / (tokens - 1)"),
    top_tokens=(pl.String, "its first three types"),
    lexical=(pl.Boolean, f"a token detector: top_3 at least `analysis.max_top_3`; null below {MIN_TOKENS} tokens"),
)  # fmt: skip


def lexicality(
    activations: pl.LazyFrame,
    traces: pl.LazyFrame,
    candidates: pl.LazyFrame,
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
    chosen = sparse.csr_array((np.ones(tokens), (kind, np.arange(tokens))), shape=(len(kinds), tokens))
    rows = []
    for part in layout.parts(latents_of(candidates)):
        mass = sparse.csc_array(chosen @ part.values)  # (types, latents)
        squares = np.asarray(part.values.multiply(part.values).sum(axis=0)).ravel()
        active = np.diff(part.by_latent.indptr)
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
                    "top_1": share[:1].sum(), "top_3": share[:3].sum(), "top_10": share[:10].sum(),
                    "entropy": float(-(share * np.log(share)).sum() / np.log(len(kinds))) if len(kinds) > 1 else 0.0,
                    "types_90": int(np.searchsorted(np.cumsum(share), 0.9 - 1e-12) + 1),
                    "eta_squared": between / total if total > 1e-12 * squares[column] else None,
                    "eta_squared_by_chance": (len(kinds) - 1) / (tokens - 1) if tokens > 1 else None,
                    "top_tokens": " ".join(labels[int(kinds[index])] for index in types[:3]),
                }  # fmt: skip
            rows.append(row)
    table = complete(pl.DataFrame(rows, schema_overrides=SCHEMA, infer_schema_length=None), SCHEMA)
    lexical = pl.when(pl.col("tokens") >= MIN_TOKENS).then(pl.col("top_3") >= max_top_3)
    return table.with_columns(lexical=lexical).sort("latent")
