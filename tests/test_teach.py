"""Adapters: taught, stopped and gone on with, fetched, merged, refused."""

import json
import logging
import shutil

import polars as pl
import pytest
import torch
from conftest import build_model
from safetensors.torch import load_file, save_file

from thoughtscope import adapters, files, models
from thoughtscope.errors import HubUnreachable, InputError
from thoughtscope.teaching import lessons, teach

LOG = logging.getLogger("test")
PROMPTS = {"reason": {"user": "{question}"}, "direct": {"raw": "{question} = "}}
SETTINGS = {"first_block": 2, "rank": 2, "lr": 0.02, "batch_size": 4, "passes": 2, "seed": 0}


@pytest.fixture(scope="module")
def table():
    return lessons.table(24, 0, "states", list(PROMPTS))


def taught(table, manifest, tokenizer, folder, **changes):
    model = models.load_model(manifest, "float32")
    data = teach.examples(table, PROMPTS, tokenizer)
    given = {"folder": folder, "checkpoint": folder.with_name("unfinished"), "log": LOG} | SETTINGS | changes
    return teach.teach(data, model=model, **given)


@pytest.fixture(scope="module")
def adapter(table, tiny_model, tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("taught") / "adapter"
    manifest = {"folder": str(tiny_model), "files": {}}
    return folder, taught(table, manifest, tokenizer, folder)


def whole_manifest(tiny_model):
    return models.prepare({"source": "path", "path": str(tiny_model)}, tiny_model.with_name("prepared"), LOG)


def source(folder, **changes):
    return {"source": "path", "path": str(folder), "sha256": None} | changes


def test_only_what_is_to_be_written_has_a_loss(table, manifest, tokenizer, model):
    data = teach.examples(table[:2], PROMPTS, tokenizer)
    total, count = teach.loss(model, data)
    expected, number = 0.0, 0
    for example in data:
        ids = torch.tensor([example.ids])
        logits = model(ids).logits[0, example.written - 1 : -1].log_softmax(-1)
        expected -= logits.gather(-1, ids[0, example.written :, None]).sum().item()
        number += len(example.ids) - example.written
    assert (total.item(), count) == (pytest.approx(expected, rel=1e-5), number)
    assert tokenizer.decode(data[0].ids[data[0].written :]).startswith("<think>\n")
    assert data[0].ids[-1] == tokenizer.eos_token_id


def test_batches_are_of_like_lengths_and_have_each_lesson_once():
    lengths = [index * 7 % 100 for index in range(100)]
    found = teach.batches(lengths, 4, 0)
    assert sorted(index for batch in found for index in batch) == list(range(100))
    assert max(max(lengths[i] for i in batch) - min(lengths[i] for i in batch) for batch in found) < 30
    assert found == teach.batches(lengths, 4, 0) != teach.batches(lengths, 4, 1)


def test_it_learns_and_says_so(adapter):
    _, went = adapter
    assert went["steps"] == 12
    assert went["loss_last"] < 0.95 * went["loss_first"]


def test_only_blocks_from_the_first_on_are_changed(adapter):
    folder, _ = adapter
    names = list(load_file(folder / "adapter_model.safetensors"))
    assert {name.split("layers.")[1].split(".")[0] for name in names} == {"2", "3"}
    assert len(names) == 2 * 7 * 2
    assert not list(folder.glob("*.bin"))


def test_what_was_stopped_goes_on_to_the_same_end(adapter, table, manifest, tokenizer, tmp_path, monkeypatch):
    whole, _ = adapter
    folder = tmp_path / "adapter"
    monkeypatch.setattr(teach, "CHECKPOINT_SECONDS", 0)
    steps = 0

    def stopping(model, batch, real=teach.loss):
        nonlocal steps
        steps += 1
        if steps == 8:
            raise KeyboardInterrupt
        return real(model, batch)

    monkeypatch.setattr(teach, "loss", stopping)
    with pytest.raises(KeyboardInterrupt):
        taught(table, manifest, tokenizer, folder)
    assert not folder.exists()
    taught(table, manifest, tokenizer, folder)
    assert steps == 8 + 5  # seven were done
    assert not (tmp_path / "unfinished").exists()
    once, again = (load_file(path / "adapter_model.safetensors") for path in (whole, folder))
    assert all(torch.equal(once[name], again[name]) for name in once)


@pytest.mark.parametrize("change", ["lessons", "first_block", "rank", "lr", "model"])
def test_another_teaching_does_not_go_on_from_it(table, manifest, tokenizer, tmp_path, monkeypatch, caplog, change):
    caplog.set_level(logging.INFO)

    def stopping(model, batch, real=teach.loss):
        stopping.steps += 1
        if stopping.steps == 3:
            raise KeyboardInterrupt
        return real(model, batch)

    with monkeypatch.context() as patch:
        stopping.steps = 0
        patch.setattr(teach, "CHECKPOINT_SECONDS", 0)
        patch.setattr(teach, "loss", stopping)
        with pytest.raises(KeyboardInterrupt):
            taught(table, manifest, tokenizer, tmp_path / "adapter")
    assert (tmp_path / "unfinished" / "progress.json").exists()
    other = lessons.table(24, 1, "states", list(PROMPTS)) if change == "lessons" else table
    if change == "model":
        manifest = {"folder": str(build_model(tmp_path / "model", seed=1)), "files": {}}
    settings = {"first_block": {"first_block": 1}, "rank": {"rank": 3}, "lr": {"lr": 0.01}}.get(change, {})
    taught(other, manifest, tokenizer, tmp_path / "adapter", **settings)
    assert "going on from step" not in caplog.text


def test_a_block_that_is_not_there_and_a_loss_that_is_none_are_refused(table, manifest, tokenizer, tmp_path):
    with pytest.raises(InputError, match="first_block is 4; the model has 4 blocks, 0 to 3"):
        taught(table, manifest, tokenizer, tmp_path / "adapter", first_block=4)
    with pytest.raises(InputError, match=r"teach\.lr is 1e\+30: the loss isn't finite at step \d+; lower it"):
        taught(table, manifest, tokenizer, tmp_path / "adapter", lr=1e30)
    assert not (tmp_path / "adapter").exists()


def test_a_merged_model_is_the_base_with_its_adapter(adapter, tiny_model, tmp_path):
    from peft import PeftModel

    folder, _ = adapter
    manifest = whole_manifest(tiny_model)
    here = tmp_path / "adapter"
    info = adapters.fetch(source(folder), here / "adapter_config.json", here / "adapter_model.safetensors", LOG)
    merged = adapters.merge(manifest, info, here, tmp_path / "model", LOG)
    assert merged["base"] == manifest
    assert merged["adapter"]["sha256"] == files.sha256(folder / "adapter_model.safetensors")
    assert set(merged["files"]) == set(manifest["files"])
    ids = torch.arange(20)[None]
    base = models.load_model(manifest, "float32")
    plain = base(ids).logits
    expected = PeftModel.from_pretrained(base, str(folder))(ids).logits
    found = models.load_model(merged, "float32")(ids).logits
    assert torch.allclose(found, expected, atol=1e-4)
    assert not torch.allclose(found, plain, atol=1e-2)
    assert models.load_tokenizer(merged).get_vocab() == models.load_tokenizer(manifest).get_vocab()


def test_an_adapter_from_the_hub_is_at_a_commit_and_said_to_be_unpinned(adapter, hub_snapshot, tmp_path, caplog):
    snapshot = hub_snapshot("models--me--lora", "a" * 40)
    for file in adapter[0].iterdir():
        shutil.copy(file, snapshot)
    to = tmp_path / "adapter_config.json", tmp_path / "adapter_model.safetensors"
    given = {"source": "hub", "name": "me/lora", "revision": None, "sha256": None}
    caplog.set_level(logging.WARNING)
    info = adapters.fetch(given, *to, logging.getLogger("test"))
    assert (info["name"], info["revision"]) == ("me/lora", "a" * 40)
    assert f"To pin it: 'model.adapter.revision: {'a' * 40}'" in caplog.text
    assert all(path.is_symlink() for path in to)
    with pytest.raises(HubUnreachable, match=r"model\.adapter\.name: adapter 'me/other' can't be fetched"):
        adapters.fetch(given | {"name": "me/other"}, *to, LOG)


def test_an_adapter_that_is_not_what_the_config_says_is_refused(adapter, tmp_path):
    folder, _ = adapter
    to = tmp_path / "adapter_config.json", tmp_path / "adapter_model.safetensors"
    with pytest.raises(InputError, match=r"model\.adapter\.sha256 is 0{64}, but adapter_model\.safetensors of"):
        adapters.fetch(source(folder, sha256="0" * 64), *to, LOG)
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    shutil.copy(folder / "adapter_config.json", pickled)
    (pickled / "adapter_model.bin").write_bytes(b"pickle")
    with pytest.raises(InputError, match=r"has no adapter_model.safetensors; .* \(pickled weights are never loaded\)"):
        adapters.fetch(source(pickled), *to, LOG)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("type", "is of PEFT's type .*; only LoRA can be merged here"),
        ("config", "adapter_config.json can't be read"),
        ("shape", "doesn't fit .*; name the model it was made for"),
        ("less", "of its weights are on one side only, such as base_model"),
        ("more", "of its weights are on one side only, such as base_model.model.extra"),
    ],
)
def test_an_adapter_of_another_kind_or_model_is_refused(adapter, tiny_model, tmp_path, change, message):
    folder = tmp_path / "adapter"
    shutil.copytree(adapter[0], folder)
    config, weights = (
        json.loads((folder / "adapter_config.json").read_text()),
        load_file(folder / "adapter_model.safetensors"),
    )
    name = next(iter(weights))
    match change:
        case "type":
            config = {"peft_type": "IA3", "target_modules": ["v_proj"], "feedforward_modules": []}
        case "shape":
            weights[name] = torch.zeros(3, 5)
        case "less":
            del weights[name]
        case "more":
            weights["base_model.model.extra"] = torch.zeros(3)
    (folder / "adapter_config.json").write_text("{" if change == "config" else json.dumps(config))
    save_file(weights, folder / "adapter_model.safetensors")
    with pytest.raises(InputError, match=message):
        info = {"name": "mine", "sha256": files.sha256(folder / "adapter_model.safetensors")}
        adapters.merge(whole_manifest(tiny_model), info, folder, tmp_path / "model", LOG)
    assert not (tmp_path / "model").exists()


def test_lessons_are_kept_as_they_were_given(table):
    assert table.columns == list(lessons.SCHEMA)
    assert table["lesson_id"].to_list() == list(range(24))
    assert table.filter(pl.col("written").str.contains("<think>\n</think>"))["condition"].unique().to_list() == [
        "direct"
    ]
