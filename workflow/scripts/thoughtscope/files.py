"""Reading and writing files so that no half-written one ever looks finished, and no damaged one is taken for whole.

Our own parquet and JSON say what they are of and carry a digest of all that is in them, which is compared whenever they
are read.
"""

import hashlib
import json
import mmap
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import polars as pl

from . import columns, paths, run
from .errors import InputError, first_line

SCHEMA_VERSION = "3"
"""Version of the parquet files' columns; raised when a column changes its name, type or meaning."""

DIGEST = "thoughtscope.digest"
"""Under this name a parquet file's footer has the SHA-256 of the file, in which 64 zeros stand in its own place."""

DESCRIPTION = b"description"
"""Under this name a column's metadata says what it holds."""

ANEW = "Delete it and run again: it will be made anew."
"""What to do with a file of ours that isn't what it should be."""

AGAIN = "Fetch it again where it is from."
"""What to do with one of others."""

_LIBRARIES = ("torch", "transformers", "datasets", "eai-sparsify", "polars", "pyarrow")


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a path beside `path`, for a file or folder; renamed to `path` if the block succeeds, else removed.

    What was there before is gone then. Raises InputError where it isn't this run's any more.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        run.check()
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        temporary.replace(path)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary)
        else:
            temporary.unlink(missing_ok=True)


