"""Patterns: where they are in the text, and what is computed from them, against plain loops over dense matrices."""

import itertools
import json
import math

import numpy as np
import polars as pl
import pytest
import yaml
from conftest import REPO
from polars.testing import assert_frame_equal
from scipy import stats
from synthetic import PROMPT, WORDS, Synthetic

from thoughtscope import statistics
from thoughtscope.config import SEGMENTS
from thoughtscope.evidence import alike, links, patterns, presence, reason
from thoughtscope.evidence.lexicality import lexicality
from thoughtscope.evidence.matches import MATCHES_SCHEMA, expression, pattern_counts
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
    settings = {"patterns": json.dumps(LEXICON), "condition": "reason", "tokens_before": 3, "tokens_after": 4,
                "min_share": 0.05, "include_sinks": False}  # fmt: skip
    return patterns.pattern_tests(
        study["activations"], study["traces"], matches.lazy(), study["vocabulary"], **settings | changes
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


def beside(words, segments, wanted, before=3, after=4):
    """Masks of the tokens before, at and after a word, by loops: within its segment, other such words left out."""
    found = np.zeros((3, len(words)), dtype=bool)
    at = [word.lower() == wanted for word in words]
    for index in np.flatnonzero(at):
        found[1, index] = True
        for other in range(len(words)):
            if segments[other] == segments[index] and not at[other]:
                found[0, other] |= 0 < index - other <= before
                found[2, other] |= 0 < other - index <= after
    return found


def test_windows_are_beside_a_patterns_words_within_a_segment(study, matches):
    layout = lay_out(study["activations"], study["traces"], "reason", False)
    masks = layout.beside(matches.filter(kind="pattern", name="reflection", condition="reason"), 3, 4)
    expected = [
        beside(words, ["think"] * (len(words) // 2 + odd) + ["answer"] * len(words), "wait")
        for words, _ in dense(study).values()
        for odd in [(len(words) + 1) // 2 - len(words) // 2]
    ]
    assert np.array_equal(np.array(masks), np.concatenate(expected, axis=1))
    names = [["think"] * ((len(words) + 1) // 2) + ["answer"] * (len(words) // 2) for words, _ in dense(study).values()]
    assert layout.segment.tolist() == [SEGMENTS.index(name) for of_trace in names for name in of_trace]


def test_a_window_counts_as_much_as_its_match_was_likely(study, matches):
    """Against loops: the likeliest match that a token is beside, in twentieths of the likeliest of all; no words."""
    layout = lay_out(study["activations"], study["traces"], "reason", False)
    places = matches.filter(kind="pattern", name="reflection", condition="reason").unique(["trace_id", "start", "end"])
    likely = np.random.default_rng(0).uniform(0, 1, len(places)).round(3)
    places = places.with_columns(probability=pl.Series(likely))
    found = np.array(patterns._windows(layout, places, 3, 4))
    expected = np.zeros_like(found)
    runs = list(zip(layout.trace.tolist(), layout.segment.tolist(), strict=True))
    inside = set()
    for row in places.iter_rows(named=True):
        own = [index for index, trace in enumerate(layout.trace) if layout.trace_ids[trace] == row["trace_id"]]
        index = next((index for index in own if layout.positions[index] == row["start"]), None)
        if index is None:
            continue
        inside.add(index)
        weight = np.ceil(row["probability"] * 20) / 20
        expected[1, index] = 1
        for window, others in ((0, range(index - 3, index)), (2, range(index + 1, index + 5))):
            for other in others:
                if 0 <= other < len(runs) and runs[other] == runs[index]:
                    expected[window, other] = max(expected[window, other], weight)
    for index in inside:
        expected[[0, 2], index] = 0
    expected[[0, 2]] /= expected[[0, 2]].max()
    np.testing.assert_allclose(found, expected)


def test_weights_alike_change_nothing():
    made = Synthetic(seed=2, problems=12, length=60)
    made.background(range(10), rate=0.2)
    made.fire(20, lambda _c, _t, _i, word, _s: word == "Wait")
    study = made.tables()
    matches = find_matches(study["traces"], study["vocabulary"], patterns=json.dumps(LEXICON), reason_words=REASON)
    plain = run_tests(study, matches)
    assert_frame_equal(run_tests(study, matches.with_columns(probability=pl.lit(1.0))), plain)
    half = run_tests(study, matches.with_columns(probability=pl.lit(0.5)))
    both = plain.join(half, on=["latent", "pattern", "window"], suffix="_half").drop_nulls(["share", "share_half"])
    assert len(both) > 10
    np.testing.assert_allclose(both["share_half"], both["share"], atol=1e-9)
    np.testing.assert_allclose(both["p_half"], both["p"], atol=1e-9)
    few = np.random.default_rng(0).uniform(0, 0.04, len(matches))  # however unlikely all of them are
    assert run_tests(study, matches.with_columns(probability=pl.Series(few)))["share"].count() == plain["share"].count()


def test_shares_are_what_a_regression_finds():
    """Against dense algebra: regress window and activation on what tokens are, then one on the other."""
    made = Synthetic(seed=2, problems=12, length=60)
    made.background(range(10), rate=0.2)
    made.fire(20, lambda _c, _t, _i, word, _s: word == "Wait")
    study = made.tables()
    matches = find_matches(study["traces"], study["vocabulary"], patterns=json.dumps(LEXICON), reason_words=REASON)
    layout = lay_out(study["activations"], study["traces"], "reason", False)
    x = alike.alike(layout, study["vocabulary"]).x.toarray()
    runs = (layout.run[:, None] == np.arange(layout.run.max() + 1)).astype(float)

    def within(values):
        return values - runs @ ((runs.T @ values) / runs.sum(axis=0)[:, None])

    def rest_of(x):
        x = within(x)
        return np.eye(len(x)) - x @ np.linalg.solve(x.T @ x + alike.RIDGE * np.eye(x.shape[1]), x.T)

    values = np.concatenate([values for _, values in dense(study).values()])
    places = matches.filter(kind="pattern", condition="reason")
    words = [layout.beside(places.filter(name=name), 0, 0)[1] for name in sorted(LEXICON)]
    any_word = np.any(words, axis=0)
    # The words of every pattern are told of where windows beside them are looked at.
    rests = {"at": rest_of(x)} | dict.fromkeys(("before", "after"), rest_of(np.column_stack([x, *words])))
    table = run_tests(study, matches)
    compared = 0
    for pattern in ("reflection", "planning"):
        masks = layout.beside(places.filter(name=pattern), 3, 4)
        for window, found in zip(links.WINDOWS, masks, strict=True):
            rest, mask = rests[window], found & (~any_word | (window == "at"))
            left = rest @ within(mask[:, None].astype(float))[:, 0]
            for latent in (3, 7, 20):
                row = table.filter(latent=latent, pattern=pattern, window=window)
                if row.is_empty():
                    continue  # too rarely active
                row = row.row(0, named=True)
                assert (row["tokens_inside"], row["note"] is None) == (mask.sum(), row["share"] is not None)
                if row["share"] is None:
                    assert (left @ left) < 1
                    continue
                activation = values[:, latent]
                more = left * (rest @ within(activation[:, None])[:, 0]) * mask.sum() / (left @ left)
                assert row["share"] == pytest.approx(more.sum() / activation.sum(), abs=1e-6)
                assert row["mean_inside"] == pytest.approx(activation[mask].mean())
                assert row["mean_alike"] == pytest.approx(activation[mask].mean() - more.sum() / mask.sum(), abs=1e-6)
                of_trace = [np.bincount(layout.trace, sums)[:, None] for sums in (more, activation)]
                test = statistics.share_over_traces(*of_trace, 0.05)
                assert (row["low"], row["high"]) == pytest.approx((test.low[0], test.high[0]), abs=1e-5)
                active = (of_trace[1] > 0).sum()
                assert (row["active_traces"], row["p"]) == (
                    active,
                    pytest.approx(max(test.p[0], 0.5**active), rel=1e-4),
                )
                assert 0.5 < row["told_apart"] <= 1
                compared += 1
    assert compared >= 12
    never = table.filter(pattern="never")
    assert set(never["note"]) == {"in 0 traces; 5 are needed"}
    # A word of its own is wholly explained by which token it is.
    at = table.filter(pattern="reflection", window="at")
    assert set(at["note"]) == {"its windows are where such tokens always are"}
    assert 99 not in table["latent"].to_list()  # never active


def test_what_tokens_are_and_where_they_stand():
    """Every class, for a trace of two sentences and two lines, against what one counts by hand."""
    text = ["So", " 12", " eggs", ",", " then", " 3", ".", "\n", "All", " of", " it", "!"]
    read, vocabulary = words_of([*text, "<|end|>"])
    parts = [{"segment": "think", "start": 5, "end": 12}, {"segment": "answer", "start": 12, "end": 18}]
    traces = read.with_columns(segments=pl.lit(parts, dtype=SCHEMA["segments"]))
    layout = lay_out(pl.LazyFrame(schema=ACTIVATIONS), traces, "reason", False)
    word, digit, brk, mark = alike.WORD, alike.DIGIT, alike.BREAK, alike.MARK
    kind = np.array([word, digit, word, mark, word, digit, mark, brk, word, word, word, mark])
    assert alike.kinds(vocabulary)[:12].tolist() == kind.tolist()
    (types, since, until, joint, line, follows, mark_since, digits, start, end, before, after) = [
        (classes, is_place) for classes, is_place in alike._blocks(layout, vocabulary)
    ]
    assert types[0].tolist() == kind.tolist()  # each is too rare to have a class of its own
    # A segment begins a sentence and a line; a line break ends both.
    assert since[0].tolist() == [0, 1, 2, 3, 4, 5, 6, 0, 0, 1, 2, 3]
    assert until[0].tolist() == [6, 5, 4, 3, 2, 1, 0, 0, 3, 2, 1, 0]
    assert joint[0].tolist() == (kind + 5 * np.minimum(since[0], 3)).tolist()
    assert line[0].tolist() == [0, 1, 2, 3, 4, 5, 6, 0, 0, 1, 2, 3]
    assert follows[0].tolist() == [305, *(300 + kind[:6]), 305, *(300 + kind[7:11])]
    assert mark_since[0].tolist() == [5 * behind + min(at, 4) for behind, at in zip(
        [0, 1, 2, 3, 0, 1, 2, 0, 0, 1, 2, 3], since[0].tolist(), strict=True)]  # fmt: skip
    assert digits[0].tolist() == [2] * 7 + [0] * 5
    think, answer = SEGMENTS.index("think"), SEGMENTS.index("answer")
    for block, places in ((start, [*range(7), *range(5)]), (end, [*range(6, -1, -1), *range(4, -1, -1)]),
                          (before, [0] * 8 + [1] * 4), (after, [0] * 7 + [1] + [0] * 4)):  # fmt: skip
        expected = [place * len(SEGMENTS) + (think if index < 7 else answer) for index, place in enumerate(places)]
        assert block[0].tolist() == expected
    assert [is_place for _, is_place in (types, since, joint, start, end, before)] == [False] * 3 + [True] * 3


def test_presence_is_the_share_of_stretches(study):
    table = presence.presence(
        study["activations"], study["traces"], conditions=["reason", "direct"], min_excess=0.25, include_sinks=False
    )
    sides = [dense(study, condition) for condition in ("reason", "direct")]
    common = {key: min(len(side[key][0]) for side in sides) for key in sides[0]}
    rungs = presence.ladder(np.array(list(common.values())))
    assert rungs == [1, 4, 16, max(common.values())]

    def share(values, length):
        return np.mean([(values[first : first + length] > 0).any() for first in range(len(values) - length + 1)])

    assert set(table["latent"]) >= {3, 7}
    for row in table.iter_rows(named=True):
        of = {rung: np.array([[share(side[key][1][:, row["latent"]], min(rung, common[key])) for key in common]
                              for side in sides]) for rung in rungs}  # fmt: skip
        best = min(rungs, key=lambda rung: abs(of[rung].mean() - 0.5))
        assert row["tokens"] == best
        for name, rung in (("presence", best), ("rate", 1)):
            ours, theirs = of[rung]
            assert (row[name], row[f"{name}_control"]) == pytest.approx((ours.mean(), theirs.mean()))
        assert row["excess"] == pytest.approx(1 - of[best][1].mean() / of[best][0].mean())
        assert row["rate_excess"] == pytest.approx(1 - of[1][1].mean() / of[1][0].mean())
        p = [statistics.mean_over_traces((0.75 * of[rung][0] - of[rung][1])[:, None]).p[0] for rung in (best, 1)]
        # Bursts of the whole study: as many as stretches of up to whole traces have, of which not too many have one.
        own = {rung: np.mean([share(side[1][:, row["latent"]], min(rung, len(side[0]))) for side in sides[0].values()])
               for rung in presence.ladder(np.array([len(side[0]) for side in sides[0].values()]))}  # fmt: skip
        longest = max((rung for rung in own if own[rung] < presence.MOST_PRESENT), default=1)
        mean = np.mean([min(longest, len(side[0])) for side in sides[0].values()])
        size = max(of[1][0].mean() / (-math.log1p(-own[longest]) / mean), 1)
        seen, alike_ = (sum(len(sides[1][key][0]) * rate for key, rate in zip(common, rates, strict=True)) / size
                        for rates in (of[1][1], of[1][0]))  # fmt: skip
        least = max(stats.gamma.sf(0.75 * alike_, seen + 1), 0.5 ** row["active_traces"])
        assert row["p"] == pytest.approx(max(min(1, 2 * min(p)), least))


def test_never_seen_in_few_tokens_is_not_never():
    """A rare latent of the condition, and a control of ten tokens a trace that by luck never has it."""
    study = Synthetic(seed=32, problems=32, length=150)
    for (condition, trace), ids in study.words.items():
        if condition == "direct":
            study.words[condition, trace] = ids[:10]
    study.retell()
    ends = pl.col("prompt_ids").list.len() + pl.col("generated_ids").list.len()
    parts = [
        [{"segment": "prompt", "start": 0, "end": PROMPT}, {"segment": "answer", "start": PROMPT, "end": end}]
        for end in study.traces.select(ends)["prompt_ids"]
    ]
    study.traces = study.traces.with_columns(segments=pl.Series(parts, dtype=SCHEMA["segments"]))
    for latent, rate in ((1, 0.01), (2, 0.2)):
        study.fire(latent, lambda c, _t, _i, _w, _s, rate=rate: c == "reason" and study.chance.random() < rate)
    tables = study.tables()
    rare, frequent = presence.presence(
        tables["activations"], tables["traces"], conditions=["reason", "direct"], min_excess=0.25, include_sinks=False
    ).iter_rows(named=True)
    # 32 x 9 tokens at 0.01 are 2.9, of which none is seen with a probability of about exp(-0.75 x 2.9) = 0.11.
    assert (rare["excess"], frequent["excess"]) == (1, 1)
    assert 0.05 < rare["p"] < 0.5
    assert rare["low"] < 0
    assert frequent["p"] < 1e-6


def test_presence_holds_its_level_where_the_control_is_shorter():
    """Rare latents at the same rate per token, the control's traces a fifth as long: more traces have them, no more."""
    study = Synthetic(seed=31, problems=60, length=150)
    for (condition, trace), ids in study.words.items():
        if condition == "direct":
            study.words[condition, trace] = ids[: len(ids) // 5]
    study.retell()
    ends = pl.col("prompt_ids").list.len() + pl.col("generated_ids").list.len()
    parts = [
        [{"segment": "prompt", "start": 0, "end": PROMPT}, {"segment": "answer", "start": PROMPT, "end": end}]
        for end in study.traces.select(ends)["prompt_ids"]
    ]
    segments = pl.Series(parts, dtype=SCHEMA["segments"])
    study.traces = study.traces.with_columns(segments=segments)
    study.background(range(300), rate=0.01)
    tables = study.tables()
    found = presence.presence(
        tables["activations"], tables["traces"], conditions=["reason", "direct"], min_excess=0.25, include_sinks=False
    )
    assert len(found) > 280
    assert (found["p"] < 0.05).sum() <= 8
    held = ((found["low"] <= 0) & (found["high"] >= 0)).mean()
    assert held > 0.92


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
    """One trace has few shifts: all of them, by hand, against the sampled p of a score."""
    one = dict(study)
    one["traces"] = study["traces"].filter(pl.col("trace_id") == 2)
    one["activations"] = study["activations"].filter(pl.col("trace_id") == 2)
    words = ["wait", "maybe"]
    table = reason.reason_scores(
        one["activations"], one["traces"], matches.filter(trace_id=2).lazy(), CANDIDATES, reason_words=words,
        **WINDOW | {"shifts": 20_000},
    )  # fmt: skip
    text, values = dense(study)[2]
    masks = [windows(text, word) for word in words]
    think = len(study["traces"].filter(pl.col("trace_id") == 2).collect()["generated_ids"][0]) // 2
    assert any(mask[:think].any() for mask in masks)
    # Each segment is shifted by itself, all words together.
    every = np.array(
        [
            score_of([np.append(np.roll(mask[:think], one), np.roll(mask[think:], other)) for mask in masks], values)
            for one in range(think)
            for other in range(len(text) - think)
        ]
    )
    for latent in (3, 7, 20):
        exact = np.mean(every[:, latent] >= every[0, latent] - 1e-12)
        row = table.filter(latent=latent).row(0, named=True)
        assert row["p"] == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / row["shifts"]) + 1e-3)


def score_of(masks, values):
    """The paper's formula, from the windows of each word (tokens,) and activations (tokens, latents)."""
    union = np.any(masks, axis=0)
    plus, minus = values[union].mean(axis=0), values[~union].mean(axis=0)
    means = np.array([values[mask].mean(axis=0) if mask.any() else np.zeros(values.shape[1]) for mask in masks])
    shares = means / np.where(means.sum(axis=0) > 0, means.sum(axis=0), 1)
    logs = np.log(np.where(shares > 0, shares, 1))
    spread = -(shares * logs).sum(axis=0) / math.log(len(masks))
    return plus / plus.sum() * spread**0.7 - minus / minus.sum()


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


CLASSES = {"4": "digits", "7": "digits", "11": "digits", "+": "marks", "=": "marks"}


def test_lexicality_is_what_loops_find(study, matches):
    table = lexicality(
        study["activations"], study["traces"], CANDIDATES, matches.lazy(), study["vocabulary"], condition="reason",
        max_typed=0.5, include_sinks=False,
    )  # fmt: skip
    marked = np.concatenate([np.any([windows(words, word, 0, 0) for word in ("wait", "first")], axis=0)
                             | sums_of(words) for words, _ in dense(study).values()])  # fmt: skip
    words = list(itertools.chain.from_iterable(words for words, _ in dense(study).values()))
    values = np.concatenate([values for _, values in dense(study).values()])
    for latent in (3, 7, 20):
        row = table.filter(latent=latent).row(0, named=True)
        mass = {}
        for word, value in zip(words, values[:, latent], strict=True):
            mass[word] = mass.get(word, 0) + value
        shares = sorted((value / sum(mass.values()) for value in mass.values() if value > 0), reverse=True)
        assert (row["tokens"], row["types"]) == ((values[:, latent] > 0).sum(), len(shares))
        for count in (1, 10):
            assert row[f"top_{count}"] == pytest.approx(sum(shares[:count]))
        assert row["in_words"] == pytest.approx(values[marked, latent].sum() / values[:, latent].sum())
        by_trace = [list(zip(text, active[:, latent], strict=True)) for text, active in dense(study).values()]
        classes = {}
        for word, value in itertools.chain.from_iterable(by_trace):  # all digits are one class, and all marks
            name = CLASSES.get(word, word)
            classes[name] = classes.get(name, 0) + value
        assert row["top_3"] == pytest.approx(sum(sorted(classes.values())[-3:]) / sum(classes.values()))
        given, whole = np.zeros(len(by_trace)), np.zeros(len(by_trace))
        for index, pairs in enumerate(by_trace):
            others = list(itertools.chain.from_iterable(by_trace[:index] + by_trace[index + 1 :]))
            for word, value in pairs:
                elsewhere = [other for name, other in others if name == word]
                if elsewhere:
                    given[index] += min(value, np.mean(elsewhere))
                    whole[index] += value
        assert row["typed"] == pytest.approx(given.sum() / whole.sum())
        assert row["traces"] == sum(any(value > 0 for _, value in pairs) for pairs in by_trace)
        share = statistics.share_over_traces(given[:, None], whole[:, None], 0.5)
        assert (row["low"], row["high"]) == pytest.approx((share.low[0], share.high[0]), nan_ok=True)
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
    assert (detector["top_3"], detector["in_words"]) == (1.0, 1.0)
    assert table.filter(latent=99).select("tokens", "top_1", "low").rows() == [(0, None, None)]


def test_a_detector_is_on_its_type_wherever_it_is():
    """Ten traces of 40 tokens of two types: one latent on all of a type, one on a tenth of it, one on a type of one."""
    rows, ids = [], [1 + index % 2 for index in range(40)]
    for trace in range(10):
        for place in range(40):
            on = {0: ids[place] == 1, 1: place in (10, 20), 2: trace == 0 and place == 39}
            rows += [(trace, place + 1, latent, 2.0) for latent, active in on.items() if active]
    traces = pl.DataFrame(
        {"trace_id": range(10), "condition": "reason", "prompt_ids": [[0]] * 10,
         "generated_ids": [[*ids[:39], 3 if trace == 0 else 2, 1] for trace in range(10)],
         "segments": [[{"segment": "prompt", "start": 0, "end": 1}, {"segment": "answer", "start": 1, "end": 42}]] * 10}
    )  # fmt: skip
    found = pl.DataFrame(rows, schema=["trace_id", "position", "latent", "activation"], orient="row")
    token = {(row["trace_id"], place): ([*row["prompt_ids"], *row["generated_ids"]])[place]
             for row in traces.iter_rows(named=True) for place in range(41)}  # fmt: skip
    active = found.with_columns(
        condition=pl.lit("reason"), segment=pl.lit("answer"), sink=False,
        token_id=pl.Series([token[trace, place] for trace, place, *_ in rows]),
    ).select(*ACTIVATIONS).cast(ACTIVATIONS)  # fmt: skip
    vocabulary = pl.LazyFrame({"token_id": range(4), "token": list("qabc"), "text": list("qabc")})
    table = lexicality(
        active.lazy(), traces.cast({"trace_id": pl.UInt32}).lazy(), pl.LazyFrame({"latent": [0, 1, 2]}),
        pl.LazyFrame(schema=MATCHES_SCHEMA), vocabulary, condition="reason", max_typed=0.5, include_sinks=False,
    )  # fmt: skip
    assert table["typed"].to_list() == pytest.approx([1.0, 2 / 20, None], abs=0.01)


def sums_of(words):
    """Which tokens are in a sum, as the lexicon's expression has them."""
    found = np.zeros(len(words), dtype=bool)
    for index in range(len(words) - 2):
        if words[index].isdigit() and words[index + 1] == "+" and words[index + 2].isdigit():
            found[index : index + 3] = True
    return found


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
            *inputs, CANDIDATES, matches.lazy(), study["vocabulary"], condition="reason", max_typed=0.5,
            include_sinks=False,
        )  # fmt: skip
        present = presence.presence(*inputs, conditions=["reason", "direct"], min_excess=0.25, include_sinks=False)
        return run_tests(study, matches), present, scores, lexical

    whole = tables()
    monkeypatch.setattr("thoughtscope.evidence.windows.ROWS_AT_ONCE", 30)
    for one, other in zip(whole, tables(), strict=True):
        assert_frame_equal(one, other, rel_tol=1e-9, abs_tol=1e-9)  # sums of parts are rounded otherwise
    monkeypatch.setattr("thoughtscope.evidence.windows.ROWS_AT_ONCE", 10**9)
    monkeypatch.setattr("thoughtscope.evidence.windows.LATENTS_AT_ONCE", 3)
    for one, other in zip(whole, tables(), strict=True):
        assert_frame_equal(one, other, rel_tol=1e-9, abs_tol=1e-9)  # sums of parts are rounded otherwise
