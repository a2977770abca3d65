"""The verdict: calibrated where nothing is, right where something was planted, undecided where there is too little."""

import json

import numpy as np
import polars as pl
import pytest
from scipy import stats
from synthetic import WORDS, Synthetic

from thoughtscope.evidence import checks, controls, lexicality, outcomes, patterns, reason, verdict, windows
from thoughtscope.evidence import recurrence as evidence
from thoughtscope.evidence.matches import matches as find_matches
from thoughtscope.traces.generate import SCHEMA

LEXICON = {"reflection": ["wait"], "uncertainty": ["maybe", "hmm"], "planning": ["first"]}
REASON = ["wait", "maybe", "hmm"]
GATE = pl.DataFrame(
    {"hookpoint": ["s", "s"], "condition": [None, None], "place": ["site", "above"], "site": ["s", "t"],
     "used": [True, False], "fvu": [0.2, 1.1], "fvu_low": [0.18, 1.0], "fvu_high": [0.22, 1.2]},
    schema_overrides={"condition": pl.String},
)  # fmt: skip


def run(study, *, conditions=("reason", "direct"), gate=GATE, shifts=1000, most=10, include_sinks=False):
    """All tables of room 7, as its rules make them."""
    tables = study if isinstance(study, dict) else study.tables()
    studied = {name: frame.filter(pl.col("condition") == conditions[0]) if name != "vocabulary" else frame
               for name, frame in tables.items()}  # fmt: skip
    out = {}
    matches = find_matches(
        tables["traces"], tables["vocabulary"], patterns=json.dumps(LEXICON), reason_words=REASON
    ).lazy()
    sinks = evidence.sinks(tables["activations"], tables["vocabulary"]).lazy()
    out["controls"] = controls.controls(
        tables["features"], tables["traces"], top_latents=most, min_traces=2, conditions=conditions,
        include_sinks=include_sinks,
    )  # fmt: skip
    candidates = out["controls"].lazy()
    window = {"condition": conditions[0], "window_before": 1, "window_after": 2, "shifts": shifts, "alpha": 0.05,
              "include_sinks": include_sinks}  # fmt: skip
    out["pattern_tests"] = patterns.pattern_tests(
        studied["activations"], studied["traces"], matches, candidates, patterns=json.dumps(LEXICON), **window
    )
    out["reason_scores"] = reason.reason_scores(
        studied["activations"], studied["traces"], matches, candidates, reason_words=REASON, **window
    )
    out["lexicality"] = lexicality.lexicality(
        studied["activations"], studied["traces"], candidates, tables["vocabulary"], condition=conditions[0],
        max_top_3=0.8, include_sinks=include_sinks,
    )  # fmt: skip
    out["contrasts"] = controls.contrasts(
        tables["features"], tables["traces"], sinks, candidates, conditions=conditions, include_sinks=include_sinks
    )
    out["outcomes"] = outcomes.outcomes(
        studied["features"], studied["traces"], sinks, candidates, condition=conditions[0], include_sinks=include_sinks
    )
    out["verdict"] = verdict.verdict(
        candidates, gate.lazy(), *(out[name].lazy() for name in ("pattern_tests", "lexicality", "outcomes")),
        min_traces=2, alpha=0.05, min_excess=0.5, min_link=0.5, max_fvu=0.7, max_sink_share=0.5, max_top_3=0.8,
        max_length_auroc=0.8,
    )  # fmt: skip
    return out


def share_below(p, level=0.05):
    known = p.drop_nulls().to_numpy()
    return (known < level).sum(), len(known)


@pytest.fixture(scope="module")
def nothing():
    """Six studies of 60 latents that fire at random, whatever the words, the segment, the condition and the outcome."""
    found = []
    for seed in range(6):
        study = Synthetic(seed=100 + seed, problems=32, length=90)
        study.background(range(60), rate=0.08)
        found.append(run(study, most=30))
    return found


