"""The Hugging Face hub: repositories fetched from it, and what went wrong there, in one line."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .config import is_commit
from .errors import HubUnreachable, InputError, first_line


def failure(key: str, what: str, error: BaseException) -> InputError:
    """Return the exception to raise where the hub gave an error instead of `what`, which the config's `key` names.

    HubUnreachable unless the hub itself refused. `error` is whatever its client raised: its own, its transport's or the
    system's exceptions.
    """
    from huggingface_hub.errors import HfHubHTTPError

    status = error.response.status_code if isinstance(error, HfHubHTTPError) and error.response is not None else 500
    if status < 500 and status not in (408, 429):  # these two: come back later
        return InputError(
            f"config: {key}: the hub doesn't give {what} ({first_line(error)}). Check name and revision; if it is"
            " private or gated, log in with 'hf auth login'."
        )
    return HubUnreachable(
        f"config: {key}: {what} can't be fetched ({first_line(error)}). It needs the Hugging Face hub."
    )


def snapshot(key: str, what: str, section: Mapping[str, Any], patterns: Sequence[str], log: logging.Logger) -> Path:
    """Fetch a repository's files into the Hugging Face cache; return the folder, whose name is the commit.

    `section` is the config's (`name`, `revision`), `key` where it stands there. Warns where it isn't pinned.
    """
    import huggingface_hub

    name, revision = section["name"], section["revision"]
    try:
        folder = Path(
            huggingface_hub.snapshot_download(name, revision=revision or "main", allow_patterns=list(patterns))
        )
    except Exception as error:
        raise failure(f"{key}.name", f"{what} {name!r}", error) from None
    warn_unpinned(key, name, revision, folder.name, log)
    return folder


def warn_unpinned(key: str, name: str, revision: str | None, commit: str, log: logging.Logger) -> None:
    """Warn that a revision may move, with the line that pins it, unless it is a commit."""
    if not is_commit(revision):
        log.warning("%s isn't pinned; this run uses commit %s. To pin it: '%s.revision: %s'", name, commit, key, commit)
