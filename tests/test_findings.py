"""What the report says: every sentence follows from the numbers, and none is false for any."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from conftest import REPO

from thoughtscope.evidence.checks import BY_NAME, CHECKS, VERDICTS
from thoughtscope.evidence.fit import SCHEMA as FIT_SCHEMA
from thoughtscope.evidence.headline import SCHEMA as HEADLINE
from thoughtscope.evidence.patterns import SCHEMA as PATTERNS
from thoughtscope.evidence.verdict import SCHEMA
from thoughtscope.frames import complete
from thoughtscope.interventions import effects as effects_room
from thoughtscope.report import effects, findings, needs, words
from thoughtscope.report import page as report
from thoughtscope.report.study import Site, Study
from thoughtscope.statistics import fdr, wilson
from thoughtscope.traces.generate import SCHEMA as TRACES

ALWAYS = [name for name, check in BY_NAME.items() if check.asked_by is None]
"""The checks that every study asks."""


def steps(*verdicts: str | None) -> pl.DataFrame:
    """A verdict's table: None passes all checks, `?` is undecided, else the check that removes the latent."""
    names = [VERDICTS[0] if check is None else "undecided" if check == "?" else "no" for check in verdicts]
    removed = [None if check in (None, "?") else check for check in verdicts]
    rows = {"latent": range(len(verdicts)), "verdict": names, "removed_by": removed, "traces": 12, "of": 20}
    return complete(pl.DataFrame(rows, schema_overrides={"removed_by": pl.String, "verdict": pl.String}), SCHEMA)


def checked(*rows: str, traces: int = 12) -> pl.DataFrame:
    """A verdict's table from latents' results in ALWAYS: + passes, - fails, ? undecided; each is in a trace less."""
    named = {"+": "pass", "-": "fail", "?": "undecided"}
    found = [dict(zip(ALWAYS, (named[mark] for mark in row), strict=True)) for row in rows]
    removed = [next((check for check, result in row.items() if result == "fail"), None) for row in found]
    table = steps(*["?" if "-" not in row and "?" in row else check for row, check in zip(rows, removed, strict=True)])
    results = [pl.Series(check, [row[check] for row in found], dtype=SCHEMA[check]) for check in ALWAYS]
    counts = pl.Series("traces", [traces - index for index in range(len(rows))], dtype=pl.UInt32)
    return table.with_columns(*results, counts)


SETTINGS = {
    "analysis": {"top_latents": 10, "min_traces": 2, "alpha": 0.05, "max_fvu": 0.7, "include_sinks": False},
    "patterns": {"reflection": [], "planning": []}, "prompts": {"a": {}, "b": {}},
    "model": {"think": {}, "source": "path"}, "generation": {"max_new_tokens": 400},
    "problems": {"source": "jsonl"}, "sae": {"source": "path"},
}  # fmt: skip


def written(
    condition: str, count: int, *, tokens: int = 10, finish: str = "stop", correct: bool | None = True
) -> pl.DataFrame:
    """Traces under a condition, each with a think segment."""
    part = [{"segment": "think", "start": 0, "end": tokens}]
    rows = [{"condition": condition, "trace_id": trace, "generated_ids": [1] * tokens, "finish_reason": finish,
             "correct": correct, "segments": part} for trace in range(count)]  # fmt: skip
    return complete(pl.DataFrame(rows), TRACES)


def matches(**traces: int) -> pl.DataFrame:
    """Words of reflection in so many traces of each condition, twice in each."""
    rows = [
        ("pattern", "reflection", condition, trace) for condition, count in traces.items() for trace in range(count)
    ]
    return pl.DataFrame(
        rows * 2,
        schema={"kind": pl.String, "name": pl.String, "condition": pl.String, "trace_id": pl.UInt32},
        orient="row",
    )


def headline(family: int = 100, links: int = 4, **columns: object) -> pl.DataFrame:
    """The study's table of that name, of two sites."""
    rows = {"site": [f"layers.{latent % 2}.mlp" for latent in range(family)], "latent": range(family), "links": links,
            "q": 1.0, "q_looking": 1.0, "family": family}  # fmt: skip
    return complete(pl.DataFrame(rows | columns), HEADLINE)


def site_of(verdict: pl.DataFrame, **changes) -> Site:
    tables = {"verdict": verdict, "outcomes": pl.DataFrame(schema={"outcome": pl.String, "note": pl.String}),
              "pattern_tests": pl.DataFrame({"active_traces": [13]}, {"active_traces": pl.UInt32})}  # fmt: skip
    return Site("layers.1.mlp", changes.pop("info", {}), tables | changes, {})


