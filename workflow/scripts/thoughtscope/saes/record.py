"""Room 4, SAEs: `info.json`, which says where an SAE is from and which files it is. No torch."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .. import files
from ..config import SAE_FILES

INFO = "info.json"


def check(info: Mapping[str, Any], folder: str | Path, names: Sequence[str] = SAE_FILES) -> None:
    """Check that an SAE's files in `folder` are those that its info.json is of. Raises InputError if not."""
    hashes = {name: info["files"][name] for name in names}
    files.check_hashes(
        folder, hashes, "SAE files", f"Delete {INFO} beside them and run again; they will be made or fetched anew."
    )


def sparsity(info: Mapping[str, Any]) -> str:
    """Say how many latents of an SAE are active: k, or those above a threshold."""
    return "those active that are above a threshold" if info["k"] is None else f"k = {info['k']}"
