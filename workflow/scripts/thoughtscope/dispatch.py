"""From a rule to the library: the function it names, on the files and settings it gives."""

import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from . import files
from .paths import site_of

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

    Parquet is given as what `read` makes of it, JSON as what it says, any other file as its path. Where a job has no
    site of its own, sites' files of a table are one frame with a column `site`.
    """
    make = function(params["function"])
    site = {"site": wildcards["site"]} if "site" in inspect.signature(make).parameters else {}
    across = "site" not in wildcards
    return make(**{name: _given(paths, read, across) for name, paths in inputs.items()}, **site, **settings(params))


def _given(paths: str | Sequence[str], read: Callable[..., Any], across: bool) -> Any:
    listed = [paths] if isinstance(paths, str) else list(paths)
    if listed[0].endswith(".json"):
        return files.read_json(listed[0])
    if not listed[0].endswith(".parquet"):
        return Path(listed[0])
    by_site: dict[str | None, list[str]] = {}
    for path in listed:
        by_site.setdefault(site_of(path) if across else None, []).append(path)
    # A table with sites of its own keeps them: those an SAE was tried at.
    frames = {site: read(of_site) for site, of_site in by_site.items()}
    if None in frames or "site" in next(iter(frames.values())).lazy().collect_schema():
        return pl.concat(frames.values())
    return pl.concat(frame.with_columns(site=pl.lit(site)) for site, frame in frames.items())
