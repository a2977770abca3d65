"""What every script does around its one call: logs, progress on the terminal, and errors in one line."""

import contextlib
import logging
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from .errors import HubUnreachable, InputError, first_line

PROGRESS_SECONDS = 15.0, 600.0
"""Least and most time between two progress lines; between, it is a quarter of the time gone."""

FEW_LINES = "THOUGHTSCOPE_FEW_LINES"
"""Set in the environment of jobs whose terminal shows a line a room: warnings, errors and how long jobs get on."""


@contextlib.contextmanager
def job(log_path: str, title: str, *, network: bool = False, fetch_ahead: str = "") -> Iterator[logging.Logger]:
    """Run a job's work with its log open. Yields a logger whose lines go to the terminal and to the log.

    All else that is printed (libraries' bars and warnings) goes to the log alone. An InputError ends the job with its
    one line, any other exception with one line that names the log, which has the traceback. Without `network` the
    Hugging Face libraries are kept off it; where the hub can't be reached, `fetch_ahead` tells how to do without.
    """
    if not network:
        os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    Path(log_path).parent.mkdir(parents=True, exist_ok=True)
    terminal = os.fdopen(os.dup(2), "w", buffering=1, encoding="utf-8", errors="backslashreplace")
    log_file = open(log_path, "w", buffering=1, encoding="utf-8", errors="backslashreplace")  # noqa: SIM115
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(log_file.fileno(), 1)
    os.dup2(log_file.fileno(), 2)

    logger = logging.getLogger("thoughtscope")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.handlers.clear()
    started = time.monotonic()
    for stream in (terminal, log_file):
        handler = logging.StreamHandler(stream)
        handler.setFormatter(logging.Formatter(f"[{title}] %(message)s"))
        if stream is terminal and FEW_LINES in os.environ:
            handler.addFilter(
                lambda record: record.levelno >= logging.WARNING or time.monotonic() - started >= PROGRESS_SECONDS[0]
            )
        logger.addHandler(handler)
    try:
        yield logger
        print(f"[{title}] done in {time.monotonic() - started:.1f} s", file=log_file)
    except InputError as error:
        logger.error("error: %s", error)
        if isinstance(error, HubUnreachable):
            logger.error("%s", fetch_ahead)
        sys.exit(1)
    except BaseException as error:
        # A panic in polars is no Exception, but an error like any other.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        print(traceback.format_exc(), file=log_file)
        logger.error("error: %s (traceback in %s)", first_line(error), log_path)
        sys.exit(1)


@contextlib.contextmanager
def at_most(seconds: float, message: str) -> Iterator[None]:
    """Raise InputError with `message` if what is done in Python takes longer; in a job's main thread only."""

    def stop(_number: int, _frame: Any) -> None:
        raise InputError(message)

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def every_few_seconds(report: Callable[[str], None]) -> Callable[[str], None]:
    """Return a function that reports the line it is given where the last one is PROGRESS_SECONDS ago."""
    least, most = PROGRESS_SECONDS
    started = time.monotonic()
    due = started + least

    def tick(line: str) -> None:
        nonlocal due
        if (now := time.monotonic()) >= due:
            report(line)
            due = now + min(max(least, (now - started) / 4), most)

    return tick
