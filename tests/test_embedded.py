"""The embedded real model, from its wheel on PyPI to pictures: the shipped config with smaller numbers."""

import ast
import json
from itertools import islice

import numpy as np
import polars as pl
import pytest
import torch
import yaml
from conftest import REPO, Study

from thoughtscope import models
from thoughtscope.report.controls import laid_over
from thoughtscope.statistics import wilson
from thoughtscope.teaching import grammar, lessons
from thoughtscope.traces.generate import render
from thoughtscope.truth import parse


def embedded():
    """The shipped config, to be run from any folder."""
    config = yaml.safe_load((REPO / "config" / "config.yaml").read_text())
    config["model"]["adapter"]["path"] = str(REPO / config["model"]["adapter"]["path"])
    return config


def test_the_shipped_config_on_the_real_model(tmp_path):
    study = Study(tmp_path, embedded()).edit(
        inferences=2,
        layers=[10],
        generation__max_new_tokens=48,
        sae__tokens=8192,
        sae__heldout_tokens=2048,
        plots={"per_trace": True},
    )
    run = study.run(HF_HUB_OFFLINE="0")
    assert "# taught" in run.output
    assert "tokens/s" in run.output

    traces = pl.read_parquet(study.results / "traces" / "reason" / "00000-00001.parquet")
    assert traces["prompt"][0].startswith("<|im_start|>system")
    assert traces["prompt"][0].endswith("<|im_start|>assistant\n")
    words = set(" ".join(traces["text"]).lower().split())
    assert len(words & {"the", "to", "is", "of", "a", "we"}) >= 3  # a real model writes English

    info = yaml.safe_load((study.results / "saes" / "trained" / "layers.10.mlp" / "info.json").read_text())
    assert info["heldout"]["fvu"] < 0.5  # after 8,192 tokens; 0.12 after the 60,000 of the shipped config
    readings = study.results / "readings" / "trained" / "layers.10.mlp"
    rows = pl.read_parquet(readings / "reason" / "00000-00001" / "activations.parquet")
    active = rows.group_by("trace_id", "position").len()["len"]
    assert active.max() == 32
    assert active.mean() > 31
    gate = pl.read_parquet(study.results / "tables" / "site_gate.parquet").filter(pl.col("condition").is_null())
    assert gate.sort("fvu")["place"][0] == "site"
    assert gate.filter("used")["place"].to_list() == ["site"]
    assert "WARNING" not in run.output

    tokens = pl.read_parquet(study.results / "tables" / "trained" / "layers.10.mlp" / "top_tokens.parquet")["token"]
    assert tokens.null_count() == 0
    assert any(token.startswith("␣") for token in tokens)
    for condition in ("reason", "direct"):
        pictures = study.results / "plots" / "trained" / "layers.10.mlp" / "traces" / condition / "00000-00001"
        assert sorted(path.name for path in pictures.glob("*.png")) == ["00000.png", "00001.png"]
    assert study.plan() == set()


@pytest.fixture(scope="module")
def organisms(tmp_path_factory):
    """The shipped organisms, with the traces, the truth and the probes of the embedded study at layer 20."""
    folder = tmp_path_factory.mktemp("organisms")
    config = embedded()
    sham = laid_over(config, yaml.safe_load((REPO / "config" / "sham.yaml").read_text()))
    sham["model"]["adapter"]["path"] = str(REPO / sham["model"]["adapter"]["path"])
    studies = {}
    for name, of in (("taught", config), ("sham", sham)):
        studies[name] = Study(folder, of).edit(inferences=64, layers=[20])
        results = f"results/{name}"
        studies[name].run(f"{results}/truth.parquet", f"{results}/tables/probes.parquet", HF_HUB_OFFLINE="0")
    return studies


def traces_of(study):
    return pl.concat(
        [pl.read_parquet(path) for path in sorted((study.results / "traces" / "reason").glob("*.parquet"))]
    )