LAYERS = {"site": pl.String, "scope": pl.String, "condition": pl.String, "peaks": pl.Float64, "sinks_on_top": pl.UInt32,
          "listed": pl.UInt32, "largest_on_sinks": pl.Float32, "largest_elsewhere": pl.Float32}  # fmt: skip


def made_up(*verdicts: pl.DataFrame, traces: int = 40, **changes) -> Study:
    """A study against which nothing speaks, of sites with these verdicts."""
    sites = [Site(f"layers.{index}.mlp", {}, site_of(table).tables, {}) for index, table in enumerate(verdicts)]
    about = {
        "experiment": "x", "conditions": ["a", "b"], "settings": SETTINGS, "config": "", "manifest": {"name": "tiny"},
        "problems": {}, "traces": pl.concat([written("a", traces), written("b", traces)]),
        "matches": pl.concat([matches(a=9, b=3), matches(a=9).with_columns(name=pl.lit("planning"))]),
        "gate": pl.DataFrame(schema=FIT_SCHEMA), "layers": pl.DataFrame(schema=LAYERS), "headline": headline(),
        "sites": sites, "pictures": {}, "neuronpedia": None, "truth": None, "effects": {}, "cost": {}, "steered": {},
        "twins": None, "seeds": {}, "attribution": {}, "token_effects": {}, "token_changes": {}, "responses": {},
        "weighted_tests": {},
        "stable_patterns": None,
    }  # fmt: skip
    return Study(**about | changes)


def made_up_with(traces: pl.DataFrame, **changes) -> Study:
    return replace(made_up(steps()), traces=traces, **changes)


def finding(*verdicts: pl.DataFrame, **changes) -> str:
    return findings.answer(made_up(*verdicts, **changes)).finding


def test_the_finding_follows_from_the_numbers():
    assert finding(steps(), steps()) == (
        "No latent is a candidate: none is among the top 10 of 2 or more traces, or linked to a pattern, at any site."
        " There is nothing to judge."
    )
    assert finding(steps("not_a_sink")) == (
        "No, by these checks: of 1 candidate latent, none passes all 6 checks. 1 fails at least one."
    )
    assert finding(steps("?", "?"), steps("pattern_linked")) == (
        "Not established: of 3 candidate latents, none passes all 6 checks. 1 fails at least one and 2 are undecided."
    )
    assert finding(steps(None, "?"), steps("not_a_sink", "beyond_chance", None)) == (
        "Yes, by these checks: of 5 candidate latents, 2 pass all 6: latent 0 at layers.0.mlp, latent 2 at"
        " layers.1.mlp. 2 fail at least one and 1 is undecided."
    )
    assert finding(steps(None)) == (
        "Yes, by these checks: of 1 candidate latent, 1 passes all 6: latent 0 at layers.0.mlp."
    )
    assert finding(steps(*[None] * 7)).endswith(
        "7 pass all 6: " + ", ".join(f"latent {latent} at layers.0.mlp" for latent in range(5)) + " and 2 more."
    )


