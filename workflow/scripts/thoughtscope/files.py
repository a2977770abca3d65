"""Reading and writing files so that no half-written one ever looks finished."""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import polars as pl

from .errors import InputError

SCHEMA_VERSION = "2"
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
    import pyarrow.parquet as pq  # for those who only read it would be a tenth of a second

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
    """Return the SHA-256 of a file, in hexadecimal.

    That of a file of KEPT_FROM bytes or more is kept under the user's cache folder, so that it is read once for all
    studies: one small file each, named by device, inode, size and times, which change with the content.
    """
    identity = _identity(path)
    caches = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    kept = Path(caches, "thoughtscope", "sha256", identity)
    with suppress(OSError):
        if re.fullmatch(r"[0-9a-f]{64}", digest := kept.read_text()):
            return digest
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if os.stat(path).st_size >= KEPT_FROM and _identity(path) == identity:  # it wasn't written to meanwhile
        with suppress(OSError), replacing(kept) as temporary:
            temporary.write_text(digest)
    return digest


KEPT_FROM = 1 << 20
"""Least size of a file whose hash is kept, in bytes: to hash a smaller one takes a millisecond."""


def _identity(path: str | Path) -> str:
    found = os.stat(path)
    return f"{found.st_dev}-{found.st_ino}-{found.st_size}-{found.st_mtime_ns}-{found.st_ctime_ns}"


def link(path: str | Path, target: str | Path) -> None:
    """Make `path` a link to the file that `target` is or links to, in place of what is there."""
    with replacing(path) as temporary:
        temporary.symlink_to(Path(target).resolve())


def need(paths: Iterable[Path], what: str, remedy: str) -> None:
    """Check that files are there, and where they are links what they link to. Raises InputError with the remedy."""
    for path in paths:
        if not path.exists():
            linked = f" (a link to {path.readlink()})" if path.is_symlink() else ""
            raise InputError(f"{what} are gone: {path}{linked}. {remedy}")