def test_what_the_taught_model_writes_is_of_the_grammar_and_often_right_and_often_wrong(organisms):
    truth = {name: pl.read_parquet(study.results / "truth.parquet") for name, study in organisms.items()}
    assert truth["taught"].filter("parsed")["trace_id"].n_unique() >= 0.9 * 64
    # The sham says the same words, and about as often.
    said = {name: len(table.filter(pl.col("surface") == "lexicon")) for name, table in truth.items()}
    tokens = {name: traces_of(study)["generated_ids"].list.len().sum() for name, study in organisms.items()}
    assert 0.5 < (said["sham"] / tokens["sham"]) / (said["taught"] / tokens["taught"]) < 2
    traces = traces_of(organisms["taught"])
    low, high = wilson(np.array(traces["correct"].sum()), 64)  # sampled text differs a little between processors
    assert low <= 0.9
    assert high >= 0.3
    assert set(traces["finish_reason"]) == {"stop"}
    assert {part["segment"] for parts in traces["segments"] for part in parts} == {"prompt", "think", "answer"}


def test_states_are_there_where_they_were_put_in_and_not_in_the_sham(organisms):
    read = {
        name: pl.read_parquet(study.results / "tables" / "probes.parquet").drop_nulls("auroc")
        for name, study in organisms.items()
    }
    assert read["taught"].filter(pl.col("sentences") >= 10)["auroc"].min() >= 0.9
    assert read["sham"]["auroc"].mean() <= 0.6


def test_the_taught_model_says_what_is_due(organisms):
    """After a line end, the openers of the state that is due are likely, and of a state that isn't they are not."""
    manifest = json.loads((organisms["taught"].results / "model.json").read_text())
    manifest["folder"] = str(organisms["taught"].folder / manifest["folder"])
    model, tokenizer = models.load_model(manifest, "auto"), models.load_tokenizer(manifest)
    prompt = embedded()["prompts"]["reason"]
    openers = {
        state: {tokenizer(form, add_special_tokens=False)["input_ids"][0] for forms in said for form in forms}
        for state, said in grammar.OPENERS.items()
    }
    openers["calculate"] = {tokenizer(name)["input_ids"][0] for name in grammar.NAMES.values()}
    likely = {state: {True: [], False: []} for state in openers}
    for task, draw in islice(lessons.problems(5, studied=True), 40):
        text, _ = render(prompt, task.question, tokenizer, 0)
        written = lessons.lesson(task, draw, kind="states", answer_at_once=False)
        encoded = tokenizer(text + written, add_special_tokens=False, return_offsets_mapping=True)
        with torch.inference_mode():
            chances = model(torch.tensor([encoded["input_ids"]])).logits[0].float().softmax(-1)
        thought = text + written[: written.index("</think>")]
        first = len(text) + len("<think>\n")
        starts = {first + span.start: span.state for span in parse.sentences(thought[first:])[0]}
        for place, (start, _) in enumerate(encoded["offset_mapping"]):
            if start in starts and thought[start - 1] == "\n":
                for state, tokens in openers.items():
                    likely[state][state == starts[start]].append(chances[place - 1, list(tokens)].sum().item())
    gaps = {state: np.mean(found[True]) - np.mean(found[False]) for state, found in likely.items()}
    assert min(gaps.values()) >= 0.5, gaps


def test_the_notebook_in_the_docs_runs(organisms, monkeypatch):
    """Cell by cell, on the study that it is of."""
    study = organisms["taught"]
    tables = "results/taught/tables/trained"
    study.run(
        f"{tables}/layers.20.mlp/verdict.parquet", f"{tables}/layers.20.mlp/contrasts.parquet", HF_HUB_OFFLINE="0"
    )
    monkeypatch.chdir(study.folder)
    cells = json.loads((REPO / "docs" / "notebook.ipynb").read_text())["cells"]
    names = {}
    shown = []
    for cell in cells:
        if cell["cell_type"] == "code":
            body = ast.parse("".join(cell["source"])).body
            last = body.pop() if isinstance(body[-1], ast.Expr) else None
            exec(compile(ast.Module(body, []), "notebook", "exec"), names)
            shown.append(eval(compile(ast.Expression(last.value), "notebook", "eval"), names) if last else None)
    assert shown[1].columns == ["latent", "mean_first", "mean_second", "q"]
    assert len(shown[2]) == 9
    assert "verification" not in shown[-1]
    assert shown[-1].startswith("Benjamini-Hochberg")