@pytest.mark.parametrize(
    ("table", "column", "choose"),
    [
        ("controls", "p", None),
        ("pattern_tests", "p", ("pattern", "reflection")),
        ("pattern_tests", "p", ("pattern", "uncertainty")),
        ("pattern_tests", "p", ("pattern", "planning")),
        ("reason_scores", "p", None),
        ("contrasts", "p", ("contrast", "think - answer")),
        ("contrasts", "p", ("contrast", "reason - direct")),
        ("outcomes", "p", ("value", "mean")),
        ("outcomes", "p", ("value", "max")),
    ],
)
def test_nothing_is_found_where_nothing_is(nothing, table, column, choose):
    """At most 5 % of latents below 0.05, within binomial error (99.9 %); and almost no discovery after correction."""
    below = total = discoveries = 0
    for study in nothing:
        frame = study[table] if choose is None else study[table].filter(pl.col(choose[0]) == choose[1])
        few, many = share_below(frame[column])
        below, total = below + few, total + many
        discoveries += (frame["q"].drop_nulls() < 0.05).sum()
    assert total > 200
    assert below <= stats.binom.ppf(0.999, total, 0.05)
    assert discoveries <= 3


def test_p_values_are_spread_out_where_nothing_is(nothing):
    """A test that never finds anything would pass the one above: these p values are uniform, but for their lowest."""
    for table in ("pattern_tests", "reason_scores", "contrasts"):
        p = pl.concat([study[table]["p"] for study in nothing]).drop_nulls().to_numpy()
        assert 0.4 < p.mean() < 0.6
        assert (p < 0.1).mean() > 0.04


def test_intervals_hold_the_truth_where_nothing_is(nothing):
    """The true difference inside a window is 0: about 95 % of intervals hold it."""
    frame = pl.concat([study["pattern_tests"] for study in nothing]).drop_nulls("low")
    held = ((frame["low"] <= 0) & (frame["high"] >= 0)).mean()
    assert 0.89 < held < 0.985
    areas = pl.concat([study["outcomes"] for study in nothing]).drop_nulls("auroc")
    assert 0.9 < ((areas["low"] <= 0.5) & (areas["high"] >= 0.5)).mean() < 0.99


def test_shuffled_condition_labels_leave_no_difference():
    """A latent that does recur under one condition alone, with the labels shuffled within each problem."""
    study = Synthetic(seed=7, problems=64, length=40)
    study.background(range(30), rate=0.1)
    for latent in range(40, 60):
        study.fire(latent, lambda c, _t, i, _w, _s: c == "reason" and i == 5, strength=20)
    tables = study.tables()
    kept = run(tables, most=40)["controls"]
    assert (kept.filter(pl.col("latent") >= 40)["q"] < 0.001).all()
    swap = np.random.default_rng(0).random(64) < 0.5
    flip = pl.col("trace_id").is_in(np.flatnonzero(swap).tolist())
    other = pl.when(pl.col("condition") == "reason").then(pl.lit("direct")).otherwise(pl.lit("reason"))
    shuffled = {
        name: frame.with_columns(condition=pl.when(flip).then(other).otherwise("condition"))
        if name != "vocabulary" else frame
        for name, frame in tables.items()
    }  # fmt: skip
    found = run(shuffled, most=40)["controls"]
    few, many = share_below(found["p"])
    assert few <= stats.binom.ppf(0.999, many, 0.05)
    assert (found["q"].drop_nulls() < 0.05).sum() <= 1


def test_bursts_are_not_links():
    """Latents and words that come in bursts, each for itself: what shifts are for, and shuffled tokens would miss."""
    below = total = found = 0
    for seed in range(4):
        study = Synthetic(seed=200 + seed, problems=24, length=90)
        for ids in study.words.values():
            start = int(study.chance.integers(0, len(ids) - 8))
            ids[start : start + 8] = WORDS.index(" Wait")
        study.retell()
        for latent in range(40):
            for (condition, trace), ids in study.words.items():
                start, scale = int(study.chance.integers(0, len(ids) - 13)), float(study.chance.uniform(1, 4))
                study.rows += [(condition, trace, start + i, latent, scale) for i in range(12)]
        tests = run(study, most=40)["pattern_tests"].filter(pattern="reflection")
        few, many = share_below(tests["p"])
        below, total, found = below + few, total + many, found + (tests["q"] < 0.05).sum()
    assert total == 160
    assert below <= stats.binom.ppf(0.999, total, 0.05)
    assert found <= 2


