"""Room 4, SAEs: other libraries' formats, made ours on disk, with the same codes and reconstructions.

What differs from a top-k autoencoder is told by two things: activations are those of the k largest pre-activations, or
of all above a threshold; and b_dec is taken off what is read, or not. The rest is folded into the weights.
"""

import json
import math
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError  # what torch.load raises of it; nothing is unpickled
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from .. import files
from ..config import SAE_FILES, adds, layer_of
from ..errors import InputError, first_line

TENSORS = ("encoder.weight", "encoder.bias", "W_dec", "b_dec")
"""What an SAE in sparsify's format is made of."""

THRESHOLD = "threshold"
"""The tensor of thresholds, and what an SAE's activation is called that has one."""


WEIGHTS = "sae_weights.safetensors"
"""What SAELens and OpenMOSS's library call the file of weights."""


@dataclass
class Parts:
    """An SAE as another library has it: x̂ = z decoder + b_dec, z the activations of x encoderᵀ + bias."""

    encoder: Tensor
    """(latents, d_in)"""
    bias: Tensor
    decoder: Tensor
    """(latents, d_in)"""
    b_dec: Tensor
    k: int | None = None
    """So many of the largest are active; without it those above `threshold` and 0."""
    threshold: Tensor | None = None
    centred: bool = True
    """Whether b_dec is taken off what is read."""
    hook: str | None = None
    """What it was trained on, as the library calls it."""

    def __post_init__(self) -> None:
        """Check that the weights are numbers, and of shapes that go together: broadcast, others would pass unseen."""
        latents, width = _shape("decoder", self.decoder, 2)
        for name, shape in {"encoder": (latents, width), "bias": (latents,), "b_dec": (width,)}.items():
            check_shape(name, getattr(self, name), shape)


