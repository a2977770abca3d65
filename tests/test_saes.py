"""SAEs: exact encoding against sparsify's own, training, and the refusal of what doesn't fit."""

import json
import logging
from pathlib import Path

import polars as pl
import pytest
import torch
from conftest import QUESTIONS
from safetensors.torch import load_file
from sparsify import SparseCoder, SparseCoderConfig

from thoughtscope import saes
from thoughtscope.errors import HubUnreachable, InputError

LOG = logging.getLogger("test")


def save_sae(folder: Path, d_in: int = 32, num_latents: int = 96, k: int = 8, seed: int = 0, **changes) -> SparseCoder:
    torch.manual_seed(seed)
    sae = SparseCoder(d_in, SparseCoderConfig(num_latents=num_latents, k=k, **changes))
    sae.encoder.bias.data.normal_(std=0.1)
    sae.b_dec.data.normal_()
    sae.save_to_disk(folder)
    return sae


@pytest.mark.parametrize(("latents", "k", "chunk"), [(96, 8, 2**27), (96, 96, 2**27), (1000, 32, 3000)])
def test_encode_is_sparsifys(tmp_path, monkeypatch, latents, k, chunk):
    monkeypatch.setattr(saes, "CHUNK_VALUES", chunk)
    theirs = save_sae(tmp_path, num_latents=latents, k=k)
    ours = saes.load_encoder(tmp_path, torch.device("cpu"))
    x = 2 * torch.randn(37, 32)
    activations, indices = ours.encode(x)
    expected = theirs.encode(x)
    order = expected.top_acts.argsort(descending=True, dim=-1, stable=True)
    assert torch.allclose(activations, expected.top_acts.gather(-1, order), rtol=1e-5, atol=0)
    active = activations > 0
    dense = torch.zeros(37, latents).scatter(-1, expected.top_indices, expected.top_acts)
    assert torch.allclose(torch.zeros(37, latents).scatter(-1, indices, activations), dense, rtol=1e-5, atol=0)
    assert active.sum() == (dense > 0).sum()


def test_decode_is_sparsifys(tmp_path):
    theirs = save_sae(tmp_path)
    decoder = saes.load_decoder(tmp_path, torch.device("cpu"))
    x = 2 * torch.randn(37, 32)
    activations, latents = saes.load_encoder(tmp_path, torch.device("cpu")).encode(x)
    assert torch.allclose(decoder.decode(activations, latents), theirs(x).sae_out, rtol=1e-4, atol=1e-5)
    assert decoder.decode(activations[:0], latents[:0]).shape == (0, 32)


def test_weights_of_another_precision_are_applied_in_float32(tmp_path):
    theirs = save_sae(tmp_path).bfloat16()
    theirs.save_to_disk(tmp_path)
    ours = saes.load_encoder(tmp_path, torch.device("cpu"))
    x = torch.randn(5, 32)
    activations, _ = ours.encode(x)
    assert torch.allclose(activations, theirs.float().encode(x).top_acts.sort(descending=True).values, rtol=1e-5)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"transcode": True}, "transcoder"),
        ({"activation": "groupmax"}, "'groupmax'"),
        ({"skip_connection": True}, "skip connection"),
    ],
)
def test_what_is_no_topk_autoencoder_is_refused(tmp_path, changes, words):
    save_sae(tmp_path, **changes)
    with pytest.raises(InputError, match=words):
        saes.load_encoder(tmp_path, torch.device("cpu"))


def test_fetch_copies_and_checks_the_width(tmp_path):
    theirs = save_sae(tmp_path / "from" / "layers.1.mlp")
    manifest = {"name": "tiny", "widths": {"layers.1.mlp": 32}}
    source = {"source": "path", "path": str(tmp_path / "from")}
    saes.fetch(source, "layers.1.mlp", manifest, tmp_path / "to", LOG)
    copied = load_file(tmp_path / "to" / "sae.safetensors")
    assert torch.equal(copied["encoder.weight"], theirs.encoder.weight)
    info = json.loads((tmp_path / "to" / "info.json").read_text())
    assert (info["d_in"], info["num_latents"], info["k"]) == (32, 96, 8)

    manifest["widths"]["layers.1.mlp"] = 64
    with pytest.raises(InputError, match=r"width 32, but that module of tiny puts out 64"):
        saes.fetch(source, "layers.1.mlp", manifest, tmp_path / "wrong", LOG)
    assert not (tmp_path / "wrong" / "sae.safetensors").exists()


