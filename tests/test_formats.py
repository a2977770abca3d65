"""SAEs of other libraries: what comes in does what their own classes do, and what goes out does what it did here."""

import gzip
import json
import logging
import os
import re
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
import yaml
from conftest import REPO, new_study
from safetensors.torch import load_file, save_file

from thoughtscope import api, files
from thoughtscope.config import files_of_sae, sae_places
from thoughtscope.errors import InputError
from thoughtscope.exports.neuronpedia import neuronpedia
from thoughtscope.exports.saelens import saelens
from thoughtscope.saes import foreign, formats
from thoughtscope.saes.coder import Thresholded

THEIRS = REPO / ".venv-saes" / "bin" / "python"
LOG = logging.getLogger("test")
needs_theirs = pytest.mark.skipif(not THEIRS.exists(), reason="needs SAELens and dictionary_learning: make saes")

CASES = {
    "saelens": ["standard", "standard_off_centre", "topk", "topk_rescaled", "topk_off_centre", "jumprelu",
                "jumprelu_off_centre", "gated"],
    "dictionary_learning": ["AutoEncoder", "GatedAutoEncoder", "JumpReluAutoEncoder", "AutoEncoderTopK",
                            "BatchTopKSAE"],
    "llamascopium": ["relu", "topk", "topk_plain", "jumprelu", "jumprelu_plain", "jumprelu_unscaled",
                     "no_decoder_bias", "r1_distill"],
    "llama_scope": ["Llama3_1-8B-Base-L1M-8x"],
    "qwen_scope": ["SAE-Res-Qwen3-1.7B-Base-W32K-L0_5"],
    "gemma_scope": ["layer_1/width_16k/average_l0_10"],
    "gemma_scope_2": ["resid_post_all/layer_1_width_16k_l0_big"],
}  # fmt: skip
SITES = {"qwen_scope": "layers.1", "gemma_scope_2": "layers.1"}


