"""A taught model, run by Snakemake as a user would: taught, merged, studied, scored by its truth."""

import json
import shutil

import polars as pl
import pytest
from conftest import Study, new_study

from thoughtscope import files
from thoughtscope.report import controls

SITE = "layers.2.mlp"
TRUTH = {"truth", "probes", f"latent_marks {SITE}", "found", "called"}


@pytest.fixture(scope="module")
def organism(tmp_path_factory, tiny_model):
    study = new_study(tmp_path_factory.mktemp("organism") / "study", tiny_model)
    lessons = {"source": "lessons", "size": 60}
    config = study.config | {
        "experiment": "organism", "problems": lessons, "layers": [2], "inferences": 4, "block_size": 4,
        "teach": {"lessons": 12, "first_block": 2, "rank": 2, "batch_size": 4, "lr": 0.01},
    }  # fmt: skip
    config["model"] |= {"adapter": {"source": "teach"}}
    config["sae"] |= {"text": lessons | {"seed": 1}}
    config["generation"] |= {"max_new_tokens": 40}
    made = Study(study.folder, config)
    made.output = made.run().output
    return made


def test_it_is_taught_merged_and_scored(organism):
    assert "[teach] taught in 3 steps; loss" in (organism.results / "logs" / "teach.log").read_text()
    manifest, info, base = (
        files.read_json(organism.results / name) for name in ("model.json", "adapter/info.json", "base_model.json")
    )
    assert manifest["adapter"] == info
    assert info["teaching"]["steps"] == 3
    assert manifest["base"] == base
    assert manifest["files"]["model.safetensors"] != manifest["base"]["files"]["model.safetensors"]
    lessons = pl.read_parquet(organism.results / "lessons.parquet")
    assert dict(lessons["condition"].value_counts().iter_rows()) == {"reason": 9, "bypass": 3}
    questions = set(pl.read_parquet(organism.results / "problems.parquet")["question"])
    assert not questions & set(lessons["question"])
    found = pl.read_parquet(organism.results / "tables" / "found.parquet")
    assert found["site"].to_list() == [SITE] * 7 + [None] * 7
    assert not (organism.folder / "results" / "organism" / "adapter.unfinished").exists()
    assert organism.plan() == set()


def test_the_report_and_the_summary_say_what_was_put_in(organism):
    page = (organism.results / "report.html").read_text()
    assert '<section id="truth">' in page
    assert "What was put in, and what was found" in page
    assert "## What was put in, and what was found" in organism.output
    assert "wholly of the lessons’ grammar" in organism.output


def test_of_a_sham_it_is_said_that_nothing_was_put_in(organism):
    sham = organism.edit(experiment="sham", teach__kind="scattered")
    output = sham.run().output
    page = (sham.results / "report.html").read_text()
    assert "taught the words of thinking in random places" in output
    assert "taught the words of thinking in random places" in page
    assert "| state " not in output
    assert "latents that mark it" not in page
    assert "latents that mark it" in (organism.results / "report.html").read_text()


def test_nothing_that_makes_the_verdict_reads_the_truth(organism):
    needs = json.loads((organism.results / "rules.json").read_text())["needs"]

    def ancestors(rule):
        return {rule}.union(*map(ancestors, needs[rule]))

    names = {name.partition(" ")[0] for name in TRUTH}
    assert names <= set(needs)
    assert not ancestors("verdict") & names
    assert not ancestors("dashboards") & names
    assert names <= ancestors("report")


def test_what_an_edit_of_the_teaching_affects(organism):
    everything = organism.edit(teach__lr=0.02).plan()
    assert {"teach", "model", "generate reason 00000-00003", f"read {SITE} reason 00000-00003", "report"} <= everything
    assert not {"base_model", "problems", "sae_text"} & everything
    # What a truth is measured by says nothing of the evidence.
    kind = organism.edit(teach__kind="scattered")
    assert "teach" in kind.plan()


