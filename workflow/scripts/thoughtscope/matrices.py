"""Matrices in safetensors files, read by rows without torch, whose import takes longer than what is done with them."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Matrix:
    """A matrix in a safetensors file; `matrix[rows]` reads these rows, as float32."""

    stored: NDArray[Any]
    bfloat16: bool

    def __len__(self) -> int:
        return len(self.stored)

    def __getitem__(self, rows: slice | Sequence[int]) -> Floats:
        part = self.stored[rows]
        # A bfloat16 is the upper half of a float32.
        return (part.astype(np.uint32) << 16).view(np.float32) if self.bfloat16 else part.astype(np.float32, copy=False)


ROWS = 8192
"""Rows of a matrix that are read at a time: 50 MB of width 1,536 in float32."""


def blocks(matrix: Matrix | Floats, count: int) -> Iterator[tuple[slice, Floats]]:
    """Yield a matrix's first `count` rows, ROWS at a time, and which they are."""
    for first in range(0, count, ROWS):
        where = slice(first, min(first + ROWS, count))
        yield where, matrix[where]


def matrices(path: str | Path) -> dict[str, Matrix]:
    """Return the matrices of a safetensors file by name; nothing of them is read yet."""
    with open(path, "rb") as file:
        start = 8 + int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(start - 8))
    types = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
    found = {}
    for name, about in header.items():
        kind, shape = about.get("dtype"), about.get("shape", ())
        if kind in types and len(shape) == 2:
            offset = start + about["data_offsets"][0]
            found[name] = Matrix(np.memmap(path, types[kind], "r", offset, tuple(shape)), kind == "BF16")
    return found
