"""What other libraries' own classes make of SAEs, run in their environment (make saes) by tests/test_formats.py.

python foreign_saes.py make FOLDER      random SAEs of each kind, saved as the library saves them or the release has
                                        them, and what each makes of the same states: …/expected.safetensors
python foreign_saes.py read FOLDER X    load an SAE that we exported with SAELens; what it makes of X
"""

import importlib
import json
import sys
import types
from importlib.util import find_spec
from pathlib import Path

import numpy as np
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


def openmoss(folder: Path) -> None:
    # As above: their package imports all there is.
    root = find_spec("llamascopium").submodule_search_locations[0]
    for package in ("llamascopium", "llamascopium.models"):
        module = types.ModuleType(package)
        module.__path__ = [str(Path(root, *package.split(".")[1:]))]
        sys.modules[package] = module
    theirs = importlib.import_module("llamascopium.models.sae")
    hook = "blocks.1.hook_mlp_out"
    cases = {
        "relu": {"act_fn": "relu", "sparsity_include_decoder_norm": False},
        "topk": {"act_fn": "topk", "top_k": 5},
        "topk_plain": {"act_fn": "topk", "top_k": 5, "sparsity_include_decoder_norm": False},
        "jumprelu": {"act_fn": "jumprelu"},
        "jumprelu_plain": {"act_fn": "jumprelu", "sparsity_include_decoder_norm": False},
        "jumprelu_unscaled": {"act_fn": "jumprelu", "norm_activation": "inference"},
        "no_decoder_bias": {"act_fn": "relu", "use_decoder_bias": False},
        "r1_distill": {"act_fn": "jumprelu", "old_names": True},
    }
    for index, (name, config) in enumerate(cases.items()):
        torch.manual_seed(200 + index)
        old_names = config.pop("old_names", False)
        whole = {"d_model": D_IN, "expansion_factor": 2.5, "hook_point_in": hook, "hook_point_out": hook,
                 "device": "cpu", "dtype": torch.float32}  # fmt: skip
        sae = theirs.SparseAutoEncoder(theirs.SAEConfig(**(whole | config)))
        for weight in sae.parameters():
            weight.data = torch.randn(weight.shape) * 0.5
        scaled = sae.cfg.norm_activation == "dataset-wise"
        if scaled:
            sae.set_dataset_average_activation_norm({hook: 6.5})
        place = folder / name
        sae.save_pretrained(place)
        sae.cfg.save_hyperparameters(place)
        if old_names:
            of = load_file(place / "sae_weights.safetensors")
            of = {"encoder.weight": of.pop("W_E").T.contiguous(), "encoder.bias": of.pop("b_E"),
                  "decoder.weight": of.pop("W_D").T.contiguous(), "decoder.bias": of.pop("b_D"),
                  "log_jumprelu_threshold": of.pop("activation_function.log_jumprelu_threshold")} | of  # fmt: skip
            save_file(of, place / "sae_weights.safetensors")
        x = states()
        with torch.no_grad():
            scale = sae.compute_norm_factor(x, hook)
            acts = sae.encode(x * scale)
            # Activations in the model's own units, as large as what each adds where latents compete by that.
            unit = sae.decoder_norm() if sae.cfg.sparsity_include_decoder_norm else 1
            save_file({"x": x, "acts": (acts * unit / scale).contiguous(), "x_hat": sae.decode(acts) / scale},
                      place / "expected.safetensors")  # fmt: skip