SMALL = "This study is too small to find a thinking pattern: "
MORE = "problems would be a start: `snakemake --cores all --config inferences="


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({}, None),
        ({"traces": 13}, None),
        ({"traces": 12}, f"with 12 traces not even a latent that shows its pattern in every one of them would stand out"
                         f" by itself among the 100 tested. About 30 {MORE}30`."),
        # 2^-36 times the links and the latents tested is still too much.
        ({"headline": headline(3, links=2**31), "traces": 36}, f"by itself among the 3 tested. About 37 {MORE}37`."),
        ({"headline": headline(3, links=2**31), "traces": 37}, None),
        ({"conditions": ["a"]}, "there is no control to recur beyond. Add a second condition to `conditions`."),
        ({"traces": 4, "headline": headline(0)},
         f"it has 4 problems, and no test works with fewer than 5. About 30 {MORE}30`."),
        ({"traces": 1, "conditions": ["a"], "headline": headline(0)},
         "there is no control to recur beyond; and it has 1 problem, and no test works with fewer than 5. Add a second"
         f" condition to `conditions`. About 30 {MORE}30`."),
        ({"matches": matches(a=4, b=9)},
         f"no pattern is in 5 traces under “a” (the most frequent, reflection, is in 4 of 40). About 50 {MORE}50`."),
        ({"matches": matches(a=5, b=9)}, None),
        ({"matches": matches(b=9)},
         "no pattern is in 5 traces under “a”, or in any. Look for other words (`patterns`), or in a model that"
         " reasons."),
        ({"headline": headline(0)},
         f"no latent could be tested (none is active on 10 tokens in 5 traces). About 80 {MORE}80`."),
    ],
)  # fmt: skip
def test_a_study_too_small_to_find_anything_says_so_first(changes, says):
    of = made_up(steps("?", "not_a_sink"), **changes)
    answer, heading = findings.answer(of).finding, "Too small to find a thinking pattern"
    if says is None:
        assert answer.startswith("Not established: of 2 candidate latents, none passes all 6 checks.")
        assert heading not in warned(of)
        return
    assert answer.startswith(SMALL)
    assert says in answer
    assert answer.endswith("Of 2 candidate latents, 1 fails at least one check and 1 is undecided.")
    assert "none passes" not in answer
    assert answer.startswith(warned(of)[heading][0])
    assert finding(steps(), **changes).startswith(SMALL)
    # What was found nevertheless, as many latents together, was found.
    assert finding(steps(None), **changes).startswith("Yes, by these checks: ")
    assert heading not in warned(made_up(steps(None), **changes))


def test_the_counts_agree_whether_or_not_sinks_are_counted():
    """What recurs only with sinks left out is judged like the rest, so it is in every count of the page."""
    table = checked("++++++", "++?+++", "-+++++").with_columns(original=pl.Series([False, True, False]))
    answer = findings.answer(made_up(table, table.head(1)))
    assert answer.counts == [
        ("candidates", "candidates", 4), ("no", "ruled out", 1), ("undecided", "undecided", 1),
        ("yes", "pass all checks", 2),
    ]  # fmt: skip
    assert [left for _, left, _ in answer.steps] == [[3, 1]] + [[2, 1]] * 6 + [[1, 0], [1, 1]]
    results = {name: found for name, _, found in answer.steps if found}
    assert results["not a sink"] == {"pass": 3, "fail": 1, "undecided": 0}
    assert results["recurs beyond control"] == {"pass": 3, "fail": 0, "undecided": 1}
    assert "2 pass all 6: latent 0 at layers.0.mlp, latent 0 at layers.1.mlp." in answer.finding


def test_what_recurs_is_told_from_what_is_only_linked():
    """A latent may be a candidate for its link alone, or for what it does under a control."""
    table = checked(*["++?+++"] * 4).with_columns(
        traces=pl.Series([2, 1, 0, 0], dtype=pl.UInt32), original=pl.Series([False, True, False, None])
    )
    meaning = findings.answer(made_up(table)).meaning
    assert meaning.startswith("A latent is a candidate if it recurs (it is among the 10 most active of at least 2")
    assert "Of 4 candidates 2 recur, and by that alone may be called thinking features;" in meaning
    assert "Of 1 candidate 1 recurs, and by that alone may be called a thinking" in findings.answer(
        made_up(table.head(1))
    ).meaning  # fmt: skip
    # None of these recurs, so none is the most recurrent.
    assert not any("most recurrent" in text for text in findings.answer(made_up(table[1:])).certainty)
    assert any("most recurrent" in text for text in findings.answer(made_up(table)).certainty)


def test_how_sure_one_can_be():
    more = findings.answer(made_up(checked("++?+++", traces=8), checked("++?+++", traces=9))).certainty[0]
    assert more.startswith("Closest are latent 0 at layers.1.mlp, latent 0 at layers.0.mlp:")
    certainty = findings.answer(made_up(checked("++?+++", "++?++-", "++???+"), checked("++?+++", "++-+++"))).certainty
    low, high = (float(edge[0]) for edge in wilson(np.array([12]), 20))
    assert certainty[:3] == [
        "Closest are latent 0 at layers.0.mlp, latent 0 at layers.1.mlp: they pass 5 checks and fail none.",
        "No latent at all passes “recurs beyond control” (4 undecided, 1 failed).",
        "The most recurrent, latent 0 at layers.0.mlp (undecided), is among the top of 12 of 20 traces, which means"
        f" {low:.0%} to {high:.0%} of all such traces (95% interval).",
    ]
    assert "there are 40 under “a”" in certainty[4]
    assert "(ruled out)" in findings.answer(made_up(checked("++-+++", "++?+++"))).certainty[2]
    passed = findings.answer(made_up(checked("++++++", "?+++++"))).certainty
    assert len(passed) == 4
    assert "(passes all checks)" in passed[0]
    assert findings.answer(made_up(checked("++?+++"))).certainty[0] == (
        "Closest is latent 0 at layers.0.mlp: it passes 5 checks and fails none."
    )
    *_, unit, _ = findings.answer(made_up(steps(), traces=1)).certainty
    assert "there is 1 under “a”" in unit


