"""Where to compute: one GPU a job, or the processor; and batches that fit into the GPU's memory."""

import ctypes
import gc
import logging
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor
from filelock import FileLock, Timeout

from .errors import InputError

Row = TypeVar("Row")
Result = TypeVar("Result")

_held: list[FileLock] = []
"""Locks of this process; released when it ends, however it ends."""


@cache
def device() -> torch.device:
    """Return the device this job computes on: a GPU that no other job of this user holds, else the processor.

    Called again, it returns the same. Where CUDA_VISIBLE_DEVICES names one GPU, as a cluster does, it is that one.
    """
    if not torch.cuda.is_available():
        keep_freed_memory()
        return torch.device("cpu")
    names = [str(torch.cuda.get_device_properties(index).uuid) for index in range(torch.cuda.device_count())]
    free = free_memory()
    roomiest = sorted(names, key=lambda name: -free.get(name, 0))  # others may be on a GPU too: the emptiest first
    # With more jobs than GPUs, beside another where there is most room.
    chosen = names.index(claim(roomiest, Path(tempfile.gettempdir())) or roomiest[0])
    torch.cuda.set_device(chosen)
    return torch.device("cuda", chosen)


M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Parameters of glibc's mallopt (malloc.h)."""


def keep_freed_memory() -> None:
    """Let the C library keep up to 1 GB that tensors free, for the next ones; nothing where it isn't glibc.

    Tensors of some megabytes it would give back at once, and each one made would be asked for anew, page by page: that
    takes up to a third of a model's forward pass. Those of 32 MB or more, the most that can be set, are given back
    still: kept, too, they would leave holes as they grow, and with them memory half as large again.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, 2**25)
        mallopt(M_TRIM_THRESHOLD, 2**30)


def free_memory() -> dict[str, int]:
    """Return the free memory of each GPU in MiB, by UUID, from the driver's nvidia-smi; empty where that can't be had.

    Asking CUDA would take memory on every one of them.
    """
    query = ["nvidia-smi", "--query-gpu=uuid,memory.free", "--format=csv,noheader,nounits"]
    try:
        lines = subprocess.run(query, capture_output=True, text=True, timeout=30, check=True).stdout.splitlines()
        pairs = [line.split(",") for line in lines]
        return {uuid.strip().removeprefix("GPU-"): int(free) for uuid, free in pairs}
    except (OSError, ValueError, subprocess.SubprocessError):
        return {}


def claim(names: Sequence[str], folder: Path) -> str | None:
    """Take the first of the named GPUs that no other process of this user holds, and return its name; None if all are.

    A lock file a GPU in `folder` keeps concurrent jobs apart; the system releases it when the process ends.
    """
    for name in names:
        lock = FileLock(folder / f"thoughtscope-{os.getuid()}-{name}.lock", mode=0o600)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            continue
        except OSError:  # a folder that can't be written: nothing to tell jobs apart by
            return name
        _held.append(lock)
        return name
    return None


def report(model: torch.nn.Module, log: logging.Logger) -> None:
    """Log what the model computes on; on the processor, say that it is slow, and why if a GPU seems to be there."""
    parameters = sum(parameter.numel() for parameter in model.parameters())
    dtype = str(next(model.parameters()).dtype).removeprefix("torch.")
    chosen = device()
    if chosen.type == "cuda":
        log.info("on %s (%s), %s", torch.cuda.get_device_name(chosen), chosen, dtype)
        return
    log.info("on the processor, %d threads, %s", torch.get_num_threads(), dtype)
    if shutil.which("nvidia-smi") and os.environ.get("CUDA_VISIBLE_DEVICES") not in ("", "-1"):
        why = "is a build without CUDA" if torch.version.cuda is None else "can't use it (an old driver?)"
        log.warning("this machine seems to have a GPU, but PyTorch %s %s", torch.__version__, why)
    if parameters >= LARGE:
        log.warning("no GPU is used: with %.1f billion parameters this is slow", parameters / 1e9)


LARGE = 5e8
"""Parameters from which on a processor is too slow for comfort."""


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an exception says that the GPU's memory is full, in any of the ways CUDA has of saying so."""
    words = ("out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(word in str(error) for word in words)
    )


def release_memory() -> None:
    """Give back to the GPU what no tensor uses any more."""
    gc.collect()
    torch.cuda.empty_cache()


def halving(work: Callable[[Tensor], tuple[Tensor, Tensor]], rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return work(rows), done by halves where the GPU's memory doesn't hold it at once. `work` keeps rows apart."""
    try:
        return work(rows)
    except RuntimeError as error:
        if not is_out_of_memory(error) or len(rows) < 2:
            raise
    release_memory()
    logging.getLogger("thoughtscope").warning("out of GPU memory with %d tokens to encode; halving them", len(rows))
    first, second = (halving(work, half) for half in rows.tensor_split(2))
    return torch.cat([first[0], second[0]]), torch.cat([first[1], second[1]])


@contextmanager
def loading(what: str) -> Iterator[None]:
    """Say in one line that `what` doesn't fit into the GPU's memory, where loading it fails for that."""
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise InputError(
            f"{what} doesn't fit into the memory left on {device()}; use a GPU with more, or end what else runs on it."
        ) from None


def in_batches(
    rows: Sequence[Row],
    size: int,
    take: Callable[[Sequence[Row], int], int],
    work: Callable[[Sequence[Row]], Result],
    log: logging.Logger,
) -> Iterator[tuple[Sequence[Row], Result]]:
    """Yield batches of rows, in order, with `work` done on each. What runs out of GPU memory goes on in smaller ones.

    `take(rows, size)` says how many of the first rows make a batch of that size, at least one. A batch that doesn't fit
    halves the size, for all that follow too, and the log says so. Raises InputError when one row alone doesn't fit.
    """
    while rows:
        count = take(rows, size)
        try:
            result = work(rows[:count])
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            result = None
        if result is None:  # out of the except block, whose traceback would keep the tensors alive
            if count == 1:
                raise InputError(
                    "one trace alone doesn't fit into the GPU's memory. Use a GPU with more, lower"
                    " generation.max_new_tokens, or leave the GPU to this job alone."
                )
            while take(rows, size) > count // 2:
                size -= max(1, size // 8)  # to the largest size that halves this batch
            release_memory()
            log.warning("out of GPU memory with %d traces at a time; going on with %d", count, take(rows, size))
            continue
        yield rows[:count], result
        rows = rows[count:]
