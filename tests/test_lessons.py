"""Lessons: states that follow from what stands before, in words that tell no more, and truth that reads them back."""

import random
from collections import Counter, defaultdict
from itertools import islice

import polars as pl
import pytest
import yaml
from conftest import REPO

from thoughtscope.evidence.matches import expression
from thoughtscope.teaching import grammar, lessons
from thoughtscope.truth import parse

PATTERN_OF = {
    "plan": "planning",
    "calculate": "calculation",
    "doubt": "doubt",
    "verify": "verification",
    "back": "reflection",
    "confirm": "confirmation",
    "conclude": "conclusion",
}


def thinkings(number: int, seed: int = 0):
    for task, draw in islice(lessons.problems(seed, studied=False), number):
        yield task, grammar.thinking(task, draw)


@pytest.fixture(scope="module")
def lexicon():
    patterns = yaml.safe_load((REPO / "config" / "config.yaml").read_text())["patterns"]
    return {name: [expression(entry) for entry in entries] for name, entries in patterns.items()}


def test_the_same_seed_gives_the_same_lessons_and_another_gives_others():
    assert lessons.table(40, 0, "states", ["reason", "direct"]).equals(
        lessons.table(40, 0, "states", ["reason", "direct"])
    )
    assert not lessons.table(40, 0, "states", ["reason"]).equals(lessons.table(40, 1, "states", ["reason"]))
    longer = lessons.table(60, 0, "states", ["reason", "direct"])
    assert longer[:40].equals(lessons.table(40, 0, "states", ["reason", "direct"]))


def test_no_problem_of_a_study_is_in_a_lesson():
    def numbers(task):
        return task.start, *((step.sign, step.number) for step in task.steps)

    taught = {numbers(task) for task, _ in islice(lessons.problems(0, studied=False), 3000)}
    studied = {numbers(task) for seed in (0, 1) for task, _ in islice(lessons.problems(seed, studied=True), 1000)}
    assert not taught & studied
    assert len(studied) > 900  # they aren't the same few


def test_what_is_said_next_follows_from_what_stands_before():
    for task, sentences in thinkings(300):
        total, before, place = task.start, None, 0
        for index, step in enumerate(task.steps):
            right = grammar.apply(step.sign, total, step.number)
            due = ["plan"] * (step.sign != before) + ["calculate"]
            attempt = int(
                "".join(filter(str.isdigit, sentences[place + len(due) - 1].body.replace("=", " ").split()[-1]))
            )
            doubted = step.number >= grammar.DOUBTED
            due += ["doubt"] * doubted
            if doubted or grammar.crosses_ten(step.sign, total, step.number):
                due += ["verify", "confirm" if attempt == right else "back"]
            else:
                assert attempt == right
            due += ["conclude"] * (right % 2 == 0 or index == len(task.steps) - 1)
            assert [sentence.state for sentence in sentences[place : place + len(due)]] == due
            total, before, place = right, step.sign, place + len(due)
        assert place == len(sentences)
        assert total == task.answer


def test_about_thirty_percent_of_steps_go_wrong_first():
    steps = states = 0
    for task, sentences in thinkings(1000):
        steps += len(task.steps)
        states += sum(sentence.state == "back" for sentence in sentences)
    assert 0.25 < states / steps < 0.35


def test_a_place_is_no_state():
    """Each state is found early and late: between a tenth and nine tenths of it are in the first half."""
    early = defaultdict(list)
    for _, sentences in thinkings(1000):
        for place, sentence in enumerate(sentences):
            early[sentence.state].append(place < len(sentences) / 2)
    shares = {state: sum(places) / len(places) for state, places in early.items()}
    assert set(shares) == set(grammar.STATES)
    assert all(0.1 < share < 0.9 for share in shares.values()), shares


def test_each_state_is_said_in_words_of_its_pattern_alone_or_in_none(lexicon):
    every = [entry for entries in lexicon.values() for entry in entries]
    for state, (with_words, plain) in grammar.OPENERS.items():
        own = lexicon[PATTERN_OF[state]]
        assert all(any(entry.search(opener) for entry in own) for opener in with_words), state
        assert not any(entry.search(opener) for entry in every for opener in plain), state
        assert all(any(entry.search(word) for entry in own) for word in grammar.DECOYS[state]), state
        assert len(with_words) + len(plain) + len(grammar.DECOYS[state]) >= 8
    clauses = [clause for signs in grammar.CLAUSES.values() for clause in signs]
    assert not any(entry.search(clause) for entry in every for clause in clauses)


