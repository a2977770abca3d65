"""What the report says: every sentence follows from the numbers, and none is false for any."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from conftest import REPO

from thoughtscope.evidence.checks import BY_NAME, CHECKS, VERDICTS
from thoughtscope.evidence.fit import SCHEMA as FIT_SCHEMA
from thoughtscope.evidence.verdict import SCHEMA
from thoughtscope.frames import complete
from thoughtscope.report import findings, words
from thoughtscope.report import page as report
from thoughtscope.report.study import Site, Study
from thoughtscope.statistics import fdr, mcnemar, wilson
from thoughtscope.traces.generate import SCHEMA as TRACES


def steps(*verdicts: str | None) -> pl.DataFrame:
    """A verdict's table: None passes all checks, `?` is undecided, else the check that removes the latent."""
    names = [VERDICTS[0] if check is None else "undecided" if check == "?" else "no" for check in verdicts]
    removed = [None if check in (None, "?") else check for check in verdicts]
    rows = {"latent": range(len(verdicts)), "verdict": names, "removed_by": removed, "traces": 12, "of": 20}
    return complete(pl.DataFrame(rows, schema_overrides={"removed_by": pl.String, "verdict": pl.String}), SCHEMA)


def checked(*rows: str, traces: int = 12) -> pl.DataFrame:
    """A verdict's table from each latent's results: + passes, - fails, ? is undecided; each is in a trace less."""
    named = {"+": "pass", "-": "fail", "?": "undecided"}
    found = [dict(zip(BY_NAME, (named[mark] for mark in row), strict=True)) for row in rows]
    removed = [next((check for check, result in row.items() if result == "fail"), None) for row in found]
    table = steps(*["?" if "-" not in row and "?" in row else check for row, check in zip(rows, removed, strict=True)])
    results = [pl.Series(check, [row[check] for row in found], dtype=SCHEMA[check]) for check in BY_NAME]
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


def site_of(verdict: pl.DataFrame, **changes) -> Site:
    tables = {"verdict": verdict, "outcomes": pl.DataFrame(schema={"outcome": pl.String, "note": pl.String}),
              "controls": pl.DataFrame(schema={"control": pl.String, "q": pl.Float64})}  # fmt: skip
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
        "gate": pl.DataFrame(schema=FIT_SCHEMA), "layers": pl.DataFrame(schema=LAYERS), "sites": sites, "pictures": {},
        "neuronpedia": None,
    }  # fmt: skip
    return Study(**about | changes)


def made_up_with(traces: pl.DataFrame, **changes) -> Study:
    return replace(made_up(steps()), traces=traces, **changes)


def finding(*verdicts: pl.DataFrame) -> str:
    return findings.answer(made_up(*verdicts)).finding


def test_the_finding_follows_from_the_numbers():
    assert finding(steps(), steps()).startswith("No latent recurs: none is among the top 10 of 2 or more traces")
    assert finding(steps("not_a_sink")) == (
        "No, by these checks: of 1 latent that recurs, none passes all 6 checks. 1 fails at least one."
    )
    assert finding(steps("?", "?"), steps("pattern_linked")) == (
        "Not established: of 3 latents that recur, none passes all 6 checks. 1 fails at least one and 2 are undecided."
    )
    assert finding(steps(None, "?"), steps("not_a_sink", "not_merely_length", None)) == (
        "Yes, by these checks: of 5 latents that recur, 2 pass all 6: latent 0 at layers.0.mlp, latent 2 at"
        " layers.1.mlp. 2 fail at least one and 1 is undecided."
    )
    assert finding(steps(None)) == (
        "Yes, by these checks: of 1 latent that recurs, 1 passes all 6: latent 0 at layers.0.mlp."
    )
    assert finding(steps(*[None] * 7)).endswith(
        "7 pass all 6: " + ", ".join(f"latent {latent} at layers.0.mlp" for latent in range(5)) + " and 2 more."
    )


def test_the_counts_agree_whether_or_not_sinks_are_counted():
    """What recurs only with sinks left out is judged like the rest, so it is in every count of the page."""
    table = checked("++++++", "++?+++", "-+++++").with_columns(original=pl.Series([False, True, False]))
    answer = findings.answer(made_up(table, table.head(1)))
    assert answer.counts == [
        ("recur", "recur", 4), ("no", "ruled out", 1), ("undecided", "undecided", 1), ("yes", "pass all checks", 2)
    ]  # fmt: skip
    assert [left for _, left, _ in answer.steps] == [[3, 1]] + [[2, 1]] * 6 + [[1, 0], [1, 1]]
    results = {name: found for name, _, found in answer.steps if found}
    assert results["not a sink"] == {"pass": 3, "fail": 1, "undecided": 0}
    assert results["recurs beyond control"] == {"pass": 3, "fail": 0, "undecided": 1}
    assert "2 pass all 6: latent 0 at layers.0.mlp, latent 0 at layers.1.mlp." in answer.finding