def test_the_error_rate_is_said_with_what_it_covers():
    q, looking = [0.01] * 3 + [0.05] + [None] * 6, [0.01, 0.049] + [0.06] * 8
    table = headline(10, q=pl.Series(q, dtype=pl.Float64), q_looking=pl.Series(looking))
    text = next(line for line in findings.answer(made_up(steps("?"), headline=table)).certainty if "error" not in line
                and "false discovery rate" in line)  # fmt: skip
    assert "covers the whole study: 10 latents of 2 sites were tested, whichever recur, and" in text
    assert "(q below 0.05) at most 5% are expected to do so by chance" in text
    assert "By q, which holds for one look at the study, 3 stand out; by q_looking," in text
    assert text.endswith("which holds however often one looks again as blocks are added, 2.")
    none = " ".join(findings.answer(made_up(steps("?"))).certainty)
    assert "at the study, none stands out;" in none
    assert "blocks are added, none." in none
    assert "false discovery" not in " ".join(findings.answer(made_up(steps("?"), headline=headline(0))).certainty)


def open_for(check: str, *traces: int | None, verdict: str = "undecided") -> pl.DataFrame:
    """A verdict's table of latents that a check leaves open, and at how many traces it would be decided."""
    table = checked(*["".join("?" if name == check else "+" for name in ALWAYS)] * len(traces))
    wanted = pl.Series(traces, dtype=pl.UInt32)
    return table.with_columns(wanted.alias(f"{check}_needs"), wanted.alias("needs"),
                              verdict=pl.lit(verdict, SCHEMA["verdict"]))  # fmt: skip


def test_what_it_would_take_is_said_check_by_check():
    lexical = open_for("not_merely_lexical", 40, 123, 20, None, 77_001)
    linked = open_for("pattern_linked", None, None)
    gone = open_for("pattern_linked", 31, verdict="no")  # no longer a question
    rows = needs.needed(pl.concat([lexical, linked, gone]))
    # Of four that are known the second, of all the largest; rounded up, as they are estimates.
    assert rows == [
        ("pattern linked", 2, 0, None, None),
        ("not merely lexical", 5, 4, 40, 78_000),
        ("verdict", 7, 4, 40, 78_000),
    ]
    assert needs.advice(rows, 16) == (
        "7 latents are undecided. If traces went on like the 16 there are, about 40 a condition would decide half of"
        " the 4 of which that can be said: `snakemake --cores all --config inferences=40`, with this run’s"
        " `--configfile`, if it had one."
    )
    answer = findings.answer(made_up(pl.concat([lexical, linked, gone])))
    assert answer.needed == rows
    assert answer.advice == needs.advice(rows, 40)
    assert needs.needed(gone) == []
    assert needs.advice([], 16) is None


@pytest.mark.parametrize(
    ("traces", "says"),
    [
        ([None], "1 latent is undecided; how many traces would decide it can’t be said yet."),
        ([None, None], "2 latents are undecided; how many traces would decide them can’t be said yet."),
        ([60], "1 latent is undecided. If traces went on like the 16 there are, about 60 a condition would decide it:"),
        ([60, 61], "about 60 a condition would decide half of them: `"),
        ([1234, None], "about 1,300 a condition would decide the one of which that can be said: `snakemake --cores all"
                       " --config inferences=1300`"),
    ],
)  # fmt: skip
def test_the_advice_is_true_of_few(traces, says):
    assert says in needs.advice(needs.needed(open_for("recurs_beyond_control", *traces)), 16)


def test_the_advice_is_of_a_check_where_verdicts_are_unknown():
    table = open_for("pattern_linked", 60, 80, 100).with_columns(needs=pl.lit(None, pl.UInt32))
    assert "about 80 a condition would decide “pattern linked” for half of them: `" in needs.advice(
        needs.needed(table), 16
    )


