"""Room 9, report: what a study shows, how sure one can be, and what speaks against it, in words that stay true.

Every sentence follows from the numbers. Texts name latents as `latent N at SITE`, which the page turns into links.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from ..config import is_commit
from ..evidence.fit import gate_warnings
from ..statistics import MIN_CLASS, wilson
from .study import Site, Study
from .words import agree, counted
from ..evidence.checks import BY_NAME, CHECKS, MIN_PATTERN_TRACES, MOST_TRACES, RESULTS, VERDICTS, fits
from ..evidence.verdict import waterfall

FEW_TRACES = 30
"""Below so many traces, a share's 95 % interval spans a third of all there is (Wilson 1927) or more."""

MANY_TRAINING_TOKENS = 100_000_000
"""Published SAEs are trained on as many tokens and more (Gao et al. 2024, arXiv 2406.04093: billions)."""

OTHER_LENGTH = 1.5
"""Times as long, on average, as traces under study, from which a control's length may explain what recurs in one."""


class Count(NamedTuple):
    """How many latents came to what; `key` is how the page marks it."""

    key: str
    label: str
    latents: int


class Left(NamedTuple):
    """What a step of the waterfall leaves."""

    step: str
    at_sites: Sequence[int]
    """Latents left at each site."""
    results: Mapping[str, int] | None
    """How many of all pass, fail and are left undecided by the check; none where the step is no check."""


class Fit(NamedTuple):
    """Whether the SAE fits what it reads at a site, in a sentence, and the result of the check of that."""

    site: str
    text: str
    result: str


@dataclass(frozen=True)
class Answer:
    """What was found, in words and in the counts behind them."""

    finding: str
    meaning: str
    certainty: Sequence[str]
    fits: Sequence[Fit]
    counts: Sequence[Count]
    steps: Sequence[Left]


def answer(study: Study) -> Answer:
    """Return what a study found."""
    analysis, traces = study.settings["analysis"], len(study.traces.filter(condition=study.studied))
    verdicts = pl.concat(site.tables["verdict"].with_columns(site=pl.lit(site.name)) for site in study.sites)
    left = [dict(waterfall(site.tables["verdict"])) for site in study.sites]
    recur, open_, passed = (sum(steps[step] for steps in left) for step in ("candidates", CHECKS[-1].name, "survivors"))
    removed, undecided = recur - open_, open_ - passed
    results = {
        check.name: {result: int((verdicts[check.name].cast(pl.String) == result).sum()) for result in RESULTS}
        for check in CHECKS
    }
    return Answer(
        finding=_finding(verdicts, removed, undecided, passed, analysis),
        meaning=f"A latent recurs if it is among the {analysis['top_latents']} most active of at least"
        f" {counted(analysis['min_traces'], 'trace')} under “{study.studied}”, sinks left out or counted. By that alone"
        f" it may be called a thinking feature; here it must also pass {len(CHECKS)} checks.",
        certainty=[
            *_closest(verdicts, passed),
            *_unreached(results),
            *_widest(verdicts),
            f"The unit is the trace, and there {agree(traces, 'is', 'are')} {traces} under “{study.studied}”; each"
            f" family of tests has a false discovery rate of {100 * analysis['alpha']:g}%.",
            "“Undecided” means that this run can’t tell, either way; each latent’s dashboard says why.",
        ],
        fits=[fit_sentence(study, site.name) for site in study.sites],
        counts=[
            Count("recur", "recurs" if recur == 1 else "recur", recur),
            Count("no", "ruled out", removed),
            Count("undecided", "undecided", undecided),
            Count("yes", f"{'passes' if passed == 1 else 'pass'} all checks", passed),
        ],
        steps=[
            Left("recur", [steps["candidates"] for steps in left], None),
            *(Left(check.label, [steps[check.name] for steps in left], results[check.name]) for check in CHECKS),
            Left("of these undecided", [steps[CHECKS[-1].name] - steps["survivors"] for steps in left], None),
            Left("pass all checks", [steps["survivors"] for steps in left], None),
        ],
    )


