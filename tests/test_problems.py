"""Problems: every source, and the refusal of what can't be used."""

import json
import logging

import datasets
import pytest

from thoughtscope import problems
from thoughtscope.errors import HubUnreachable, InputError

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
    table, _ = problems.load(section(source="jsonl", path=path, question="q", answer="a"), "problems", LOG)
    assert table.columns == list(problems.SCHEMA)
    assert table.rows() == [(0, "1+1?", "2", "1+1=2\n#### 2", None), (1, "2+2?", "4", None, None)]


def test_answers_may_be_numbers(jsonl):
    table, _ = problems.load(
        section(source="jsonl", path=jsonl({"question": "a", "answer": 3}, {"question": "b", "answer": 2.5})), "p", LOG
    )
    assert table["answer"].to_list() == ["3", "2.5"]


def test_a_seed_shuffles_and_none_keeps_the_order(jsonl):
    path = jsonl(*[{"question": f"q{i}", "answer": str(i)} for i in range(20)])
    kept, _ = problems.load(section(source="jsonl", path=path), "problems", LOG)
    assert kept["answer"].to_list() == [str(i) for i in range(20)]
    shuffled, _ = problems.load(section(source="jsonl", path=path, seed=1), "problems", LOG)
    assert sorted(shuffled["answer"], key=int) == kept["answer"].to_list()
    assert shuffled["answer"].to_list() != kept["answer"].to_list()
    assert shuffled["trace_id"].to_list() == list(range(20))
    assert problems.load(section(source="jsonl", path=path, seed=1), "problems", LOG)[0].equals(shuffled)


def test_plain_text(jsonl):
    table, _ = problems.load(section(source="jsonl", path=jsonl({"body": "some text"}), text="body"), "sae.text", LOG)
    assert table["text"].to_list() == ["some text"]


@pytest.mark.parametrize(
    ("rows", "changes", "words"),
    [
        ([{"question": "a", "answer": "1"}, {"question": " ", "answer": "1"}], {}, r"row 1 of .* empty question"),
        ([{"question": "a", "answer": None}, {"question": "b", "answer": "1"}], {}, r"row 0 of .* empty answer"),
        ([{"question": "a", "answer": "work\n####"}], {}, r"row 0 of .* empty answer"),
    ],
)
def test_unusable_rows_and_columns(jsonl, rows, changes, words):
    with pytest.raises(InputError, match=words):
        problems.load(section(source="jsonl", path=jsonl(*rows)) | changes, "problems", LOG)


@pytest.mark.parametrize("line", ['{"question": ', "[1]", "\udcff", '{"question": "b", "answer": ["1"]}'])
def test_a_bad_line_is_named(tmp_path, line):
    path = tmp_path / "broken.jsonl"
    path.write_text('{"question": "a", "answer": "1"}\n\n' + line, errors="surrogateescape")
    with pytest.raises(InputError, match=r"broken\.jsonl, line 3") as error:
        problems.load(section(source="jsonl", path=str(path)), "problems", LOG)
    assert "\n" not in str(error.value)


def test_text_to_train_on_must_have_solutions(jsonl):
    source = section(source="jsonl", path=jsonl({"question": "a", "answer": "1"}))
    with pytest.raises(InputError, match=r"sae\.text: .* has no worked solutions .* sae\.text\.solution"):
        problems.load(source, "sae.text", LOG)


def test_reasoning_gym_is_seeded_and_has_solutions():
    source = section(source="reasoning_gym", name="gsm_symbolic", size=5, seed=3)
    table, _ = problems.load(source, "problems", LOG)
    assert table.equals(problems.load(source, "problems", LOG)[0])
    longer, _ = problems.load(source | {"size": 8}, "problems", LOG)
    assert len(longer) == 8
    assert longer[:5].equals(table)
    assert not problems.load(source | {"seed": 4}, "problems", LOG)[0].equals(table)
    for question, answer, solution in table.select("question", "answer", "solution").iter_rows():
        assert question
        assert problems.reference_answer(solution) == answer


def test_unknown_reasoning_gym_dataset():
    with pytest.raises(InputError, match=r"problems\.name is 'gsm_symbolix'"):
        problems.load(section(source="reasoning_gym", name="gsm_symbolix"), "problems", LOG)


COMMIT = "e53f048856ff4f594e959d75785d2c2d37b678ee"


@pytest.fixture
def hub_cache(hub_snapshot):
    """A Hugging Face cache with one dataset."""
    data = hub_snapshot("datasets--someone--sums", COMMIT) / "main"
    data.mkdir()
    rows = {"question": ["a", "b"], "answer": ["x\n#### 1", "y\n#### 2"]}
    datasets.Dataset.from_dict(rows).to_parquet(str(data / "train-00000-of-00001.parquet"))


@pytest.mark.parametrize("revision", [COMMIT, None])
def test_a_hub_dataset_from_the_cache(hub_cache, revision, caplog):
    """Without the hub, the revision asked for is read from the cache, and recorded; unpinned, it is warned about."""
    caplog.set_level(logging.INFO)
    table, origin = problems.load(section(source="hub", name="someone/sums", revision=revision), "problems", LOG)
    assert table["answer"].to_list() == ["1", "2"]
    assert table["solution"].to_list() == ["x\n#### 1", "y\n#### 2"]
    assert origin == f"someone/sums at {COMMIT}"
    assert ("isn't pinned" in caplog.text) == (revision is None)
    assert revision is not None or f"problems.revision: {COMMIT}" in caplog.text


def test_a_column_that_is_not_there(hub_cache):
    with pytest.raises(
        InputError, match=r"problems\.answer is 'result', but someone/sums has the columns: question, ans"
    ):
        problems.load(section(source="hub", name="someone/sums", revision=COMMIT, answer="result"), "problems", LOG)


def test_a_configuration_that_is_not_there(hub_cache):
    with pytest.raises(
        InputError, match=r"has no split 'train' of problems\.config 'big' .*'big' not found. Available"
    ):
        problems.load(section(source="hub", name="someone/sums", revision=COMMIT, config="big"), "problems", LOG)


def test_another_revision_in_the_cache_will_not_do(hub_cache):
    with pytest.raises(InputError, match=r"problems.name: dataset 'someone/sums' can't be fetched"):
        problems.load(section(source="hub", name="someone/sums", revision="0" * 40), "problems", LOG)


def test_hub_out_of_reach():
    source = section(source="hub", name="openai/gsm8k", config="main", revision="e53f0488")
    with pytest.raises(
        HubUnreachable, match=r"dataset 'openai/gsm8k' can't be fetched .* It needs the Hugging Face hub"
    ):
        problems.load(source, "problems", LOG)