def test_a_latent_says_what_would_decide_it():
    row = open_for("pattern_linked", 1234).row(0, named=True)
    assert needs.in_words(row) == "about 1,300 traces would decide it"
    assert needs.in_words(row, "not_a_sink_needs") == ""
    for traces, shown in ((6, 6), (99, 99), (100, 100), (101, 110), (1_000_000, 1_000_000), (996, 1000)):
        assert needs.about(traces) == shown


@pytest.mark.parametrize(
    ("fvu", "low", "high", "result", "text"),
    [
        ((0.2, 1.1), (0.18, 1.0), (0.22, 1.2), "pass",
         "the SAE leaves 20% (18% to 22%) of the variance unexplained, at most 70% is allowed; no other place"),
        ((0.9, 1.1), (0.85, 1.0), (0.95, 1.2), "fail", "unexplained, more than the 70% allowed; no other place"),
        ((1.5, 1.0), (1.4, 0.9), (1.6, 1.1), "fail",
         "unexplained, no better than always saying the mean; it fits layers.0.mlp better (100%)"),
        ((0.5, 0.49), (0.45, 0.44), (0.55, 0.54), "undecided", "allowed; it fits layers.0.mlp better (49%)"),
        ((0.2, 1.1), (None, None), (None, None), "undecided", "leaves 20% of the variance unexplained, at most 70%"),
        ((None, None), (None, None), (None, None), "undecided", "the fit isn’t known"),
    ],
)  # fmt: skip
def test_whether_an_sae_fits_is_said_as_the_check_has_it(fvu, low, high, result, text):
    rows = {"hookpoint": "layers.1.mlp", "condition": None, "place": ["site", "below"],
            "site": ["layers.1.mlp", "layers.0.mlp"], "used": [True, False], "fvu": fvu, "fvu_low": low,
            "fvu_high": high}  # fmt: skip
    other = pl.DataFrame(rows).with_columns(hookpoint=pl.lit("layers.9.mlp"), fvu=pl.lit(0.01))
    gate = complete(pl.concat([other, pl.DataFrame(rows)], how="vertical_relaxed"), FIT_SCHEMA)
    fit = findings.fit_sentence(made_up(steps(), gate=gate), "layers.1.mlp")
    assert fit.result == result
    assert text in fit.text


def test_in_how_many_traces_alone_a_latent_must_be():
    for links, family, alpha in ((1, 1, 0.05), (4, 28, 0.05), (12, 2884, 0.05), (10, 20, 0.001), (8, 64, 0.5)):
        traces = needs.least_traces(links, family, alpha)
        p = np.ones(family)
        for number, low in ((traces, True), (traces - 1, False)):
            p[0] = min(1.0, links * 0.5**number)
            assert (fdr(p)[0] < alpha) == low


def warned(study: Study) -> dict[str, list[str]]:
    return {group["heading"]: group["texts"] for group in findings.by_heading(findings.warnings(study))}


def test_nothing_speaks_against_a_study_without_fault():
    assert warned(made_up(checked("++++++"))) == {}


def test_too_few_traces_are_warned_of_and_only_they():
    few = warned(made_up(checked("??????"), traces=29))
    assert few == {"Few traces": ["29 traces under “a” leave wide intervals, and much undecided."]}
    assert warned(made_up(checked("??????"), traces=30)) == {}
    assert list(warned(made_up(checked("??????"), traces=12))) == ["Too small to find a thinking pattern", "Few traces"]


def test_too_little_activity_is_warned_of():
    """Of the 100 latents tested, one must be active in 13 traces: 4 links x 100 / 2^13 is below 0.05."""

    def of(active: list[int]) -> dict[str, list[str]]:
        tests = pl.DataFrame({"active_traces": active}, {"active_traces": pl.UInt32})
        return warned(made_up(sites=[site_of(checked("??????"), pattern_tests=tests)]))

    assert of([5, 12]) == {"Too little activity to stand out": [
        "layers.1.mlp: a single latent stands out among the 100 tested (q < 0.05) only if it is active in 13 traces or"
        " more; the most active is in 12."
    ]}  # fmt: skip
    assert of([5, 13]) == of([]) == {}


def test_patterns_that_hardly_occur_are_warned_of():
    rare = pl.concat([matches(a=5), matches(a=4, b=9).with_columns(name=pl.lit("planning")),
                      matches(a=9).with_columns(name=pl.lit("planning"), kind=pl.lit("reason"))])  # fmt: skip
    assert warned(made_up(steps(), matches=rare))["Patterns that hardly occur"] == [
        "Under “a”, planning is in fewer than 5 traces; no latent can be linked to it here."
    ]