def _finding(verdicts: pl.DataFrame, removed: int, undecided: int, passed: int, analysis: Mapping[str, Any]) -> str:
    """Return the answer: yes, no or not established, and the counts it rests on."""
    recur = len(verdicts)
    if not recur:
        return (
            f"No latent recurs: none is among the top {analysis['top_latents']} of {analysis['min_traces']} or more"
            " traces, at any site. There is nothing to judge."
        )
    called = f"of {counted(recur, 'latent')} that {agree(recur, 'recurs', 'recur')}"
    rest = [
        *([f"{removed} {agree(removed, 'fails', 'fail')} at least one"] if removed else []),
        *([f"{undecided} {agree(undecided, 'is', 'are')} undecided"] if undecided else []),
    ]
    ending = f" {' and '.join(rest)}." if rest else ""
    if passed:
        which = _names(verdicts.filter(pl.col("verdict").cast(pl.String) == VERDICTS[0]), 5)
        passes = f"{passed} {agree(passed, 'passes', 'pass')} all {len(CHECKS)}"
        return f"Yes, by these checks: {called}, {passes}: {which}.{ending}"
    opening = "Not established" if undecided else "No, by these checks"
    return f"{opening}: {called}, none passes all {len(CHECKS)} checks.{ending}"


def _names(rows: pl.DataFrame, most: int) -> str:
    """Return the first latents of rows with `latent` and `site` by name, and how many more there are."""
    names = [f"latent {latent} at {site}" for latent, site in rows.head(most).select("latent", "site").iter_rows()]
    return f"{', '.join(names)}{f' and {len(rows) - most} more' if len(rows) > most else ''}"


def _closest(verdicts: pl.DataFrame, passed: int) -> Iterator[str]:
    """Say, where no latent passes all checks, which undecided ones pass most."""
    near = verdicts.filter(pl.col("verdict").cast(pl.String) == "undecided")
    if passed or near.is_empty():
        return
    near = near.with_columns(passes=pl.sum_horizontal(pl.col(check.name).cast(pl.String) == "pass" for check in CHECKS))
    near = near.filter(pl.col("passes") == near["passes"].max()).sort("traces", descending=True, maintain_order=True)
    count = len(near)
    yield (
        f"Closest {agree(count, 'is', 'are')} {_names(near, 3)}: {agree(count, 'it passes', 'they pass')}"
        f" {counted(near['passes'][0], 'check')} and {agree(count, 'fails', 'fail')} none."
    )


def _unreached(results: Mapping[str, Mapping[str, int]]) -> Iterator[str]:
    """Name the checks that no latent passes."""
    none = [
        f"“{BY_NAME[check].label}” ({counts['undecided']} undecided, {counts['fail']} failed)"
        for check, counts in results.items()
        if not counts["pass"] and (counts["fail"] or counts["undecided"])
    ]
    if none:
        yield f"No latent at all passes {' or '.join(none)}."


def _widest(verdicts: pl.DataFrame) -> Iterator[str]:
    """Say of the most recurrent latent in what share of all such traces it may be, and what became of it."""
    if verdicts.is_empty():
        return
    row = verdicts.sort("traces", descending=True, maintain_order=True).row(0, named=True)
    low, high = share_interval(row)
    fate = {"no": "ruled out", "undecided": "undecided"}.get(row["verdict"], "passes all checks")
    yield (
        f"The most recurrent, latent {row['latent']} at {row['site']} ({fate}), is among the top of {row['traces']} of"
        f" {counted(row['of'], 'trace')}, which means {low:.0%} to {high:.0%} of all such traces (95% interval)."
    )


def share_interval(row: Mapping[str, Any]) -> tuple[float, float]:
    """Return the 95 % interval (Wilson) of the share of all such traces that a latent is among the top of."""
    low, high = wilson(np.array([row["traces"]]), row["of"])
    return float(low[0]), float(high[0])


def fit_sentence(study: Study, site: str) -> Fit:
    """Return whether the SAE fits what it reads at a site, as the check of that has it."""
    max_fvu, pooled = study.settings["analysis"]["max_fvu"], study.pooled_gate(site)
    known = pooled.drop_nulls("fvu")
    if known.filter("used").is_empty():
        return Fit(site, "the fit isn’t known: there is no variance to explain", "undecided")
    used, best = known.filter("used").row(0, named=True), known.row(0, named=True)
    interval = f" ({used['fvu_low']:.0%} to {used['fvu_high']:.0%})" if used["fvu_low"] is not None else ""
    allowed = f"at most {max_fvu:.0%} is allowed"
    if used["fvu"] >= 1:
        allowed = "no better than always saying the mean"
    elif used["fvu"] > max_fvu:
        allowed = f"more than the {max_fvu:.0%} allowed"
    text = f"the SAE leaves {used['fvu']:.0%}{interval} of the variance unexplained, {allowed}"
    if best["fvu"] < used["fvu"]:
        text += f"; it fits {best['site']} better ({best['fvu']:.0%})"
    else:
        text += "; no other place that was tried fits better"
    return Fit(site, text, fits(pooled.to_dicts(), max_fvu).result)