def test_how_sure_one_can_be():
    meaning = findings.answer(made_up(checked("++?+++"))).meaning
    assert meaning.startswith("A latent recurs if it is among the 10 most active of at least 2 traces under “a”,")
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
    assert "there are 40 under “a”; each family of tests has a false discovery rate of 5%" in certainty[3]
    assert "(ruled out)" in findings.answer(made_up(checked("++-+++", "++?+++"))).certainty[2]
    passed = findings.answer(made_up(checked("++++++", "?+++++"))).certainty
    assert len(passed) == 3
    assert "(passes all checks)" in passed[0]
    assert findings.answer(made_up(checked("++?+++"))).certainty[0] == (
        "Closest is latent 0 at layers.0.mlp: it passes 5 checks and fails none."
    )
    (unit, _) = findings.answer(made_up(steps(), traces=1)).certainty
    assert "there is 1 under “a”" in unit


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
    for tests, alpha in ((1, 0.05), (28, 0.05), (450, 0.05), (20, 0.001)):
        pairs = findings.least_apart(tests, alpha)
        p = np.ones(tests)
        for number, low in ((pairs, True), (pairs - 1, False)):
            p[0] = mcnemar(np.array([number]), np.array([0]))[0]
            assert (fdr(p)[0] < alpha) == low


def warned(study: Study) -> dict[str, list[str]]:
    return {group["heading"]: group["texts"] for group in findings.by_heading(findings.warnings(study))}


def test_nothing_speaks_against_a_study_without_fault():
    assert warned(made_up(checked("++++++"))) == {}


def test_too_few_traces_are_warned_of_and_only_they():
    def of(verdict, traces, tests):
        rows = {"control": ["b"] * tests, "q": [1.0] * tests}
        return warned(made_up(traces=traces, sites=[site_of(verdict, controls=pl.DataFrame(rows))]))

    assert of(checked("??????"), 5, 1) == {"Too few traces for any claim": [
        "With 5 traces not even a latent in all of them and in none under a control recurs beyond it (exact McNemar"
        " test). Raise inferences."
    ]}  # fmt: skip
    # Six latents in all of eight traces, and in no control, do pass among 20.
    q = fdr(np.array([mcnemar(np.array([8]), np.array([0]))[0]] * 6 + [1.0] * 14))
    assert q[0] < 0.05
    few = of(checked("??????", traces=8), 8, 20)
    assert list(few) == ["Too little recurrence to stand out", "Few traces"]
    assert few["Too little recurrence to stand out"] == [
        "layers.1.mlp: a single latent recurs beyond a control (q < 0.05 among the 20 that recur under either) if it is"
        " in 10 more traces than there, and in none fewer; the most recurrent is in 8."
    ]
    assert "only a latent in 8 or more of them" in few["Few traces"][0]
    assert (
        "only a latent in 8 to 12, or in 15 or more of them" in of(checked("??????", traces=12), 20, 1)["Few traces"][0]
    )
    assert of(checked("??????", traces=12), 40, 20) == {}
    assert list(of(checked("??????", traces=9), 40, 20)) == ["Too little recurrence to stand out"]
    assert of(steps(), 40, 0) == {}
    # Each control is a family of its own.
    rows = {"control": ["b"] * 12 + ["c"] * 12, "q": [1.0] * 24}
    two = site_of(checked("??????", traces=9), controls=pl.DataFrame(rows))
    assert findings.least_apart(12, 0.05) == 9 < findings.least_apart(24, 0.05)
    assert "Too little recurrence to stand out" not in warned(made_up(sites=[two]))


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
    for tokens, heading in ((15, []), (16, ["A control of another length"]), (6, ["A control of another length"])):
        traces = pl.concat([written("a", 40), written("b", 40, tokens=tokens)])
        assert list(warned(made_up_with(traces))) == heading
    assert list(warned(made_up_with(written("a", 40), conditions=["a"]))) == ["No control"]


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
        "Right and wrong can’t be compared": ["Too few: 1 and 2."],
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
    rows = checked("+-+?-+", "++?+?+", "++++++").to_dicts()
    assert [words.why(row) for row in rows] == [
        "SAE doesn't fit the site, a token detector", "recurs beyond control, not merely lexical", ""
    ]  # fmt: skip


def test_only_latents_with_their_site_become_links():
    text = "Yes: latent 12 at layers.0.mlp@residual_in, latent 3 at layers.1.mlp. <b>latent 4</b> at “a”"
    assert str(report.linked(text)) == (
        'Yes: <a href="#layers.0.mlp@residual_in/12">latent 12</a> at layers.0.mlp@residual_in,'
        ' <a href="#layers.1.mlp/3">latent 3</a> at layers.1.mlp. &lt;b&gt;latent 4&lt;/b&gt; at “a”'
    )


def test_columns_left_out_are_explained_once():
    both = {"ReasonScore": "no reasoning word in any trace"}
    assert report.without_columns({"x": both, "y": both}) == [
        "No latent has a number for “ReasonScore” (no reasoning word in any trace)."
    ]
    assert report.without_columns({"x": both, "y": {}}) == [
        "No latent at x has a number for “ReasonScore” (no reasoning word in any trace)."
    ]


@pytest.mark.parametrize("page", ["README.md", "docs/evidence.md"])
def test_the_tables_of_checks_in_the_docs_are_those_of_the_code(page):
    text = (REPO / page).read_text(encoding="utf-8")
    rows = [f"| {check.label} | {check.asks} | `{check.table}` |\n" for check in CHECKS]
    assert "".join(rows) in text