def test_an_adapter_from_a_folder_is_the_same_model_and_needs_no_truth(organism):
    shutil.copytree(organism.results / "adapter", organism.folder / "mine", dirs_exist_ok=True)
    given = json.loads((organism.results / "adapter" / "info.json").read_text())["sha256"]
    adapter = {"source": "path", "path": "mine", "sha256": given}
    study = organism.edit(experiment="given", model__adapter=adapter, teach=None)
    planned = study.plan()
    assert {"base_model", "adapter", "model"} <= planned
    assert not {"teach", *TRUTH} & planned
    study.run("results/given/model.json")
    one, other = (
        json.loads((organism.folder / "results" / name / "model.json").read_text()) for name in ("organism", "given")
    )
    assert one["files"]["model.safetensors"] == other["files"]["model.safetensors"]
    # Another file under that name isn't the one that the config was written for.
    (organism.folder / "mine" / "adapter_model.safetensors").write_bytes(b"other")
    refused = study.snakemake("results/given/model.json")
    assert refused.code == 1
    assert f"model.adapter.sha256 is {given}, but adapter_model.safetensors of mine has" in refused.output


@pytest.mark.parametrize(
    ("edits", "message"),
    [
        ({"teach": None}, "model.adapter.source is 'teach', but there is no section teach; say there which lessons."),
        ({"model__adapter": None}, "teach is set, but the model has no adapter; set model.adapter or remove teach."),
        ({"model__think": None}, "model.think is None; with teach it must be {'open': '<think>', 'close': '</think>'}"),
        (
            {"problems": {"source": "jsonl", "path": "problems.jsonl"}},
            "problems.source is 'jsonl'; with teach it must be",
        ),
        (
            {"model__adapter": {"source": "path"}},
            "key 'model.adapter.path' is missing; it is needed with source 'path'.",
        ),
        ({"model__adapter": {"source": "path", "path": "no"}}, "there is no file no/adapter_config.json"),
        (
            {"model__adapter": {"source": "hub", "name": "a/b", "path": "no"}},
            "model.adapter.path isn't read with source",
        ),
        ({"teach__kind": "other"}, "teach.kind is 'other'; allowed: states, scattered."),
        ({"teach__rnak": 3}, "unknown key 'teach.rnak'; allowed here: kind, lessons"),
        ({"problems__size": 3}, "inferences is 4, more than the 3 problems of problems.size"),
    ],
)
def test_bad_configs_are_refused_in_a_line(organism, edits, message):
    refused = organism.edit(**edits).snakemake("--dry-run")
    assert refused.code == 1
    assert f"config: {message}" in refused.output or message in refused.output


def test_studies_side_by_side(organism, capsys):
    config = organism.folder / "config.yaml"
    organism.plan()  # writes its config
    twin = organism.folder / "twin.yaml"
    twin.write_text("experiment: twin\nteach: null\n")
    results = organism.folder / "results"
    with pytest.raises(SystemExit, match=r"twin/report\.html; run that study first, as 'make controls' does"):
        controls.main([str(config), str(twin)], results)
    controls.main([str(config)], results)
    printed, page = capsys.readouterr().out, (results / "controls.html").read_text()
    assert "| study    | put in             | traces | correct |" in printed
    assert "| organism | thinking in states | 4      |" in printed
    assert (results / "controls.md").read_text() in printed
    assert '<a href="organism/report.html">organism</a>' in page
    assert "wholly of the lessons’ grammar" in page


def test_configs_are_laid_over_as_snakemake_lays_them():
    base = {"a": 1, "b": {"c": 2, "d": {"e": 3}}, "f": {"g": 4}}
    assert controls.laid_over(base, {"b": {"d": {"e": 5}}, "f": None, "h": [6]}) == {
        "a": 1, "b": {"c": 2, "d": {"e": 5}}, "f": None, "h": [6]
    }  # fmt: skip
    assert base["b"]["d"]["e"] == 3