class Objection(NamedTuple):
    """A heading, and a sentence or two."""

    heading: str
    text: str


def warnings(study: Study) -> Iterator[Objection]:
    """Yield what a careful reviewer would hold against the study."""
    for line in gate_warnings(study.gate, study.settings["analysis"]["max_fvu"]):
        yield Objection("The SAE and its site", line)
    yield from _few_traces(study)
    yield from _controls(study)
    if study.settings["model"]["think"] is None:
        yield Objection(
            "Not run as a reasoning model",
            f"No think markers are set for {study.manifest['name']}: all that it writes counts as answer, and what"
            " recurs in it need not be thinking.",
        )
    elif "think" not in _segments(study.traces.filter(condition=study.studied)):
        yield Objection("No thinking", f"No trace under “{study.studied}” has a think segment, though markers are set.")
    yield from _rare_patterns(study)
    for row in study.run:
        if 2 * row["truncated"] > row["traces"]:
            yield Objection(
                "Most traces of a condition are truncated",
                f"{row['truncated']} of {row['traces']} under “{row['condition']}” reached"
                f" {study.settings['generation']['max_new_tokens']} tokens before they ended: their conclusions are"
                " missing. Raise generation.max_new_tokens.",
            )
        if 2 * row["correct"] < row["graded"]:
            yield Objection(
                "Mostly wrong answers",
                f"{row['correct']} of {row['graded']} graded answers under “{row['condition']}” are right. What recurs"
                " may be the patterns of reasoning that doesn’t work.",
            )
    yield from _sinks(study)
    for site in study.sites:
        yield from _of_site(study, site)
    owners = {"problems": "problems’", "model": "model’s", "sae": "SAE’s", "sae.text": "SAE’s training text’s"}
    for key, owner in owners.items():
        section = study.settings["sae"].get("text") if key == "sae.text" else study.settings[key]
        if section and section["source"] == "hub" and not is_commit(section["revision"]):
            text = f"The {owner} revision isn’t pinned to a commit. Set {key}.revision."
            yield Objection("A revision that may move", text)


def _segments(traces: pl.DataFrame) -> set[str]:
    parts = traces["segments"].explode(empty_as_null=False)
    return set(parts.struct.field("segment").cast(pl.String)) if len(parts) else set()


def _few_traces(study: Study) -> Iterator[Objection]:
    alpha, traces = study.settings["analysis"]["alpha"], len(study.traces.filter(condition=study.studied))
    if least_apart(1, alpha) > traces:
        yield Objection(
            "Too few traces for any claim",
            f"With {counted(traces, 'trace')} not even a latent in all of them and in none under a control recurs"
            " beyond it (exact McNemar test). Raise inferences.",
        )
        return
    for site in study.sites:
        compared = site.tables["controls"].filter(pl.col("q").is_not_null())
        tests = max((len(table) for _, table in compared.group_by("control")), default=0)
        needed, most = least_apart(tests, alpha), site.tables["verdict"]["traces"].max()
        if tests and isinstance(most, int) and most < needed:
            yield Objection(
                "Too little recurrence to stand out",
                f"{site.name}: a single latent recurs beyond a control (q < {alpha:g} among the {tests} that recur"
                f" under either) if it is in {needed} more traces than there, and in none fewer; the most recurrent is"
                f" in {most}.",
            )
    if traces < FEW_TRACES:
        some = f"{MIN_CLASS} to {traces - MIN_CLASS}, or in " if traces >= 2 * MIN_CLASS else ""
        yield Objection(
            "Few traces",
            f"{traces} traces under “{study.studied}” leave wide intervals, and much undecided. Where right and wrong"
            f" can’t be told apart, only a latent in {some}{max(MIN_CLASS, math.ceil(MOST_TRACES * traces))} or more of"
            " them can pass “not merely length”. Raise inferences.",
        )