def convert(
    source: Mapping[str, str | Path], form: str, hookpoint: str, folder: Path, modules: Collection[str] = ()
) -> None:
    """Write an SAE to `folder` in our format: `cfg.json` and `sae.safetensors`, float32.

    source: the format's files by their names; modules: the model's. Raises InputError for what can't be read as an
    autoencoder of one site, and for one that was trained elsewhere than at `hookpoint`.
    """
    what = f"SAE for {hookpoint}"
    try:
        parts = READERS[form](source)
        if not parts.centred:
            parts.bias = parts.bias + _give_back(parts)
        latents, width = parts.encoder.shape
        threshold = torch.zeros(1) if parts.threshold is None else parts.threshold
        if threshold.numel() == 1:
            threshold = threshold.reshape(1).expand(latents).clone()
        check_shape("threshold", threshold, (latents,))
        if parts.hook is not None and not isinstance(parts.hook, str):
            raise Unfit(f"its hook is {parts.hook!r}; a name is needed")
    except InputError:
        raise
    except Exception as error:  # whatever libraries raise of files that aren't what they should be, damaged or other
        named = ", ".join(str(path) for path in source.values())
        raise InputError(f"{what}: {named} can't be read as {form}: {_why(error)}.") from None
    check_hook(parts.hook, hookpoint, modules)
    tensors = dict(zip(TENSORS, (parts.encoder, parts.bias, parts.decoder, parts.b_dec), strict=True))
    active: dict[str, Any] = {"activation": "topk", "k": parts.k}
    if parts.k is None:
        active = {"activation": THRESHOLD}
        tensors[THRESHOLD] = threshold
    config = active | {
        "d_in": width,
        "num_latents": latents,
        "transcode": False,
        "skip_connection": False,
        "from": form,
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name in SAE_FILES:
        (folder / name).unlink(missing_ok=True)
    save_file(_apart(tensors), folder / SAE_FILES[1])
    files.let_read(folder / SAE_FILES[1])
    with files.replacing(folder / SAE_FILES[0]) as temporary:
        temporary.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


class Unfit(ValueError):
    """What a file says isn't what its format has there; to be read after the file's name."""


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors as safetensors takes them: in float32, contiguous, no two in one memory, as tied weights are."""
    apart: dict[str, Tensor] = {}
    taken: set[int] = set()
    for name, tensor in tensors.items():
        whole = tensor.float().contiguous()
        apart[name] = whole.clone() if whole.untyped_storage().data_ptr() in taken else whole
        taken.add(whole.untyped_storage().data_ptr())
    return apart


def _why(error: Exception) -> str:
    """Return in a line what is wrong with files that raised this."""
    if isinstance(error, UnpicklingError):
        return "it holds more than weights"
    if isinstance(error, KeyError):
        return f"it has no {error}"
    return str(error) if isinstance(error, Unfit) else first_line(error).rstrip(".")


def _shape(name: str, tensor: Tensor, dimensions: int) -> torch.Size:
    """Return the shape of an SAE's weights. Raises Unfit where they aren't numbers, or have other dimensions."""
    if tensor.layout != torch.strided or 0 in tensor.shape:
        raise Unfit(f"its {name} is {'empty' if 0 in tensor.shape else 'sparse'}")
    if not tensor.is_floating_point():
        raise Unfit(f"its {name} is of {str(tensor.dtype).removeprefix('torch.')}, not of floating-point numbers")
    if tensor.dim() != dimensions:
        raise Unfit(f"its {name} has shape {tuple(tensor.shape)}; of {dimensions} dimensions is needed")
    return tensor.shape


def check_shape(name: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    """Check that an SAE's weights, latents first, have a shape. Raises Unfit."""
    if (found := _shape(name, tensor, len(shape))) != shape:
        raise Unfit(f"its {name} has shape {tuple(found)}; {shape} goes with its decoder")


def _flag(config: Mapping[str, Any], name: str, default: bool) -> bool:
    """Return what a config says by true or false, or else `default`. Raises Unfit."""
    value = config.get(name)
    if value is not None and not isinstance(value, bool):
        raise Unfit(f"its {name} is {value!r}; true or false is needed")
    return default if value is None else value


def _object(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the object under a name of a config, an empty one where there is none. Raises Unfit."""
    value = config.get(name) or {}
    if not isinstance(value, dict):
        raise Unfit(f"its {name} is {value!r}; an object is needed")
    return value


def _count(name: str, value: Any) -> int:
    """Return a number of latents. Raises Unfit for anything else."""
    value = value.item() if isinstance(value, Tensor) else value
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise Unfit(f"its {name} is {value!r}; a whole number from 1 is needed")
    return value


def _number(name: str, value: Any, least: float) -> float:
    """Return a number from `least`. Raises Unfit for anything else."""
    value = value.item() if isinstance(value, Tensor) else value
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value < math.inf:
        raise Unfit(f"its {name} is {value!r}; a number from {least:g} is needed")
    return float(value)


def _give_back(parts: Parts) -> Tensor:
    """Return W_enc b_dec, which ours takes off what is read and theirs doesn't, summed up in float64."""
    return torch.cat([rows.double() @ parts.b_dec.double() for rows in parts.encoder.split(4096)]).float()


HOOKS = {
    "hook_resid_post": "the residual stream leaving block {layer}",
    "hook_resid_pre": "the residual stream entering block {layer}",
    "hook_mlp_out": "what the MLP of block {layer} adds to the residual stream",
    "hook_attn_out": "what the attention of block {layer} adds to the residual stream",
}
"""What TransformerLens, and so SAELens, calls the sites that there are modules for."""

ADDED = {"block": "hook_resid_post", "mlp": "hook_mlp_out", "attention": "hook_attn_out"}
"""What it calls the output of each part of a block."""


def hook_of(hookpoint: str, modules: Collection[str] = ()) -> str | None:
    """Return what TransformerLens calls a module's output; None where it has no name for it. `modules`: the model's."""
    part = adds(hookpoint, modules)
    return part and f"blocks.{layer_of(hookpoint)}.{ADDED[part]}"


def check_hook(hook: str | None, hookpoint: str, modules: Collection[str] = ()) -> None:
    """Refuse an SAE that was trained elsewhere than at `hookpoint`; nothing where its hook isn't known or said."""
    found = re.fullmatch(r"blocks\.(\d+)\.(\S+)", hook or "")
    if found is None:
        return
    layer, kind = int(found[1]), found[2]
    if kind == "hook_resid_pre":  # what enters a block left the one before
        kind, layer = "hook_resid_post", layer - 1
    what = HOOKS.get(found[2], "which no module puts out").format(layer=found[1])
    wanted = f"blocks.{layer}.{kind}"
    if wanted != hook_of(hookpoint, modules):
        theirs = [name for name in modules if str(layer) in name.split(".") and hook_of(name, modules) == wanted]
        here = f" (here {min(theirs, key=len)})" if theirs else ""
        raise InputError(
            f"SAE for {hookpoint}: it was trained on {hook}, {what}{here}; set sae.hookpoint, sae.folder and layers to"
            " match."
        )


def _saelens(source: Mapping[str, str | Path]) -> Parts:
    """Read SAELens' own folders: standard, topk, jumprelu, gated, and batchtopk, which it saves as jumprelu."""
    config = files.read_foreign_json(source["cfg.json"])
    kind = config.get("architecture", "standard")
    about = _object(config, "metadata")
    if "transcoder" in str(kind) or about.get("hook_name_out"):
        raise InputError(f"{source['cfg.json']} is of a transcoder ({kind!r}); only autoencoders of one site are read.")
    if kind not in ("standard", "topk", "jumprelu", "gated"):
        raise InputError(
            f"{source['cfg.json']}: its architecture is {kind!r}; read are standard, topk, jumprelu and gated"
            " (batchtopk is saved as jumprelu)."
        )
    for name in ("normalize_activations", "reshape_activations", "hook_head_index", "finetuning_scaling_factor"):
        for value in (config.get(name), about.get(name)):
            if not (value is None or value is False or value == "none"):  # 0 is a value, such as a first head's
                raise InputError(f"{source['cfg.json']}: {name} is {value!r}; only SAEs without it are read.")
    activation = config.get("activation_fn", config.get("activation_fn_str", "relu"))
    if activation == "topk" and kind == "standard":  # before SAELens 6
        kind, config["k"] = "topk", _object(config, "activation_fn_kwargs").get("k")
    if activation not in ("relu", kind):
        raise InputError(f"{source['cfg.json']}: activation_fn is {activation!r}; only 'relu', or topk's own, is read.")
    of = _tensors(source[WEIGHTS])
    centred = _flag(config, "apply_b_dec_to_input", default=True)
    hook = about.get("hook_name") or config.get("hook_name")
    bias = of["b_gate"] if kind == "gated" else of["b_enc"]
    parts = Parts(of["W_enc"].T, bias, of["W_dec"], of["b_dec"], centred=centred, hook=hook)
    if kind == "gated":
        return _gated(parts, of["r_mag"], of["b_mag"])
    if kind == "jumprelu":
        parts.threshold = of["threshold"]
    if kind == "topk":
        parts.k = _count("k", config["k"])
        if _flag(config, "rescale_acts_by_decoder_norm", default=False):
            return _by_contribution(parts)
    return parts


def _by_contribution(parts: Parts) -> Parts:
    """Return an SAE whose activations are as large as what they add: the decoders' norms are moved into the encoder."""
    norms = parts.decoder.norm(dim=1).clamp_min(1e-30)
    parts.encoder, parts.bias = parts.encoder * norms[:, None], parts.bias * norms
    parts.decoder = parts.decoder / norms[:, None]
    return parts


def _tensors(path: str | Path) -> dict[str, Tensor]:
    """Return all tensors of a safetensors file, those of floating-point numbers in float32."""
    with files.open_weights(path, "SAE") as weights:
        return _in_float32({name: weights.get_tensor(name) for name in weights.keys()})  # noqa: SIM118


def _pickled(path: str | Path) -> dict[str, Tensor]:
    """Return all tensors that PyTorch saved by their names, likewise; nothing but weights is unpickled."""
    return _in_float32(torch.load(path, map_location="cpu", weights_only=True))


def _in_float32(of: Any) -> dict[str, Tensor]:
    if not isinstance(of, dict) or not all(isinstance(part, Tensor) for part in of.values()):
        raise Unfit("it doesn't hold tensors by their names")
    return {name: part.float() if part.is_floating_point() else part for name, part in of.items()}


def _gated(parts: Parts, scale: Tensor, bias: Tensor) -> Parts:
    """Return a gated SAE (Rajamanoharan et al. 2024), given with its gate as bias, as one with thresholds.

    With a = W x it is active where a + gate > 0, with activation ReLU(eˢ a + bias): so where the pre-activation
    p = eˢ a + bias is above bias - eˢ gate.
    """
    for name, tensor in {"r_mag": scale, "b_mag": bias}.items():
        check_shape(name, tensor, (len(parts.decoder),))
    gate, grown = parts.bias, scale.exp()
    parts.encoder, parts.bias = parts.encoder * grown[:, None], bias
    parts.threshold = bias - grown * gate
    return parts


def _dictionary_learning(source: Mapping[str, str | Path]) -> Parts:
    """Read dictionary_learning's `ae.pt`, weights only: AutoEncoder, AutoEncoderTopK, BatchTopKSAE, gated, JumpReLU."""
    trainer = _object(files.read_foreign_json(source["config.json"]), "trainer")
    kind = trainer.get("dict_class")
    of = _pickled(source["ae.pt"])
    if kind == "AutoEncoder":
        return Parts(of["encoder.weight"], of["encoder.bias"], of["decoder.weight"].T, of["bias"])
    if kind == "AutoEncoderTopK":
        return Parts(of["encoder.weight"], of["encoder.bias"], of["decoder.weight"].T, of["b_dec"],
                     k=_count("k", of["k"]))  # fmt: skip
    if kind == "BatchTopKSAE":
        parts = Parts(of["encoder.weight"], of["encoder.bias"], of["decoder.weight"].T, of["b_dec"])
        parts.threshold = of["threshold"]
        return parts
    if kind == "GatedAutoEncoder":
        parts = Parts(of["encoder.weight"], of["gate_bias"], of["decoder.weight"].T, of["decoder_bias"])
        return _gated(parts, of["r_mag"], of["mag_bias"])
    if kind == "JumpReluAutoEncoder":
        parts = Parts(of["W_enc"].T, of["b_enc"], of["W_dec"], of["b_dec"], centred=False)
        parts.threshold = of["threshold"]
        return parts
    raise InputError(
        f"{source['config.json']}: its dict_class is {kind!r}; read are AutoEncoder, AutoEncoderTopK, BatchTopKSAE,"
        " GatedAutoEncoder and JumpReluAutoEncoder."
    )


def _gemma_scope(source: Mapping[str, str | Path]) -> Parts:
    """Read Gemma Scope's `params.npz` (Lieberum et al. 2024): JumpReLU, b_dec not taken off."""
    (path,) = source.values()
    with np.load(path, allow_pickle=False) as arrays:
        return _gemma(_in_float32({name: torch.from_numpy(arrays[name]) for name in arrays.files}), path)


def _gemma_scope_2(source: Mapping[str, str | Path]) -> Parts:
    """Read Gemma Scope 2's `params.safetensors`, which has the same tensors."""
    (path,) = source.values()
    return _gemma({name.replace("w_", "W_"): tensor for name, tensor in _tensors(path).items()}, path)


GEMMA = re.compile(
    r"gemma-scope-[\w.]+-[pi]t-(res|mlp|att|transcoders)/"
    r"|(?:^|/)(resid_post|mlp_out|attn_out|transcoder|crosscoder|clt)(?:_all)?/(?=[^/]+/[^/]+$)"
)
"""How Gemma Scope's releases are called by what they were trained on, and the folders of Gemma Scope 2."""

GEMMA_HOOKS = {"res": "hook_resid_post", "mlp": "hook_mlp_out"}
"""What those were trained on that there are modules for, by their first three letters."""


def _gemma(of: Mapping[str, Tensor], path: str | Path) -> Parts:
    """Return an SAE of Gemma Scope's tensors. What it was trained on stands in names of its path alone, if anywhere."""
    found = ["".join(names)[:3] for names in GEMMA.findall(str(path))]
    hook = GEMMA_HOOKS.get(found[-1]) if found and "/embedding/" not in str(path) else None
    if (found and hook is None) or "affine_skip_connection" in of:
        raise InputError(
            f"{path} is of a transcoder, or of what enters an attention's last projection, which no module puts out, or"
            " of embeddings; read are SAEs of the residual stream and of what MLPs put out."
        )
    layer = re.findall(r"layer_(\d+)", str(path))
    hook = f"blocks.{layer[-1]}.{hook}" if hook and layer else None
    return Parts(
        of["W_enc"].T, of["b_enc"], of["W_dec"], of["b_dec"], threshold=of["threshold"], centred=False, hook=hook
    )


def _llama_scope(source: Mapping[str, str | Path]) -> Parts:
    """Read Llama Scope's SAEs (He et al. 2024), as OpenMOSS's library did that they were published with.

    Trained as top-k, they came with one threshold for all latents, which is in the model's own units.
    """
    config = _openmoss_config(source["hyperparams.json"])
    of = _tensors(source["checkpoints/final.safetensors"])
    scale = _openmoss_scale(config, _object(config, "dataset_average_activation_norm").get("in"))
    threshold = _number("jump_relu_threshold", config["jump_relu_threshold"], 0)
    kind = "jumprelu" if config["act_fn"] == "topk" and threshold else config["act_fn"]
    return _openmoss(config | {"act_fn": kind}, of, scale, torch.tensor([threshold]))


def _llamascopium(source: Mapping[str, str | Path]) -> Parts:
    """Read what OpenMOSS's library saves: Llama Scope R1-Distill, and SAEs of today, whose tensors have other names.

    Their thresholds are for states that are scaled.
    """
    config = _openmoss_config(source["config.json"])
    of = {name.removeprefix("activation_function."): part for name, part in _tensors(source[WEIGHTS]).items()}
    if "W_E" in of:
        renamed = {"encoder.weight": of["W_E"].T, "encoder.bias": of["b_E"], "decoder.weight": of["W_D"].T}
        of |= renamed | ({"decoder.bias": of["b_D"]} if "b_D" in of else {})
    average = of.get(f"dataset_average_activation_norm.{config['hook_point_in']}")
    scale = _openmoss_scale(config, of.get("dataset_average_activation_norm.in") if average is None else average)
    threshold = of["log_jumprelu_threshold"].exp() / scale if config["act_fn"] == "jumprelu" else None
    return _openmoss(config, of, scale, threshold)


def _openmoss_config(path: str | Path) -> dict[str, Any]:
    """Return the config of an SAE of OpenMOSS's library, checked to be an autoencoder that can be read."""
    config = files.read_foreign_json(path)
    kind = config.get("sae_type", "sae")
    if kind != "sae" or config["hook_point_in"] != config["hook_point_out"]:
        raise InputError(
            f"{path}: it reads {config['hook_point_in']!r} and writes {config['hook_point_out']!r} ({kind!r}); only"
            " autoencoders of one site are read."
        )
    if _flag(config, "use_glu_encoder", default=False):
        raise InputError(f"{path}: use_glu_encoder is true; only encoders without gates are read.")
    for name, known in (("act_fn", ["relu", "topk", "jumprelu"]), ("norm_activation", ["dataset-wise", "inference"])):
        if config[name] not in known:
            raise InputError(f"{path}: {name} is {config[name]!r}; read are {', '.join(known)}.")
    return config


def _openmoss_scale(config: Mapping[str, Any], average: Any) -> float:
    """Return by what OpenMOSS's library multiplies what an SAE reads: so that it is √d_model long on average."""
    if config["norm_activation"] != "dataset-wise":
        return 1.0
    return math.sqrt(config["d_model"]) / _number("dataset_average_activation_norm", average, 1e-30)


def _openmoss(config: Mapping[str, Any], of: Mapping[str, Tensor], scale: float, threshold: Tensor | None) -> Parts:
    """Return an SAE of OpenMOSS's as one that reads states as they are.

    Where latents compete by their contribution, their decoders' norms are in their activations. `threshold` is for
    states as they are, too.
    """
    decoder, width = of["decoder.weight"].T, _count("d_model", config["d_model"])
    has_b_dec = _flag(config, "use_decoder_bias", default=True)
    for name in ("encoder.bias", "decoder.bias")[: 1 + has_b_dec]:
        _shape(name, of[name], 1)
    b_dec = of["decoder.bias"] / scale if has_b_dec else torch.zeros(width)
    parts = Parts(of["encoder.weight"], of["encoder.bias"] / scale, decoder, b_dec, hook=config["hook_point_in"])
    check_shape("decoder", decoder, (len(decoder), width))
    parts.centred = _flag(config, "apply_decoder_bias_to_pre_encoder", default=False)
    parts.k = _count("top_k", config["top_k"]) if config["act_fn"] == "topk" else None
    parts.threshold = threshold if config["act_fn"] == "jumprelu" else None
    return _by_contribution(parts) if _flag(config, "sparsity_include_decoder_norm", default=True) else parts


def _qwen_scope(source: Mapping[str, str | Path]) -> Parts:
    """Read one of Qwen-Scope's `layer….sae.pt`, weights only: top-k, b_dec not taken off, k in the release's name."""
    (path,) = source.values()
    found = re.findall(r"L0_(\d+)", str(path))
    if len(set(found)) != 1:
        raise InputError(
            f"SAE: {path} doesn't say how many latents are active, or says it twice; Qwen-Scope says it in the name of"
            " the release (…-W32K-L0_50), so keep that as the folder's."
        )
    of = _pickled(path)
    layer = re.sub(r"\D", "", Path(path).name)
    hook = f"blocks.{layer}.hook_resid_post"
    return Parts(of["W_enc"], of["b_enc"], of["W_dec"].T, of["b_dec"], k=int(found[-1]), centred=False, hook=hook)


READERS: dict[str, Callable[[Mapping[str, str | Path]], Parts]] = {
    "saelens": _saelens,
    "dictionary_learning": _dictionary_learning,
    "gemma_scope": _gemma_scope,
    "gemma_scope_2": _gemma_scope_2,
    "llama_scope": _llama_scope,
    "llamascopium": _llamascopium,
    "qwen_scope": _qwen_scope,
}
"""How each format of config.SAE_FORMATS but sparsify's, which is ours, is read."""
