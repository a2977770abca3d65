"""Problems: every source, and the refusal of what can't be used."""

import json
import logging

import datasets
import pytest
from thoughtscope import problems
from thoughtscope.errors import InputError

LOG = logging.getLogger("test")


def section(**changes):
    keys = {"name": None, "config": None, "split": "train", "revision": None, "path": None, "question": "question",
            "answer": "answer", "solution": None, "text": None, "size": 10, "seed": None}  # fmt: skip
    return keys | changes


@pytest.fixture
def jsonl(tmp_path):
    def write(*rows):
        path = tmp_path / "problems.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return str(path)

    return write


@pytest.mark.parametrize(
    ("answer", "reference"),
    [("48/2 = <<48/2=24>>24\n#### 72", "72"), ("72", "72"), (" 1,000 ", "1,000"), ("a #### b\n#### 7", "7")],
)
def test_reference_answer(answer, reference):
    assert problems.reference_answer(answer) == reference


def test_jsonl(jsonl):
    path = jsonl({"q": "1+1?", "a": "1+1=2\n#### 2", "x": 0}, {"q": "2+2?", "a": "4", "x": 1})
    table = problems.load(section(source="jsonl", path=path, question="q", answer="a"), "problems", LOG)
    assert table.columns == list(problems.SCHEMA)
    assert table.rows() == [(0, "1+1?", "2", "1+1=2\n#### 2", None), (1, "2+2?", "4", None, None)]


def test_answers_may_be_numbers(jsonl):
    table = problems.load(
        section(source="jsonl", path=jsonl({"question": "a", "answer": 3}, {"question": "b", "answer": 2.5})), "p", LOG
    )
    assert [float(answer) for answer in table["answer"]] == [3, 2.5]


def test_a_seed_shuffles_and_none_keeps_the_order(jsonl):
    path = jsonl(*[{"question": f"q{i}", "answer": str(i)} for i in range(20)])
    kept = problems.load(section(source="jsonl", path=path), "problems", LOG)
    assert kept["answer"].to_list() == [str(i) for i in range(20)]
    shuffled = problems.load(section(source="jsonl", path=path, seed=1), "problems", LOG)
    assert sorted(shuffled["answer"], key=int) == kept["answer"].to_list()
    assert shuffled["answer"].to_list() != kept["answer"].to_list()
    assert shuffled["trace_id"].to_list() == list(range(20))
    assert problems.load(section(source="jsonl", path=path, seed=1), "problems", LOG).equals(shuffled)


def test_plain_text(jsonl):
    table = problems.load(section(source="jsonl", path=jsonl({"body": "some text"}), text="body"), "sae.text", LOG)
    assert table["text"].to_list() == ["some text"]


@pytest.mark.parametrize(
    ("rows", "changes", "words"),
    [
        ([{"question": "a", "answer": "1"}], {"answer": "solution"}, r"'solution', but .* columns: question, answer"),
        ([{"question": "a", "answer": "1"}, {"question": " ", "answer": "1"}], {}, r"row 1 of .* empty question"),
        ([{"question": "a", "answer": None}, {"question": "b", "answer": "1"}], {}, r"row 0 of .* empty answer"),
        ([{"question": "a", "answer": "work\n####"}], {}, r"row 0 of .* empty answer"),
    ],
)
def test_unusable_rows_and_columns(jsonl, rows, changes, words):
    with pytest.raises(InputError, match=words):
        problems.load(section(source="jsonl", path=jsonl(*rows)) | changes, "problems", LOG)


def test_broken_jsonl(tmp_path):
    path = tmp_path / "broken.jsonl"
    path.write_text('{"question": "a", "answer": "1"}\n{"question": ')
    with pytest.raises(InputError, match=r"problems\.path: .*broken\.jsonl can't be read as JSON lines"):
        problems.load(section(source="jsonl", path=str(path)), "problems", LOG)


def test_reasoning_gym_is_seeded_and_has_solutions():
    source = section(source="reasoning_gym", name="gsm_symbolic", size=5, seed=3)
    table = problems.load(source, "problems", LOG)
    assert table.equals(problems.load(source, "problems", LOG))
    assert len(problems.load(source | {"size": 8}, "problems", LOG)) == 8
    assert problems.load(source | {"size": 8}, "problems", LOG)[:5].equals(table)
    assert not problems.load(source | {"seed": 4}, "problems", LOG).equals(table)
    for question, answer, solution in table.select("question", "answer", "solution").iter_rows():
        assert question
        assert problems.reference_answer(solution) == answer


def test_unknown_reasoning_gym_dataset():
    with pytest.raises(InputError, match=r"problems\.name is 'gsm_symbolix'"):
        problems.load(section(source="reasoning_gym", name="gsm_symbolix"), "problems", LOG)


def test_hub_source_by_datasets(tmp_path):
    """`datasets.load_dataset` on a local repository folder: the same call, without a hub."""
    rows = {"question": ["a", "b"], "answer": ["x\n#### 1", "y\n#### 2"]}
    (tmp_path / "data").mkdir()
    datasets.Dataset.from_dict(rows).to_parquet(str(tmp_path / "data" / "train-00000-of-00001.parquet"))
    table = problems.load(section(source="hub", name=str(tmp_path), revision="main"), "problems", LOG)
    assert table["answer"].to_list() == ["1", "2"]
    assert table["solution"].to_list() == rows["answer"]


def test_hub_out_of_reach_says_what_to_do():
    source = section(source="hub", name="openai/gsm8k", config="main", revision="e53f0488")
    with pytest.raises(InputError) as error:
        problems.load(source, "problems", LOG)
    assert "\n" not in str(error.value)
    assert "hf download --repo-type dataset openai/gsm8k" in str(error.value)
    assert "config/config.yaml" in str(error.value)