def test_a_segment_is_not_a_pattern():
    """Words that are written while thinking, and latents active while thinking, at random: no link between the two."""
    study = Synthetic(seed=21, problems=32, length=80)
    for ids in study.words.values():
        half = len(ids) // 2
        ids[half:][ids[half:] == WORDS.index(" Wait")] = WORDS.index(" of")
    study.retell()
    study.background(range(20), rate=0.1)
    for latent in range(50, 60):
        study.fire(latent, lambda c, _t, _i, _w, s: c == "reason" and s == "think" and study.chance.random() < 0.4, 20)
    found = run(study, most=20)
    tests = found["pattern_tests"].filter(pl.col("latent") >= 50, pattern="reflection")
    assert (tests["difference"] > 0).all()  # seen over a whole trace, they look linked
    assert (tests["q"] > 0.05).all()
    assert "thinking pattern" not in found["verdict"].filter(pl.col("latent") >= 50)["verdict"].to_list()


def test_shifted_windows_are_linked_to_nothing():
    """Latents that are linked to a word, tested against windows shifted once at random."""
    study = Synthetic(seed=22, problems=40, length=90)
    for latent in range(40):
        study.fire(latent, lambda _c, _t, _i, word, _s: word == "Wait" and study.chance.random() < 0.5)
    tables = study.tables()
    matches = find_matches(tables["traces"], tables["vocabulary"], patterns=json.dumps(LEXICON), reason_words=[])
    candidates = pl.LazyFrame({"latent": range(40)}, schema={"latent": pl.UInt32})
    settings = {"patterns": json.dumps({"reflection": ["wait"]}), "condition": "reason", "window_before": 1,
                "window_after": 2, "shifts": 200, "alpha": 0.05, "include_sinks": False}  # fmt: skip
    inputs = tables["activations"], tables["traces"]
    linked = patterns.pattern_tests(*inputs, matches.lazy(), candidates, **settings)
    assert (linked["q"] < 0.05).all()
    # The latents share the word, so one shift tells for all of them: the share is taken over many shifts.
    shares = []
    for _ in range(30):
        chance, moved = study.chance, []
        by_trace = {key: int(chance.integers(0, len(ids) - 1)) for key, ids in study.words.items()}
        for row in matches.iter_rows(named=True):
            key = row["condition"], row["trace_id"]
            moved.append((row["start"] - 4 + by_trace[key]) % (len(study.words[key]) - 1) + 4)
        shifted = matches.with_columns(start=pl.Series(moved, dtype=pl.UInt32)).with_columns(end=pl.col("start") + 1)
        few, many = share_below(patterns.pattern_tests(*inputs, shifted.lazy(), candidates, **settings)["p"])
        shares.append(few / many)
    assert np.mean(shares) < 0.05 + 3 * np.std(shares) / np.sqrt(30)
    assert np.mean(shares) < 0.12


def test_a_latent_that_fires_once_a_trace_is_undecided():
    study = Synthetic(seed=23, problems=32, length=60)
    study.background(range(12), rate=0.1)
    study.fire(50, lambda c, t, i, _w, _s: c == "reason" and t < 3 and i == 7, strength=50)
    row = run(study)["verdict"].filter(latent=50).row(0, named=True)
    assert (row["traces"], row["verdict"], row["pattern_linked"]) == (3, "undecided", "undecided")
    assert "too rarely active" in row["pattern_linked_note"]


WAIT, THINK, SINK, EVERYWHERE, WAIT_IF_CORRECT, THINKING, LONG = range(100, 107)


