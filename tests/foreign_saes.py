"""What other libraries' own classes make of SAEs, run in their environment (make saes) by tests/test_formats.py.

python foreign_saes.py make FOLDER      random SAEs of each kind, saved as the library saves them, and what each
                                        makes of the same states: case/…, case/expected.safetensors
python foreign_saes.py read FOLDER X    load an SAE that we exported with SAELens; what it makes of X
"""

import importlib
import json
import sys
import types
from importlib.util import find_spec
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

D_IN, LATENTS, TOKENS = 16, 40, 64


def states() -> torch.Tensor:
    return torch.randn(TOKENS, D_IN, generator=torch.Generator().manual_seed(7))


def expected(sae, folder: Path, x: torch.Tensor) -> None:
    with torch.no_grad():
        acts = sae.encode(x)
        save_file(
            {"x": x, "acts": acts.contiguous(), "x_hat": sae.decode(acts).contiguous()}, folder / "expected.safetensors"
        )


def saelens(folder: Path) -> None:
    from sae_lens import SAE

    cases = {
        "standard": {"architecture": "standard"},
        "standard_off_centre": {"architecture": "standard", "apply_b_dec_to_input": False},
        "topk": {"architecture": "topk", "k": 5},
        "topk_rescaled": {"architecture": "topk", "k": 5, "rescale_acts_by_decoder_norm": True},
        "topk_off_centre": {"architecture": "topk", "k": 5, "apply_b_dec_to_input": False},
        "jumprelu": {"architecture": "jumprelu"},
        "jumprelu_off_centre": {"architecture": "jumprelu", "apply_b_dec_to_input": False},
        "gated": {"architecture": "gated"},
    }
    for index, (name, config) in enumerate(cases.items()):
        torch.manual_seed(index)
        whole = {"d_in": D_IN, "d_sae": LATENTS, "dtype": "float32", "device": "cpu", "apply_b_dec_to_input": True,
                 "normalize_activations": "none", "reshape_activations": "none",
                 "metadata": {"hook_name": "blocks.1.hook_mlp_out", "model_name": "tiny"}}  # fmt: skip
        sae = SAE.from_dict(whole | config)
        for weight in sae.parameters():
            weight.data = torch.randn(weight.shape) * 0.5
        if "threshold" in dict(sae.named_parameters()):
            sae.threshold.data = sae.threshold.data.abs()
        place = folder / name
        sae.save_model(str(place))
        expected(sae, place, states())


def dictionary_learning(folder: Path) -> None:
    # Their packages import all there is, an older nnsight among it; the modules of the SAEs don't.
    root = find_spec("dictionary_learning").submodule_search_locations[0]
    for package in ("dictionary_learning", "dictionary_learning.trainers"):
        module = types.ModuleType(package)
        module.__path__ = [str(Path(root, *package.split(".")[1:]))]
        sys.modules[package] = module
    plain, top_k, batch = (importlib.import_module(f"dictionary_learning.{name}")
                           for name in ("dictionary", "trainers.top_k", "trainers.batch_top_k"))  # fmt: skip
    cases = {
        "AutoEncoder": lambda: plain.AutoEncoder(D_IN, LATENTS),
        "GatedAutoEncoder": lambda: plain.GatedAutoEncoder(D_IN, LATENTS),
        "JumpReluAutoEncoder": lambda: plain.JumpReluAutoEncoder(D_IN, LATENTS),
        "AutoEncoderTopK": lambda: top_k.AutoEncoderTopK(D_IN, LATENTS, 5),
        "BatchTopKSAE": lambda: batch.BatchTopKSAE(D_IN, LATENTS, 5),
    }
    for index, (name, make) in enumerate(cases.items()):
        torch.manual_seed(100 + index)
        sae = make()
        for weight in sae.parameters():
            weight.data = torch.randn(weight.shape) * 0.5
        if name == "JumpReluAutoEncoder":
            sae.threshold.data = sae.threshold.data.abs()
        if name == "BatchTopKSAE":
            sae.threshold.fill_(0.7)
        place = folder / name
        place.mkdir(parents=True)
        torch.save(sae.state_dict(), place / "ae.pt")
        (place / "config.json").write_text(json.dumps({"trainer": {"dict_class": name, "layer": 1}}))
        expected(sae, place, states())


def main() -> None:
    folder = Path(sys.argv[2])
    if sys.argv[1] == "make":
        saelens(folder / "saelens")
        dictionary_learning(folder / "dictionary_learning")
    else:
        from sae_lens import SAE

        sae = SAE.load_from_disk(str(folder))
        assert sae.cfg.metadata.hook_name == "blocks.1.hook_mlp_out", sae.cfg.metadata.hook_name
        expected(sae, folder, load_file(sys.argv[3])["x"])


if __name__ == "__main__":
    main()
