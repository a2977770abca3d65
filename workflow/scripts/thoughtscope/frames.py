"""Tables: what their columns are, and the steps that all are made with.

A table's `scope` column says which tokens it counts: `all` those of the prompt too, `generated` what the model wrote.
Ties are broken by the smaller position, latent or token id, so that a table is a function of its input alone.
"""

from collections.abc import Mapping
from typing import Any

import polars as pl

from .config import SEGMENTS

SCOPES = ("all", "generated")
"""Which tokens a table counts."""

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


def complete(frame: pl.DataFrame, schema: Mapping[str, Any]) -> pl.DataFrame:
    """Return the frame with all columns of a schema; those missing are null, and so is what isn't a number."""
    missing = [pl.lit(None, dtype).alias(name) for name, dtype in schema.items() if name not in frame.columns]
    frame = frame.with_columns(missing) if frame.width else pl.DataFrame(schema=schema)
    return frame.select(*schema).cast(dict(schema)).with_columns(pl.col(pl.Float64).fill_nan(None))  # type: ignore[arg-type]