def theirs(*arguments):
    done = subprocess.run(
        [str(THEIRS), str(REPO / "tests" / "foreign_saes.py"), *map(str, arguments)], capture_output=True, text=True,
        check=False, env=os.environ | {"HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """An SAE of each kind, made and saved by their own classes, or laid out as a release and read by theirs."""
    folder = tmp_path_factory.mktemp("foreign")
    theirs("make", folder)
    for form, release in (("llama_scope", "fnlp--*"), ("gemma_scope", "google--gemma-scope-2b*"),
                          ("gemma_scope_2", "google--gemma-scope-2-*")):  # fmt: skip
        (folder / form).symlink_to(next(folder.glob(f"releases/models--{release}/snapshots/*")))
    (folder / "qwen_scope").mkdir()
    (folder / "qwen_scope" / CASES["qwen_scope"][0]).symlink_to(next(folder.glob("releases/*--Qwen--*/snapshots/*")))
    return folder


def read(form, place, folder, hookpoint="layers.1.mlp"):
    source = {name: place / file for name, file in files_of_sae({"format": form, "folder": "."}, hookpoint).items()}
    foreign.convert(source, form, hookpoint, folder)
    formats.check_weights(folder, formats.read_config(folder), "SAE")
    return formats.load(folder, torch.device("cpu"))


@needs_theirs
@pytest.mark.parametrize(("form", "case"), [(form, case) for form, cases in CASES.items() for case in cases])
def test_an_sae_does_what_it_does_at_home(made, tmp_path, form, case):
    sae = read(form, made / form / case, tmp_path / "sae", SITES.get(form, "layers.1.mlp"))
    place = made / form / case
    of = load_file(place / "expected.safetensors")
    codes = sae.encode(of["x"])
    dense = torch.zeros(len(of["x"]), sae.latents).scatter(-1, codes.latents, codes.activations)
    assert (of["acts"] > 0).any()
    if codes.activations.shape[1] > 1:
        assert codes.activations.diff(dim=-1).max() <= 0  # the largest first
    if case == "topk_rescaled" or (form == "llamascopium" and case in ("topk", "jumprelu", "r1_distill")):
        # theirs are in units of the decoder's norm, and so are ours
        assert torch.allclose(sae.direction(torch.arange(sae.latents)).norm(dim=-1), torch.ones(sae.latents), atol=1e-5)
    assert torch.allclose(dense, of["acts"], rtol=1e-5, atol=2e-6)
    assert torch.allclose(sae.decode(codes), of["x_hat"], rtol=1e-5, atol=2e-5)


def test_gemma_scope_s_names_say_what_it_was_trained_on(tmp_path):
    shapes = {"W_enc": (4, 8), "W_dec": (8, 4), "b_enc": (8,), "b_dec": (4,), "threshold": (8,)}
    for place, hookpoint, says in (
        ("models--google--gemma-scope-2b-pt-mlp/snapshots/0/layer_1/width_16k/average_l0_71", "layers.1.mlp", None),
        ("models--google--gemma-scope-9b-it-res/snapshots/0/layer_1/width_16k/average_l0_71", "layers.1", None),
        ("models--google--gemma-scope-2b-pt-res/snapshots/0/layer_1/width_16k/average_l0_71", "layers.1.mlp", "resid"),
        ("models--google--gemma-scope-2b-pt-att/snapshots/0/layer_1/width_16k/average_l0_71", "layers.1", "no module"),
        ("models--google--gemma-scope-2b-pt-transcoders/snapshots/0/layer_1/a", "layers.1", "of a transcoder"),
        ("mine/resid_post/layer_1_width_16k_l0_big", "layers.2", "it was trained on blocks.1.hook_resid_post"),
        ("mine/mlp_out_all/layer_1_width_16k_l0_big", "layers.1.mlp", None),
        ("mine/transcoder_all/layer_1_width_16k_l0_big_affine", "layers.1.mlp", "of a transcoder"),
        ("mine/attn_out/layer_1_width_16k_l0_big", "layers.1.mlp", "no module"),
        ("mine/crosscoder/layer_1_width_16k_l0_big", "layers.1.mlp", "of a transcoder"),
        ("models--google--gemma-scope-2b-pt-res/snapshots/0/embedding/width_4k/l0_6", "layers.1", "of embeddings"),
        ("transcoder/mine/layer_1", "layers.1.mlp", None),
        ("training/results/mlp/layer_1", "layers.7", None),
    ):
        (tmp_path / place).mkdir(parents=True)
        arrays = {name: np.ones(shape, np.float32) for name, shape in shapes.items()}
        np.savez(tmp_path / place / "params.npz", **arrays)
        if says is None:
            sae = read("gemma_scope", tmp_path / place, tmp_path / "sae", hookpoint)
            assert sae.encode(torch.zeros(0, 4)).activations.shape == (0, 1)
        else:
            with pytest.raises(InputError, match=says):
                read("gemma_scope", tmp_path / place, tmp_path / "sae", hookpoint)


def saved_topk(folder, **changes):
    """A top-k SAE in SAELens' form, without SAELens."""
    chance = torch.Generator().manual_seed(1)
    weights = {"W_enc": (32, 48), "b_enc": (48,), "W_dec": (48, 32), "b_dec": (32,)}
    folder.mkdir(parents=True)
    save_file({name: torch.randn(shape, generator=chance) for name, shape in weights.items()},
              folder / "sae_weights.safetensors")  # fmt: skip
    config = {"architecture": "topk", "k": 4, "d_in": 32, "d_sae": 48, "apply_b_dec_to_input": True,
              "normalize_activations": "none", "metadata": {"hook_name": "blocks.1.hook_mlp_out"}}  # fmt: skip
    (folder / "cfg.json").write_text(json.dumps(config | changes))
    return folder


@pytest.mark.parametrize(
    ("changes", "hookpoint", "says"),
    [
        ({"architecture": "transcoder"}, "layers.1.mlp", "of a transcoder"),
        ({"architecture": "temporal"}, "layers.1.mlp", "its architecture is 'temporal'; read are standard, topk"),
        ({"normalize_activations": "layer_norm"}, "layers.1.mlp", "normalize_activations is 'layer_norm'; only SAEs"),
        ({"reshape_activations": "hook_z"}, "layers.1.mlp", "reshape_activations is 'hook_z'"),
        ({}, "layers.2.mlp", "it was trained on blocks.1.hook_mlp_out, what the MLP of block 1 adds"),
        ({}, "layers.1", "SAE for layers.1: it was trained on blocks.1.hook_mlp_out"),
        ({}, "layers.1.self_attn", "it was trained on blocks.1.hook_mlp_out"),
        ({"metadata": {"hook_name": "blocks.2.hook_resid_pre"}}, "layers.2", "entering block 2"),
        ({"k": 49}, "layers.1.mlp", "cfg.json says k 49 of 48 latents"),
        ({"hook_head_index": 3}, "layers.1.mlp", "hook_head_index is 3; only SAEs without it"),
        ({"hook_head_index": None, "metadata": {"hook_head_index": 3}}, "layers.1.mlp", "hook_head_index is 3"),
        ({"hook_head_index": None, "metadata": {"hook_head_index": 0}}, "layers.1.mlp", "hook_head_index is 0"),
        ({"architecture": "jumprelu", "activation_fn": "topk"}, "layers.1.mlp", "activation_fn is 'topk'; only 'relu'"),
        ({"finetuning_scaling_factor": True}, "layers.1.mlp", "finetuning_scaling_factor is True"),
        ({"metadata": {"hook_name": 1.5}}, "layers.1.mlp", "its hook is 1.5; a name is needed"),
    ],
)
def test_what_is_no_autoencoder_of_the_site_is_refused(tmp_path, changes, hookpoint, says):
    with pytest.raises(InputError, match=says):
        read("saelens", saved_topk(tmp_path / "a", **changes), tmp_path / "sae", hookpoint)


@pytest.mark.parametrize("shape", [(7,), (1, 8), (2, 4)], ids=str)
def test_thresholds_go_with_the_latents(tmp_path, shape):
    shapes = {"W_enc": (4, 8), "W_dec": (8, 4), "b_enc": (8,), "b_dec": (4,), "threshold": shape}
    np.savez(tmp_path / "params.npz", **{name: np.ones(shape, np.float32) for name, shape in shapes.items()})
    with pytest.raises(InputError, match="its threshold has shape"):
        read("gemma_scope", tmp_path, tmp_path / "sae")


def test_where_no_latent_is_active_b_dec_is_left(tmp_path):
    shapes = {"W_enc": (4, 8), "W_dec": (8, 4), "b_enc": (8,), "b_dec": (4,), "threshold": (8,)}
    arrays = {name: np.ones(shape, np.float32) for name, shape in shapes.items()}
    np.savez(tmp_path / "params.npz", **(arrays | {"threshold": np.full(8, 1e9, np.float32)}))
    sae = read("gemma_scope", tmp_path, tmp_path / "sae")
    codes = sae.encode(torch.randn(5, 4))
    assert not codes.activations.any()
    assert torch.equal(sae.decode(codes), torch.ones(5, 4))


def test_top_k_as_saelens_wrote_it_before_6(tmp_path):
    old = {"architecture": "standard", "activation_fn_str": "topk", "activation_fn_kwargs": {"k": 3}, "k": None}
    assert read("saelens", saved_topk(tmp_path / "a", **old), tmp_path / "sae").k == 3


def test_weights_that_are_tied_are_written_twice(tmp_path):
    place = tmp_path / "W32K-L0_3"
    place.mkdir()
    encoder = torch.randn(8, 4)
    torch.save({"W_enc": encoder, "W_dec": encoder.T, "b_enc": torch.ones(8), "b_dec": torch.ones(4)},
               place / "layer1.sae.pt")  # fmt: skip
    sae = read("qwen_scope", place, tmp_path / "sae", "layers.1")
    assert torch.equal(sae.encoder, sae.decoder)


def test_b_dec_is_missing_only_where_there_is_to_be_none(release, tmp_path):
    weights = load_file(release / "checkpoints" / "final.safetensors")
    del weights["decoder.bias"]
    save_file(weights, release / "checkpoints" / "final.safetensors")
    (release / "hyperparams.json").write_text(json.dumps(LLAMA_SCOPE))
    with pytest.raises(InputError, match=r"it has no 'decoder\.bias'"):
        read("llama_scope", release, tmp_path / "sae")
    (release / "hyperparams.json").write_text(json.dumps(LLAMA_SCOPE | {"use_decoder_bias": False}))
    read("llama_scope", release, tmp_path / "sae")


@pytest.mark.parametrize("at", range(40, 2000, 140))
def test_a_file_damaged_anywhere_is_read_or_refused(tmp_path, at):
    """What its formats check of themselves is found; nothing is a traceback."""
    chance = np.random.default_rng(at)
    shapes = {"W_enc": (4, 8), "W_dec": (8, 4), "b_enc": (8,), "b_dec": (4,), "threshold": (8,)}
    np.savez_compressed(tmp_path / "params.npz", **{name: chance.normal(size=shape) for name, shape in shapes.items()})
    damaged = bytearray((tmp_path / "params.npz").read_bytes())
    damaged[at % len(damaged)] ^= 0xFF
    (tmp_path / "params.npz").write_bytes(damaged)
    try:
        read("gemma_scope", tmp_path, tmp_path / "sae")
    except InputError as error:
        assert "\n" not in str(error)


LLAMA_SCOPE = {"hook_point_in": "blocks.1.hook_mlp_out", "hook_point_out": "blocks.1.hook_mlp_out", "d_model": 4,
               "act_fn": "topk", "top_k": 2, "jump_relu_threshold": 0.5, "norm_activation": "dataset-wise",
               "dataset_average_activation_norm": {"in": 2.0, "out": 2.0}}  # fmt: skip


@pytest.fixture
def release(tmp_path):
    """An SAE as Llama Scope has them, without its classes."""
    folder = tmp_path / "a"
    (folder / "checkpoints").mkdir(parents=True)
    shapes = {"encoder.weight": (8, 4), "encoder.bias": (8,), "decoder.weight": (4, 8), "decoder.bias": (4,)}
    save_file({name: torch.ones(shape) for name, shape in shapes.items()}, folder / "checkpoints" / "final.safetensors")
    return folder


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"hook_point_out": "blocks.1.hook_resid_post"}, "reads 'blocks.1.hook_mlp_out' and writes 'blocks.1"),
        ({"use_glu_encoder": True}, "use_glu_encoder is true"),
        ({"act_fn": "batchtopk"}, "act_fn is 'batchtopk'; read are relu, topk, jumprelu"),
        ({"norm_activation": "token-wise"}, "norm_activation is 'token-wise'; read are"),
        ({"dataset_average_activation_norm": None}, "can't be read as llama_scope"),
        ({"dataset_average_activation_norm": {"in": 0.0}}, "norm is 0.0; a number from 1e-30 is needed"),
        ({"dataset_average_activation_norm": {"in": -2.0}}, "norm is -2.0; a number from"),
        ({"d_model": 5}, "its decoder has shape (8, 4); (8, 5) goes with"),
        ({"jump_relu_threshold": float("nan")}, "its jump_relu_threshold is nan"),
        ({"hook_point_in": "blocks.3.hook_mlp_out", "hook_point_out": "blocks.3.hook_mlp_out"}, "it was trained on"),
    ],
)
def test_releases_that_are_no_autoencoders_of_the_site_are_refused(release, tmp_path, changes, says):
    (release / "hyperparams.json").write_text(json.dumps(LLAMA_SCOPE))
    assert isinstance(read("llama_scope", release, tmp_path / "sae"), Thresholded)  # top-k no more, as published
    (release / "hyperparams.json").write_text(json.dumps(LLAMA_SCOPE | changes))
    with pytest.raises(InputError, match=re.escape(says)):
        read("llama_scope", release, tmp_path / "sae")