@pytest.fixture(scope="module")
def planted():
    study = Synthetic(seed=3, problems=48, length=120)
    study.background(range(40), rate=0.1)
    for (condition, trace), ids in study.words.items():
        if condition == "reason":
            study.sinks[condition, trace] = {min(20, len(ids) - 2)}
    study.fire(WAIT, lambda c, _t, _i, word, _s: c == "reason" and word == "Wait", strength=20)
    study.fire(THINK, lambda c, _t, i, _w, s: c == "reason" and s == "think" and i % 3 == 0, strength=20)
    study.fire(SINK, lambda c, t, i, _w, _s: i in study.sinks[c, t], strength=400)
    study.fire(EVERYWHERE, lambda _c, _t, i, _w, _s: i % 2 == 0, strength=20)
    study.fire(
        WAIT_IF_CORRECT,
        lambda c, t, _i, word, _s: c == "reason" and word == "Wait" and study.correct(c, t),
        strength=20,
    )
    # What one hopes for: active around the words of a pattern, whatever the token, where the model reasons.
    words = {key: [WORDS[token].strip() for token in ids] for key, ids in study.words.items()}
    study.fire(
        THINKING,
        lambda c, t, i, _w, _s: c == "reason" and any(word == "Wait" for word in words[c, t][max(0, i - 2) : i + 2]),
        strength=20,
    )
    long = {key: len(ids) > 95 for key, ids in study.words.items()}
    study.fire(LONG, lambda c, t, i, _w, _s: c == "reason" and long[c, t] and i % 9 == 0, strength=20)
    return run(study, shifts=2000)


def row_of(tables, latent, table="verdict", **choose):
    rows = tables[table].filter(pl.col("latent") == latent, **choose)
    assert len(rows) == 1, (latent, table)
    return rows.row(0, named=True)


def test_what_is_planted_lands_in_its_row(planted):
    wait = row_of(planted, WAIT)
    assert (wait["verdict"], wait["removed_by"]) == ("no", "not_merely_lexical")
    assert (wait["pattern_linked"], wait["recurs_beyond_control"]) == ("pass", "pass")
    assert wait["pattern_linked_note"].startswith("reflection")

    think = row_of(planted, THINK)
    assert (think["verdict"], think["removed_by"]) == ("no", "pattern_linked")
    assert (think["not_merely_lexical"], think["recurs_beyond_control"]) == ("pass", "pass")
    segment = row_of(planted, THINK, "contrasts", contrast="think - answer")
    assert segment["effect"] == 1
    assert segment["q"] < 0.001

    sink = row_of(planted, SINK)
    assert (sink["verdict"], sink["removed_by"], sink["traces"]) == ("no", "not_a_sink", 0)
    assert sink["original"]  # the original's method would have called it one
    assert sink["not_a_sink_number"] == pytest.approx(1)

    everywhere = row_of(planted, EVERYWHERE)
    assert (everywhere["verdict"], everywhere["removed_by"]) == ("no", "recurs_beyond_control")
    assert everywhere["not_merely_lexical"] == "pass"

    correct = row_of(planted, WAIT_IF_CORRECT)
    assert (correct["verdict"], correct["removed_by"]) == ("no", "not_merely_lexical")
    assert (correct["pattern_linked"], correct["not_merely_length"]) == ("pass", "pass")
    outcome = row_of(planted, WAIT_IF_CORRECT, "outcomes", outcome="correct", value="max")
    assert outcome["auroc"] > 0.9
    assert outcome["q"] < 0.001
    assert 0.3 < outcome["length_auroc"] < 0.7
    assert outcome["within_low"] > 0.5

    thinking = row_of(planted, THINKING)
    assert thinking["verdict"] == "thinking pattern"
    assert all(thinking[check] == "pass" for check in checks.BY_NAME)

    long = row_of(planted, LONG)
    assert long["not_merely_length"] == "fail"
    assert long["not_merely_length_number"] > 0.95


