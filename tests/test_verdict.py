"""The verdict: calibrated where nothing is, right where something was planted, undecided where there is too little."""

import json

import numpy as np
import polars as pl
import pytest
from scipy import stats
from synthetic import WORDS, Synthetic

from thoughtscope.evidence import (
    candidates,
    checks,
    controls,
    headline,
    lexicality,
    outcomes,
    patterns,
    presence,
    reason,
    verdict,
    windows,
)
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
    given = {"condition": conditions[0], "include_sinks": include_sinks}
    out["pattern_tests"] = patterns.pattern_tests(
        studied["activations"], studied["traces"], matches, tables["vocabulary"], patterns=json.dumps(LEXICON),
        tokens_before=8, tokens_after=20, min_share=0.05, **given,
    )  # fmt: skip
    out["presence"] = presence.presence(
        tables["activations"], tables["traces"], conditions=conditions, min_excess=0.25, include_sinks=include_sinks
    )
    of_site = (out[name].with_columns(site=pl.lit("s")).lazy() for name in ("pattern_tests", "presence"))
    out["headline"] = headline.headline(*of_site, studied["traces"], condition=conditions[0])
    relevant = evidence.relevant_latents(
        tables["features"], tables["vocabulary"], top_latents=most, include_sinks=include_sinks
    )
    out["candidates"] = candidates.candidates(
        studied["features"], out["controls"].lazy(), relevant.lazy(), out["headline"].lazy(), site="s",
        condition=conditions[0], min_traces=2, alpha=0.05, max_sink_share=0.5,
    )  # fmt: skip
    judged = out["candidates"].lazy()
    out["reason_scores"] = reason.reason_scores(
        studied["activations"], studied["traces"], matches, out["controls"].lazy(), reason_words=REASON,
        window_before=1, window_after=2, shifts=shifts, alpha=0.05, **given,
    )  # fmt: skip
    out["lexicality"] = lexicality.lexicality(
        studied["activations"], studied["traces"], judged, matches, tables["vocabulary"], max_typed=0.5, **given
    )
    out["contrasts"] = controls.contrasts(
        tables["features"], tables["traces"], sinks, judged, conditions=conditions, include_sinks=include_sinks
    )
    out["outcomes"] = outcomes.outcomes(studied["features"], studied["traces"], sinks, judged, **given)
    out["verdict"] = verdict.verdict(
        judged, gate.lazy(),
        *(out[name].lazy() for name in ("presence", "pattern_tests", "lexicality", "headline")),
        site="s", alpha=0.05, min_excess=0.25, min_share=0.05, max_fvu=0.7, max_sink_share=0.5, max_typed=0.5,
        max_twins=0.25, min_effect=0.01, readers=[],
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
        ("pattern_tests", "p", ("window", "before")),
        ("pattern_tests", "p", ("window", "after")),
        ("presence", "p", None),
        ("headline", "p_link", None),
        ("headline", "p", None),
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
        discoveries += (frame["q"].drop_nulls() < 0.05).sum() if "q" in frame.columns else 0
    assert total > 200
    assert below <= stats.binom.ppf(0.999, total, 0.05)
    assert discoveries <= 3


def test_p_values_are_spread_out_where_nothing_is(nothing):
    """A test that never finds anything would pass the one above: these p values are uniform, but for their lowest."""
    for table in ("reason_scores", "contrasts"):
        p = pl.concat([study[table]["p"] for study in nothing]).drop_nulls().to_numpy()
        assert 0.4 < p.mean() < 0.6
        assert (p < 0.1).mean() > 0.04


def test_intervals_hold_the_truth_where_nothing_is(nothing):
    """The true share beyond tokens alike is 0, and so is the excess: about 95 % of intervals hold it."""
    for table, low, high in (("pattern_tests", "low", "high"), ("presence", "low", "high"), ("presence", "rate_low",
                             "rate_high")):  # fmt: skip
        frame = pl.concat([study[table] for study in nothing]).drop_nulls(low)
        assert 0.9 < ((frame[low] <= 0) & (frame[high] >= 0)).mean() < 0.99, table
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
    assert (found["headline"].filter(pl.col("latent") >= 50)["p_link"] > 0.05).all()
    assert "thinking pattern" not in found["verdict"].filter(pl.col("latent") >= 50)["verdict"].to_list()


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
    assert (wait["pattern_linked"] == "pass", wait["recurs_beyond_control"]) == (False, "pass")  # it is the word
    assert row_of(planted, WAIT, "lexicality")["in_words"] == 1

    think = row_of(planted, THINK)
    assert (think["verdict"] == "thinking pattern", think["pattern_linked"] == "pass") == (False, False)
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
    assert (correct["verdict"], correct["pattern_linked"]) == ("undecided", "undecided")
    outcome = row_of(planted, WAIT_IF_CORRECT, "outcomes", outcome="correct", value="max")
    assert outcome["auroc"] > 0.9
    assert outcome["q"] < 0.001
    assert 0.3 < outcome["length_auroc"] < 0.7
    assert outcome["within_low"] > 0.5

    thinking = row_of(planted, THINKING)
    assert thinking["verdict"] == "thinking pattern"
    assert all(thinking[check.name] == "pass" for check in checks.asked(planted["verdict"]))
    assert (thinking["pattern"], thinking["window"], thinking["needs"]) == ("reflection", "before", None)
    assert thinking["selectivity"] == thinking["pattern_linked_number"]
    assert thinking["pattern_linked_note"].startswith("leads to it, reflection: ")

    long = row_of(planted, LONG)  # that a latent is in long traces isn't held against it
    assert 10 < long["traces"] < 40
    assert (long["recurs_beyond_control"], long["removed_by"]) == ("pass", None)


def test_more_shifts_where_few_exceed(planted):
    """What is plainly not linked has its p from the first shifts; what may be is looked at more closely."""
    scores = planted["reason_scores"]
    ((most, p),) = scores.filter(latent=WAIT).select("shifts", "p").rows()
    assert most >= 2000
    assert p == pytest.approx(1 / (most + 1))
    settled = scores.filter(pl.col("p") > 0.05)
    assert set(settled["shifts"]) == {windows.FIRST_SHIFTS}
    assert len(settled) > 10


@pytest.mark.parametrize(
    ("value", "low", "high", "side", "needs"),
    [
        (0.3, 0.2, 0.4, "above", None),
        (0.05, 0.0, 0.09, "below", None),
        (0.3, 0.05, 0.5, "open", 32),  # it must reach 0.2 where it reaches 0.25: 20 (0.25 / 0.2)² = 31.25
        (0.0, -0.2, 0.2, "open", 80),
        (0.1, 0.0, 0.2, "open", None),  # at the margin: never
        (0.1001, 0.0, 0.2, "open", None),  # nor in a million traces
    ],
)
def test_one_margin_for_pass_and_fail(value, low, high, side, needs):
    assert checks.Interval(value, low, high, 20).against(0.1) == (side, needs)


UNLINKED = {"share": 0.0, "low": -0.03, "high": 0.04, "p": 0.9}


@pytest.mark.parametrize(
    ("changes", "result"),
    [
        ({}, "pass"),
        ({"window": "after"}, "pass"),
        ({"window": "at"}, "undecided"),  # the word, and there is no other window
        ({"p": 0.06, "low": 0.04}, "undecided"),
        ({"rank": 0.95}, "pass"),
        ({"rank": 0.5}, "undecided"),
        ({"told_apart": 0.2}, "undecided"),
        (UNLINKED, "fail"),
        (UNLINKED | {"high": 0.06}, "undecided"),
        ({"share": None, "low": None, "high": None, "p": None, "note": "in 3 traces; 5 are needed"}, "undecided"),
    ],
)
def test_when_a_latent_is_linked_to_a_pattern(changes, result):
    row = {"pattern": "reflection", "window": "before", "traces": 20, "note": None, "share": 0.3, "low": 0.2,
           "high": 0.4, "p": 0.001, "rank": None, "told_apart": 0.9}  # fmt: skip
    found = checks.pattern_linked([row | changes], 0.05, 0.05)
    assert found.result == result
    # Another window that is linked settles it, whatever the first one is.
    other = row | {"pattern": "planning", "window": "after", "share": 0.25}
    assert checks.pattern_linked([row | changes, other], 0.05, 0.05).result == "pass"
    # What is said of it is said of the pattern that it is linked to.
    blocked = checks.pattern_linked([row | {"rank": 0.1, "p": 1e-9}, other], 0.05, 0.05)
    assert (blocked.number, blocked.note.partition(":")[0]) == (0.25, "goes with it, planning")
    # Each window counts: the smallest p times their number.
    many = [row | {"p": 0.02, "low": 0.1}] + [row | UNLINKED | {"pattern": f"other {number}"} for number in range(2)]
    assert checks.pattern_linked(many[:2], 0.05, 0.05).result == "pass"
    assert checks.pattern_linked(many, 0.05, 0.05).result == "undecided"
    if result == "fail":
        assert checks.pattern_linked([row | changes, row | UNLINKED | {"high": 0.06}], 0.05, 0.05).result == "undecided"
        word = row | {"window": "at"}
        assert checks.pattern_linked([row | changes, word], 0.05, 0.05).note.startswith("is the word, reflection: 30%")
        # A pattern that is there, but in too few traces for a test, may yet be the one.
        rare = row | {"pattern": "planning", "traces": 4, "share": None, "p": None, "note": "in 4 traces; 5 are needed"}
        assert checks.pattern_linked([row | changes, rare], 0.05, 0.05).result == "undecided"
        assert checks.pattern_linked([row | changes, rare | {"traces": 0}], 0.05, 0.05).result == "fail"


def test_what_decides_a_link():
    """Where one window is above the margin it may do alone; where all are below, each has to."""
    row = {"pattern": "reflection", "window": "before", "traces": 20, "note": None, "share": 0.15, "low": 0.0,
           "high": 0.3, "p": 0.04, "rank": None, "told_apart": 0.9}  # fmt: skip
    other = row | {"window": "after", "share": 0.0, "low": -0.1, "high": 0.1, "p": 0.9}
    assert checks.pattern_linked([row, other], 0.05, 0.05).needs == 45  # 20 (0.15 / 0.1)²
    both = [other, other | {"window": "before", "low": -0.2, "high": 0.2}]
    assert checks.pattern_linked(both, 0.05, 0.05).needs == 320  # 20 (0.2 / 0.05)², the wider one's


BEYOND = {"control": "direct", "problems": 40, "tokens": 16, "presence": 0.5, "presence_control": 0.1, "excess": 0.8,
          "low": 0.6, "high": 0.9, "rate": 0.1, "rate_control": 0.02, "rate_excess": 0.8, "rate_low": 0.5,
          "rate_high": 0.95, "p": 0.001}  # fmt: skip
EQUAL = {"excess": 0.0, "low": -0.1, "high": 0.1, "rate_excess": 0.0, "rate_low": -0.1, "rate_high": 0.1, "p": 1.0}


@pytest.mark.parametrize(
    ("controls_of", "result"),
    [
        ([{}], "pass"),
        ([{"p": 0.06}], "undecided"),
        ([EQUAL], "fail"),
        ([EQUAL | {"rate_high": 0.3}], "undecided"),  # its rate leaves room, though its presence doesn't
        ([EQUAL | {"high": 0.3}], "undecided"),
        ([EQUAL | {"rate_excess": 0.6, "rate_low": 0.4, "rate_high": 0.8, "p": 0.01}], "pass"),
        ([{}, EQUAL], "fail"),
        ([{}, {"p": 0.2}], "undecided"),
        ([{}, {}], "pass"),
        ([{"low": None, "problems": 3, "p": None}], "undecided"),
        ([{"control": None}], "undecided"),
        ([], "undecided"),
    ],
)
def test_when_a_latent_recurs_beyond_all_controls(controls_of, result):
    assert checks.recurs([BEYOND | changes for changes in controls_of], 0.05, 0.25).result == result


@pytest.mark.parametrize(
    ("low", "high", "sink", "lexical"),
    [(0.6, 0.9, "fail", "fail"), (0.1, 0.3, "pass", "pass"), (0.4, 0.6, "undecided", "undecided"),
     (None, None, "undecided", "undecided")],
)  # fmt: skip
def test_shares_of_sinks_and_words_have_intervals(low, high, sink, lexical):
    about = {"sink_share": 0.3, "sink_low": low, "sink_high": high, "of": 20, "sink_traces": 12}
    assert checks.not_a_sink(about, 0.5).result == sink
    words = {"typed": 0.5, "low": low, "high": high, "traces": 20, "tokens": 50, "top_tokens": "a b c"}
    assert checks.not_lexical([words], 0.5).result == lexical
    assert checks.not_lexical([words | {"tokens": 9}], 0.5).result == "undecided"
    # Of few traces that say something, not even a clear interval says much.
    assert checks.not_lexical([words | {"traces": 7}], 0.5).result == "undecided"
    assert checks.not_a_sink(about | {"sink_traces": 7}, 0.5).result == "undecided"
    assert (
        checks.not_a_sink(
            about | {"sink_traces": 7, "sink_share": 0.01, "sink_low": 0.0, "sink_high": 0.04}, 0.5
        ).result
        == "pass"
    )


def test_what_stands_out_and_what_it_would_take():
    row = {"p": 1e-8, "q": 1e-5, "q_looking": 0.01, "family": 1000, "traces": 30}
    assert checks.beyond_chance([row], 0.05).result == "pass"
    assert checks.beyond_chance([row], 0.05).note.endswith("also if one looked often")
    assert checks.beyond_chance([row | {"q_looking": 0.3}], 0.05).note.endswith("q 0.3 if one looked often")
    open_ = checks.beyond_chance([row | {"p": 0.01, "q": 0.2}], 0.05)
    assert (open_.result, open_.needs) == ("undecided", 84)  # 30 (z of 0.00005 / z of 0.01)² = 30 (3.891 / 2.326)²
    assert checks.beyond_chance([row | {"p": 0.7, "q": 0.9}], 0.05).needs is None
    assert checks.beyond_chance([row | {"p": None, "q": None}], 0.05).result == "undecided"
    assert checks.beyond_chance([], 0.05).result == "undecided"


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
         "removed_by": ["not_a_sink", "not_merely_lexical", None, "not_a_sink", None],
         "beyond_its_twins": None, "acts_on_its_pattern": None}
    )  # fmt: skip
    assert verdict.waterfall(table) == [
        ("candidates", 5), ("not_a_sink", 3), ("fits_its_site", 3), ("recurs_beyond_control", 3), ("pattern_linked", 3),
        ("not_merely_lexical", 2), ("beyond_chance", 2), ("survivors", 1),
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
    means = row["mean_first"], row["mean_second"]
    assert row["effect"] == pytest.approx((means[0] - means[1]) / sum(means))
    assert (row["pairs"], row["low"] > 0) == (16, True)
    assert row["p"] < 0.001
    assert row["mean_first"] - row["mean_second"] == pytest.approx(0.2)
    assert row["mean_second"] == pytest.approx(8.5)


def test_the_waterfall_counts_them(planted):
    steps = dict(verdict.waterfall(planted["verdict"]))
    assert list(steps) == ["candidates", *[check.name for check in checks.asked(planted["verdict"])], "survivors"]
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
    notes = tables["verdict"]["recurs_beyond_control_note"].to_list()
    assert set(notes) <= {"no control condition", "too rarely active"}
    assert "no control condition" in notes


def test_a_control_that_wrote_nothing_is_not_beaten():
    """Two controls, of which one has no token that was read: what is beyond the other isn't beyond every control."""
    study = Synthetic(seed=9, problems=24, length=60, conditions=("reason", "direct", "silent"))
    for (condition, trace), ids in study.words.items():
        if condition == "silent":
            study.words[condition, trace] = ids[:1]
    study.retell()
    study.background(range(8), rate=0.1)
    study.fire(50, lambda c, _t, i, _w, _s: c == "reason" and i % 3 == 0, strength=30)
    whole = {name: frame.filter(pl.col("condition") != "silent") if name != "vocabulary" else frame
             for name, frame in study.tables().items()}  # fmt: skip
    assert row_of(run(whole), 50)["recurs_beyond_control"] == "pass"
    found = run(study, conditions=("reason", "direct", "silent"))
    finite(found)
    row = row_of(found, 50)
    assert (row["recurs_beyond_control"], row["verdict"]) == ("undecided", "undecided")
    assert row["recurs_beyond_control_note"] == "0 problems; 5 are needed"
    assert row_of(found, 50, "headline")["p"] is None


@pytest.mark.parametrize(
    ("lexicon", "notes"),
    [({}, {"too rarely active, or no pattern is looked for"}), ({"all": [r"/[\s\S]/"]}, {"in 0 traces; 5 are needed"}),
     ({"none": ["zebra"]}, {"in 0 traces; 5 are needed"})],
)  # fmt: skip
def test_patterns_of_no_word_of_every_word_and_none_at_all(lexicon, notes, monkeypatch):
    monkeypatch.setattr("test_verdict.LEXICON", lexicon)
    study = Synthetic(seed=4, problems=12, length=40)
    study.background(range(8), rate=0.2)
    found = run(study, shifts=100)
    finite(found)
    assert set(found["verdict"]["pattern_linked"]) == {"undecided"}
    assert set(found["verdict"]["pattern_linked_note"]) == notes


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


def use_of(effects=(), attribution=(), headline=({"pattern": "doubt", "window": "after"},)):
    return checks.acts_on_its_pattern(headline, effects, attribution, 0.05, 0.01)


def tried(**changes):
    """A latent taken away at its pattern, that does more than its controls."""
    row = {"pattern": "doubt", "window": "after", "traces": 16, "effect": 0.1, "excess": 0.08, "low": 0.05,
           "high": 0.11, "q": 0.001, "note": None, "strengths": [1.0, 4.0], "added": [0.1, 0.4],
           "added_low": [0.0, 0.2], "added_high": [0.2, 0.6]}  # fmt: skip
    return row | changes


def test_whether_a_latent_acts_on_its_pattern():
    acts = use_of([tried()])
    assert (acts.result, acts.number) == ("pass", 0.08)
    assert "4 times added elsewhere it gives 0.4 log-odds (0.2 to 0.6)" in acts.note
    assert use_of([tried(q=0.2)]).result == "undecided"
    assert use_of([tried(q=0.9, excess=0.001, low=-0.004, high=0.006)]).result == "fail"  # no room for .01
    assert use_of([tried(q=0.9, excess=-0.1, low=-0.2, high=-0.05)]).result == "fail"
    assert use_of([tried(q=0.001, excess=0.003, low=0.002, high=0.004)]).result == "fail"  # there, but next to nothing
    assert use_of([tried(q=None, low=None, note="its pattern is in 3 traces; 5 are needed")]).note.startswith(
        "its patt"
    )
    # At another pattern than its own it says nothing; then what is predicted decides, if it says no.
    assert use_of([tried(pattern="plan")]).result == "undecided"
    predicted = {"pattern": "doubt", "window": "after", "predicted": 0.001, "low": -0.001, "high": 0.003, "traces": 16}
    assert use_of([tried(pattern="plan")], [predicted]).result == "fail"
    may = use_of([], [predicted | {"predicted": 0.2, "low": 0.1, "high": 0.3}])
    assert (may.result, may.number) == ("undecided", 0.2)
    assert may.note == "not taken away; predicted to take 0.2 log-odds (0.1 to 0.3) from doubt"
    assert use_of(headline=[]).result == use_of(headline=[{"pattern": None, "window": None}]).result == "undecided"
    assert use_of([], [predicted | {"low": None, "high": None}]).result == "undecided"


def test_a_verdict_asks_what_twins_and_interventions_say(planted):
    """The one thinking pattern stays one where a twin has nothing and it acts; else it fails, and says by which."""
    asked = {"alpha": 0.05, "min_excess": 0.25, "min_share": 0.05, "max_fvu": 0.7, "max_sink_share": 0.5,
             "max_typed": 0.5, "max_twins": 100.0, "min_effect": 0.01}  # fmt: skip
    names = ("candidates", "fit", "presence", "pattern_tests", "lexicality", "headline")
    given = [planted[name].lazy() if name in planted else GATE.lazy() for name in names]
    plain = planted["verdict"]
    effects = pl.DataFrame([tried(pattern="reflection", window="before", latent=THINKING)]).lazy()
    attribution = pl.DataFrame(
        {"latent": [THINKING], "pattern": ["planning"], "window": ["before"], "predicted": [0.1], "low": [0.0],
         "high": [0.2], "traces": [9]}
    ).lazy()  # fmt: skip

    def judged(twin, **changes):
        twins, readers = twin.with_columns(reader=pl.lit("random_model")).lazy(), ["random_model"]
        return verdict.verdict(*given, twins, effects, attribution, site="s", readers=readers, **asked | changes)

    found = judged(plain.clear())
    assert found.columns == plain.columns
    none = found.filter(latent=THINKING).row(0, named=True)
    assert none["acts_on_its_pattern"] == "pass"
    same = judged(plain, max_twins=0.001).filter(latent=THINKING).row(0, named=True)
    assert (same["verdict"], same["removed_by"]) == ("no", "beyond_its_twins")
    assert same["beyond_its_twins_number"] == 1  # as many as itself
    assert verdict.waterfall(found)[-2].name == "acts_on_its_pattern"
