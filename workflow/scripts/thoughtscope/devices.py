"""Where to compute: one GPU a job, or the processor; and batches that fit into the GPU's memory."""

import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import TypeVar

import torch
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
        return torch.device("cpu")
    names = [str(torch.cuda.get_device_properties(index).uuid) for index in range(torch.cuda.device_count())]
    chosen = claim(names, Path(tempfile.gettempdir()))
    if chosen is None:  # more jobs than GPUs: beside the others, where there is most room
        chosen = max(range(len(names)), key=lambda index: torch.cuda.mem_get_info(index)[0])
    torch.cuda.set_device(chosen)
    return torch.device("cuda", chosen)


def claim(names: Sequence[str], folder: Path) -> int | None:
    """Take the first GPU that no other process of this user holds; return its index in `names`, or None.

    A lock file a GPU in `folder` keeps concurrent jobs apart; the system releases it when the process ends.
    """
    for index, name in enumerate(names):
        lock = FileLock(folder / f"thoughtscope-{os.getuid()}-{name}.lock", mode=0o600)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            continue
        _held.append(lock)
        return index
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
    if shutil.which("nvidia-smi"):
        log.warning(
            "this machine seems to have a GPU, but PyTorch %s can't use it (a build for processors, or an old driver);"
            " see https://pytorch.org/get-started",
            torch.__version__,
        )
    if parameters >= LARGE:
        log.warning("no GPU is used: with %.1f billion parameters this is slow, some tokens a second", parameters / 1e9)


LARGE = 5e8
"""Parameters from which on a processor is too slow for comfort."""


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
        except torch.OutOfMemoryError:
            result = None
        if result is None:  # out of the except block, whose traceback would keep the tensors alive
            if count == 1:
                raise InputError(
                    "one trace alone doesn't fit into the GPU's memory. Use a GPU with more, lower"
                    " generation.max_new_tokens, or leave the GPU to this job alone."
                )
            while take(rows, size) > count // 2:
                size -= max(1, size // 8)  # to the largest size that halves this batch
            torch.cuda.empty_cache()
            log.warning("out of GPU memory with %d traces at a time; going on with %d", count, take(rows, size))
            continue
        yield rows[:count], result
        rows = rows[count:]