def test_more_shifts_where_few_exceed(planted):
    """What is plainly not linked has its p from the first shifts; what may be is looked at more closely."""
    tests = planted["pattern_tests"].filter(pattern="reflection")
    ((most, p),) = tests.filter(latent=WAIT).select("shifts", "p").rows()
    assert most > 2000  # as many tests ask for a smaller p than 2000 shifts can give
    assert p == pytest.approx(1 / (most + 1))
    settled = tests.filter(pl.col("p") > 0.05)
    assert set(settled["shifts"]) == {windows.FIRST_SHIFTS}
    assert len(settled) > 10


UNLINKED = {"q": 0.3, "p": 0.2, "difference": 0.0, "low": -0.02, "high": 0.04}


@pytest.mark.parametrize(
    ("changes", "result"),
    [
        ({}, "pass"),
        ({"traces": 4}, "undecided"),
        ({"low": -0.1}, "undecided"),
        ({"q": 0.06}, "undecided"),
        ({"traces": 5}, "pass"),
        ({"q": 0.06, "low": -0.02, "high": 0.04}, "undecided"),  # p is 0.001: not beyond chance, but nearly
        ({"difference": -1.0, "low": -1.5, "high": -0.5, "p": 0.9, "q": 1.0}, "fail"),
        (UNLINKED, "fail"),
        (UNLINKED | {"traces": 5, "active_traces": 5}, "fail"),
        (UNLINKED | {"high": 0.06}, "undecided"),  # room for half as much again as outside
        (UNLINKED | {"high": 1.5}, "undecided"),
        (UNLINKED | {"traces": 4}, "undecided"),  # a pattern in too few traces for any link
        (UNLINKED | {"active_traces": 4}, "undecided"),
        (UNLINKED | {"active_tokens": 9}, "undecided"),
        (UNLINKED | {"mean_outside": 0.0, "high": 0.0}, "undecided"),
        ({"p": None, "q": None}, "undecided"),
    ],
)
def test_when_a_latent_is_linked_to_a_pattern(changes, result):
    row = {"pattern": "reflection", "traces": 20, "active_traces": 20, "active_tokens": 99,
           "note": None, "difference": 1.0, "low": 0.5, "high": 1.5, "p": 0.001, "q": 0.01,
           "mean_inside": 1.0, "mean_outside": 0.1, "family": "9 latents x 1 pattern"}  # fmt: skip
    assert checks.pattern_linked([row | changes], 0.05, 0.5)[0] == result
    # Another pattern that is linked to it settles it, whatever the first one is.
    assert checks.pattern_linked([row | changes, row | {"pattern": "planning"}], 0.05, 0.5)[0] == "pass"
    # What is said of it is said of the pattern that it is linked to.
    first = row | {"q": 0.001, "low": -0.1}
    _, q, note = checks.pattern_linked([first, row | {"pattern": "planning"}], 0.05, 0.5)
    assert (q, note.partition(":")[0]) == (0.01, "planning")
    # One that leaves it open keeps it open; one in too few traces for any link doesn't matter.
    other = row | UNLINKED | {"pattern": "planning"}
    if result == "fail":
        assert checks.pattern_linked([row | changes, other], 0.05, 0.5)[0] == "fail"
        assert checks.pattern_linked([row | changes, other | {"high": 0.06}], 0.05, 0.5)[0] == "undecided"
        assert checks.pattern_linked([row | changes, other | {"high": 0.06, "traces": 4}], 0.05, 0.5)[0] == "fail"