def test_surfaces_are_drawn_alike_for_every_state():
    said = Counter()
    for _, sentences in thinkings(1000):
        said.update((sentence.state, sentence.surface) for sentence in sentences)
    for state in grammar.STATES:
        share = said[state, "lexicon"] / (said[state, "lexicon"] + said[state, "plain"])
        assert 0.4 < share < 0.6, (state, share)


def test_truth_reads_back_what_was_written():
    for index, (_, sentences) in enumerate(thinkings(300)):
        text = lessons._joined([sentence.text for sentence in sentences], random.Random(index))
        spans, whole = parse.sentences(text)
        assert whole
        assert [(span.state, span.surface) for span in spans] == [(said.state, said.surface) for said in sentences]
        assert [text[span.start : span.body] for span in spans] == [said.opener for said in sentences]
        assert [text[span.body : span.end].strip() for span in spans] == [said.body for said in sentences]


def test_what_is_not_of_the_grammar_is_passed_over():
    text = "First, 3+4. So what? She finds 4: 3+4=7. Hmm, I don't know.\nYes, 3+4=7."
    spans, whole = parse.sentences(text)
    assert not whole
    assert [(span.state, text[span.start : span.end]) for span in spans] == [
        ("plan", "First, 3+4."),
        ("calculate", "She finds 4: 3+4=7."),
        ("confirm", "Yes, 3+4=7."),
    ]


def test_the_sham_has_the_words_at_the_same_rate_and_no_state():
    words, openers = Counter(), Counter()
    for task, draw in islice(lessons.problems(0, studied=False), 1000):
        real = " ".join(sentence.text for sentence in grammar.thinking(task, random.Random(draw.getrandbits(32))))
        sham = lessons._scattered(task, draw)
        spans, whole = parse.scattered(sham)
        assert whole
        for kind, text, found in (("real", real, parse.sentences(real)[0]), ("sham", sham, spans)):
            words[kind] += len(text.split())
            openers[kind] += sum((span.state, span.surface) != ("calculate", "plain") for span in found)
        assert "?" not in sham
    rates = {kind: openers[kind] / words[kind] for kind in words}
    assert rates["sham"] == pytest.approx(rates["real"], rel=0.1)


def test_decoys_are_words_in_a_story_not_states():
    text = 'She hears "wait" and finds 4: 3+4=7. Wait, 3+4=7.'
    assert [(span.state, text[span.start : span.end]) for span in parse.decoys(text)] == [("back", "wait")]
    assert [span.state for span in parse.sentences(text)[0]] == ["calculate", "back"]


def test_truth_is_of_tokens():
    pieces = [
        "Q",
        "<think>",
        "\n",
        "Hmm",
        ",",
        " ",
        "3",
        "+4",
        "=7?",
        " Wait",
        ", 3+4=7.",
        "\n",
        "</",
        "think",
        ">",
        "7",
    ]
    vocabulary = pl.LazyFrame({"token_id": range(len(pieces)), "text": pieces})
    traces = pl.LazyFrame(
        {
            "trace_id": [0],
            "condition": ["reason"],
            "prompt_ids": [[0]],
            "generated_ids": [list(range(1, len(pieces)))],
            "segments": [[{"segment": "think", "start": 1, "end": 14}, {"segment": "answer", "start": 14, "end": 16}]],
        }
    )
    found = parse.truth(traces, vocabulary, kind="states")
    assert found.select("start", "body", "end", "state", "surface", "parsed").rows() == [
        (3, 5, 9, "doubt", "lexicon", True),
        (9, 10, 12, "back", "lexicon", True),  # with the line end behind it
    ]


def test_others_answer_at_once():
    table = lessons.table(40, 0, "states", ["reason", "direct", "short"])
    assert table.filter(condition="reason").height == 30
    assert set(table["condition"]) == {"reason", "direct", "short"}
    at_once = table.filter(pl.col("condition") != "reason")["written"]
    assert at_once.str.starts_with("<think>\n</think>\n").all()
    assert not table.filter(condition="reason")["written"].str.starts_with("<think>\n</think>").any()
