"""Patterns: where they are in the text, and what is computed from them, against plain loops over dense matrices."""

import itertools
import json
import math

import numpy as np
import polars as pl
import pytest
import yaml
from conftest import REPO
from synthetic import PROMPT, WORDS, Synthetic

from thoughtscope import statistics
from thoughtscope.evidence import patterns, reason
from thoughtscope.evidence.lexicality import lexicality
from thoughtscope.evidence.matches import expression, pattern_counts
from thoughtscope.evidence.matches import matches as find_matches
from thoughtscope.evidence.windows import lay_out
from thoughtscope.readings.activations import SCHEMA as ACTIVATIONS
from thoughtscope.traces.generate import SCHEMA

SCHEMA_FILE = yaml.safe_load((REPO / "workflow" / "schemas" / "config.schema.yaml").read_text())
DEFAULT = SCHEMA_FILE["properties"]["patterns"]["default"]
LEXICON = {"reflection": ["wait"], "planning": ["first"], "never": ["zebra"], "sums": [r"/\d+ \+ \d+/"]}
REASON = ["wait", "maybe", "hmm", "therefore"]


@pytest.mark.parametrize(
    ("entry", "text", "found"),
    [
        ("wait", "Wait, wait. Awaiting waits", ["Wait", "wait"]),
        ("not sure", "Not  sure; not\nsure", ["Not  sure", "not\nsure"]),
        ("But", "but But", ["But"]),
        ("I need to", "I need to. i need to", ["I need to"]),
        ("double-check", "double-check, double-checked", ["double-check"]),
        (r"/\d+ \+ \d+/", "2 + 3 and 4 +5", ["2 + 3"]),
        ("a.b", "a.b axb", ["a.b"]),
        ("$x$", "so $x$ is", ["$x$"]),
    ],
)
def test_entries(entry, text, found):
    assert [match.group() for match in expression(entry).finditer(text)] == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("so 48 + 24 = 72 clips", ["48 + 24 = 72"]),
        ("3*4=12", ["3*4=12"]),
        ("$12 \\times 5$", ["12 \\times 5"]),
        ("1,000 - 400 = $600", ["1,000 - 400 = $600"]),
        ("12/60", ["12/60"]),
        ("no sums in 2024, or 5 eggs", []),
        ("x = y", []),
    ],
)
def test_the_default_finds_arithmetic(text, found):
    (entry,) = DEFAULT["calculation"]
    assert [match.group().strip() for match in expression(entry).finditer(text)] == found


def words_of(text_tokens):
    """One trace that wrote these tokens, and its vocabulary."""
    table = pl.DataFrame(
        [{"trace_id": 3, "condition": "reason", "prompt_ids": [0] * 5, "generated_ids": list(range(len(text_tokens)))}],
        schema_overrides={name: SCHEMA[name] for name in ("trace_id", "prompt_ids", "generated_ids")},
    )
    vocabulary = pl.DataFrame(
        {"token_id": range(len(text_tokens)), "text": text_tokens}, schema_overrides={"token_id": pl.UInt32}
    )
    return table.lazy(), vocabulary.lazy()


def test_matches_are_the_tokens_that_carry_the_text():
    traces, vocabulary = words_of(["So", " W", "ait", ",", " let", " me", " \ufffd", "\ufffd", " wait", "<|end|>"])
    found = find_matches(
        traces, vocabulary, patterns=json.dumps({"reflection": ["wait", "let me"]}), reason_words=["wait"]
    )
    assert found.filter(kind="pattern").select("entry", "start", "end", "text").rows() == [
        ("wait", 6, 8, "Wait"), ("wait", 13, 14, "wait"), ("let me", 9, 11, "let me"),
    ]  # fmt: skip
    assert found.filter(kind="reason_word").select("name", "start").rows() == [("wait", 6), ("wait", 13)]
    assert set(found["trace_id"]) == {3}