def test_controls_that_explain_what_recurs_are_warned_of():
    assert "A control that thinks, too" not in warned(made_up(steps(), matches=matches(a=9, b=8)))
    assert warned(made_up(steps(), matches=matches(a=9, b=9)))["A control that thinks, too"] == [
        "9 of 40 traces under “b” have words of thinking patterns, as have 9 of 40 under “a”. What belongs to thinking"
        " may recur in both."
    ]
    assert "A control that thinks, too" not in warned(made_up(steps(), matches=matches()))
    # Recurrence is compared at equal length, so that another length of the control's traces is no objection.
    assert warned(made_up_with(pl.concat([written("a", 40), written("b", 40, tokens=60)]))) == {}
    alone = warned(made_up_with(written("a", 40), conditions=["a"]))
    assert list(alone) == ["Too small to find a thinking pattern", "No control"]


def test_what_the_model_wrote_may_speak_against_it():
    both = [written("b", 40)]
    cut = warned(made_up_with(pl.concat([written("a", 21, finish="length"), written("a", 19), *both])))
    assert cut == {"Most traces of a condition are truncated": [
        "21 of 40 under “a” reached 400 tokens before they ended: their conclusions are missing. Raise"
        " generation.max_new_tokens."
    ]}  # fmt: skip
    assert warned(made_up_with(pl.concat([written("a", 20, finish="length"), written("a", 20), *both]))) == {}
    wrong = pl.concat([written("a", 3, correct=False), written("a", 2), written("a", 35, correct=None), *both])
    assert warned(made_up_with(wrong))["Mostly wrong answers"][0].startswith(
        "2 of 5 graded answers under “a” are right."
    )
    assert warned(made_up_with(pl.concat([written("a", 40, correct=None), *both]))) == {}
    no_think = SETTINGS | {"model": {"think": None, "source": "path"}}
    assert list(warned(made_up(steps(), settings=no_think))) == ["Not run as a reasoning model"]
    answers = [{"segment": "answer", "start": 0, "end": 10}]
    unmarked = written("a", 40).with_columns(segments=pl.Series([answers] * 40, dtype=TRACES["segments"]))
    assert list(warned(made_up_with(pl.concat([unmarked, *both])))) == ["No thinking"]


def test_sinks_and_sites_may_speak_against_it():
    row = {"site": "layers.0.mlp", "scope": "generated", "condition": "a", "peaks": 5.0, "sinks_on_top": 0,
           "listed": 400, "largest_on_sinks": 80.0, "largest_elsewhere": 20.0}  # fmt: skip

    def of(**changes):
        return warned(made_up(steps(), layers=pl.DataFrame([row | changes], schema=LAYERS)))

    assert of() == {}
    assert of(peaks=4.9) == {"Top latents peak on few tokens": [
        "layers.0.mlp: a trace’s top 10 latents have their maxima on 4.9 different tokens. They may respond to the size"
        " of what is there, not to its content."
    ]}  # fmt: skip
    assert of(sinks_on_top=3)["Sinks among the top activations"][0].startswith(
        "layers.0.mlp: 3 of the 400 largest activations on generated tokens are on sinks (largest 80, elsewhere 20)."
    )
    assert of(sinks_on_top=3, scope="all") == of(sinks_on_top=3, condition="b") == {}
    counting = SETTINGS | {"analysis": SETTINGS["analysis"] | {"include_sinks": True}}
    assert list(warned(made_up(steps(), settings=counting))) == ["Sinks are counted"]
    small = site_of(
        steps(),
        info={"train": {"tokens": 59_904}},
        outcomes=pl.DataFrame({"outcome": ["correct", "truncated"], "note": ["too few: 1 and 2", "other"]}),
    )
    assert warned(made_up(sites=[small, small])) == {
        "SAEs trained on little": ["59,904 tokens; published ones see 100 million and more."],
        "Right and wrong can’t be compared": [
            "Too few: 1 and 2. Whether a latent tells them is reported, and no check rests on it."
        ],
    }
    assert warned(made_up(sites=[site_of(steps(), info={"train": {"tokens": 10**8}})])) == {}