@pytest.mark.parametrize(
    ("controls_of", "result"),
    [
        ([(12, 9, 1, 20)], "pass"),
        ([(8, 5, 1, 20)], "undecided"),  # more, but it may be chance
        ([(14, 0, 0, 16)], "fail"),  # in the same 14 traces
        ([(6, 2, 2, 16)], "undecided"),
        ([(3, 3, 0, 32)], "undecided"),
        ([(5, 1, 8, 16)], "fail"),
        ([(15, 12, 1, 20), (9, 1, 8, 20)], "fail"),
        ([(15, 12, 1, 20), (8, 5, 2, 20)], "undecided"),
        ([(15, 12, 1, 20), (14, 12, 0, 20)], "pass"),
    ],
)
def test_when_a_latent_recurs_beyond_all_controls(controls_of, result):
    from thoughtscope.statistics import matched_difference, mcnemar

    rows = []
    for traces, mine, theirs, pairs in controls_of:
        q = float(mcnemar(np.array([mine]), np.array([theirs]))[0])
        (low,), (high,) = matched_difference(np.array([mine]), np.array([theirs]), pairs)
        rows.append({"control": "direct", "only_condition": mine, "only_control": theirs, "q": q, "traces": traces,
                     "traces_control": 1, "of": pairs, "excess_low": low, "excess_high": high})  # fmt: skip
    assert checks.recurs(rows, 0.05, 0.5)[0] == result


ENDS = {"outcome": "correct", "value": "max", "q": 0.001, "auroc": 0.9, "length_auroc": 0.85}
LENGTHS = {"traces": 12, "of": 32, "length_auroc": None, "length_low": None, "length_high": None}


@pytest.mark.parametrize(
    ("about", "ends", "result"),
    [
        ({}, [{"within_length": 0.85, "within_low": 0.7, "within_high": 0.99, "within_p": 0.001}], "pass"),
        ({}, [{"within_length": 0.6, "within_low": 0.45, "within_high": 0.75, "within_p": 0.2}], "fail"),
        ({}, [{"within_length": 0.7, "within_low": 0.45, "within_high": 0.95, "within_p": 0.2}], "undecided"),
        ({}, [{"within_length": 0.2, "within_low": 0.05, "within_high": 0.35, "within_p": 0.001}], "fail"),
        ({}, [{"within_length": None, "within_low": None, "within_high": None, "within_p": None}], "undecided"),
        ({"length_auroc": 0.6, "length_low": 0.4, "length_high": 0.8}, [], "pass"),
        ({"length_auroc": 0.97, "length_low": 0.9, "length_high": 1.0}, [], "fail"),
        ({"length_auroc": 0.03, "length_low": 0.0, "length_high": 0.1}, [], "fail"),
        ({"length_auroc": 0.85, "length_low": 0.45, "length_high": 1.0}, [], "undecided"),
        ({"traces": 30}, [], "pass"),
        ({}, [], "undecided"),
        ({"traces": 2, "of": 2}, [], "undecided"),
    ],
)
def test_when_a_latent_is_not_merely_length(about, ends, result):
    assert checks.not_length([LENGTHS | about], [ENDS | row for row in ends], 0.05, 0.8)[0] == result


@pytest.mark.parametrize(
    ("fvu", "low", "high", "result"),
    [
        ((0.2, 1.1), (0.18, 1.0), (0.22, 1.2), "pass"),
        ((0.5, 0.1), (0.45, 0.05), (0.55, 0.15), "fail"),
        ((0.5, 0.49), (0.45, 0.44), (0.55, 0.54), "undecided"),
        ((0.5, 0.42), (0.45, 0.38), (0.55, 0.47), "undecided"),  # better, but the intervals overlap
        ((0.75, 1.1), (0.65, 1.0), (0.8, 1.2), "undecided"),
        ((0.9, 1.1), (0.8, 1.0), (0.95, 1.2), "fail"),
        ((0.9, 0.89), (0.8, 0.79), (0.95, 0.94), "fail"),  # for certain, whatever else fits
        ((0.68, 1.1), (0.6, 1.0), (0.75, 1.2), "undecided"),
        ((0.2, 1.1), (None, None), (None, None), "undecided"),
    ],
)
def test_when_an_sae_fits_its_site(fvu, low, high, result):
    columns = {"fvu": fvu, "fvu_low": low, "fvu_high": high}
    gate = GATE.with_columns(pl.Series(name, values, dtype=pl.Float64) for name, values in columns.items())
    assert checks.fits(gate.to_dicts(), 0.7)[0] == result


