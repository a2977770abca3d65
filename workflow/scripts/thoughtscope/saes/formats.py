"""Room 4, SAEs: where they come from, and sparsify's format on disk (cfg.json and sae.safetensors a hookpoint)."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from .. import files, hub
from ..config import SAE_FILES, files_of_sae, is_commit, sae_places
from ..devices import loading
from ..errors import InputError
from . import foreign, record
from .bounded import BoundedTopK
from .coder import Thresholded
from .foreign import TENSORS, THRESHOLD


def read_config(folder: str | Path) -> dict[str, Any]:
    """Return the `cfg.json` of an SAE in `folder`, checked to be an autoencoder, of sparsify or made ours."""
    path = Path(folder) / "cfg.json"
    config = files.read_foreign_json(path)
    numbers = {"d_in", "num_latents" if config.get("num_latents") else "expansion_factor"}
    numbers |= set() if config.get("activation") == THRESHOLD else {"k"}
    if odd := sorted(name for name in numbers if type(config.get(name)) is not int):
        raise InputError(f"SAE {folder}: {odd[0]} in {path} is {config.get(odd[0])!r}; a whole number is needed.")
    if config.get("transcode"):
        raise InputError(f"SAE {folder}: cfg.json says it is a transcoder; only autoencoders are read.")
    if config.get("activation", "topk") not in ("topk", THRESHOLD):
        raise InputError(f"SAE {folder}: its activation is {config['activation']!r}; only 'topk' is read.")
    if config.get("skip_connection"):
        raise InputError(f"SAE {folder}: cfg.json says it has a skip connection; only plain autoencoders are read.")
    return config


def load(folder: str | Path, device: torch.device) -> BoundedTopK | Thresholded:
    """Load the SAE in `folder`, in float32. On the processor a file in float32 stays on disk until it is read.

    Where the workflow has put it there, its files are compared with the hashes in its info.json.
    """
    if (info := Path(folder, record.INFO)).exists():
        record.check(files.read_json(info), folder)
    config = read_config(folder)
    # "exact" rests on it, whatever the environment says of TF32
    torch.set_float32_matmul_precision("highest")
    file = str(Path(folder) / "sae.safetensors")
    with loading("the SAE"), safe_open(file, framework="pt", device=str(device)) as weights:
        encoder, bias, decoder, b_dec = (weights.get_tensor(name).float() for name in TENSORS)
        if config.get("activation") == THRESHOLD:
            return Thresholded(encoder, bias, decoder, b_dec, weights.get_tensor(THRESHOLD).float())
    return BoundedTopK(encoder, bias, decoder, b_dec, config["k"])


def check_weights(folder: str | Path, config: Mapping[str, Any], what: str) -> None:
    """Check that the weights in `folder` are what `config`, their cfg.json, says: all there, of these shapes, finite.

    Raises InputError, which calls the SAE `what`, with the first that isn't.
    """
    path, width, count = Path(folder, SAE_FILES[1]), config["d_in"], num_latents(config)
    if not 1 <= config.get("k", 1) <= count:
        raise InputError(f"{what}: cfg.json says k {config['k']} of {count} latents; k must be from 1 to that many.")
    shapes = dict(zip(TENSORS, ((count, width), (count,), (count, width), (width,)), strict=True))
    shapes |= {THRESHOLD: (count,)} if config.get("activation") == THRESHOLD else {}
    with files.open_weights(path, what) as weights:
        if missing := [name for name in shapes if name not in weights.keys()]:  # noqa: SIM118
            raise InputError(f"{what}: {path} has no {missing[0]}; an SAE in sparsify's format has it.")
        for name, shape in shapes.items():
            tensor = weights.get_tensor(name)
            if tuple(tensor.shape) != shape or not tensor.is_floating_point():
                raise InputError(
                    f"{what}: {name} in {path} is {tuple(tensor.shape)}, {tensor.dtype}, but by its cfg.json it"
                    f" must be {shape} and of a float type."
                )
            if not all(bool(part.sum(dtype=torch.float64).isfinite()) for part in tensor.split(4096)):
                raise InputError(f"{what}: {name} in {path} isn't finite everywhere; no SAE can be read with it.")


def num_latents(config: Mapping[str, Any]) -> int:
    """Return how many latents an SAE has by its cfg.json."""
    return int(config["num_latents"] or config["d_in"] * config["expansion_factor"])


def check_width(folder: str | Path, hookpoint: str, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Check that the SAE in `folder` is as wide as its module's output; return its config."""
    config = read_config(folder)
    width = manifest["widths"][hookpoint]
    if config["d_in"] != width:
        raise InputError(
            f"SAE for {hookpoint} reads vectors of width {config['d_in']}, but that module of {manifest['name']} puts"
            f" out {width}; choose an SAE trained on this model and hookpoint."
        )
    return config