def test_qwen_scope_says_k_in_its_name(tmp_path):
    place = tmp_path / "SAE-Res-Qwen3-1.7B-Base-W32K-L0_3"
    place.mkdir()
    shapes = {"W_enc": (8, 4), "W_dec": (4, 8), "b_enc": (8,), "b_dec": (4,)}
    torch.save({name: torch.ones(shape) for name, shape in shapes.items()}, place / "layer12.sae.pt")
    assert read("qwen_scope", place, tmp_path / "sae", "layers.12").k == 3
    with pytest.raises(InputError, match="it was trained on"):
        read("qwen_scope", place, tmp_path / "sae", "layers.12.mlp")
    place.rename(tmp_path / "mine")
    with pytest.raises(InputError, match="doesn't say how many latents are active"):
        read("qwen_scope", tmp_path / "mine", tmp_path / "sae", "layers.12")


def test_where_there_are_saes_of_a_format():
    listing = ["README.md", "a/b/hyperparams.json", "c/hyperparams.json", "layer3.sae.pt", "x/layer11.sae.pt",
               "layers.1.mlp/cfg.json", "cfg.json", "layer3.sae.pt.md"]  # fmt: skip
    assert sae_places(listing, "llama_scope") == ["a/b", "c"]
    assert sae_places(listing, "qwen_scope") == ["layer3.sae.pt", "x/layer11.sae.pt"]
    assert sae_places(listing, "sparsify") == [".", "layers.1.mlp"]


