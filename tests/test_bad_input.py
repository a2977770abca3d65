"""Bad input: one clear line, a non-zero exit, before any model is loaded, and nothing left behind."""

import json
import re

import pytest
from conftest import Study, build_model, new_study
from test_saes import save_sae

SLOW_WORK = ("model", "generate", "train_sae", "read")


@pytest.fixture
def bad(tmp_path, tiny_model) -> Study:
    return new_study(tmp_path / "bad", tiny_model)


def refused(study: Study, *arguments: str) -> str:
    """Run a study that must be refused before any job; return the line that says why."""
    run = study.snakemake(*arguments)
    assert run.code != 0, run.output
    assert run.jobs == set(), run.output
    assert not (study.folder / "results").exists()
    lines = [line for line in run.output.splitlines() if line.startswith("config: ")]
    assert len(lines) == 1, run.output
    assert "Traceback" not in run.output
    return lines[0]


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        ({"inferrences": 3}, r"unknown key 'inferrences'; allowed here: experiment, .* Did you mean 'inferences'\?"),
        ({"sae__hookpiont": "x"}, r"unknown key 'sae.hookpiont'.* Did you mean 'sae.hookpoint'\?"),
        ({"prompts__reason__usr": "x"}, r"unknown key 'prompts.reason.usr'; allowed here: user, assistant, raw"),
        ({"model__think": {"open": "<think>"}}, r"key 'model.think.close' is missing"),
        ({"model__think__opne": "x"}, r"unknown key 'model.think.opne'; .* Did you mean 'model.think.open'\?"),
        ({"inferences": 2.0}, r"inferences is 2.0; write it as a whole number"),
        ({"layers": [1.0]}, r"layers is 1.0; write it as a whole number"),
        ({"generation__temperature": float("nan")}, r"generation.temperature is nan; it must be finite"),
        ({"generation__temperature": float("inf")}, r"generation.temperature is inf; it must be finite"),
        ({"generation__seed": 2**32}, r"generation.seed is 4294967296; it must be <= 4294967295"),
        ({"experiment": "two\n"}, r"experiment is 'two\\n'; it must match"),
        ({"inferences": "many"}, r"inferences is 'many' \(str\); it must be integer"),
        ({"inferences": 1.5}, r"inferences is 1.5 \(float\); it must be integer"),
        ({"inferences": 0}, r"inferences is 0; it must be >= 1"),
        ({"block_size": -1}, r"block_size is -1; it must be >= 1"),
        ({"layers": [1, 1]}, r"layers is \[1, 1\]; 1 stands in it twice"),
        ({"layers": []}, r"layers is \[\]; it must not be empty"),
        ({"layers": [-1]}, r"layers.0 is -1; it must be >= 0"),
        ({"layers": 3}, r"layers is 3 \(int\); it must be array"),
        ({"conditions": ["reason", "ponder"]}, r"unknown condition 'ponder'; prompts has: reason, bypass"),
        ({"prompts__reason": {"user": "no question"}}, r"prompts.reason.user must contain '\{question\}' once"),
        ({"prompts__reason": {"raw": "{question}", "user": "{question}"}}, r"must have one of 'user' and 'raw'"),
        ({"generation__temperature": -0.1}, r"generation.temperature is -0.1; it must be >= 0"),
        ({"generation__top_p": 0}, r"generation.top_p is 0; it must be > 0"),
        ({"sae__k": 0}, r"sae.k is 0; it must be >= 1"),
        ({"sae__k": 49}, r"sae.k is 49; it must be <= sae.num_latents, which is 48"),
        ({"sae__hookpoint": "layers.1.mlp"}, r"sae.hookpoint is 'layers.1.mlp'; it must match"),
        ({"sae__read_from": "residual"}, r"sae.read_from is 'residual'; allowed: hookpoint, residual_in, residual_out"),
        ({"analysis__top_latents": 0}, r"analysis.top_latents is 0"),
        ({"analysis__alpha": 1.0}, r"analysis.alpha is 1.0; it must be < 1"),
        ({"analysis__min_traces": 2.5}, r"analysis.min_traces is 2.5 \(float\); it must be integer"),
        ({"patterns": {"doubt": ["/hm(/"]}}, r"patterns.doubt: '/hm\(/' is no regular expression \(missing \)"),
        ({"patterns": {"doubt": [" "]}}, r"patterns.doubt: an entry is empty \(' '\); write a word, a phrase or"),
        ({"patterns": {"doubt": []}}, r"patterns.doubt is \[\]; it must not be empty"),
        ({"patterns": {"Doubt!": ["hm"]}}, r"config: patterns: 'Doubt!' is no name; one must match \^\[a-z\]"),
        ({"reason_words": ["wait", "wait"]}, r"reason_words is \['wait', 'wait'\]; 'wait' stands in it twice"),
        ({"experiment": "../up"}, r"experiment is '../up'; it must match"),
        ({"experiment": None}, r"key 'experiment' is missing"),
        ({"problems__path": None}, r"key 'problems.path' is missing; it is needed with source 'jsonl'"),
        ({"problems__path": "gone.jsonl"}, r"problems.path: there is no file gone.jsonl"),
        (
            {"problems__question": "q"},
            r"problems.question is 'q', but problems.jsonl has the columns: question, answer",
        ),
        ({"inferences": 7}, r"inferences is 7, more than the 6 problems in problems.jsonl"),
        ({"model__path": "gone"}, r"model.path: there is no file gone/config.json"),
        ({"problems": {"source": "reasoning_gym", "name": "gsm_symbolic", "size": 1}}, r"more than the 1 problems"),
        ({"problems": {"source": "web"}}, r"problems.source is 'web'; allowed: hub, reasoning_gym, lessons, jsonl"),
        ({"sae": {"source": "path", "path": "gone"}}, r"sae.path: there is no file gone/layers.1.mlp/cfg.json"),
        ({"model__sha256": "0" * 64}, r"model.sha256 isn't read with source 'path', only with wheel; remove it"),
        ({"problems__size": 9}, r"problems.size isn't read with source 'jsonl', only with reasoning_gym"),
        ({"sae__text__split": "train"}, r"sae.text.split isn't read with source 'jsonl', only with hub"),
        ({"sae": {"source": "train"}}, r"key 'sae.text' is missing; it is needed with source 'train'"),
    ],
)
def test_config(bad, edit, words):
    assert re.search(words, refused(bad.edit(**edit), "--dry-run"))


