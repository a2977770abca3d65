"""Room 9, report: what the page's script shows when asked, packed into the page.

A parcel is JSON, compressed (gzip) and in base64, which the browser unpacks only when someone looks at it. The names of
tokens are one parcel, each site's dashboards another, and each trace one.
"""

import base64
import gzip
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from .. import files, paths
from ..config import traces_of
from ..vocabulary import label

LEVELS = 255
"""Steps, even in the logarithm, to which the reader's activations are rounded: from the smallest to the largest of a
trace at a site."""

DIGITS = 6
"""Significant digits of the numbers in dashboards, which are shown with three: rounded twice, few come out another."""


def pack(value: Any) -> str:
    """Return a value as JSON, compressed, in base64: one parcel."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return base64.b64encode(gzip.compress(text.encode("utf-8"), 9, mtime=0)).decode("ascii")


def brief(value: Any, digits: int = DIGITS) -> Any:
    """Return a value, and what is in it, with floats rounded to so many significant digits."""
    if isinstance(value, float):
        return float(f"{value:.{digits}g}")
    if isinstance(value, Mapping):
        return {key: brief(part, digits) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [brief(part, digits) for part in value]
    return value


class Token(NamedTuple):
    """A token's label, and how it is read in running text."""

    label: str
    text: str


@dataclass
class Tokens:
    """The tokens that the page names, each once: `number` gives a token id's place in `rows`."""

    vocabulary: Mapping[int, tuple[str, str]]
    rows: list[Token] = field(default_factory=list)
    _place: dict[int, int] = field(default_factory=dict)

    @classmethod
    def of(cls, vocabulary: pl.DataFrame) -> "Tokens":
        """Read a vocabulary table."""
        rows = vocabulary.select("token_id", "text", "token").iter_rows()
        return cls({token_id: (text, token) for token_id, text, token in rows})

    def number(self, token_id: int) -> int:
        """Return where a token's row is."""
        if token_id not in self._place:
            text, token = self.vocabulary.get(token_id, ("", f"[{token_id}]"))
            self._place[token_id] = len(self.rows)
            self.rows.append(Token(token, running(text, token)))
        return self._place[token_id]

    def numbers(self, token_ids: Sequence[int]) -> list[int]:
        """Return where the tokens' rows are."""
        return [self.number(token_id) for token_id in token_ids]


def running(text: str, token: str) -> str:
    """Return a token as it is read in running text: with its blanks and line ends, all else as in its label.

    What is only part of a character shows its bytes; what can't be seen or would turn the line around, its code.
    """
    if not text or "\ufffd" in text:
        return token
    return "".join(char if char in " \n" else label(char) for char in text)


def spread(count: int) -> list[int]:
    """Return 0 … count-1 in an order of which every beginning is spread evenly (van der Corput 1935)."""
    bits = max(1, (count - 1).bit_length())
    return sorted(range(count), key=lambda index: int(f"{index:0{bits}b}"[::-1], 2))


def order(traces: pl.DataFrame, conditions: Sequence[str]) -> list[tuple[str, int]]:
    """Return traces as (condition, trace_id) in the order in which they get room: those under study first."""
    ids = {condition: traces.filter(condition=condition)["trace_id"].sort().to_list() for condition in conditions}
    first, *others = conditions
    chosen = [(first, ids[first][index]) for index in spread(len(ids[first]))]
    for index in spread(max((len(ids[other]) for other in others), default=0)):
        chosen += [(other, ids[other][index]) for other in others if index < len(ids[other])]
    return chosen


def trace_parcel(
    trace: Mapping[str, Any],
    matches: pl.DataFrame,
    active: Mapping[str, pl.DataFrame],
    tokens: Tokens,
    changes: Mapping[str, pl.DataFrame],
) -> dict[str, Any]:
    """Return a trace for the reader: its tokens, segments, pattern words, and the active latents at each site.

    `matches` are the pattern matches in it (`patterns.matches`), `active` its activations by site, `changes` the rows
    of `token_effects` in it, likewise, of which there may be none.
    """
    return {
        "tokens": tokens.numbers([*trace["prompt_ids"], *trace["generated_ids"]]),
        "prompt": len(trace["prompt_ids"]),
        "segments": trace["segments"],
        "patterns": matches.select("name", "start", "end", "text").to_dicts(),
        "sites": [
            active_latents(rows)
            | ({"changes": changed(changes[site], len(trace["prompt_ids"]))} if site in changes else {})
            for site, rows in active.items()
        ],
    }


