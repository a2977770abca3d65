"""Truth: planted latents are scored as what they are, and the verdict by them."""

import logging
import random
from itertools import islice

import numpy as np
import polars as pl
import pytest
from conftest import build_model
from scipy.stats import mannwhitneyu

from thoughtscope import models, vocabulary
from thoughtscope.readings.activations import SCHEMA as ACTIVATIONS
from thoughtscope.report import truth as report
from thoughtscope.teaching import grammar, lessons
from thoughtscope.teaching.grammar import STATES
from thoughtscope.traces.generate import segments
from thoughtscope.truth import found, parse, probes, score
from thoughtscope.truth.tokens import aurocs, tokens

STATE, WORDS, WORD, SIGN, ALWAYS, RARE = range(6)
TRACES = 40


@pytest.fixture(scope="module")
def written(tokenizer):
    """Traces as a model writes them that has learnt its lessons, with truth and vocabulary."""
    rows = []
    for trace, (task, _) in enumerate(islice(lessons.problems(3, studied=True), TRACES)):
        text = lessons.lesson(task, random.Random(trace), kind="states", answer_at_once=False)
        prompt, ids = (tokenizer(part, add_special_tokens=False)["input_ids"] for part in (task.question, text))
        pieces = [[tokenizer.decode([token]) for token in part] for part in (prompt, ids)]
        rows.append(
            {"trace_id": trace, "condition": "reason", "prompt_ids": prompt, "generated_ids": [*ids, 0],
             "segments": segments(*pieces, {"open": "<think>", "close": "</think>"})}
        )  # fmt: skip
    traces = pl.DataFrame(rows).cast({"trace_id": pl.UInt32})
    names = vocabulary.table(tokenizer, len(tokenizer))
    return traces, parse.truth(traces.lazy(), names.lazy(), kind="states"), names


@pytest.fixture(scope="module")
def planted(written):
    """Latents of verification (the state, after its words only, the word), of everything, and of a doubt's sign."""
    traces, truth, names = written
    every = tokens(truth, traces, "reason")
    text = dict(names.select("token_id", "text").iter_rows())
    verify, of_lexicon = every.state == STATES.index("verify"), every.surface == 0
    digit = np.array([text[token].isdigit() for token in every.token_id])
    question = np.array(["?" in text[token] for token in every.token_id])
    on = {
        STATE: verify & every.body & digit,
        WORDS: verify & of_lexicon & every.body & digit,
        WORD: every.word == STATES.index("verify"),
        SIGN: question,
        ALWAYS: np.ones(len(digit), bool),
        RARE: np.arange(len(digit)) < 5,
    }
    rows = [
        (every.trace_id[place], every.position[place], every.token_id[place], latent, 1.0 + place % 7)
        for latent, active in on.items()
        for place in np.flatnonzero(active)
    ]
    columns = ["trace_id", "position", "token_id", "latent", "activation"]
    frame = pl.DataFrame(rows, schema=columns, orient="row").with_columns(
        condition=pl.lit("reason"), segment=pl.lit("think"), sink=False
    )
    return frame.select(*ACTIVATIONS).cast(ACTIVATIONS)


@pytest.fixture(scope="module")
def marks(planted, written):
    traces, truth, _ = written
    return score.latent_marks(planted.lazy(), truth.lazy(), traces.lazy(), condition="reason")


def test_planted_latents_are_what_they_are(marks):
    of_verify = {row["latent"]: row for row in marks.filter(state="verify").iter_rows(named=True)}
    assert {latent: row["kind"] for latent, row in of_verify.items()} == {
        STATE: "state", WORDS: "after words", WORD: "word", SIGN: None, ALWAYS: None
    }  # fmt: skip
    state = of_verify[STATE]
    assert state["f1"] == state["f1_chosen"] == state["plain"] == state["lexicon"] == state["precision"] == 1
    assert (of_verify[WORDS]["lexicon"], of_verify[WORDS]["plain"]) == (1, 0)
    assert (of_verify[WORD]["in_words"], of_verify[WORD]["decoys"]) == (1, 1)
    assert of_verify[ALWAYS]["auroc"] == pytest.approx(0.5, abs=0.05)
    # A question mark isn't the state of doubt, and no latent of verification is one of another state.
    assert marks.filter(pl.col("state") != "verify").drop_nulls("kind").rows() == []
    assert marks.filter(state="doubt", latent=SIGN)["auroc"][0] > 0.5


def test_every_token_of_a_thinking_has_its_state(written):
    traces, truth, names = written
    every = tokens(truth, traces, "reason")
    text = dict(names.select("token_id", "text").iter_rows())
    assert truth["parsed"].all()
    doubt = [text[token] for token, state in zip(every.token_id, every.state, strict=True) if state == 2]
    assert "?" in "".join(doubt)
    assert len(np.unique(every.sentence[every.sentence >= 0])) == len(truth.filter(pl.col("surface") != "decoy"))
    assert 0.3 < every.chosen_on.mean() < 0.7
    halves = [set(every.trace_id[side].tolist()) for side in (every.chosen_on, ~every.chosen_on)]
    assert not halves[0] & halves[1]