def test_revisions_that_may_move_are_named():
    commit = "0" * 40

    def of(**sections):
        return warned(made_up(steps(), settings=SETTINGS | sections)).get("A revision that may move", [])

    hub = {"source": "hub", "revision": "main"}
    assert of(problems=hub) == ["The problems’ revision isn’t pinned to a commit. Set problems.revision."]
    assert of(model=hub | {"think": {}}) == ["The model’s revision isn’t pinned to a commit. Set model.revision."]
    assert of(sae={"source": "train", "text": hub}) == [
        "The SAE’s training text’s revision isn’t pinned to a commit. Set sae.text.revision."
    ]
    assert of(problems=hub | {"revision": commit}, sae=hub | {"revision": commit}) == []


def test_reasons_stand_beside_verdicts():
    rows = checked("+-+?-+", "++?+?+", "++++++", "++++++").to_dicts()
    rows[2] |= {"pattern": "planning", "window": "before"}
    rows[3] |= {"pattern": "reflection", "window": "after"}
    assert [words.why(row) for row in rows] == [
        "SAE doesn't fit the site, a token detector", "recurs beyond control, not merely lexical",
        "planning: leads to it", "reflection: goes with it",
    ]  # fmt: skip
    assert words.why(checked("++++++").row(0, named=True)) == ""


@pytest.mark.parametrize(
    ("verdicts", "large", "small"),
    [
        ([], "No latent is a candidate: there is nothing to judge.",
         "The study is too small to find a thinking pattern: there is nothing to judge."),
        (["?", "?", "not_a_sink"],
         "Of 3 candidate latents, none passes all 6 checks, 2 are undecided, 1 removed, by the first they fail:"
         " 1 active on sink tokens.",
         "The study is too small to find a thinking pattern; of 3 candidate latents, 2 are undecided, 1 removed, by the"
         " first they fail: 1 active on sink tokens."),
        (["?"], "Of 1 candidate latent, none passes all 6 checks, 1 is undecided, none is removed.",
         "The study is too small to find a thinking pattern; of 1 candidate latent, 1 is undecided, none is removed."),
        ([None], *["Of 1 candidate latent, 1 passes all 6 checks, none is undecided, none is removed."] * 2),
    ],
)  # fmt: skip
def test_the_headline_of_a_site(verdicts, large, small):
    assert words.headline(steps(*verdicts), too_small=False) == large
    assert words.headline(steps(*verdicts), too_small=True) == small


def test_what_a_latent_has_most_to_do_with():
    """The link that passes; else the pattern whose word it surely is; else what is next to a link."""
    names = ["latent", "pattern", "window", "share", "low", "p", "rank", "told_apart"]
    tests = [
        (1, "reflection", "after", 0.3, 0.2, 0.001, None, 0.9), (1, "reflection", "at", 0.6, 0.5, 0.0, None, 0.9),
        (1, "planning", "before", 0.4, 0.2, 0.02, None, 0.9),
        (2, "planning", "at", 0.5, 0.2, 0.01, None, 0.9), (2, "reflection", "at", 0.6, 0.4, 0.0, None, 0.9),
        (2, "planning", "after", 0.1, -0.1, 0.2, None, 0.9),
        (3, "planning", "at", 0.2, 0.04, 0.01, None, 0.9), (3, "planning", "before", 0.1, -0.1, 0.2, None, 0.9),
        # Neither can be told from its place, or from other latents.
        (3, "reflection", "before", 0.3, 0.2, 0.0, None, 0.2), (3, "reflection", "after", 0.3, 0.2, 0.0, 0.8, 0.9),
        (4, "planning", "before", None, None, None, None, None),
    ]  # fmt: skip
    table = complete(pl.DataFrame(tests, schema=names, orient="row"), PATTERNS)
    latents = pl.Series("latent", [1, 2, 3, 4], dtype=pl.UInt32)
    verdict = checked("++++++", "+++-++", "+++?++", "+++?++").with_columns(latents)
    site = site_of(verdict, pattern_tests=table, latent_histograms=latents.to_frame())
    best = report.best_links(site, min_share=0.05)
    found = {latent: (row["pattern"], row["window"], row["counts"]) for latent, row in best.items()}
    assert found == {
        1: ("reflection", "after", True), 2: ("reflection", "at", False), 3: ("planning", "before", False)
    }  # fmt: skip


