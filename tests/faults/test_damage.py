"""Damage done to the files of a finished study: found when they are read, and named with the remedy."""

import json
import logging
import os
import random
import re
import shutil
from pathlib import Path

import polars as pl
import pytest
import torch
from conftest import Study, new_study
from safetensors.torch import load_file, save_file
from test_saes import save_sae

from thoughtscope import files, models
from thoughtscope.errors import InputError
from thoughtscope.saes import formats, record

SITE = "layers.1.mlp"


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny_model) -> Study:
    """A study that has run, whose model is its own."""
    folder = tmp_path_factory.mktemp("damage") / "study"
    shutil.copytree(tiny_model, folder / "own")
    study = new_study(folder, tiny_model).edit(model__path="own")
    study.run()
    return study


@pytest.fixture
def study(finished, tmp_path) -> Study:
    """A copy of it, to be damaged."""
    shutil.copytree(finished.folder, tmp_path / "copy", symlinks=True)
    copy = Study(tmp_path / "copy", finished.config)
    for link in copy.folder.rglob("*"):
        if link.is_symlink():
            target = copy.folder / link.readlink().relative_to(finished.folder)
            link.unlink()
            link.symlink_to(target)
    return copy


def keeping_its_time(path: Path, content: bytes) -> None:
    """Change a file as a disk would that loses bits: its times stay."""
    stat = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def flipped(content: bytes, place: int, bit: int) -> bytes:
    return content[:place] + bytes([content[place] ^ (1 << bit)]) + content[place + 1 :]