def test_a_refused_config_starts_no_job(bad):
    refused(bad.edit(inferences=0))


def failed(study: Study, *arguments: str) -> tuple[str, set[str]]:
    """Run a study whose job must fail; return the line that says why, and the jobs that were started."""
    run = study.snakemake(*arguments)
    assert run.code != 0, run.output
    # Snakemake repeats a failed job's log, so the same line may stand there more than once.
    lines = {line for line in run.output.splitlines() if re.match(r"\[.*\] error: ", line)}
    assert len(lines) == 1, run.output
    assert "Traceback" not in run.output
    return lines.pop(), run.jobs


def test_a_layer_that_is_not_there(bad):
    """In a first run as soon as the manifest is known, afterwards before any job."""
    line, jobs = failed(bad.edit(layers=[1, 4]))
    assert re.search(r"layers: 4 is out of range; .* has 4 layers, 0 to 3", line)
    assert not {job.split()[0] for job in jobs} & {"generate", "train_sae", "read"}
    assert not (bad.results / "model.json").exists()
    bad.run("--until", "model")
    run = bad.edit(layers=[1, 4]).snakemake()
    assert run.jobs == set()
    assert "config: layers: 4 is out of range" in run.output


def test_a_hookpoint_that_is_not_there(bad):
    bad.run("--until", "model")
    run = bad.edit(sae__hookpoint="layers.{layer}.mpl").snakemake()
    assert run.jobs == set()
    assert "no module layers.1.mpl; those it has: layers.{layer}, layers.{layer}.input_layernorm" in run.output


def test_a_hookpoint_without_a_sae(bad):
    save_sae(bad.folder / "saes" / "layers.2.mlp")
    line = refused(bad.edit(sae={"source": "path", "path": "saes"}), "--dry-run")
    assert "no file saes/layers.1.mlp/cfg.json" in line
    assert "(there: layers.2.mlp)" in line


def test_another_model_is_not_judged_by_the_first_ones_manifest(bad, tmp_path):
    bad.run("--until", "model")
    deeper = build_model(tmp_path / "deeper", layers=6)
    assert "model" in bad.edit(layers=[5], model__path=str(deeper)).plan()


def test_a_sae_of_another_width(bad):
    save_sae(bad.folder / "saes" / "layers.1.mlp", d_in=64)
    line, jobs = failed(bad.edit(sae={"source": "path", "path": "saes"}))
    assert "reads vectors of width 64, but that module of" in line
    assert "puts out 32" in line
    assert not {job.split()[0] for job in jobs} & {"read"}
    assert not (bad.results / "saes" / "trained" / "layers.1.mlp" / "sae.safetensors").exists()


def test_hostile_text_is_data(bad):
    """A question that would be markup, a path, a shell word or a format string goes through as text."""
    hostile = "<script>alert(1)</script> $(touch owned) {x} {question} ../../etc \u202e $\\frac{1}{2}$ 100%"
    rows = [{"question": hostile, "answer": "#### 1"}, {"question": "`touch owned`; a|b", "answer": "2"}]
    (bad.folder / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    study = bad.edit(conditions=["reason"], prompts={"reason": {"user": "{question} {wildcards.x} {{y}}"}})
    study.run()
    import polars as pl

    prompt = pl.read_parquet(study.results / "traces" / "reason" / "00000-00001.parquet")["prompt"][0]
    assert f"{hostile} {{wildcards.x}} {{{{y}}}}" in prompt
    assert not list(bad.folder.rglob("owned"))
