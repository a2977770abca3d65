"""What users, datasets and models may hand in: refused with the key or the file, or read as it was meant."""

import json
import os
import re
import subprocess

import polars as pl
import pytest
import torch
import yaml
from conftest import Study, new_study
from hypothesis import given, settings
from hypothesis import strategies as st

from thoughtscope import config, models
from thoughtscope import given as user
from thoughtscope.errors import InputError
from thoughtscope.evidence import matches
from thoughtscope.readings import states
from thoughtscope.saes.coder import Codes
from thoughtscope.traces.decoding import Draws


@pytest.fixture
def study(tmp_path, tiny_model) -> Study:
    return new_study(tmp_path / "study", tiny_model)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"experiment: a\nlayers: [1]\nexperiment: b\n", r"key 'experiment' stands twice, in lines 1 and 3; keep one"),
        (b"sae:\n  k: 1\n  lr: 1\n  k: 2\n", r"key 'k' stands twice, in lines 2 and 4"),
        (b"experiment: caf\xe9\n", r"isn't UTF-8 \(byte 0xe9 at 15\)"),
        (b"experiment:\n\tx: 1\n", r"line 2, column 1 is no YAML: .*Indent with blanks"),
        (b"", r"is empty; keys such as 'experiment: …'"),
        (b"# only a comment\n", r"is empty; keys"),
        (b"- a\n", r"is a list; keys"),
        (b"{" * 20000, r"is nested too deep|is no YAML"),
        (b"a: &x [*x]\nb: [", r"is no YAML"),
    ],
)
def test_config_files_are_read_strictly(study, content, words):
    """As the default one, which a user edits in place."""
    folder = study.folder / "config"
    folder.mkdir()
    (folder / "config.yaml").write_bytes(content)
    with pytest.raises(InputError, match=words) as refused:
        user.check_files([folder / "config.yaml"])
    assert "\n" not in str(refused.value)
    assert str(folder / "config.yaml") in str(refused.value)


def test_the_default_config_is_refused_by_name(study):
    (study.folder / "config").mkdir()
    (study.folder / "config" / "config.yaml").write_bytes(b"experiment: caf\xe9\n")
    command = [part for part in study.command("--dry-run") if not part.endswith("config.yaml")]
    command.remove("--configfile")
    done = subprocess.run(command, cwd=study.folder, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "config: config/config.yaml isn't UTF-8" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("before", "on_command_line", "after"),
    [
        ({"layers": ["5", "10"]}, {"layers": ["5", "10"]}, {"layers": [5, 10]}),
        (
            {"plots": {"dpi": 80, "per_trace": "true"}},
            {"plots": {"per_trace": "true"}},
            {"plots": {"dpi": 80, "per_trace": True}},
        ),
        ({"conditions": ["a", "b"]}, {"conditions": ["a", "b"]}, {"conditions": ["a", "b"]}),
        ({"prompts": {"reason": {"user": "12"}}}, {}, {"prompts": {"reason": {"user": "12"}}}),
        ({"sae": {"lr": "1.5", "k": 3}}, {"sae": {"lr": "1.5"}}, {"sae": {"lr": 1.5, "k": 3}}),
        ({"inferences": 4}, {"inferences": 4}, {"inferences": 4}),
    ],
)  # fmt: skip
def test_lists_and_mappings_on_the_command_line_are_read_as_yaml(before, on_command_line, after):
    user.as_yaml(before, on_command_line)
    assert before == after


def test_snakemake_takes_such_values(study):
    jobs = study.plan("--config", "layers=[0,2]", "plots={per_trace: true}")
    assert {"read layers.0.mlp reason 00000-00001", "read layers.2.mlp reason 00000-00001"} <= jobs
    assert any(job.startswith("plot_traces") for job in jobs)


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        ({"experiment": "x" * 300}, r"experiment has 300 characters, of which 100 are allowed"),
        ({"patterns": {"x" * 300: ["hm"]}}, r"patterns has 300 characters|patterns: .* of which 60 are allowed"),
        ({"patterns": {"doubt": ["/a{99999999999}/"]}}, r"patterns.doubt: .* is no regular expression"),
        ({"prompts__reason__user": "{question}\ud800"}, r"prompts.reason.user is .*a lone surrogate is no character"),
    ],
)
def test_odd_configs_are_refused(study, edit, words):
    run = study.edit(**edit).snakemake("--dry-run")
    assert run.code == 1
    assert re.search(rf"config: {words}", run.output), run.output
    assert "Traceback" not in run.output


def test_what_is_likely_a_mistake_is_warned_of(study):
    twice = study.edit(sae__text={"source": "jsonl", "path": "problems.jsonl"}, sae__tokens=16, sae__heldout_tokens=16)
    assert "WARNING: config: sae.text is the same as problems" in twice.snakemake("--dry-run").output
    same = study.edit(model__think={"open": "<think>", "close": "<think>"}).snakemake("--dry-run")
    assert "WARNING: config: model.think: both markers are '<think>'" in same.output
    assert "WARNING" not in study.snakemake("--dry-run").output


def test_pickled_weights_are_seen_before_any_job(study, tmp_path):
    folder = tmp_path / "pickled"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "pytorch_model.bin").write_bytes(b"x")
    run = study.edit(model__path=str(folder)).snakemake()
    assert run.code == 1
    assert f"config: model.path: there are no safetensors in {folder}" in run.output