def test_the_waterfall_starts_with_all_that_recur():
    table = pl.DataFrame(
        {"original": [True, True, True, False, True], "verdict": ["no", "no", "undecided", "no", "thinking pattern"],
         "removed_by": ["not_a_sink", "not_merely_lexical", None, "not_a_sink", None]}
    )  # fmt: skip
    assert verdict.waterfall(table) == [
        ("candidates", 5), ("not_a_sink", 3), ("fits_its_site", 3), ("recurs_beyond_control", 3), ("pattern_linked", 3),
        ("not_merely_lexical", 2), ("not_merely_length", 2), ("survivors", 1),
    ]  # fmt: skip


def test_tokens_that_count():
    """Those that were read: all but each trace's last; sinks only where they count."""
    study = Synthetic(seed=12, problems=3, length=20, conditions=("reason",))
    study.fire(1, lambda _c, _t, _i, _w, _s: True)
    study.sinks["reason", 1] = {0}
    tables = study.tables()
    sinks = evidence.sinks(tables["activations"], tables["vocabulary"]).lazy()
    for included in (False, True):
        counts = controls.token_counts(tables["traces"], sinks, included)
        for trace in range(3):
            written = len(study.words["reason", trace])
            think = written // 2 - (trace == 1 and not included)
            mine = dict(counts.filter(trace_id=trace).select("segment", "tokens").iter_rows())
            assert mine == {"prompt": 4, "think": think, "answer": written - written // 2 - 1}


def test_contrasts_are_paired_by_problem():
    """Means that differ between problems more than between conditions: only pairs show the difference."""
    study = Synthetic(seed=13, problems=16, length=30)
    study.background(range(4), rate=0.3)
    for trace in range(16):
        for condition, more in (("reason", 0.2), ("direct", 0.0)):
            study.rows += [
                (condition, trace, i, 9, 1 + trace + more) for i in range(len(study.words[condition, trace]) - 1)
            ]
    found = run(study, shifts=100)["contrasts"].filter(latent=9)
    row = found.filter(contrast="reason - direct").row(0, named=True)
    assert (row["effect"], row["pairs"]) == (1.0, 16)
    assert row["p"] < 0.001
    assert row["mean_first"] - row["mean_second"] == pytest.approx(0.2)
    assert row["mean_second"] == pytest.approx(8.5)


def test_the_waterfall_counts_them(planted):
    steps = dict(verdict.waterfall(planted["verdict"]))
    assert list(steps) == ["candidates", *checks.BY_NAME, "survivors"]
    counts = list(steps.values())
    assert counts == sorted(counts, reverse=True)
    assert steps["candidates"] - steps["not_a_sink"] == 1
    assert steps["survivors"] == planted["verdict"].filter(verdict="thinking pattern").height == 1


def test_a_wrong_site_refutes_all():
    study = Synthetic(seed=3, problems=12, length=40)
    study.background(range(20), rate=0.1)
    worse = {"fvu": [0.9, 1.1], "fvu_low": [0.85, 1.0], "fvu_high": [0.95, 1.2]}
    other = {"fvu": [0.5, 0.1], "fvu_low": [0.4, 0.05], "fvu_high": [0.6, 0.2]}
    for columns, note in ((worse, "FVU 0.90"), (other, "the SAE fits t better")):
        gate = GATE.with_columns(pl.Series(name, values) for name, values in columns.items())
        found = run(study, gate=gate, shifts=100)["verdict"]
        assert set(found["fits_its_site"]) == {"fail"}
        assert all(text.startswith(note) for text in found["fits_its_site_note"])
        assert dict(verdict.waterfall(found))["survivors"] == 0


def test_mcnemar_is_paired_by_problem():
    study = Synthetic(seed=11, problems=20, length=30)
    study.background(range(12), rate=0.2)
    tables = study.tables()
    found = run(tables, most=3, shifts=100)["controls"]
    top = {}
    for condition in ("reason", "direct"):
        for trace in range(20):
            rows = tables["activations"].filter(condition=condition, trace_id=trace).collect()
            best = rows.group_by("latent").agg(pl.col("activation").max()).sort("activation", descending=True)
            top[condition, trace] = set(best["latent"].head(3))
    for row in found.iter_rows(named=True):
        mine = [row["latent"] in top["reason", trace] for trace in range(20)]
        theirs = [row["latent"] in top["direct", trace] for trace in range(20)]
        assert (row["traces"], row["traces_control"]) == (sum(mine), sum(theirs))
        only = sum(a and not b for a, b in zip(mine, theirs, strict=True))
        other = sum(b and not a for a, b in zip(mine, theirs, strict=True))
        assert (row["only_condition"], row["only_control"]) == (only, other)
        assert row["p"] == pytest.approx(stats.binomtest(only, only + other).pvalue if only + other else 1)
    assert {latent for latents in top.values() for latent in latents} >= set(found["latent"])


def finite(tables):
    for table in tables.values():
        for column in table.select(pl.col(pl.Float64)).iter_columns():
            assert column.drop_nulls().is_finite().all(), column.name


@pytest.mark.parametrize("problems", [1, 2, 3])
def test_few_traces(problems):
    study = Synthetic(seed=5, problems=problems, length=30)
    study.background(range(8), rate=0.2)
    study.fire(50, lambda _c, t, i, _w, _s: t == 0 and i == 3)  # fires once in each condition
    tables = run(study, shifts=100)
    finite(tables)
    if problems > 1:
        assert set(tables["verdict"]["verdict"]) <= {"undecided", "no"}
        assert tables["outcomes"]["note"].str.starts_with("too few: ").all()
        assert tables["outcomes"]["auroc"].null_count() == len(tables["outcomes"])
    else:
        assert tables["verdict"].is_empty()  # nothing recurs in one trace
        assert verdict.waterfall(tables["verdict"])[-1] == ("survivors", 0)


def test_one_condition_has_no_control():
    study = Synthetic(seed=6, problems=6, length=30, conditions=("reason",))
    study.background(range(8), rate=0.2)
    tables = run(study, conditions=("reason",), shifts=100)
    finite(tables)
    assert tables["controls"]["control"].null_count() == len(tables["controls"]) > 0
    assert set(tables["verdict"]["recurs_beyond_control_note"]) == {"no control condition"}


def test_no_correct_traces_no_pattern_and_no_segments():
    study = Synthetic(seed=8, problems=12, length=30)
    study.background(range(8), rate=0.2)
    tables = study.tables()
    whole = pl.Series(
        [[{"segment": "prompt", "start": 0, "end": 4}, {"segment": "answer", "start": 4, "end": 4 + len(ids)}]
         for ids in tables["traces"].collect()["generated_ids"]], dtype=SCHEMA["segments"],
    )  # fmt: skip
    tables["traces"] = tables["traces"].with_columns(correct=pl.lit(False), segments=whole)
    answer = pl.col("segment").cast(pl.String).replace("think", "answer").cast(pl.Enum(["prompt", "think", "answer"]))
    tables["activations"] = tables["activations"].with_columns(segment=answer)
    tables["features"] = tables["features"].with_columns(segment=answer)
    found = run(tables, shifts=100)
    finite(found)
    think = found["contrasts"].filter(contrast="think - answer")
    assert set(think["note"]) == {"no trace has both"}
    assert set(found["outcomes"].filter(outcome="correct")["note"]) == {
        "too few: 0 correct and 12 not, 8 needed of each"
    }


def test_nothing_active_at_all():
    study = Synthetic(seed=9, problems=3, length=20)
    study.fire(1, lambda c, t, i, _w, _s: (c, t, i) == ("reason", 0, 2))
    tables = run(study, shifts=100)
    finite(tables)
    assert all(table.is_empty() for table in tables.values())