def write_parquet(frame: pl.DataFrame, path: str | Path, metadata: Mapping[str, str]) -> None:
    """Write a frame as zstd parquet; its footer says what it is, and has a digest of the whole file.

    What it is: `metadata`, what its path says of it (see `paths.levels_of`), the schema version and the libraries'.
    Each column's metadata has its description, where the path is that of a table of ours.
    """
    import pyarrow as pa  # for those who only read it would be a tenth of a second
    import pyarrow.parquet as pq

    table = frame.to_arrow(compat_level=pl.CompatLevel.oldest())
    footer = {"thoughtscope.schema": SCHEMA_VERSION, DIGEST: _ZEROS.decode()}
    footer |= {f"thoughtscope.{key}": value for key, value in ({**metadata, **paths.levels_of(str(path))}).items()}
    for name in _LIBRARIES:
        with suppress(PackageNotFoundError):  # the analysis environment has no torch
            footer[f"version.{name}"] = version(name)
    about = getattr(columns.schema_of(path), "about", {})
    fields = [
        field.with_metadata((field.metadata or {}) | {DESCRIPTION: about.get(field.name, "")}) for field in table.schema
    ]
    table = table.cast(pa.schema(fields, metadata=footer))
    with replacing(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")
        with temporary.open("r+b") as file:
            place, digest = _digest_of(file.fileno())
            file.seek(place)
            file.write(digest.encode())


def descriptions(path: str | Path) -> dict[str, str]:
    """Return what each column of a parquet file of ours holds, as the file says."""
    import pyarrow.parquet as pq

    metadata(path)
    return {field.name: (field.metadata or {}).get(DESCRIPTION, b"").decode() for field in pq.read_schema(path)}


_ZEROS = b"0" * 64


def _digest_of(file: int) -> tuple[int, str]:
    """Return where in an open parquet file its digest stands, and what it should be. Raises ValueError if nowhere."""
    with mmap.mmap(file, 0, access=mmap.ACCESS_READ) as data:
        found = data.rfind(DIGEST.encode())
        if found < 0:
            raise ValueError("its footer has no digest")
        place = found + len(DIGEST) + 2  # between them, the type of the value and its length
        digest = hashlib.sha256()
        with memoryview(data) as view, view[:place] as before, view[place + len(_ZEROS) :] as after:
            for part in (before, _ZEROS, after):
                digest.update(part)
        return place, digest.hexdigest()


def metadata(path: str | Path) -> dict[str, str]:
    """Return what a parquet file of ours says of itself (see `write_parquet`), once it is known to be whole.

    Raises InputError for a file that is damaged, of another version, or not what its path says it is.
    """
    try:
        with open(path, "rb") as file:
            place, digest = _digest_of(file.fileno())
            file.seek(place)
            is_whole = file.read(len(_ZEROS)) == digest.encode()
        found = pl.read_parquet_metadata(path) if is_whole else {}
    except FileNotFoundError:
        raise InputError(f"{path} isn't there. Run again: it will be made anew.") from None
    except (OSError, ValueError, pl.exceptions.PolarsError) as error:
        raise InputError(f"{path} can't be read ({first_line(error)}). {ANEW}") from None
    if not is_whole:
        raise InputError(f"{path} is damaged: what is in it isn't what was written. {ANEW}")
    if (schema := found["thoughtscope.schema"]) != SCHEMA_VERSION:
        raise InputError(f"{path} has version {schema} of our tables, not {SCHEMA_VERSION}. {ANEW}")
    for level, value in paths.levels_of(str(path)).items():
        if (said := found.get(f"thoughtscope.{level}")) != value:
            raise InputError(f"{path} says that it is of {level} {said}, not {value}. {ANEW}")
    return {key: value for key, value in found.items() if key.startswith(("thoughtscope.", "version."))}


def scan_parquet(listed: str | Path | Sequence[str | Path]) -> pl.LazyFrame:
    """Return one of our parquet files, or several after each other, to be read as far as is needed; see `metadata`."""
    every = [str(path) for path in ([listed] if isinstance(listed, (str, Path)) else listed)]
    for path in every:
        metadata(path)
    return pl.scan_parquet(every)


def read_parquet(listed: str | Path | Sequence[str | Path], columns: Sequence[str] | None = None) -> pl.DataFrame:
    """Return one of our parquet files, or several after each other, or only some columns; see `metadata`."""
    frame = scan_parquet(listed)
    return (frame if columns is None else frame.select(columns)).collect()


def write_json(value: Mapping[str, Any], path: str | Path) -> None:
    """Write a record as indented JSON, with a digest of what it says."""
    with replacing(path) as temporary:
        whole = {**value, "digest": _digest_of_record(value)}
        temporary.write_text(json.dumps(whole, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _digest_of_record(value: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def read_json(path: str | Path) -> dict[str, Any]:
    """Read a record that `write_json` wrote. Raises InputError if it is damaged, or another's."""
    value = read_foreign_json(path, ANEW)
    if value.pop("digest", None) != _digest_of_record(value):
        raise InputError(f"{path} is damaged, or of an earlier version: its digest isn't that of what it says. {ANEW}")
    return value


def read_foreign_json(path: str | Path, remedy: str = AGAIN) -> dict[str, Any]:
    """Read a JSON file with one object that others wrote. Raises InputError for anything else, with a remedy."""
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path} isn't there. Run again: it will be made anew.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is no JSON ({first_line(error)}). {remedy}") from None
    if not isinstance(value, dict):
        raise InputError(f"{path} holds a {type(value).__name__}; an object is needed. {remedy}")
    return value


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


@contextmanager
def open_weights(path: str | Path, what: str) -> Iterator[Any]:
    """Open a safetensors file that others wrote, `what` it is of. Raises InputError where it isn't whole."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as weights:
            yield weights
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"{what}: {Path(path).resolve()} is no whole safetensors file ({first_line(error)}). {AGAIN}"
        ) from None


def let_read(path: str | Path) -> None:
    """Let a group read a file of weights as it reads others: safetensors are written for their owner alone."""
    Path(path).chmod(0o644)


def link(path: str | Path, target: str | Path) -> None:
    """Make `path` a link to the file that `target` is or links to, in place of what is there."""
    with replacing(path) as temporary:
        temporary.symlink_to(Path(target).resolve())


def check_hashes(folder: str | Path, hashes: Mapping[str, str], what: str, remedy: str) -> None:
    """Check that the files of a folder, or what they link to, are those whose SHA-256 is known.

    Raises InputError with the first that is gone or another, `what` it is one of, and the remedy.
    """
    for name, expected in hashes.items():
        path = Path(folder, name)
        linked = f" (a link to {path.readlink()})" if path.is_symlink() else ""
        if not path.exists():
            raise InputError(f"{what} are gone: {path}{linked}. {remedy}")
        if (found := sha256(path)) != expected:
            raise InputError(
                f"{what} have changed: {path}{linked} has SHA-256 {found}, not {expected} as when it was fetched."
                f" {remedy}"
            )