def test_fetch_from_the_hub(tmp_path, hub_snapshot, caplog):
    """From the cache, at the commit of main, with a warning; a main that has moved since another layer is refused."""
    source = {"source": "hub", "name": "someone/sae", "revision": None}
    manifest = {"name": "tiny", "widths": {"layers.1.mlp": 32, "layers.2.mlp": 32}}
    save_sae(hub_snapshot("models--someone--sae", "a" * 40) / "layers.1.mlp")
    saes.fetch(source, "layers.1.mlp", manifest, tmp_path / "saes" / "layers.1.mlp", LOG)
    info = json.loads((tmp_path / "saes" / "layers.1.mlp" / "info.json").read_text())
    assert (info["revision"], info["num_latents"]) == ("a" * 40, 96)
    assert "sae.revision: " + "a" * 40 in caplog.text

    save_sae(hub_snapshot("models--someone--sae", "b" * 40) / "layers.2.mlp")
    with pytest.raises(InputError, match=r"has moved from a{40} to b{40} since layers\.1\.mlp was fetched; pin one"):
        saes.fetch(source, "layers.2.mlp", manifest, tmp_path / "saes" / "layers.2.mlp", LOG)
    saes.fetch(source | {"revision": "a" * 40}, "layers.1.mlp", manifest, tmp_path / "other" / "layers.1.mlp", LOG)

    with pytest.raises(
        HubUnreachable, match=r"config: sae\.name: layers\.3\.mlp/cfg\.json of 'someone/sae' can't be fetched"
    ):
        saes.fetch(source, "layers.3.mlp", manifest | {"widths": {"layers.3.mlp": 32}}, tmp_path / "third", LOG)


def test_fvu_is_summed_over_all_tokens():
    x = torch.randn(50, 4, dtype=torch.float64)
    residual = torch.randn(50, 4, dtype=torch.float64)
    top = sum(float(value) ** 2 for row in residual for value in row)
    mean = [sum(float(row[column]) for row in x) / 50 for column in range(4)]
    bottom = sum((float(row[column]) - mean[column]) ** 2 for row in x for column in range(4))
    assert saes.fvu(x, residual) == pytest.approx(top / bottom, rel=1e-12)


def test_train_learns_and_measures_on_held_out_text(tmp_path, model, tokenizer):
    problems = pl.DataFrame(
        {"question": [q for q, _ in QUESTIONS] * 12, "solution": [a for _, a in QUESTIONS] * 12, "text": [None] * 72},
        schema_overrides={"text": pl.String},
    )
    saes.train(
        problems, model=model, tokenizer=tokenizer, hookpoint="layers.1.mlp", folder=tmp_path, k=8, num_latents=96,
        tokens=1500, heldout_tokens=320, context=16, batch_size=4, optimizer="signum", lr=None, seed=0, log=LOG,
    )  # fmt: skip
    info = json.loads((tmp_path / "info.json").read_text())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cfg.json", "info.json", "sae.safetensors"]
    assert info["heldout"]["fvu"] < 0.6  # the text repeats, so a trained SAE knows it; an untrained one is above 1
    assert 0 < info["heldout"]["l0"] <= 8
    assert 0 <= info["heldout"]["dead_share"] < 1
    assert info["heldout"]["sink_share"] == pytest.approx(1 / 16, abs=0.02)
    assert info["train"]["tokens"] == 1488  # whole sequences
    assert len(model.base_model.layers) == 2  # cut after the block


def test_evaluate_against_sparsifys_forward(tmp_path):
    sae = save_sae(tmp_path)
    x = torch.randn(64, 32) * 3
    measured = saes.evaluate(sae, x, context=64)
    assert measured["fvu_with_sinks"] == pytest.approx(sae(x).fvu.item(), rel=1e-5)
    assert measured["fvu"] == pytest.approx(
        (((sae(x).sae_out - x)[1:] ** 2).sum() / ((x[1:] - x[1:].mean(0)) ** 2).sum()).item(), rel=1e-5
    )
    assert measured["dead_share"] == pytest.approx(1 - len(sae.encode(x).top_indices.unique()) / 96)


def test_too_little_text_is_refused(tokenizer):
    with pytest.raises(InputError, match=r"sae\.text gives \d+ tokens, but .* ask for 1000"):
        saes.pack(["some text"], tokenizer, 10, 100)
    assert saes.pack(["some text " * 50], tokenizer, 2, 8).shape == (2, 8)


def test_training_text_is_a_conversation_or_plain():
    class Tokenizer:
        chat_template = "yes"

        def apply_chat_template(self, turns, tokenize):
            return "|".join(turn["content"] for turn in turns)

    frame = pl.DataFrame({"question": ["q", None, "r"], "solution": ["s", None, None], "text": [None, "plain", None]})
    assert saes.training_texts(frame, Tokenizer()) == ["q|s", "plain"]