def failed(study: Study, *arguments: str) -> str:
    run = study.snakemake(*arguments)
    assert run.code == 1, run.output
    assert "Traceback" not in run.output
    (line,) = set(re.findall(r"^\[.*\] error: (.*)$", run.output, re.MULTILINE))
    return line


def test_too_little_text_is_seen_before_anything_is_written(study):
    few = study.edit(sae__tokens=10**6)
    line = failed(few)
    assert re.search(r"config: sae\.text gives \d+ tokens, but .* ask for 1000128; give it more rows, or ask", line)
    assert not (few.results / "traces").exists()


def test_names_of_generators_are_known(study):
    line = failed(study.edit(problems={"source": "reasoning_gym", "name": "gsm_symbolik"}), "--until", "problems")
    assert "problems.name is 'gsm_symbolik'; reasoning_gym has no such dataset. Near ones: gsm_symbolic" in line


@pytest.mark.parametrize(
    "line", ['{"question": "\\ud800", "answer": "1"}', "[" * 5000, '{"question": ["a"], "answer": "1"}']
)
def test_odd_lines_of_a_file_are_refused_by_their_number(study, line):
    with (study.folder / "problems.jsonl").open("a") as file:
        file.write(line + "\n")
    assert re.search(r"problems\.jsonl, line 7( is no JSON object|: 'question')", failed(study, "--until", "problems"))


def test_a_line_edited_under_the_same_date_is_read_again(study):
    study.run("--until", "problems")
    path = study.folder / "problems.jsonl"
    stat = path.stat()
    path.write_text(path.read_text().replace("How", "Who", 1))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert "problems" in study.plan()


VOCABULARY = pl.LazyFrame({"token_id": [0], "text": ["a" * 40 + "!"]}, schema_overrides={"token_id": pl.UInt32})
TRACES = pl.LazyFrame({"trace_id": [3], "condition": ["reason"], "prompt_ids": [[0]], "generated_ids": [[0]]})


def test_an_expression_that_never_ends_is_refused(monkeypatch):
    monkeypatch.setattr(matches, "SECONDS", 0.2)
    words = r"config: patterns\.slow: '/.*/' takes more than 0 s in trace 3 of condition 'reason'"
    with pytest.raises(InputError, match=words):
        matches.matches(TRACES, VOCABULARY, patterns=json.dumps({"slow": [r"/(a|aa|a?a)+$/"]}), reason_words=[])


@given(st.text(max_size=12))
@settings(max_examples=300, deadline=None)
def test_any_entry_is_searched_for_or_refused(entry):
    try:
        config._check_lexicon({"p": [entry]}, [])
    except InputError:
        return
    try:
        found = matches.matches(TRACES, VOCABULARY, patterns=json.dumps({"p": [entry]}), reason_words=[])
    except InputError as error:
        assert "regular expression" in str(error)
        return
    for row in found.iter_rows(named=True):
        assert row["text"] in "a" * 40 + "!"


@given(st.dictionaries(st.text(max_size=8), st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3), max_leaves=8,
), max_size=5))  # fmt: skip
@settings(max_examples=200, deadline=None)
def test_any_config_file_passes_or_is_refused_in_a_line(tmp_path_factory, value):
    path = tmp_path_factory.mktemp("any") / "config.yaml"
    path.write_bytes(yaml.safe_dump(value, allow_unicode=True).encode("utf-8", "surrogatepass"))
    try:
        user.check_files([path])
    except InputError as error:
        assert str(path) in str(error)
        assert "\n" not in str(error)


def test_a_template_that_never_ends_is_refused(tokenizer, monkeypatch):
    monkeypatch.setattr(models, "TEMPLATE_SECONDS", 0.3)
    turn = [{"role": "user", "content": "q"}]
    loop = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
    for template, words in ((loop, "takes more than"), ("{{ 1 / 0 }}", "ZeroDivision"), ("{{ x.y.z }}", "Undefined")):
        monkeypatch.setattr(tokenizer, "chat_template", template)
        with pytest.raises(InputError, match=rf"the model's chat template .*{words}.*write prompts with 'raw'"):
            models.in_chat(tokenizer, turn, ask=True)


def test_logits_that_are_no_numbers_are_refused():
    draws = Draws(torch.zeros(2, 3, dtype=torch.float64), 0.0, 1.0, [7, 8])
    good = torch.tensor([[0.0, 1.0], [-torch.inf, 2.0]])
    assert draws(good, [0, 1], [2, 2]) == [1, 1]
    for odd in (torch.nan, torch.inf):
        with pytest.raises(InputError, match=r"trace 8 has logits that aren't finite, at token 2 of what it writes"):
            draws(torch.tensor([[0.0, 1.0], [1.0, odd]]), [0, 1], [2, 2])


def test_activations_that_are_no_numbers_are_refused():
    codes = Codes(torch.tensor([[1.0, 0.5], [torch.inf, 1.0]]), torch.zeros(2, 2, dtype=torch.long))
    with pytest.raises(InputError, match=r"trace 4 has a non-finite activation at layers\.1\.mlp, position 6;"):
        states.check_finite(codes.activations, "activation", 4, "layers.1.mlp", 5, "")