@needs_theirs
@pytest.mark.parametrize(
    ("name", "folder", "hookpoint"),
    [
        ("Qwen/SAE-Res-Qwen3-1.7B-Base-W32K-L0_5", ".", "layers.1"),
        ("fnlp/Llama3_1-8B-Base-LXM-8x", "Llama3_1-8B-Base-L{layer}M-8x", "layers.1.mlp"),
    ],
)
def test_releases_come_from_the_hub_s_cache(made, tmp_path, monkeypatch, name, folder, hookpoint):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(made / "releases"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    source = {"source": "hub", "name": name, "revision": None, "folder": folder,
              "format": "qwen_scope" if "Qwen" in name else "llama_scope"}  # fmt: skip
    manifest = {"name": "tiny", "widths": {hookpoint: 16}}
    formats.fetch(source, hookpoint, manifest, tmp_path / "sae", LOG)
    info = files.read_json(tmp_path / "sae" / "info.json")
    assert (info["revision"], info["d_in"], info["num_latents"]) == ("0" * 40, 16, 40)


def test_hooks_are_matched_to_modules(tmp_path):
    for hook, hookpoint in (("blocks.1.hook_resid_post", "layers.1"), ("blocks.2.hook_resid_pre", "layers.1"),
                            ("blocks.1.hook_attn_out", "layers.1.self_attn"), ("blocks.1.hook_mlp_out", "h.1.mlp"),
                            ("model.layers.1.anything", "layers.1.mlp"), (None, "layers.1.mlp")):  # fmt: skip
        foreign.check_hook(hook, hookpoint)
    for hookpoint in ("layers.1", "layers.1.self_attn", "h.1.mlp"):
        foreign.check_hook(foreign.hook_of(hookpoint), hookpoint)
    for hook, hookpoint in (("blocks.1.hook_resid_mid", "layers.1.mlp"), ("blocks.1.attn.hook_z", "layers.1.self_attn"),
                            ("blocks.1.hook_mlp_out", "layers.1.input_layernorm"),
                            ("blocks.1.hook_attn_out", "layers.1.self_attn.q_proj")):  # fmt: skip
        with pytest.raises(InputError, match=f"it was trained on {hook}"):
            foreign.check_hook(hook, hookpoint)


def test_where_norms_follow_what_is_added_is_theirs():
    """TransformerLens' hooks lie behind the norms that Gemma 2 and 3 have after MLP and attention."""
    names = ("mlp", "self_attn", "post_attention_layernorm", "post_feedforward_layernorm")
    modules = [f"layers.1.{name}" for name in names]
    for hook, hookpoint in zip(("hook_attn_out", "hook_mlp_out"), names[2:], strict=True):
        foreign.check_hook(f"blocks.1.{hook}", f"layers.1.{hookpoint}", modules)
    for hook, hookpoint in (("hook_mlp_out", "mlp"), ("hook_attn_out", "self_attn")):
        with pytest.raises(InputError, match=r"it was trained on .* \(here layers\.1\.post_"):
            foreign.check_hook(f"blocks.1.{hook}", f"layers.1.{hookpoint}", modules)
    assert foreign.hook_of("layers.1.post_attention_layernorm") is None


@pytest.mark.parametrize("damage", [b"", b"not numpy at all", b"PK\x03\x04 half"])
def test_damaged_files_are_refused_in_a_line(tmp_path, damage):
    (tmp_path / "params.npz").write_bytes(damage)
    (tmp_path / "ae.pt").write_bytes(damage)
    (tmp_path / "config.json").write_text('{"trainer": {"dict_class": "AutoEncoder"}}')
    for form in ("gemma_scope", "dictionary_learning"):
        with pytest.raises(InputError, match=f"can't be read as {form}") as error:
            read(form, tmp_path, tmp_path / "sae")
        assert "\n" not in str(error.value)
    assert not (tmp_path / "sae" / "sae.safetensors").exists()


@pytest.mark.parametrize(
    "change",
    [
        {"metadata": None, "k": None},
        {"metadata": [1]},
        {"architecture": 3},
        {"k": "many"},
        {"k": 2.5},
        {"k": True},
        {"apply_b_dec_to_input": "false"},
        {"weights": {"b_enc": torch.zeros(1)}},
        {"weights": {"b_dec": torch.zeros(32, dtype=torch.int32)}},
        {"apply_b_dec_to_input": False, "weights": {"W_enc": torch.zeros(48, 31)}},
        {"weights": {"W_dec": torch.zeros(())}},
        {"rescale_acts_by_decoder_norm": True, "weights": {"W_dec": torch.zeros(7, 32)}},
    ],
    ids=str,
)
def test_malformed_saes_are_refused_in_a_line(tmp_path, change):
    change = dict(change)
    weights = change.pop("weights", {})
    place = saved_topk(tmp_path / "a", **change)
    save_file(load_file(place / "sae_weights.safetensors") | weights, place / "sae_weights.safetensors")
    with pytest.raises(InputError) as error:
        read("saelens", place, tmp_path / "sae")
    assert "\n" not in str(error.value)


class Evil:
    def __reduce__(self):
        return (print, ("run",))


def test_pickled_code_is_not_run(tmp_path, capsys):
    torch.save({"encoder.weight": Evil()}, tmp_path / "ae.pt")
    (tmp_path / "config.json").write_text('{"trainer": {"dict_class": "AutoEncoder"}}')
    with pytest.raises(InputError, match="can't be read as dictionary_learning"):
        read("dictionary_learning", tmp_path, tmp_path / "sae")
    assert capsys.readouterr().out == ""


@pytest.fixture(scope="module")
def study(tiny_model, tmp_path_factory):
    """A study whose SAE has thresholds, in SAELens' form, in a folder of its own name."""
    root = tmp_path_factory.mktemp("formats")
    place = saved_topk(root / "study" / "saes" / "blocks.1.hook_mlp_out", architecture="jumprelu", k=None)
    weights = load_file(place / "sae_weights.safetensors")
    save_file(weights | {"threshold": torch.full((48,), 1.5), "W_enc": weights["W_enc"] * 0.3},
              place / "sae_weights.safetensors")  # fmt: skip
    sae = {"source": "path", "path": "saes", "format": "saelens", "folder": "blocks.{layer}.hook_mlp_out"}
    study = new_study(root / "study", tiny_model).edit(sae=sae)
    study.run()
    return study


def test_a_study_with_an_sae_of_another_format(study):
    """Its activations are the formula's, on states read by hand; every token has as many latents as are above."""
    folder = study.results / "saes" / "trained" / "layers.1.mlp"
    info = files.read_json(folder / "info.json")
    assert (info["format"], info["k"], info["num_latents"]) == ("saelens", None, 48)
    activations = files.read_parquet(list((study.results / "readings").rglob("activations.parquet")))
    assert activations["activation"].min() > 1.5
    counts = activations.group_by("condition", "trace_id", "position").len()["len"]
    assert counts.n_unique() > 1
    page = (study.results / "report.html").read_text()
    assert "those active that are above a threshold" in page
    assert "k = None" not in page
    refused = study.edit(twins=["random_sae"]).snakemake()
    assert "random_sae needs an SAE with a fixed number of active latents" in refused.output


@pytest.fixture(scope="module")
def exported(study):
    """The study with all of its exports; beside its results lie those of an earlier config."""
    old = study.results / "tables" / "trained" / "layers.1.mlp"
    shutil.copytree(old, old.with_name("layers.2.mlp"))
    shutil.copytree(study.results / "readings" / "trained" / "layers.1.mlp",
                    study.results / "readings" / "trained" / "layers.2.mlp")  # fmt: skip
    shutil.copy(old / "recurrence.parquet", old / "effects.parquet")  # of interventions, which there are none of now
    shutil.copytree(study.results / "traces" / "reason", study.results / "traces" / "old")
    plots = study.results / "plots"
    shutil.copy(plots / "layers.png", plots / "twins.png")
    shutil.copy(plots / "layers.png", plots / "trained" / "layers.1.mlp" / "effects.png")
    shutil.copy(plots / "layers.png", plots / "My picture.png")  # a reader's own
    study.run("export_saelens", "export_dataset", "export_neuronpedia", "export_rocrate")
    return study


@needs_theirs
def test_an_export_does_with_saelens_what_it_did_here(exported, tmp_path):
    study = exported
    folder = study.results / "exports" / "saelens" / "layers.1.mlp"
    check_export(study.results / "saes" / "trained" / "layers.1.mlp", folder, tmp_path)


@needs_theirs
def test_a_top_k_sae_goes_out_and_comes_back(tmp_path):
    read("saelens", saved_topk(tmp_path / "a"), tmp_path / "layers.1.mlp")
    info = {"source": "path", "name": "x", "d_in": 32, "num_latents": 48, "k": 4}
    info |= {"files": {name: files.sha256(tmp_path / "layers.1.mlp" / name) for name in formats.SAE_FILES}}
    files.write_json(info, tmp_path / "layers.1.mlp" / "info.json")
    saelens(tmp_path / "layers.1.mlp", "layers.1.mlp", {"name": "tiny"}, tmp_path / "out")
    check_export(tmp_path / "layers.1.mlp", tmp_path / "out", tmp_path)
    back = read("saelens", tmp_path / "out", tmp_path / "back")
    assert torch.equal(back.encoder, formats.load(tmp_path / "layers.1.mlp", torch.device("cpu")).encoder)


def check_export(ours, exported, tmp_path):
    x = 2 * torch.randn(40, 32, generator=torch.Generator().manual_seed(3))
    save_file({"x": x}, tmp_path / "x.safetensors")
    theirs("read", exported, tmp_path / "x.safetensors")
    of, sae = load_file(exported / "expected.safetensors"), formats.load(ours, torch.device("cpu"))
    codes = sae.encode(x)
    dense = torch.zeros(40, 48).scatter(-1, codes.latents, codes.activations)
    assert torch.allclose(dense, of["acts"], rtol=1e-5, atol=1e-5)
    assert torch.allclose(sae.decode(codes), of["x_hat"], rtol=1e-5, atol=1e-4)


def test_tables_go_out_as_a_dataset(exported, monkeypatch):
    from datasets import load_dataset

    study = exported
    folder = study.results / "exports" / "dataset"
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    names = [path.stem for path in sorted(folder.glob("*.parquet"))]
    assert {"traces", "problems", "recurrence", "top_tokens"} <= set(names)
    for name in names:
        rows = load_dataset(str(folder), name, split="train", cache_dir=str(study.folder / "cache"))
        ours = pl.read_parquet(folder / f"{name}.parquet")
        assert (len(rows), rows.column_names) == (len(ours), ours.columns)
        assert rows[0] == ours.row(0, named=True)
    assert pl.read_parquet(folder / "recurrence.parquet")["site"].unique().to_list() == ["layers.1.mlp"]
    assert "effects" not in names
    conditions = pl.read_parquet(folder / "traces.parquet")["condition"].unique().to_list()
    assert sorted(conditions) == sorted(study.config["conditions"])
    assert "- `recurrence`: " in (folder / "README.md").read_text()


# The fields of Neuronpedia's database models (neuronpedia-utils, db_models), those without a default first.
MODELS = {
    "features": (
        {"modelId": str, "layer": str, "index": str},
        {"creatorId": str, "createdAt": str, "maxActApprox": float, "hasVector": bool, "vector": list,
         "vectorLabel": str, "vectorDefaultSteerStrength": float, "hookName": str, "topkCosSimIndices": list,
         "topkCosSimValues": list, "neuron_alignment_indices": list, "neuron_alignment_values": list,
         "neuron_alignment_l1": list, "correlated_neurons_indices": list, "correlated_neurons_pearson": list,
         "correlated_neurons_l1": list, "correlated_features_indices": list, "correlated_features_pearson": list,
         "correlated_features_l1": list, "neg_str": list, "neg_values": list, "pos_str": list, "pos_values": list,
         "frac_nonzero": float, "freq_hist_data_bar_heights": list, "freq_hist_data_bar_values": list,
         "logits_hist_data_bar_heights": list, "logits_hist_data_bar_values": list, "decoder_weights_dist": list},
    ),
    "activations": (
        {"id": str, "tokens": list, "index": str, "layer": str, "modelId": str, "maxValue": float,
         "maxValueTokenIndex": int, "minValue": float, "values": list, "creatorId": str},
        {"dataSource": str, "dataIndex": str, "dfaValues": list, "dfaTargetIndex": int, "dfaMaxValue": float,
         "createdAt": str, "lossValues": list, "logitContributions": str, "binMin": float, "binMax": float,
         "binContains": float, "qualifyingTokenIndex": int},
    ),
    "explanations": (
        {"id": str, "modelId": str, "layer": str, "index": str, "description": str, "authorId": str},
        {"embedding": list, "triggeredById": str, "typeName": str, "explanationModelName": str, "notes": str,
         "createdAt": str},
    ),
    "release": (
        {"name": str, "description": str, "creatorName": str, "creatorId": str},
        {"visibility": str, "descriptionShort": str, "urls": list, "creatorNameShort": str, "createdAt": str},
    ),
    "model": (
        {"id": str, "instruct": bool, "creatorId": str},
        {"displayNameShort": str, "displayName": str, "dimension": int, "layers": int, "createdAt": str,
         "updatedAt": str},
    ),
    "sourceset": (
        {"modelId": str, "name": str, "creatorId": str},
        {"visibility": str, "description": str, "creatorName": str, "releaseName": str, "createdAt": str},
    ),
    "source": (
        {"id": str, "modelId": str, "setName": str, "creatorId": str},
        {"visibility": str, "num_prompts": int, "dataset": str, "notes": str, "createdAt": str},
    ),
}  # fmt: skip


def lines_of(folder: Path, name: str) -> list[dict]:
    """Read a file of an export, and see that each line is what Neuronpedia's model of it takes."""
    path = folder / f"{name}.jsonl"
    packed = folder / name / "batch-0.jsonl.gz"
    text = path.read_text() if path.exists() else gzip.decompress(packed.read_bytes()).decode()
    rows = [json.loads(line) for line in text.splitlines()]
    needed, optional = MODELS[name]
    for row in rows:
        assert set(needed) <= set(row) <= set(needed) | set(optional)
        for key, value in row.items():
            kind = {**needed, **optional}[key]
            assert isinstance(value, (int, float) if kind is float else kind) or (value is None and key in optional)
    return rows


def test_leading_latents_go_out_to_neuronpedia(exported):
    study = exported
    (model,) = (each for each in (study.results / "exports" / "neuronpedia").iterdir() if each.is_dir())
    folder = model / "1-tiny"
    tables = study.results / "tables" / "trained" / "layers.1.mlp"
    features, passages, rules = (lines_of(folder, name) for name in ("features", "activations", "explanations"))
    for name in ("release", "model", "sourceset", "source"):
        (row,) = lines_of(folder, name)
        assert row.get("modelId", model.name) == model.name
    histograms = pl.read_parquet(tables / "latent_histograms.parquet").filter(condition="reason")
    assert [int(row["index"]) for row in features] == histograms["latent"].to_list()
    counts = histograms.select(pl.col("tokens_active") / pl.col("tokens")).to_series()
    assert [row["frac_nonzero"] for row in features] == pytest.approx(counts.to_list())
    ours = pl.read_parquet(tables / "passages.parquet")
    assert len(passages) == len(ours) > 0
    texts = dict(pl.read_parquet(study.results / "vocabulary.parquet").select("token_id", "text").iter_rows())
    for row, passage in zip(passages, ours.iter_rows(named=True), strict=True):
        assert row["values"][row["qualifyingTokenIndex"]] == pytest.approx(passage["activation"])
        assert row["maxValue"] == max(row["values"]) == row["values"][row["maxValueTokenIndex"]]
        whole = [text for text in (texts[token] for token in passage["token_ids"]) if "\ufffd" not in text]
        assert [text for text in row["tokens"] if text in whole] == whole
        assert row["lossValues"] == []
        if passage["band"] != "top":
            assert row["binMin"] <= passage["activation"] <= row["binMax"]
    assert len({row["id"] for row in passages}) == len(passages)
    top = {row["index"]: row["maxActApprox"] for row in features}
    assert all(row["maxValue"] <= top[row["index"]] for row in passages)
    said = pl.read_parquet(tables / "descriptions.parquet").drop_nulls("rule")
    assert [row["description"] for row in rules] == said["rule"].to_list()


def test_losses_go_out_where_latents_were_taken_away(study, tmp_path):
    """lossValues is what nobody fills: by how much the loss of each token rises without the latent."""
    copy = tmp_path / "tiny"
    shutil.copytree(study.results, copy, ignore=shutil.ignore_patterns("model", "exports"))
    tables = copy / "tables" / "trained" / "layers.1.mlp"
    passage = pl.read_parquet(tables / "passages.parquet").row(0, named=True)
    effects = {passage["start"] + 1: -0.5, passage["peak"]: 0.25}
    frame = pl.DataFrame({"latent": passage["latent"], "trace_id": passage["trace_id"], "position": list(effects),
                          "change": list(effects.values())})  # fmt: skip
    files.write_parquet(frame, tables / "token_effects.parquet", {})
    neuronpedia(
        api.open(copy, {"site": ["layers.1.mlp"]}),
        tmp_path / "out",
        datetime(2026, 1, 2, tzinfo=UTC),
        condition="reason",
    )
    (folder,) = (tmp_path / "out").glob("*/1-tiny")
    rows = lines_of(folder, "activations")
    expected = [0.0] * len(passage["token_ids"])
    for position, change in effects.items():
        expected[position - passage["start"]] = -change
    assert rows[0]["lossValues"] == expected
    assert rows[0]["createdAt"] == "2026-01-02T00:00:00+00:00"
    others = [row for row in rows if (row["index"], row["dataIndex"]) != (rows[0]["index"], rows[0]["dataIndex"])]
    assert all(row["lossValues"] == [] for row in others)


def test_a_study_goes_out_as_a_crate(exported):
    """Its description is whole: each file is there as it says, and each reference leads somewhere."""
    from rocrate.rocrate import ROCrate

    study = exported
    folder = study.results / "exports" / "rocrate"
    crate = ROCrate(folder)
    of = {entity.id: entity for entity in crate.get_entities()}
    assert crate.mainEntity.id == "Snakefile"
    assert (folder / "Snakefile").read_bytes() == (REPO / "Snakefile").read_bytes()
    run = of["#run"]
    assert run["instrument"] is crate.mainEntity
    made = {entity.id for entity in run["result"]}
    tables = {str(path.relative_to(study.results)) for path in (study.results / "tables").rglob("*.parquet")}
    old = {path for path in tables if "layers.2.mlp" in path or path.endswith("/effects.parquet")}
    assert {"report.html", "summary.md", *(tables - old)} <= made
    assert not [path for path in made if path in old or "traces/old" in path]
    assert {Path(path).name for path in made} >= {"layers.png", "recurrence.png"}
    assert not {Path(path).name for path in made} & {"twins.png", "effects.png", "My picture.png"}
    assert {entity.id for entity in run["object"]} == {"config.yaml", "#model", "problems.parquet"}
    kept = [entity for entity in of.values() if entity.type == "File"]
    for entity in kept:
        if entity.get("sha256"):
            assert files.sha256(folder / entity.id) == entity["sha256"]
            assert int(entity["contentSize"]) == (folder / entity.id).stat().st_size
    assert len(kept) == len(made) + 3  # lock file, config, problems; Snakefile has more types
    assert not list(folder.rglob("*.safetensors"))
    graph = json.loads((folder / "ro-crate-metadata.json").read_text())["@graph"]
    named = {entity["@id"] for entity in graph}

    def references(value):
        if isinstance(value, dict):
            yield from [value["@id"]] if set(value) == {"@id"} else []
            for each in value.values():
                yield from references(each)
        elif isinstance(value, list):
            for each in value:
                yield from references(each)

    assert {name for name in references(graph) if not name.startswith("http")} <= named
    assert run["startTime"] <= run["endTime"]
    again = yaml.safe_load((folder / "config.yaml").read_text())
    assert again == study.config