@pytest.fixture(scope="module")
def study():
    made = Synthetic(seed=1, problems=6, length=40)
    made.background(range(10), rate=0.2)
    made.fire(20, lambda _c, _t, _i, word, _s: word == "Wait")
    return made.tables()


@pytest.fixture(scope="module")
def matches(study):
    return find_matches(study["traces"], study["vocabulary"], patterns=json.dumps(LEXICON), reason_words=REASON)


WINDOW = {"condition": "reason", "window_before": 1, "window_after": 2, "shifts": 100, "alpha": 0.05,
          "include_sinks": False}  # fmt: skip
CANDIDATES = pl.LazyFrame({"latent": [20, 3, 7, 99]}, schema={"latent": pl.UInt32})  # 99 is never active


def dense(study, condition="reason"):
    """Per trace: words and activations (tokens, 100 latents) of the tokens that were read."""
    active = study["activations"].filter(pl.col("condition") == condition).collect()
    found = {}
    for trace in study["traces"].filter(pl.col("condition") == condition).collect().iter_rows(named=True):
        ids = trace["generated_ids"][:-1]
        table = np.zeros((len(ids), 100))
        for row in active.filter(trace_id=trace["trace_id"]).iter_rows(named=True):
            table[row["position"] - PROMPT, row["latent"]] = row["activation"]
        found[trace["trace_id"]] = [WORDS[token].strip() for token in ids], table
    return found


def windows(words, wanted, before=1, after=2):
    mask = np.zeros(len(words), dtype=bool)
    for index, word in enumerate(words):
        if word.lower() == wanted:
            mask[max(0, index - before) : index + 1 + after] = True
    return mask


def run_tests(study, matches, **changes):
    settings = {"patterns": json.dumps(LEXICON), **WINDOW, "shifts": 300}
    return patterns.pattern_tests(
        study["activations"], study["traces"], matches.lazy(), CANDIDATES, **settings | changes
    )


def test_pattern_counts(study, matches):
    counts = pattern_counts(matches.lazy(), study["traces"], patterns=json.dumps(LEXICON))
    assert len(counts) == 12 * len(LEXICON)
    for trace in study["traces"].collect().iter_rows(named=True):
        words = [WORDS[token].strip().lower() for token in trace["generated_ids"]]
        mine = counts.filter(trace_id=trace["trace_id"], condition=trace["condition"])
        assert dict(mine.select("pattern", "matches").iter_rows())["reflection"] == words.count("wait")
        assert mine.filter(pattern="never")["matches"].to_list() == [0]
        assert mine["per_100_tokens"].to_list() == [100 * n / len(words) for n in mine["matches"]]


def test_inside_and_outside_are_what_loops_find(study, matches):
    table = run_tests(study, matches)
    found = table.filter(pl.col("p").is_not_null())["pattern"].n_unique()
    assert table["latent"].unique().to_list() == [3, 7, 20, 99]
    for pattern, wanted in (("reflection", "wait"), ("planning", "first")):
        for latent in (3, 20, 99):
            inside, outside, active = [], [], 0
            for words, values in dense(study).values():
                mask = windows(words, wanted)
                if mask.any() and not mask.all():
                    inside.append(values[mask, latent].tolist())
                    outside.append(values[~mask, latent].tolist())
                    active += (values[:, latent] > 0).any()
            row = table.filter(latent=latent, pattern=pattern).row(0, named=True)
            assert row["traces"] == len(inside)
            assert (row["tokens_inside"], row["active_traces"]) == (sum(map(len, inside)), active)
            assert row["active_tokens"] == sum(value > 0 for values in inside + outside for value in values)
            # The unit is the trace: means over traces of means over their tokens, which differ from those over tokens.
            for side, traces in (("inside", inside), ("outside", outside)):
                assert row[f"mean_{side}"] == pytest.approx(np.mean([np.mean(values) for values in traces]))
                assert row[f"rate_{side}"] == pytest.approx(
                    np.mean([np.mean(np.array(values) > 0) for values in traces])
                )
            assert row["difference"] == pytest.approx(row["mean_inside"] - row["mean_outside"], abs=1e-12)
            assert row["low"] <= row["difference"] <= row["high"]
    assert set(table.filter(latent=99)["difference"].drop_nulls()) == {0.0}
    assert set(table.filter(latent=99)["p"].drop_nulls()) == {1.0}
    never = table.filter(pattern="never")
    assert never["p"].null_count() == len(never)
    assert never["note"].unique().to_list() == ["in no trace"]
    linked = table.filter(latent=20, pattern="reflection").row(0, named=True)
    assert linked["p"] < 0.02
    assert linked["family"] == f"{4 * found} tests: recurring latents x patterns that occur"
    # Where more tests are made, more shifts are drawn: one latent alone can still be found.
    assert (
        run_tests(study, matches, alpha=0.001).filter(latent=20, pattern="reflection")["shifts"][0] > 4 * found / 0.001
    )