def releases(folder: Path) -> None:
    """SAEs laid out as Llama Scope, Gemma Scope and Qwen-Scope publish them, and what SAELens makes of them."""
    from huggingface_hub import constants
    from sae_lens import SAE
    from sae_lens.loading import pretrained_sae_loaders as loaders

    def cached(repo: str) -> Path:
        place = folder / f"models--{repo.replace('/', '--')}"
        (place / "refs").mkdir(parents=True)
        (place / "refs" / "main").write_text("0" * 40)
        return place / "snapshots" / ("0" * 40)

    def read(load, repo: str, name: str, place: Path, scale: float, **changes) -> None:
        config, weights, _ = load(repo, name, cfg_overrides={"dtype": "float32", **changes})
        sae = SAE.from_dict(loaders.handle_config_defaulting(config))
        sae.load_state_dict(weights)
        if scale != 1:
            sae.fold_activation_norm_scaling_factor(scale)
        x = states()
        with torch.no_grad():
            acts = sae.encode(x)
            save_file({"x": x, "acts": (acts / scale).contiguous(), "x_hat": sae.decode(acts)},
                      place / "expected.safetensors")  # fmt: skip

    constants.HF_HUB_CACHE = str(folder)
    torch.manual_seed(300)
    weights = {"encoder.weight": (LATENTS, D_IN), "encoder.bias": (LATENTS,), "decoder.weight": (D_IN, LATENTS),
               "decoder.bias": (D_IN,)}  # fmt: skip
    of = {name: torch.randn(shape) * 0.5 for name, shape in weights.items()}
    of["decoder.weight"] /= of["decoder.weight"].norm(dim=0)  # as published
    hyperparams = {"hook_point_in": "blocks.1.hook_mlp_out", "hook_point_out": "blocks.1.hook_mlp_out",
                   "d_model": D_IN, "d_sae": LATENTS, "act_fn": "jumprelu", "jump_relu_threshold": 0.40625, "top_k": 5,
                   "norm_activation": "dataset-wise", "dataset_average_activation_norm": {"in": 2.5, "out": 2.5},
                   "use_decoder_bias": True, "apply_decoder_bias_to_pre_encoder": False,
                   "sparsity_include_decoder_norm": True, "use_glu_encoder": False}  # fmt: skip
    repo, name = "fnlp/Llama3_1-8B-Base-LXM-8x", "Llama3_1-8B-Base-L1M-8x"
    place = cached(repo) / name
    (place / "checkpoints").mkdir(parents=True)
    save_file(of, place / "checkpoints" / "final.safetensors")
    (place / "hyperparams.json").write_text(json.dumps(hyperparams))
    read(loaders.llama_scope_sae_huggingface_loader, repo, name, place, D_IN**0.5 / 2.5)

    shapes = {"W_enc": (D_IN, LATENTS), "W_dec": (LATENTS, D_IN), "b_enc": (LATENTS,), "b_dec": (D_IN,)}
    of = {name: torch.randn(shape) * 0.5 for name, shape in shapes.items()} | {"threshold": torch.rand(LATENTS)}
    repo, name = "google/gemma-scope-2b-pt-mlp", "layer_1/width_16k/average_l0_10"
    place = cached(repo) / name
    place.mkdir(parents=True)
    np.savez(place / "params.npz", **{name: tensor.numpy() for name, tensor in of.items()})
    read(loaders.gemma_2_sae_huggingface_loader, repo, name, place, 1, d_in=D_IN, d_sae=LATENTS,
         normalize_activations="none")  # fmt: skip

    repo, name = "google/gemma-scope-2-1b-pt", "resid_post_all/layer_1_width_16k_l0_big"
    place = cached(repo) / name
    place.mkdir(parents=True)
    save_file({name.lower(): tensor for name, tensor in of.items()}, place / "params.safetensors")
    (place / "config.json").write_text('{"architecture": "jump_relu", "model_name": "gemma-v3-1b-pt"}')
    loaders.get_safetensors_tensor_shapes = lambda *_: {"w_enc": [D_IN, LATENTS]}  # which asks the hub for a header
    read(loaders.gemma_3_sae_huggingface_loader, repo, name, place, 1)

    repo = "Qwen/SAE-Res-Qwen3-1.7B-Base-W32K-L0_5"
    place = cached(repo)
    place.mkdir(parents=True)
    shapes = {"W_enc": (LATENTS, D_IN), "W_dec": (D_IN, LATENTS), "b_enc": (LATENTS,), "b_dec": (D_IN,)}
    torch.save({name: torch.randn(shape) * 0.5 for name, shape in shapes.items()}, place / "layer1.sae.pt")
    read(loaders.qwen_scope_sae_huggingface_loader, repo, "layer1.sae.pt", place, 1, d_in=D_IN, d_sae=LATENTS)


def main() -> None:
    folder = Path(sys.argv[2])
    if sys.argv[1] == "make":
        openmoss(folder / "llamascopium")
        releases(folder / "releases")
        saelens(folder / "saelens")
        dictionary_learning(folder / "dictionary_learning")
    else:
        from sae_lens import SAE

        sae = SAE.load_from_disk(str(folder))
        assert sae.cfg.metadata.hook_name == "blocks.1.hook_mlp_out", sae.cfg.metadata.hook_name
        expected(sae, folder, load_file(sys.argv[3])["x"])


if __name__ == "__main__":
    main()
