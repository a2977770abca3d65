"""Tables: what their columns are, and the steps that all are made with.

A table's `scope` column says which tokens it counts: `all` those of the prompt too, `generated` what the model wrote.
Ties are broken by the smaller position, latent or token id, so that a table is a function of its input alone.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl

from .config import SEGMENTS
from .statistics import fdr

SCOPES = ("all", "generated")
"""Which tokens a table counts."""

ROWS_AT_ONCE = 5_000_000
"""Rows of features or activations that a table is made from at a time."""

LATENTS_AT_ONCE = 1000
"""Latents whose numbers of each trace are held at a time."""

CELLS_AT_ONCE = 4_000_000
"""Numbers, one a trace and latent, that are held at a time where traces are few, so that more latents are."""

Column = tuple[Any, str]
"""A column's type, and in words what it holds, with its unit."""


class Schema(dict[str, Any]):
    """The columns of a table: each one's type by its name, as polars takes it."""

    def __init__(self, rows: str, **columns: Column) -> None:
        super().__init__({name: kind for name, (kind, _) in columns.items()})
        self.rows = rows
        """What a row is, and in which order they come."""
        self.about = {name: text for name, (_, text) in columns.items()}
        """What each column holds."""


_KEYS: dict[str, Column] = {
    "trace_id": (pl.UInt32, "the trace: the index of its problem"),
    "condition": (pl.String, "the condition it was written under"),
    "site": (pl.String, "the site"),
    "reader": (pl.String, "who reads the traces: `trained`, the study's own SAE and model, or the twin"),
    "scope": (pl.String, "which tokens count: `all`, or `generated` ones only"),
    "segment": (pl.Enum(SEGMENTS), "part of the trace"),
    "position": (pl.UInt32, "the token's position in the trace, from 0"),
    "latent": (pl.UInt32, "index of the latent in its SAE"),
    "token_id": (pl.UInt32, "id of the token in the vocabulary"),
    "token": (pl.String, "the token, with marks for white space"),
    "sink": (pl.Boolean, "whether the token is a sink"),
}


def keys(*names: str) -> dict[str, Column]:
    """Return columns that mean the same in every table."""
    return {name: _KEYS[name] for name in names}


def complete(frame: pl.DataFrame | pl.LazyFrame, schema: Mapping[str, Any]) -> pl.DataFrame:
    """Return the frame as a table with all columns of a schema; those missing are null, and so is what isn't a number.

    A lazy frame is collected, part by part where it can be.
    """
    if isinstance(frame, pl.LazyFrame):
        frame = frame.collect(engine="streaming")
    missing = [pl.lit(None, dtype).alias(name) for name, dtype in schema.items() if name not in frame.columns]
    frame = frame.with_columns(missing) if frame.width else pl.DataFrame(schema=schema)
    return frame.select(*schema).cast(dict(schema)).with_columns(pl.col(pl.Float64).fill_nan(None))  # type: ignore[arg-type]


def counted(frame: pl.LazyFrame, include_sinks: bool) -> pl.LazyFrame:
    """Leave out the rows of a frame that are on sinks, unless they are included."""
    return frame if include_sinks else frame.filter(~pl.col("sink"))


def in_scope(frame: pl.LazyFrame, include_sinks: bool, scopes: Sequence[str] = SCOPES) -> pl.LazyFrame:
    """Repeat a frame with a `segment` column once per scope, as a `scope` column; leave out sinks unless included."""
    frame = counted(frame, include_sinks)
    chosen = {"all": frame, "generated": frame.filter(pl.col("segment") != "prompt")}
    return pl.concat([chosen[scope].with_columns(scope=pl.lit(scope)) for scope in scopes])


def in_parts(frame: pl.LazyFrame, reduce: Callable[[pl.LazyFrame], pl.LazyFrame], *, by: str) -> pl.LazyFrame:
    """Reduce a frame of any length, some of its rows at a time, to a shorter one, in no order.

    by: `trace_id` or `latent`; what has the same one is reduced together. For traces only the files they are in are
    read, for latents all files each time, so that four times as many rows are taken at once.
    """
    length, last = frame.select(pl.len(), pl.col("trace_id").max()).collect(engine="streaming").row(0)
    parts = max(1, math.ceil(length / ROWS_AT_ONCE / (4 if by == "latent" else 1)))
    if by == "trace_id":
        edges = np.linspace(0, (last or 0) + 1, parts + 1).astype(int).tolist()
        chosen = [pl.col(by).is_between(first, end - 1) for first, end in pairwise(edges)]
    else:
        # Not one range after the other, as often the first latents are the most frequent ones.
        chosen = [pl.col(by) % parts == part for part in range(parts)]
    return pl.concat([reduce(frame.filter(part)).collect(engine="streaming") for part in chosen]).lazy()


def by_falling(
    frame: pl.LazyFrame, by: str, *, within: Sequence[str] = (), ties: Sequence[str] = ("latent",)
) -> pl.LazyFrame:
    """Sort rows by falling `by` and rising `ties` within groups, groups in ascending order."""
    return frame.sort(*within, by, *ties, descending=[False] * len(within) + [True] + [False] * len(ties))


def top(frame: pl.LazyFrame, most: int, by: str, *, within: Sequence[str], ties: Sequence[str]) -> pl.LazyFrame:
    """Return the `most` rows with the largest `by` of each group, as `by_falling` sorts them, with a `rank` from 1."""
    rank = pl.int_range(1, pl.len() + 1, dtype=pl.UInt32).over(*within)
    return by_falling(frame, by, within=within, ties=ties).with_columns(rank=rank).filter(pl.col("rank") <= most)


def with_token(frame: pl.LazyFrame, vocabulary: pl.LazyFrame) -> pl.LazyFrame:
    """Add each row's `token`, the label of its `token_id`."""
    return frame.join(vocabulary.select("token_id", "token"), on="token_id", how="left", maintain_order="left")


def with_q(table: pl.DataFrame) -> pl.DataFrame:
    """Return a table with `q`, the Benjamini-Hochberg q values of its `p`, all one family."""
    return table.with_columns(q=pl.Series(fdr(table["p"].fill_null(np.nan).to_numpy())).fill_nan(None))


def latents_of(table: pl.LazyFrame) -> list[int]:
    """Return the latents in a table, in order."""
    return table.select(pl.col("latent").unique().sort()).collect()["latent"].to_list()


def portions(latents: Sequence[int]) -> list[Sequence[int]]:
    """Cut latents into portions of LATENTS_AT_ONCE; there is one at least."""
    return [latents[first : first + LATENTS_AT_ONCE] for first in range(0, max(1, len(latents)), LATENTS_AT_ONCE)]
