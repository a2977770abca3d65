"""Room 2, models: adapters, the low-rank changes of a model's weights (LoRA, in PEFT's format), and merging them."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import files, hub, models
from .config import ADAPTER_FILES
from .errors import InputError, first_line

CONFIG, WEIGHTS = ADAPTER_FILES


def fetch(
    source: Mapping[str, Any], config_path: str | Path, weights_path: str | Path, log: logging.Logger
) -> dict[str, Any]:
    """Bring the adapter that a config's `model.adapter` names, from the hub or a folder; return where it is from.

    Files are linked, not copied. Raises InputError for a source that can't be reached, files that aren't there, or
    weights with another hash than `sha256` says.
    """
    origin: dict[str, Any] = {"requested": dict(source)}
    if source["source"] == "hub":
        name, folder = source["name"], hub.snapshot("model.adapter", "adapter", source, ADAPTER_FILES, log)
        origin["revision"] = folder.name
    else:
        name, folder = source["path"], Path(source["path"])
    for file, path in ((CONFIG, config_path), (WEIGHTS, weights_path)):
        if not (folder / file).is_file():
            raise InputError(
                f"adapter {name} has no {file}; what PEFT's save_pretrained writes is needed, in safetensors (pickled"
                " weights are never loaded)."
            )
        files.link(path, folder / file)
    digest = files.sha256(weights_path)
    if source["sha256"] not in (None, digest):
        raise InputError(
            f"config: model.adapter.sha256 is {source['sha256']}, but {WEIGHTS} of {name} has {digest}; it isn't the"
            " adapter that this config was written for."
        )
    return origin | {"name": name, "sha256": digest}


def merge(
    manifest: Mapping[str, Any], adapter: Mapping[str, Any], adapter_folder: Path, folder: Path, log: logging.Logger
) -> dict[str, Any]:
    """Write the model of a manifest with an adapter merged into its weights to `folder`; return its manifest.

    Weights are added up in float32 and kept in the model's own precision. The new manifest has the `adapter`, with its
    hash, and its `base`: the manifest it was given. Raises InputError for an adapter that isn't LoRA, isn't of this
    model, or holds what merging would pass over.
    """
    import torch
    from peft import PeftConfig, PeftModel, get_peft_model_state_dict
    from safetensors import safe_open
    from transformers import AutoConfig, AutoModelForCausalLM

    name = adapter["name"]
    try:
        config = PeftConfig.from_pretrained(str(adapter_folder))
    except Exception as error:
        raise InputError(f"adapter {name}: {CONFIG} can't be read ({first_line(error)}).") from None
    if str(getattr(config.peft_type, "value", config.peft_type)) != "LORA":
        raise InputError(f"adapter {name} is of PEFT's type {config.peft_type}; only LoRA can be merged here.")
    base_folder = manifest["folder"]
    models.check_files(manifest)
    files.check_hashes(
        adapter_folder, {WEIGHTS: adapter["sha256"]}, "adapter files", "Delete info.json beside them and run again."
    )
    dtype = AutoConfig.from_pretrained(base_folder, trust_remote_code=False).dtype or torch.float32
    model = AutoModelForCausalLM.from_pretrained(
        base_folder, dtype=torch.float32, use_safetensors=True, trust_remote_code=False
    )
    try:
        with safe_open(adapter_folder / WEIGHTS, "pt") as stored:
            given = set(stored.keys())
        adapted = PeftModel.from_pretrained(model, str(adapter_folder), use_safetensors=True)
    except Exception as error:
        raise InputError(
            f"adapter {name} doesn't fit {manifest['name']} ({first_line(error)}); name the model it was made for."
        ) from None
    if odd := sorted(given ^ set(get_peft_model_state_dict(adapted))):
        raise InputError(
            f"adapter {name} doesn't fit {manifest['name']}: {len(odd)} of its weights are on one side only, such as"
            f" {odd[0]}; name the model it was made for."
        )
    merged = adapted.merge_and_unload(safe_merge=True).to(dtype)
    hashes = models.save(merged, Path(base_folder), folder)
    log.info("%s, with adapter %s merged", manifest["name"], name)
    return {
        **manifest,
        "name": f"{manifest['name']} + {name}",
        "folder": str(folder),
        "files": hashes,
        "adapter": dict(adapter),
        "base": dict(manifest),
    }
