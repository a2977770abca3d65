"""SAEs as SAELens reads them: a folder a hookpoint, with `cfg.json` and `sae_weights.safetensors`.

SAELens' own loader of sparsify's folders (6.54.12) takes them for the residual stream, doesn't take b_dec off what is
read, and turns the decoder round; this form has none of that to guess.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .. import files
from ..saes import record
from ..saes.foreign import TENSORS, THRESHOLD, hook_of

VERSION = "6.54.12"
"""Of SAELens, whose form it is; from 6.0.0 on it is the same."""


def hook_name(hookpoint: str, manifest: Mapping[str, Any]) -> str:
    """Return what TransformerLens calls a module's output, or else the module's own name."""
    return hook_of(hookpoint, manifest.get("widths", ())) or hookpoint


def saelens(sae: Path, hookpoint: str, manifest: Mapping[str, Any], folder: Path) -> None:
    """Write the SAE in the folder `sae`, in our form, to `folder`. Raises InputError where its files are others."""
    from safetensors.torch import load_file, save_file

    info = files.read_json(sae / record.INFO)
    record.check(info, sae)
    weights = load_file(sae / "sae.safetensors")
    encoder, bias, decoder, b_dec = (weights[name].float() for name in TENSORS)
    state = {"W_enc": encoder.T.contiguous(), "b_enc": bias, "W_dec": decoder.contiguous(), "b_dec": b_dec}
    config: dict[str, Any] = {"architecture": "topk", "k": info["k"], "rescale_acts_by_decoder_norm": False}
    if info["k"] is None:
        config, state[THRESHOLD] = {"architecture": "jumprelu"}, weights[THRESHOLD].float()
    config |= {"d_in": info["d_in"], "d_sae": info["num_latents"], "dtype": "float32", "device": "cpu"}
    config |= {"apply_b_dec_to_input": True, "normalize_activations": "none", "reshape_activations": "none"}
    about = {"sae_lens_version": VERSION, "sae_lens_training_version": None, "model_name": manifest["name"]}
    about |= {"hook_name": hook_name(hookpoint, manifest), "hookpoint": hookpoint, "prepend_bos": False}
    config["metadata"] = about | {"trained_with": "eai-sparsify" if info["source"] == "train" else info.get("name")}
    folder.mkdir(parents=True, exist_ok=True)
    save_file(state, folder / "sae_weights.safetensors")
    files.let_read(folder / "sae_weights.safetensors")
    (folder / "cfg.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