def test_areas_are_mann_whitneys():
    chance = np.random.default_rng(0)
    values, state = np.maximum(chance.normal(size=(3, 200)), 0), chance.integers(-1, 3, 200)
    areas = aurocs(values, state)
    for row in range(3):
        for index in range(3):
            inside = state == index
            expected = (
                mannwhitneyu(values[row][inside], values[row][~inside]).statistic / inside.sum() / (~inside).sum()
            )
            assert areas[row, index] == pytest.approx(expected)
    assert np.isnan(areas[:, 3:]).all()


def verdicts(**called):
    rows = [
        ("s", latent, verdict, None if verdict != "no" else "pattern_linked")
        for latent, verdict in called["of"].items()
    ]
    return pl.LazyFrame(rows, schema=["site", "latent", "verdict", "removed_by"], orient="row").cast(
        {"latent": pl.UInt32}
    )


def test_the_verdict_is_scored_by_what_latents_mark(marks, written):
    of_site = marks.with_columns(site=pl.lit("s")).lazy()
    judged = verdicts(of={STATE: "thinking pattern", WORDS: "thinking pattern", WORD: "no", ALWAYS: "undecided"})
    probed = pl.LazyFrame({"site": ["s"] * 7, "state": list(STATES), "auroc": [0.95] * 6 + [0.5]})
    put_in = found.found(of_site, judged, probed)
    row = put_in.filter(pl.col("site").is_null(), state="verify").row(0, named=True)
    assert (row["marking"], row["judged"], row["called"], row["latent"]) == (1, 1, 1, STATE)
    assert (row["verdict"], row["removed_by"], row["probe"]) == ("thinking pattern", None, 0.95)
    table = found.called(of_site, judged)
    counts = {(row["verdict"], row["kind"]): row["latents"] for row in table.iter_rows(named=True) if row["latents"]}
    assert counts == {
        ("thinking pattern", "state"): 1, ("thinking pattern", "after words"): 1, ("no", "word"): 1,
        ("undecided", "none"): 1, ("not a candidate", "none"): 1,
        ("any", "state"): 1, ("any", "after words"): 1,
        ("any", "word"): 1, ("any", "none"): 2,
    }  # fmt: skip
    precision = table.filter(verdict="thinking pattern", kind="state").row(0, named=True)
    assert (precision["share"], round(precision["low"], 2), round(precision["high"], 2)) == (0.5, 0.09, 0.91)
    known = report.Truth("states", TRACES, written[1], put_in, table)
    assert report.score(known) == report.Score(TRACES, reachable=6, found=1, called=2, true=1, words=1, words_called=0)
    said = " ".join(report.sentences(known))
    assert "40 of 40 traces are wholly" in said
    assert "reads 6 of these states" in said
    assert "1 of them is found" in said
    assert (
        "Of 2 thinking patterns, 1 (50%, 95% interval 9% to 91%) marks a state however it is said; of all latents, 20%"
        in said
    )
    assert (report.rows(known)[3]["by"], report.rows(known)[3]["by_at"]) == (STATE, "s")
    sham = report.Truth("scattered", TRACES, written[1], put_in, table)
    assert report.score(sham)[1:5] == (0, 0, 2, 0)
    assert "2 latents were called one" in " ".join(report.sentences(sham))
    assert report.rows(sham) == []


def test_latents_scored_in_portions_are_scored_the_same(planted, marks, written, monkeypatch):
    monkeypatch.setattr(score, "CELLS_AT_ONCE", 1)
    traces, truth, _ = written
    assert score.latent_marks(planted.lazy(), truth.lazy(), traces.lazy(), condition="reason").equals(marks)


def test_of_no_activations_there_are_no_marks(planted, written):
    traces, truth, _ = written
    assert score.latent_marks(planted.clear().lazy(), truth.lazy(), traces.lazy(), condition="reason").is_empty()


def test_a_probe_reads_what_is_there_and_nothing_else(written, tmp_path):
    """A random model has no state, but in what its tokens say: bodies, whose tokens are alike, are read no better."""
    traces, truth, _ = written
    manifest = {"folder": str(build_model(tmp_path / "model")), "files": {}}
    model = models.load_model(manifest, "float32")
    table = probes.probes(
        traces, truth, model=model, names=["layers.2.mlp"], condition="reason", log=logging.getLogger("test")
    )
    assert table["state"].to_list() == list(STATES)
    assert table.filter(state="back")["auroc"][0] < 0.9
    none = probes.probes(
        traces, truth.filter(state="plan"), model=model, names=["layers.2.mlp"], condition="reason",
        log=logging.getLogger("test"),
    )  # fmt: skip
    assert none.filter(state="back").select("sentences", "auroc").row(0) == (0, None)


def test_a_ridge_probe_is_one():
    """Of states that are a direction in the tokens' states, a probe reads all; of shuffled ones none."""
    chance = np.random.default_rng(0)
    state = chance.integers(0, len(STATES), 2000)
    x = chance.normal(size=(2000, 20)) + 2 * np.eye(len(STATES), 20)[state]
    right = aurocs(probes._ridge(x[:1000], state[:1000], x[1000:]).T, state[1000:]).diagonal()
    assert right.min() > 0.85
    noise = chance.normal(size=(2000, 20))
    wrong = aurocs(probes._ridge(noise[:1000], state[:1000], noise[1000:]).T, state[1000:]).diagonal()
    assert abs(wrong - 0.5).max() < 0.15


def test_grammar_states_are_those_of_the_truth():
    assert set(grammar.OPENERS) == set(STATES)