def test_both_ways_of_shifting_are_one(study, matches):
    """Few activations are looked up where they meet the windows, many are summed by windows: the sums are the same."""
    layout = lay_out(study["activations"], study["traces"], "reason", False)
    (part,) = layout.parts([3, 7, 20, 99])
    found = matches.filter(kind="pattern", name="reflection", condition="reason")
    weights = layout.windows(found, 1, 2) * np.arange(1.0, len(layout.trace) + 1)
    drawn = np.random.default_rng(0).integers(0, layout.run_lengths, size=(25, len(layout.run_lengths)))
    dense = part.values.todense()
    expected = []
    for row in drawn:
        moved = np.zeros(len(weights))
        for run, shift in enumerate(row):
            inside = slice(layout.run_starts[run], layout.run_starts[run + 1])
            moved[inside] = np.roll(weights[inside], shift)
        expected.append(moved @ dense)
    assert (weights > 0).sum() < part.values.nnz
    few = [np.array([column]) for column in range(4)]
    assert any(0 < part.values[:, column].nnz < (weights > 0).sum() for column in few)
    by_column = np.column_stack([part.shifted_sums(weights, drawn, column) for column in few])
    assert part.shifted_sums(weights, drawn, slice(None)) == pytest.approx(np.array(expected).reshape(25, 4))
    assert by_column == pytest.approx(np.array(expected).reshape(25, 4))


def test_p_is_that_of_all_shifts(matches, study):
    """One trace has few shifts: all of them, by hand, against the sampled p."""
    one = dict(study)
    one["traces"] = study["traces"].filter(pl.col("trace_id") == 2)
    one["activations"] = study["activations"].filter(pl.col("trace_id") == 2)
    table = run_tests(one, matches.filter(trace_id=2), shifts=20_000)
    words, values = dense(study)[2]
    mask = windows(words, "wait")
    think = len(study["traces"].filter(pl.col("trace_id") == 2).collect()["generated_ids"][0]) // 2
    assert mask[:think].any() or mask[think:].any()
    for latent in (3, 7, 20):
        # Each segment is shifted by itself.
        every = [
            values[moved, latent].mean() - values[~moved, latent].mean()
            for first in range(think) for second in range(len(words) - think)
            for moved in [np.concatenate([np.roll(mask[:think], first), np.roll(mask[think:], second)])]
        ]  # fmt: skip
        exact = np.mean([value >= every[0] - 1e-12 for value in every])
        row = table.filter(latent=latent, pattern="reflection").row(0, named=True)
        assert row["p"] == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / row["shifts"]) + 1e-3)