def test_only_latents_with_their_site_become_links():
    text = "Yes: latent 12 at layers.0.mlp@residual_in, latent 3 at layers.1.mlp. <b>latent 4</b> at “a”"
    assert str(report.linked(text)) == (
        'Yes: <a href="#layers.0.mlp@residual_in/12">latent 12</a> at layers.0.mlp@residual_in,'
        ' <a href="#layers.1.mlp/3">latent 3</a> at layers.1.mlp. &lt;b&gt;latent 4&lt;/b&gt; at “a”'
    )
    assert str(report.linked("Run `a <b> c`.")) == "Run <code>a &lt;b&gt; c</code>."


def test_columns_left_out_are_explained_once():
    both = {"ReasonScore": "no reasoning word in any trace"}
    assert report.without_columns({"x": both, "y": both}) == [
        "No latent has a number for “ReasonScore” (no reasoning word in any trace)."
    ]
    assert report.without_columns({"x": both, "y": {}}) == [
        "No latent at x has a number for “ReasonScore” (no reasoning word in any trace)."
    ]


def test_the_checks_in_the_docs_are_those_of_the_code():
    rows = [f"| {check.label} | {check.asks} | `{check.table}` |\n" for check in CHECKS]
    assert "".join(rows) in (REPO / "docs" / "evidence.md").read_text(encoding="utf-8")
    readme = (REPO / "README.md").read_text(encoding="utf-8")
    places = [readme.find(f"**{check.label}**") for check in CHECKS]
    assert places[0] > -1
    assert places == sorted(places)


def test_effects_are_said_in_words():
    """Of three latents tried at one site and one at another, two act; a fourth has its pattern in too few traces."""
    columns = {"pattern": "doubt", "window": "before", "traces": 16, "least": 0.1, "excess": 0.5, "chosen": "link"}
    table = complete(
        pl.DataFrame(
            [
                columns | {"latent": 1, "effect": 0.8, "control": 0.1, "q": 0.01, "predicted": 0.5, "strengths": [1.0],
                           "added": [0.3]},
                columns | {"latent": 2, "effect": 0.6, "control": 0.1, "q": 0.02, "predicted": 0.4},
                columns | {"latent": 3, "effect": 0.0, "control": 0.1, "q": 0.9, "predicted": 0.1},
                {"latent": 4, "pattern": "doubt", "window": "after", "traces": 2, "chosen": "link"},
            ]
        ),
        effects_room.SCHEMA,
    )  # fmt: skip
    texts = effects.sentences({"a": table, "b": table.head(0)}, {}, 0.05)
    assert texts[0] == (
        "Of the 3 latents linked to a pattern that are predicted to act on it most, 2 do more at the pattern, when"
        " taken away, than controls that change the states as much (q < 0.05): their median effect"
        " is 0.7 log-odds, 7.0 times that of their controls."
    )
    assert len(texts) == 2  # no rank correlation of three
    by_prediction = table.with_columns(chosen=pl.lit("prediction", effects_room.SCHEMA["chosen"]), q=pl.lit(0.5))
    both = effects.sentences({"a": table, "b": by_prediction.filter(pl.col("latent") < 4)}, {}, 0.05)
    assert both[1].startswith(
        "Of the 3 latents of which the largest effect is predicted, none does more at the pattern"
    )
    assert both[1].endswith("; their median effect is 0.6 log-odds.")
    assert "ranks these 6 as ablation does with a Spearman correlation of 1.00" in both[3]
    rows = effects.rows({"a": table})
    assert rows[0]["doses"] == [(1.0, 0.3)]
    assert rows[0]["where"] == "leads to it"
    assert rows[3]["doses"] == []
    alone = effects.sentences({"a": table.tail(1)}, {}, 0.05)
    assert alone == ["1 latent was tried, none with its pattern in 5 traces."]


def test_what_an_sae_costs_is_said_in_words():
    row = {"part": "all", "ce": 0.2, "ce_spliced": 0.25, "ce_mean": 0.4}
    table = pl.DataFrame([row | {"kl_score": 0.5, "kl_score_low": -0.2, "kl_score_high": 0.8}])
    nothing = table.with_columns(kl_score=pl.lit(-0.07))
    kept, none = effects.sentences({"a": pl.DataFrame(schema=effects_room.SCHEMA)}, {"a": table, "b": nothing}, 0.05)[
        1:
    ]
    assert kept == (
        "With reconstructions in place of its states at a the model’s cross-entropy is 0.25 nats a token instead of"
        " 0.20 (0.40 with their mean); they keep 50% (95% interval −20% to 80%) of what the site is worth to it, by"
        " divergence."
    )
    assert none.endswith("they keep nothing of what the site is worth to it, by divergence.")
