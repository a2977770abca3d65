"""A run: the config its jobs work from, wherever they run, and whether its files still count.

A run's config is kept, as it was checked, under .snakemake/thoughtscope/. Its jobs are given that file instead of the
user's, so that an edit during a run affects the next run only. The file's name says whose it is. The next run of the
same experiment takes it away if that process is gone, and then no job left over from it writes anything any more.
Standard library only.
"""

import json
import os
import platform
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from .errors import InputError

FOLDER = Path(".snakemake", "thoughtscope")

VARIABLE = "THOUGHTSCOPE_RUN"
"""In a job's environment: the file of its run's config."""


def begin(workflow: Any, experiment: str, given: Mapping[str, Any]) -> None:
    """Begin a run: keep its config, as the user gave it, and let Snakemake's `workflow` pass it to its jobs."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for other in FOLDER.glob(f"{experiment}@*.json"):
        if not _is_alive(other):
            other.unlink(missing_ok=True)
    host, process = platform.node(), os.getpid()
    kept = (FOLDER / f"{experiment}@{host}@{process}@{_started(process)}.json").absolute()
    temporary = kept.with_suffix(".tmp")
    temporary.write_text(json.dumps(given), encoding="utf-8")
    temporary.replace(kept)
    if "sources" in {str(usage) for usage in workflow.storage_settings.shared_fs_usage}:
        workflow.config_settings.configfiles = [kept]
        workflow.config_settings.config_args = None  # they are in it
    # Else jobs unpack the sources as they were when the run began, config and all.
    os.environ[VARIABLE] = str(kept)


def join(configfiles: list[Path]) -> None:
    """Note in a job's process which run it is of, by the config that Snakemake was given for it."""
    if configfiles and Path(configfiles[0]).parent.parts[-2:] == FOLDER.parts:
        os.environ[VARIABLE] = str(configfiles[0])


def check() -> None:
    """Raise InputError if this is a job of a run whose place another has taken; called before a file is published."""
    kept = os.environ.get(VARIABLE)
    if kept and not os.path.exists(kept):
        raise InputError("this job is of a run that was killed, and another has begun since; what it made isn't kept.")


def _is_alive(kept: Path) -> bool:
    """Return whether the process that a run's file names is still there; of another machine's nobody here knows."""
    _, host, process, started = kept.stem.rsplit("@", 3)
    return host == platform.node() and _exists(int(process)) and _started(int(process)) == started


def _exists(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _started(process: int) -> str:
    """Return when a process was started, in ticks, as numbers of processes come again; 0 where that isn't told."""
    with suppress(OSError):
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19]
    return "0"
