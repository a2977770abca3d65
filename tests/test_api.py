"""Studies in a notebook: the questions a reader has are a line each, and what comes is what the files say."""

import csv
import shutil

import numpy as np
import polars as pl
import pytest
from conftest import new_study, write_jsonl

import thoughtscope
from thoughtscope import files
from thoughtscope.errors import InputError

SITE = "layers.1.mlp"


@pytest.fixture(scope="module")
def study(tiny_model, tmp_path_factory):
    """A small study, moved away from where it was made, and under another name."""
    made = new_study(tmp_path_factory.mktemp("api") / "study", tiny_model).edit(
        inferences=8, block_size=8, generation__max_new_tokens=40, generation__seed=2,
        patterns={"vowel": ["/[aeiou]/"]}, analysis__min_traces=1, analysis__tokens_before=1, analysis__tokens_after=1,
    )  # fmt: skip
    write_jsonl(made.folder / "problems.jsonl", times=2)
    made.run()
    return thoughtscope.open(shutil.copytree(made.results, made.folder / "elsewhere" / "copied"))


def test_a_study_says_what_it_has(study):
    assert study.sites == [SITE]
    assert study.conditions == ["bypass", "reason"]
    assert study.readers == ["trained"]
    assert {"verdict", "headline", "matches", "recurrence"} <= set(study.tables)
    assert "layers.1.mlp" in repr(study)
    assert study.table("verdict", site=1).collect().equals(study.site(SITE).verdict)
    assert study.table("verdict").collect()["site"].unique().to_list() == [SITE]
    assert "thinking pattern" in study.columns("verdict")["verdict"] or study.columns("verdict")["verdict"]
    assert study.columns("verdict")["latent"] == "index of the latent in its SAE"
    assert len(study.traces().collect()) == 16


def test_contexts_are_the_largest_activations(study, tmp_path):
    site = study.site(1)
    busiest = site.activations().group_by("latent").len().sort("len").last().collect()["latent"].item()
    latent = site.latent(busiest)
    contexts = latent.contexts(50, before=2, after=1)
    able = latent.activations().filter(~pl.col("sink"), pl.col("segment").cast(pl.String) != "prompt").collect()
    assert contexts["activation"][0] == able["activation"].max()
    assert contexts["activation"].is_sorted(descending=True)
    for row in contexts.iter_rows(named=True):
        trace = study.trace(row["condition"], row["trace_id"])
        tokens = trace.tokens
        first = max(0, row["position"] - 2)
        assert row["text"] == "".join(tokens["text"][first : row["position"] + 2])
        assert row["token"] == tokens["token"][row["position"]]
    places = {key: group["position"].sort() for key, group in contexts.group_by("condition", "trace_id")}
    assert all((np.diff(of_trace.to_numpy()) > 3).all() for of_trace in places.values())
    contexts.write_csv(tmp_path / "contexts.csv")
    assert len(list(csv.reader((tmp_path / "contexts.csv").open()))) == len(contexts) + 1
    tokens = latent.tokens(50, before=2, after=1)
    assert (
        tokens.group_by("rank", maintain_order=True).agg(pl.col("text").str.join())["text"].to_list()
        == contexts["text"].to_list()
    )
    value = tokens.join(contexts.select("rank", "position"), on=["rank", "position"]).sort("rank")["activation"]
    assert value.to_list() == contexts["activation"].to_list()
    assert latent.top_tokens(3)["max"][0] == able["activation"].max()


def test_a_card_shows_what_is_known_and_nothing_runs_in_it(study, monkeypatch):
    latent = study.site(1).latent(study.site(1).verdict["latent"][0])
    html = latent.card(3)._repr_html_()
    assert f"latent {latent.latent} at {SITE}" in html
    assert str(latent.verdict["verdict"]) in html
    assert "<script" not in html
    texts = ["<script>alert(1)</script>"] * len(study._texts)
    monkeypatch.setitem(study.__dict__, "_texts", texts)
    monkeypatch.setitem(
        study.__dict__, "vocabulary", study.vocabulary.with_columns(text=pl.lit(texts[0]), token=pl.lit(texts[0]))
    )
    html = latent.card(3).html + study.trace("reason", 0).shaded(1, latent.latent).html
    assert "<script" not in html
    assert "&lt;script&gt;" in html