def test_a_constant_latent_is_linked_to_nothing(study, matches):
    """Its means are equal inside and outside, but for rounding: no shift exceeds less than the others."""
    rows = [
        {"trace_id": trace["trace_id"], "condition": "reason", "position": PROMPT + index, "token_id": token,
         "segment": "think", "sink": False, "latent": 3, "activation": 0.1}
        for trace in study["traces"].filter(condition="reason").collect().iter_rows(named=True)
        for index, token in enumerate(trace["generated_ids"][:-1])
    ]  # fmt: skip
    flat = {**study, "activations": pl.DataFrame(rows, schema=ACTIVATIONS).lazy()}
    table = run_tests(flat, matches).filter(latent=3).drop_nulls("p")
    assert set(table["difference"]) == {0.0}
    assert set(table["p"]) == {1.0}


def test_one_reasoning_word_has_entropy_1(study, matches):
    table = reason.reason_scores(
        study["activations"], study["traces"], matches.lazy(), CANDIDATES, reason_words=["wait"], **WINDOW
    )
    row = table.filter(latent=20).row(0, named=True)
    assert row["entropy"] == 1
    assert row["score"] > 0


def test_the_bootstrap_interval_of_a_score_is_that_of_resampled_traces(study, matches):
    table = reason.reason_scores(
        study["activations"], study["traces"], matches.lazy(), CANDIDATES, reason_words=REASON, **WINDOW
    )
    weights = statistics.resamples(6)
    distinct, counts = np.unique(weights, axis=0, return_counts=True)
    scores = np.array([reason_score_by_hand(study, REASON, row)[0] for row in distinct[:: len(distinct) // 60]])
    low, high = np.nanpercentile(scores[:, 3], [2.5, 97.5])  # of a sixtieth of them
    row = table.filter(latent=3).row(0, named=True)
    assert row["low"] == pytest.approx(low, abs=0.25 * (high - low))
    assert row["high"] == pytest.approx(high, abs=0.25 * (high - low))
    assert counts.sum() == statistics.resamples(6).shape[0]


def reason_score_by_hand(study, words, weights=None):
    """The formula of the paper, with loops, for latents 0 to 99."""
    inside, outside, of_word = [], [], {word: [] for word in words}
    for number, (text, values) in enumerate(dense(study).values()):
        times = 1 if weights is None else int(weights[number])
        masks = {word: windows(text, word) for word in words}
        union = np.any(list(masks.values()), axis=0)
        for _ in range(times):
            inside += values[union].tolist()
            outside += values[~union].tolist()
            for word in words:
                of_word[word] += values[masks[word]].tolist()
    plus, minus = np.mean(inside, axis=0), np.mean(outside, axis=0)
    means = np.array([np.mean(rows, axis=0) if rows else np.zeros(100) for rows in of_word.values()])
    shares = means / np.where(means.sum(axis=0) > 0, means.sum(axis=0), 1)
    entropy = np.array(
        [-sum(share * math.log(share) for share in column if share > 0) / math.log(len(words)) for column in shares.T]
    )
    return plus / plus.sum() * entropy**0.7 - minus / minus.sum(), entropy, plus, minus


def test_reason_scores_are_the_papers_formula(study, matches):
    table = reason.reason_scores(
        study["activations"], study["traces"], matches.lazy(), CANDIDATES, reason_words=REASON, **WINDOW
    )
    score, entropy, plus, minus = reason_score_by_hand(study, REASON)
    without = {word: reason_score_by_hand(study, [other for other in REASON if other != word])[0] for word in REASON}
    for row in table.iter_rows(named=True):
        latent = row["latent"]
        assert row["score"] == pytest.approx(score[latent])
        assert row["entropy"] == pytest.approx(entropy[latent], abs=1e-12)
        assert row["mean_inside"] == pytest.approx(plus[latent])
        assert row["mean_outside"] == pytest.approx(minus[latent])
        least = min(REASON, key=lambda word: without[word][latent])
        assert row["least_without_a_word"] == pytest.approx(without[least][latent])
        assert without[row["that_word"]][latent] == pytest.approx(without[least][latent])
        assert row["low"] <= row["score"] <= row["high"]


def test_no_reasoning_word(study, matches):
    table = reason.reason_scores(
        study["activations"], study["traces"], matches.lazy(), CANDIDATES, reason_words=["zebra"], **WINDOW
    )
    assert table["score"].null_count() == 4
    assert table["note"].unique().to_list() == ["no reasoning word in any trace"]
    nothing = reason.reason_scores(
        study["activations"], study["traces"], matches.lazy(), CANDIDATES, reason_words=[], **WINDOW
    )
    assert nothing["score"].null_count() == 4


def test_lexicality_is_what_loops_find(study):
    table = lexicality(
        study["activations"], study["traces"], CANDIDATES, study["vocabulary"], condition="reason", max_top_3=0.8,
        include_sinks=False,
    )  # fmt: skip
    words = list(itertools.chain.from_iterable(words for words, _ in dense(study).values()))
    values = np.concatenate([values for _, values in dense(study).values()])
    for latent in (3, 7, 20):
        row = table.filter(latent=latent).row(0, named=True)
        mass = {}
        for word, value in zip(words, values[:, latent], strict=True):
            mass[word] = mass.get(word, 0) + value
        shares = sorted((value / sum(mass.values()) for value in mass.values() if value > 0), reverse=True)
        assert (row["tokens"], row["types"]) == ((values[:, latent] > 0).sum(), len(shares))
        for count in (1, 3, 10):
            assert row[f"top_{count}"] == pytest.approx(sum(shares[:count]))
        assert row["entropy"] == pytest.approx(-sum(s * math.log(s) for s in shares) / math.log(len(set(words))))
        assert row["types_90"] == next(n for n in range(1, 99) if sum(shares[:n]) >= 0.9 - 1e-12)
        grand = values[:, latent].mean()
        between = sum(
            words.count(word) * (np.mean(values[[w == word for w in words], latent]) - grand) ** 2
            for word in set(words)
        )
        assert row["eta_squared"] == pytest.approx(between / ((values[:, latent] - grand) ** 2).sum())
        assert row["eta_squared_by_chance"] == pytest.approx((len(set(words)) - 1) / (len(words) - 1))
    detector = table.filter(latent=20).row(0, named=True)
    assert (detector["top_1"], detector["top_tokens"]) == (1.0, "␣Wait")
    assert detector["lexical"] == (True if detector["tokens"] >= statistics.MIN_TOKENS else None)
    assert table.filter(latent=3)["lexical"].to_list() == [False]
    assert table.filter(latent=99).select("tokens", "top_1", "lexical").rows() == [(0, None, None)]


def test_sinks_are_left_out_unless_included(study):
    flagged = study["activations"].with_columns(sink=(pl.col("trace_id") == 1) & (pl.col("position") == PROMPT + 3))
    sizes = [len(lay_out(flagged, study["traces"], "reason", included).trace) for included in (False, True)]
    assert sizes[1] - sizes[0] == 1


def test_latents_tested_in_parts_are_the_same(study, matches, monkeypatch):
    def tables():
        inputs = study["activations"], study["traces"]
        scores = reason.reason_scores(
            *inputs, matches.lazy(), CANDIDATES, reason_words=REASON, **WINDOW | {"shifts": 1500}
        )
        lexical = lexicality(
            *inputs, CANDIDATES, study["vocabulary"], condition="reason", max_top_3=0.8, include_sinks=False
        )
        return run_tests(study, matches), scores, lexical

    whole = tables()
    monkeypatch.setattr("thoughtscope.evidence.windows.ROWS_AT_ONCE", 30)
    for one, other in zip(whole, tables(), strict=True):
        assert one.equals(other)
    monkeypatch.setattr("thoughtscope.evidence.windows.ROWS_AT_ONCE", 10**9)
    monkeypatch.setattr("thoughtscope.evidence.windows.LATENTS_AT_ONCE", 3)
    for one, other in zip(whole, tables(), strict=True):
        assert one.equals(other)