def fetch(
    source: Mapping[str, Any], hookpoint: str, manifest: Mapping[str, Any], folder: str | Path, log: logging.Logger
) -> None:
    """Link one hookpoint's SAE, in the hub's cache or a local folder, into `folder`; write `info.json` on its origin.

    One in another library's format is made ours there instead. Of sparsify's, the small `cfg.json` is fetched and
    checked before the weights.
    """
    folder, form = Path(folder), source["format"]
    folder.mkdir(parents=True, exist_ok=True)
    info: dict[str, Any] = {"source": source["source"], "name": source.get("name") or source.get("path")}
    found: dict[str, Path] = {}
    for name, file in files_of_sae(source, hookpoint).items():
        if source["source"] == "hub":
            found[name] = _from_hub(source, file)
            info["revision"] = found[name].parents[len(Path(file).parts) - 1].name
        else:
            found[name] = Path(source["path"]) / file
        if form == "sparsify":
            files.link(folder / name, found[name])
            if name == "cfg.json":
                check_width(folder, hookpoint, manifest)
    if form != "sparsify":
        info["format"] = form
        info["of"] = {name: files.sha256(path) for name, path in found.items()}
        foreign.convert(found, form, hookpoint, folder, manifest["widths"])
    config = check_width(folder, hookpoint, manifest)
    if source["source"] == "hub" and not is_commit(source["revision"]):
        for sibling in folder.parent.glob("*/info.json"):
            other = files.read_json(sibling)
            if other.get("name") == info["name"] and other["revision"] != info["revision"]:
                raise InputError(
                    f"config: sae.revision: {source['name']} has moved from {other['revision']} to {info['revision']}"
                    f" since {sibling.parent.name} was fetched; pin one of the two."
                )
        hub.warn_unpinned("sae", source["name"], source["revision"], info["revision"], log)
    check_weights(folder, config, f"SAE for {hookpoint}")
    info |= {"d_in": config["d_in"], "num_latents": num_latents(config), "k": config.get("k")}
    info |= {"files": {name: files.sha256(folder / name) for name in SAE_FILES}}
    files.write_json(info, folder / record.INFO)
    log.info("%s: %d latents, %s", hookpoint, info["num_latents"], record.sparsity(info))


def _from_hub(source: Mapping[str, Any], file: str) -> Path:
    import huggingface_hub

    revision = source["revision"] or "main"
    try:
        return Path(huggingface_hub.hf_hub_download(source["name"], file, revision=revision))
    except huggingface_hub.errors.RemoteEntryNotFoundError:
        try:
            listing = huggingface_hub.HfApi().list_repo_files(source["name"], revision=revision)
        except Exception as error:
            raise hub.failure("sae.folder", f"{file} of {source['name']!r}", error) from None
        known = sae_places(listing, source["format"])
        raise InputError(
            f"config: sae.hookpoint, sae.folder: {source['name']} has no {file}; SAEs in {source['format']}'s form that"
            f" it has: {', '.join(known) or 'none'}."
        ) from None
    except Exception as error:
        raise hub.failure("sae.name", f"{file} of {source['name']!r}", error) from None