def test_search_finds_what_is_there(study):
    traces = study.traces("reason").collect()
    trace = study.trace("reason", 0)
    wanted = trace.tokens.filter(pl.col("segment") != "prompt")["text"][3].strip() or "a"
    found = study.search(text=wanted, condition="reason")
    by_hand = sum(study._text(ids).lower().count(wanted.lower()) for ids in traces["generated_ids"].to_list())
    assert len(found) <= by_hand
    assert found.select("trace_id").n_unique() == sum(
        wanted.lower() in study._text(ids).lower() for ids in traces["generated_ids"].to_list()
    )
    for row in found.iter_rows(named=True):
        ids = traces.row(row["trace_id"], named=True)
        whole = ids["prompt_ids"] + ids["generated_ids"]
        assert wanted.lower() in study._text(whole[row["start"] : row["end"]]).lower()
        assert row["match"] in row["text"]
    patterns = study.search(pattern="vowel")
    counted = study.table("matches").filter(pl.col("kind").cast(pl.String) == "pattern").collect()
    assert len(patterns) == counted.select("condition", "trace_id", "start", "end").n_unique()
    token = trace.tokens.filter(pl.col("segment") != "prompt")["text"][3]
    of_token = study.search(token=token)
    assert all(study.trace(row["condition"], row["trace_id"]).tokens["text"][row["start"]].strip() == token.strip()
               for row in of_token.head(5).iter_rows(named=True))  # fmt: skip
    both = study.search(pattern="vowel", token=token)
    assert set(both.select("condition", "trace_id", "start").rows()) <= set(
        patterns.select("condition", "trace_id", "start").rows()
    )
    assert len(study.search(pattern="vowel", limit=2)) == 2


def test_a_trace_is_its_text(study):
    trace = study.trace("reason", 3)
    row = study.traces("reason").filter(pl.col("trace_id") == 3).collect().row(0, named=True)
    assert trace.text == row["text"]
    assert "".join(trace.segments.values()) == "".join(trace.tokens["text"])
    assert trace.activations(1).equals(study.site(1).activations("reason").filter(pl.col("trace_id") == 3).collect())


def test_studies_are_compared_by_their_directions(study):
    same = thoughtscope.compare(study, study)
    assert same["site"].unique().to_list() == same["other_site"].unique().to_list() == [SITE]
    assert (same["latent"] == same["other"]).all()
    assert np.allclose(same["cosine"], 1, atol=1e-5)
    assert same["verdict"].equals(same["other_verdict"], check_names=False)


@pytest.mark.parametrize(
    ("ask", "says"),
    [
        (lambda study: thoughtscope.open(study.folder.parent / "copies"), "no study in .* Did you mean .*copied"),
        (lambda study: study.table("verdicts"), "no table 'verdicts' of trained. Did you mean 'verdict'"),
        (lambda study: study.site(7), "no site 7; name one of: layers.1.mlp."),
        (lambda study: study.site(1).latent(48), "no latent 48; its SAE has 48, from 0."),
        (lambda study: study.trace("reason", 99), "no trace 99 of 'reason'; it has 8."),
        (lambda study: study.traces("reasons"), "no traces of 'reasons'; it has: bypass, reason."),
        (lambda study: study.search(), "search for something: text, pattern or token."),
        (lambda study: study.search(pattern="doubt"), "no pattern 'doubt' in its text; it has: vowel."),
        (lambda study: study.search(token="no such token"), "'no such token' is no token of"),
        (lambda study: study.site(1).table("verdic"), "Did you mean 'verdict'"),
    ],
)  # fmt: skip
def test_what_is_not_there_is_said(study, ask, says):
    with pytest.raises(InputError, match=says):
        ask(study)


def test_what_is_not_of_the_workflow_is_passed_over(study, tmp_path):
    folder = shutil.copytree(study.folder, tmp_path / "copy")
    tables = folder / "tables" / "trained" / SITE
    for path in (next((folder / "traces" / "reason").glob("*")), tables / "verdict.parquet"):
        shutil.copy(path, path.with_name(f"{path.stem} (1){path.suffix}"))
        path.with_name(f"._{path.name}").write_bytes(b"a system's own")
    shutil.copytree(next((folder / "readings" / "trained" / SITE / "reason").glob("*")),
                    folder / "readings" / "trained" / SITE / "reason" / "backup")  # fmt: skip
    copy = thoughtscope.open(folder)
    assert (copy.sites, copy.conditions, copy.tables) == (study.sites, study.conditions, study.tables)
    assert len(copy.results()) == len(study.results())
    assert len(copy.table("verdict").collect()) == len(study.table("verdict").collect())


def test_a_damaged_file_is_seen(study, tmp_path):
    copy = thoughtscope.open(shutil.copytree(study.folder, tmp_path / "copy"))
    path = copy.folder / "tables" / "trained" / SITE / "verdict.parquet"
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match="is damaged"):
        copy.site(1).table("verdict")


def test_the_package_waits_with_its_imports():
    import subprocess
    import sys

    code = (
        "import sys, thoughtscope as t; assert 'polars' not in sys.modules; t.open; assert 'torch' not in sys.modules"
    )
    path = str(files.__file__).rpartition("/thoughtscope/")[0]
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": path})
