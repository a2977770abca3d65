"""Reading and writing files so that no half-written one ever looks finished."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq

SCHEMA_VERSION = "1"
"""Version of the parquet files' columns; raised when a column changes its name, type or meaning."""

_LIBRARIES = ("torch", "transformers", "datasets", "eai-sparsify", "polars", "pyarrow")


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a path beside `path`, for a file or folder; renamed to `path` if the block succeeds, else removed."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary)
        else:
            temporary.unlink(missing_ok=True)


def write_parquet(frame: pl.DataFrame, path: str | Path, metadata: Mapping[str, str]) -> None:
    """Write a frame as zstd parquet with `metadata`, the schema version and the libraries' versions in its footer."""
    table = frame.to_arrow(compat_level=pl.CompatLevel.oldest())
    footer = {"thoughtscope.schema": SCHEMA_VERSION}
    footer |= {f"thoughtscope.{key}": value for key, value in metadata.items()}
    for name in _LIBRARIES:
        with suppress(PackageNotFoundError):  # the analysis environment has no torch
            footer[f"version.{name}"] = version(name)
    table = table.replace_schema_metadata(footer)
    with replacing(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def write_json(value: Any, path: str | Path) -> None:
    """Write a value as indented JSON."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: str | Path) -> Any:
    """Read a JSON file."""
    return json.loads(Path(path).read_text(encoding="utf-8"))


def sha256(path: str | Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