def test_no_flipped_bit_and_no_cut_in_any_table_is_read(finished, tmp_path):
    draw, tried = random.Random(0), 0
    for path in sorted(finished.results.rglob("*.parquet")):
        whole, damaged = path.read_bytes(), tmp_path / path.name
        flips = [(draw.randrange(len(whole)), draw.randrange(8)) for _ in range(20)]
        footer = [(place, draw.randrange(8)) for place in range(len(whole) - 12, len(whole))]
        for content in [flipped(whole, *flip) for flip in flips + footer] + [whole[:-1], whole[: len(whole) // 2], b""]:
            damaged.write_bytes(content)
            with pytest.raises(InputError, match=rf"{re.escape(str(damaged))} (is damaged|can't be read).*run again"):
                files.read_parquet(damaged)
            tried += 1
        damaged.unlink()
        assert files.read_parquet(path).equals(pl.read_parquet(path))
    assert tried > 500


def test_no_flipped_bit_in_a_record_is_read(finished, tmp_path):
    draw = random.Random(1)
    for path in (finished.results / "model.json", finished.results / "saes" / "trained" / SITE / "info.json"):
        whole, damaged = path.read_bytes(), tmp_path / path.name
        for _ in range(200):
            content = flipped(whole, draw.randrange(len(whole)), draw.randrange(8))
            damaged.write_bytes(content)
            try:
                assert files.read_json(damaged) == files.read_json(path)  # a blank between two keys, say
            except InputError as error:
                assert str(damaged) in str(error)
        for content in (b"", b"[]", b"{}", b"null", whole[:-5], b'{"a":' * 5000):
            damaged.write_bytes(content)
            with pytest.raises(InputError, match=re.escape(str(damaged))):
                files.read_json(damaged)


@pytest.mark.parametrize(
    ("target", "source", "words"),
    [
        ("traces/reason/00000-00001", "traces/bypass/00000-00001", "condition bypass, not reason"),
        (f"tables/trained/{SITE}/verdict", f"tables/trained/{SITE}/fit", "table fit, not verdict"),
    ],
)
def test_a_file_in_anothers_place_is_seen(study, target, source, words):
    shutil.copyfile(study.results / f"{source}.parquet", study.results / f"{target}.parquet")
    with pytest.raises(InputError, match=rf"{target}\.parquet says that it is of {words}\. Delete it and run again"):
        files.read_parquet(study.results / f"{target}.parquet")


def test_a_file_of_another_experiment_or_version_is_seen(study, monkeypatch, tmp_path):
    other = tmp_path / "results" / "other" / "problems.parquet"
    other.parent.mkdir(parents=True)
    shutil.copyfile(study.results / "problems.parquet", other)
    with pytest.raises(InputError, match=r"other/problems\.parquet says that it is of experiment tiny, not other"):
        files.read_parquet(other)
    monkeypatch.setattr(files, "SCHEMA_VERSION", "99")
    with pytest.raises(InputError, match=r"problems\.parquet has version \d of our tables, not 99\. Delete it"):
        files.read_parquet(study.results / "problems.parquet")


def refused(study: Study, *arguments: str) -> str:
    """Run; return the one line that says why it was refused."""
    run = study.snakemake(*arguments)
    assert run.code == 1, run.output
    assert "Traceback" not in run.output
    lines = set(re.findall(r"^\[.*\] error: (.*)$", run.output, re.MULTILINE))
    assert len(lines) == 1, run.output
    return lines.pop()


def test_a_run_refuses_a_damaged_file_and_is_well_again_without_it(study):
    path = study.results / "readings" / "trained" / SITE / "reason" / "00000-00001" / "activations.parquet"
    keeping_its_time(path, flipped(path.read_bytes(), 200, 3))
    edited = study.edit(analysis__top_tokens=4)
    said = refused(edited)
    assert str(path.relative_to(study.folder)) in said
    assert "Delete it and run again" in said
    path.unlink()
    edited.run()


def test_a_run_refuses_a_model_that_has_changed(study):
    weights = study.folder / "own" / "model.safetensors"
    stat = weights.stat()
    tensors = load_file(weights)
    tensors["model.norm.weight"][0] += 1
    save_file(tensors, weights, metadata={"format": "pt"})
    os.utime(weights, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    said = refused(study.edit(generation__seed=9))
    assert "model files have changed: results/tiny/model/model.safetensors (a link to" in said
    assert "Delete model.json beside that folder and run again" in said


def test_a_run_refuses_sae_weights_that_have_changed(study):
    weights = study.results / "saes" / "trained" / SITE / "sae.safetensors"
    keeping_its_time(weights, flipped(weights.read_bytes(), 5000, 2))
    said = refused(study.edit(report__latents=2) if "report" in study.config else study, "--forcerun", "directions")
    assert f"saes/trained/{SITE}/sae.safetensors has SHA-256" in said
    assert "Delete info.json beside them and run again" in said


def test_a_bad_manifest_blocks_neither_plans_nor_unlocking(study):
    for content in (b"", b"{}", b"[1]", b'{"requested": 3}', b"\xff\xfe", b'{"a":' * 3000):
        keeping_its_time(study.results / "model.json", content)
        study.plan()
    study.run("--unlock")
    assert "model.json" in refused(study.edit(generation__seed=9))
    (study.results / "model.json").unlink()
    study.run("--until", "model")


def test_the_report_is_made_beside_an_empty_benchmark(study):
    for path in (study.results / "benchmarks").rglob("*.jsonl"):
        path.write_text("")
    (study.results / "rules.json").write_text("{")
    study.run("--forcerun", "report", "--no-hooks")


def test_missing_cut_and_odd_weights_of_a_model_are_refused(tiny_model, tmp_path):
    def prepare(change):
        shutil.rmtree(tmp_path / "from", ignore_errors=True)
        shutil.copytree(tiny_model, tmp_path / "from")
        change(tmp_path / "from" / "model.safetensors")
        source = {"source": "path", "path": str(tmp_path / "from")}
        return models.prepare(source, tmp_path / "model", logging.getLogger("test"))

    def without(name):
        def change(path):
            tensors = load_file(path)
            del tensors[name]
            save_file(tensors, path, metadata={"format": "pt"})

        return change

    def smaller(path):
        tensors = load_file(path)
        tensors["model.layers.0.mlp.down_proj.weight"] = tensors["model.layers.0.mlp.down_proj.weight"][1:].clone()
        save_file(tensors, path, metadata={"format": "pt"})

    def cut(path):
        path.write_bytes(path.read_bytes()[:-100])

    prepare(lambda path: None)
    with pytest.raises(InputError, match=r"lacks 1 of its weights, such as model\.layers\.0\.mlp\.down_proj\.weight"):
        prepare(without("model.layers.0.mlp.down_proj.weight"))
    with pytest.raises(InputError, match=r"from/model\.safetensors is no whole safetensors file \(SafetensorError"):
        prepare(cut)
    with pytest.raises(InputError, match=r"can't be loaded from"):
        prepare(smaller)
    assert (tmp_path / "model" / "model.safetensors").exists()  # that of the first, whole


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda weights, config: config.update(k=97), r"cfg\.json says k 97 of 96 latents"),
        (lambda weights, config: config.update(k="8"), r"k in .*cfg\.json is '8'; a whole number"),
        (
            lambda weights, config: config.update(num_latents=95),
            r"encoder\.weight in .* is \(96, 32\), .* must be \(95",
        ),
        (lambda weights, config: weights.pop("b_dec"), r"sae\.safetensors has no b_dec"),
        (lambda weights, config: weights["W_dec"][3].fill_(torch.nan), r"W_dec in .* isn't finite everywhere"),
        (
            lambda weights, config: weights.update(b_dec=weights["b_dec"].int()),
            r"b_dec in .* torch.int32, .* float type",
        ),
    ],
)
def test_odd_weights_of_an_sae_are_refused(tmp_path, change, words):
    folder = tmp_path / "saes" / SITE
    save_sae(folder)
    weights, config = load_file(folder / "sae.safetensors"), json.loads((folder / "cfg.json").read_text())
    change(weights, config)
    save_file(weights, folder / "sae.safetensors")
    (folder / "cfg.json").write_text(json.dumps(config))
    source = {"source": "path", "path": str(tmp_path / "saes"), "format": "sparsify", "folder": "{hookpoint}"}
    manifest = {"name": "tiny", "widths": {SITE: 32}}
    with pytest.raises(InputError, match=words):
        formats.fetch(source, SITE, manifest, tmp_path / "to", logging.getLogger("test"))
    assert not (tmp_path / "to" / record.INFO).exists()


def test_a_training_that_diverges_is_refused_by_its_rate(study):
    said = refused(study.edit(sae__lr=1e30))
    assert re.search(r"config: sae\.lr is 1e\+30: the SAE of layers\.1\.mlp isn't finite after training", said)