def least_apart(tests: int, alpha: float) -> int:
    """Return in how many problems a latent must be a top one, and not under a control, for q < alpha by itself.

    The least n with 2 / 2^n (exact McNemar) below alpha / tests (Benjamini and Hochberg's bound on the smallest p).
    """
    pairs = 1
    while 2 * 0.5**pairs * tests >= alpha:
        pairs += 1
    return pairs


def _controls(study: Study) -> Iterator[Objection]:
    studied, *controls = study.run
    if not controls:
        yield Objection(
            "No control",
            "There is one condition only, so no latent can be shown to recur beyond a control. Add a second to"
            " conditions.",
        )
    matched = study.matches.filter(pl.col("kind") == "pattern").group_by("condition").agg(pl.col("trace_id").n_unique())
    with_pattern = dict(matched.iter_rows())
    for row in controls:
        theirs, ours = (with_pattern.get(each["condition"], 0) for each in (row, studied))
        if theirs and theirs >= ours:
            yield Objection(
                "A control that thinks, too",
                f"{theirs} of {row['traces']} traces under “{row['condition']}” have words of thinking patterns, as"
                f" have {ours} of {studied['traces']} under “{study.studied}”. What belongs to thinking may recur in"
                " both.",
            )
        written, own = (each["tokens"] / max(1, each["traces"]) for each in (row, studied))
        if max(written, own) > OTHER_LENGTH * min(written, own):
            yield Objection(
                "A control of another length",
                f"Traces under “{row['condition']}” have {written:.0f} tokens on average, under “{study.studied}”"
                f" {own:.0f}: recurrence may differ for that alone.",
            )


def _rare_patterns(study: Study) -> Iterator[Objection]:
    seen = study.matches.filter(pl.col("kind") == "pattern", pl.col("condition") == study.studied)
    within = dict(seen.group_by("name").agg(pl.col("trace_id").n_unique()).iter_rows())
    rare = [name for name in study.settings["patterns"] if within.get(name, 0) < MIN_PATTERN_TRACES]
    if rare:
        yield Objection(
            "Patterns that hardly occur",
            f"Under “{study.studied}”, {', '.join(rare)} {agree(len(rare), 'is', 'are each')} in fewer than"
            f" {MIN_PATTERN_TRACES} traces; no latent can be linked to {agree(len(rare), 'it', 'them')} here.",
        )


def _sinks(study: Study) -> Iterator[Objection]:
    if study.settings["analysis"]["include_sinks"]:
        yield Objection(
            "Sinks are counted",
            "analysis.include_sinks is set: attention sinks are among the activations that are ranked.",
        )
        return
    rows = study.layers.filter(scope="generated", condition=study.studied).filter(pl.col("sinks_on_top") > 0)
    for row in rows.iter_rows(named=True):
        yield Objection(
            "Sinks among the top activations",
            f"{row['site']}: {row['sinks_on_top']} of the {row['listed']} largest activations on generated tokens are"
            f" on sinks (largest {row['largest_on_sinks']:.3g}, elsewhere {row['largest_elsewhere'] or 0:.3g}). Counts"
            " leave them out, but a latent that is among the top for them alone is judged, too.",
        )


def _of_site(study: Study, site: Site) -> Iterator[Objection]:
    most = study.settings["analysis"]["top_latents"]
    for row in study.layers.filter(site=site.name, scope="generated", condition=study.studied).iter_rows(named=True):
        if row["peaks"] is not None and row["peaks"] < most / 2:
            yield Objection(
                "Top latents peak on few tokens",
                f"{site.name}: a trace’s top {most} latents have their maxima on {row['peaks']:.1f} different tokens."
                " They may respond to the size of what is there, not to its content.",
            )
    if (trained := site.info.get("train")) and trained["tokens"] < MANY_TRAINING_TOKENS:
        yield Objection(
            "SAEs trained on little",
            f"{trained['tokens']:,} tokens; published ones see 100 million and more.",
        )
    notes = site.tables["outcomes"].filter(pl.col("outcome") == "correct")["note"].drop_nulls().unique()
    for note in notes:
        yield Objection("Right and wrong can’t be compared", f"{note[0].upper()}{note[1:]}.")


def by_heading(objections: Iterable[Objection]) -> list[dict[str, Any]]:
    """Return warnings with those of the same heading together, each sentence once."""
    groups: dict[str, list[str]] = {}
    for heading, text in objections:
        texts = groups.setdefault(heading, [])
        if text not in texts:
            texts.append(text)
    return [{"heading": heading, "texts": texts} for heading, texts in groups.items()]
