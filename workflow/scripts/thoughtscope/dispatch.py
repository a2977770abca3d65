"""From a rule to the library: the function it names, on the files and settings it gives."""

import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from . import files
from .paths import reader_of, site_of

FOR_SNAKEMAKE = ("function", "code", "names")
"""Params by which Snakemake sees what an edit affects; they aren't settings of the function."""


def function(name: str) -> Callable[..., Any]:
    """Return the library's function of that name, e.g. `evidence.verdict.verdict`; only its module is imported."""
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(f"thoughtscope.{module}"), attribute)


def settings(params: Mapping[str, Any], *others: str) -> dict[str, Any]:
    """Return a job's params without those that are for Snakemake, and without `others`."""
    return {name: value for name, value in params.items() if name not in (*FOR_SNAKEMAKE, *others)}


def call(
    params: Mapping[str, Any],
    inputs: Mapping[str, str | Sequence[str]],
    wildcards: Mapping[str, str],
    read: Callable[..., Any] = files.scan_parquet,
) -> Any:
    """Call the function that `params` name with a job's inputs and settings, and with its site if it asks for it.

    Parquet is given as what `read` makes of it, JSON as what it says, any other file as its path; an input without
    files isn't given. Where a job has no site of its own, sites' files of a table are one frame with a column `site`;
    and where they are of other readers than its own, with a column `reader`.
    """
    make = function(params["function"])
    site = {"site": wildcards["site"]} if "site" in inspect.signature(make).parameters else {}
    across, reader = "site" not in wildcards, wildcards.get("reader")
    given = {name: _given(paths, read, across, reader) for name, paths in inputs.items() if paths}
    return make(**given, **site, **settings(params))


def _given(paths: str | Sequence[str], read: Callable[..., Any], across: bool, reader: str | None) -> Any:
    listed = [paths] if isinstance(paths, str) else list(paths)
    if listed[0].endswith(".json"):
        return files.read_json(listed[0])
    if not listed[0].endswith(".parquet"):
        return Path(listed[0])
    readers = {found for path in listed if (found := reader_of(path))}
    others = len(readers) > 1 or (reader is not None and bool(readers - {reader}))
    by_place: dict[tuple[str | None, str | None], list[str]] = {}
    for path in listed:
        place = (reader_of(path) if others else None, site_of(path) if across else None)
        by_place.setdefault(place, []).append(path)
    return pl.concat(_placed(read(of_place), *place) for place, of_place in by_place.items())


def _placed(frame: Any, reader: str | None, site: str | None) -> Any:
    """Return a frame with whose it is. A table with sites of its own keeps them: those an SAE was tried at."""
    if reader is not None:
        frame = frame.with_columns(reader=pl.lit(reader))
    if site is not None and "site" not in frame.lazy().collect_schema():
        frame = frame.with_columns(site=pl.lit(site))
    return frame