def changed(rows: pl.DataFrame, prompt: int) -> dict[str, list[float | None]]:
    """Return what taking each latent away that was tried in a trace changes at its tokens, those written in order."""
    found: dict[str, list[float | None]] = {}
    for (latent,), group in rows.group_by("latent", maintain_order=True):
        values = dict(group.select("position", "change").iter_rows())
        length = max(values) + 1 - prompt
        found[str(latent)] = [brief(values.get(prompt + offset), 3) for offset in range(length)]
    return found


def active_latents(rows: pl.DataFrame) -> dict[str, Any]:
    """Return one trace's activations at a site, latent after latent, as differences, which compress well.

    `latents`: each active latent less the one before; `counts`: how many tokens it is active on; `positions`: of these,
    latent by latent, each less the one before; `levels`: activations, a = low (high / low)^(level / LEVELS); `sinks`:
    positions of sink tokens.
    """
    if rows.is_empty():
        return {"latents": [], "counts": [], "positions": [], "levels": [], "low": 1, "high": 1, "sinks": []}
    sinks = rows.filter("sink")["position"].unique().sort().to_list()
    rows = rows.sort("latent", "position")
    latent, position = rows["latent"].to_numpy().astype(np.int64), rows["position"].to_numpy().astype(np.int64)
    value = np.log(rows["activation"].to_numpy().astype(np.float64))
    names, starts, counts = np.unique(latent, return_index=True, return_counts=True)
    steps = np.diff(position, prepend=0)
    steps[starts] = position[starts]
    low, high = value.min(), value.max()
    levels = np.rint((value - low) / (high - low) * LEVELS) if high > low else np.zeros_like(value)
    return {
        "latents": np.diff(names, prepend=0).tolist(),
        "counts": counts.tolist(),
        "positions": steps.tolist(),
        "levels": levels.astype(int).tolist(),
        "low": float(np.exp(low)),
        "high": float(np.exp(high)),
        "sinks": sinks,
    }


def trace_parcels(
    traces: pl.DataFrame,
    matches: pl.DataFrame,
    conditions: Sequence[str],
    sites: Sequence[str],
    read: Callable[[str, str, int], pl.DataFrame],
    tokens: Tokens,
    changes: Mapping[str, pl.DataFrame],
) -> Iterator[tuple[str, int, str]]:
    """Yield condition, trace id and parcel of each trace, in the order in which they get room.

    `read(site, condition, trace_id)` gives a trace's activations; changes: the table `token_effects` of each site where
    latents were taken away, of traces of the first condition.
    """
    keys = ["condition", "trace_id"]
    of_trace = traces.partition_by(keys, as_dict=True)
    found = matches.filter(pl.col("kind") == "pattern").partition_by(keys, as_dict=True)
    changed_in = {site: table.partition_by("trace_id", as_dict=True) for site, table in changes.items()}
    for key in order(traces, conditions):
        trace = of_trace[key].row(0, named=True)
        active = {site: read(site, *key) for site in sites}
        of_it = {
            site: by_trace[key[1:]]
            for site, by_trace in changed_in.items()
            if key[0] == conditions[0] and key[1:] in by_trace
        }
        yield *key, pack(trace_parcel(trace, found.get(key, matches.clear()), active, tokens, of_it))


def reading(listed: Sequence[str]) -> Callable[[str, str, int], pl.DataFrame]:
    """Return a function that reads a trace's activations, (site, condition, trace_id), from the files of all blocks."""
    of: dict[tuple[str, str], list[tuple[range, str]]] = {}
    for path in listed:
        level = paths.parse(paths.ACTIVATIONS, path)
        of.setdefault((level["site"], level["condition"]), []).append((traces_of(level["block"]), path))

    @lru_cache(maxsize=8 * len({site for site, _ in of}))
    def block(path: str) -> pl.DataFrame:
        return files.read_parquet(path, columns=["trace_id", "position", "sink", "latent", "activation"])

    def read(site: str, condition: str, trace_id: int) -> pl.DataFrame:
        path = next(path for traces, path in of[site, condition] if trace_id in traces)
        return block(path).filter(trace_id=trace_id)

    return read
