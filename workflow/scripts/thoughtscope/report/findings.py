"""Room 9, report: what a study shows, how sure one can be, and what speaks against it, in words that stay true.

Every sentence follows from the numbers. Texts name latents as `latent N at SITE`, which the page turns into links.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from ..config import is_commit
from ..evidence.checks import BY_NAME, RESULTS, VERDICTS, asked, fits
from ..evidence.fit import gate_warnings
from ..evidence.verdict import waterfall
from ..statistics import MIN_TRACES, wilson
from .needs import FEW_TRACES, Needed, advice, least_traces, needed, too_small, with_pattern
from .study import Site, Study
from .words import agree, counted

MANY_TRAINING_TOKENS = 100_000_000
"""Published SAEs are trained on as many tokens and more (Gao et al. 2024, arXiv 2406.04093: billions)."""


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
    needed: Sequence[Needed]
    advice: str | None


def answer(study: Study) -> Answer:
    """Return what a study found."""
    analysis, traces = study.settings["analysis"], len(study.traces.filter(condition=study.studied))
    verdicts = pl.concat(site.tables["verdict"].with_columns(site=pl.lit(site.name)) for site in study.sites)
    checks = asked(verdicts)
    left = [dict(waterfall(site.tables["verdict"])) for site in study.sites]
    judged, open_, passed = (
        sum(steps.get(step, 0) for steps in left) for step in ("candidates", checks[-1].name, "survivors")
    )
    removed, undecided = judged - open_, open_ - passed
    results = {
        check.name: {result: int((verdicts[check.name].cast(pl.String) == result).sum()) for result in RESULTS}
        for check in checks
    }
    what_it_takes = needed(verdicts)
    return Answer(
        finding=_finding(verdicts, removed, undecided, passed, study),
        meaning=_meaning(verdicts, study),
        certainty=[
            *_closest(verdicts, passed),
            *_unreached(results),
            *_widest(verdicts, analysis["min_traces"]),
            *_error_rate(study),
            f"The unit is the trace, and there {agree(traces, 'is', 'are')} {traces} under “{study.studied}”.",
            "“Undecided” means that this run can’t tell, either way; each latent’s dashboard says why, and how many"
            " traces would.",
        ],
        fits=[fit_sentence(study, site.name) for site in study.sites],
        counts=[
            Count("candidates", "candidate" if judged == 1 else "candidates", judged),
            Count("no", "ruled out", removed),
            Count("undecided", "undecided", undecided),
            Count("yes", f"{'passes' if passed == 1 else 'pass'} all checks", passed),
        ],
        steps=[
            Left("candidates", [steps["candidates"] for steps in left], None),
            *(Left(check.label, [steps.get(check.name, 0) for steps in left], results[check.name]) for check in checks),
            Left("of these undecided", [steps.get(checks[-1].name, 0) - steps["survivors"] for steps in left], None),
            Left("pass all checks", [steps["survivors"] for steps in left], None),
        ],
        needed=what_it_takes,
        advice=advice(what_it_takes, traces),
    )


def small(study: Study) -> str | None:
    """Say why a study is too small to find anything; None where it isn't, or has found something nevertheless."""
    passing = (site.tables["verdict"]["verdict"].cast(pl.String) == VERDICTS[0] for site in study.sites)
    if any(found.any() for found in passing):
        return None
    return too_small(
        traces=len(study.traces.filter(condition=study.studied)), conditions=study.conditions, matches=study.matches,
        headline=study.headline, alpha=study.settings["analysis"]["alpha"],
    )  # fmt: skip


def _finding(verdicts: pl.DataFrame, removed: int, undecided: int, passed: int, study: Study) -> str:
    """Return the answer: yes, no, not established or too small a study, and the counts it rests on."""
    analysis, judged, is_small = study.settings["analysis"], len(verdicts), small(study)
    if not judged:
        none = (
            f"No latent is a candidate: none is among the top {analysis['top_latents']} of {analysis['min_traces']} or"
            " more traces, or linked to a pattern, at any site. There is nothing to judge."
        )
        return f"{is_small} {none}" if is_small else none
    called = f"{counted(judged, 'candidate latent')}"
    rest = [
        *([f"{removed} {agree(removed, 'fails', 'fail')} at least one"] if removed else []),
        *([f"{undecided} {agree(undecided, 'is', 'are')} undecided"] if undecided else []),
    ]
    ending = f" {' and '.join(rest)}." if rest else ""
    if passed:
        passing = verdicts.filter(pl.col("verdict").cast(pl.String) == VERDICTS[0])
        which = _names(passing.sort("beyond_chance_number", maintain_order=True), 5)
        passes = f"{passed} {agree(passed, 'passes', 'pass')} all {len(asked(verdicts))}"
        return f"Yes, by these checks: of {called}, {passes}: {which}.{ending}"
    if is_small:
        return f"{is_small} Of {called}, {' and '.join(rest).replace('at least one', 'at least one check')}."
    opening = "Not established" if undecided else "No, by these checks"
    return f"{opening}: of {called}, none passes all {len(asked(verdicts))} checks.{ending}"


def _meaning(verdicts: pl.DataFrame, study: Study) -> str:
    """Say what a candidate is, and how many of them recur."""
    analysis = study.settings["analysis"]
    recurs = pl.col("original").fill_null(value=False) | (pl.col("traces") >= analysis["min_traces"])
    count = len(verdicts.filter(recurs))
    return (
        f"A latent is a candidate if it recurs (it is among the {analysis['top_latents']} most active of at least"
        f" {counted(analysis['min_traces'], 'trace')} under “{study.studied}”, with or without attention sinks), or if"
        f" a test links it to a thinking pattern. Of {counted(len(verdicts), 'candidate')} {count}"
        f" {agree(count, 'recurs', 'recur')}, and by that alone may be called"
        f" {agree(count, 'a thinking feature', 'thinking features')}; here a candidate must pass"
        f" {len(asked(verdicts))} checks."
    )


def _error_rate(study: Study) -> Iterator[str]:
    """Say what the one error rate of the study covers, and what holds if one looks again."""
    table, alpha = study.headline, study.settings["analysis"]["alpha"]
    if table.is_empty():
        return
    by_q, looking = (int((table[name] < alpha).fill_null(value=False).sum()) for name in ("q", "q_looking"))
    family = int(table["family"][0])
    yield (
        f"One false discovery rate covers the whole study: {family:,} {agree(family, 'latent', 'latents')}"
        f" of {counted(table['site'].n_unique(), 'site')} {agree(family, 'was', 'were')} tested, whichever recur,"
        f" and of those that stand out (q below {alpha:g}) at most {100 * alpha:g}% are expected to do so by chance. A"
        " latent’s p is the larger of two, of no link to any pattern before or after its words and of not recurring"
        f" beyond some control, so it is small only if both are. By q, which holds for one look at the study,"
        f" {by_q or 'none'} {agree(by_q, 'stands', 'stand')} out; by q_looking, which holds however often one looks"
        f" again as blocks are added, {looking or 'none'}."
    )


def _names(rows: pl.DataFrame, most: int) -> str:
    """Return the first latents of rows with `latent` and `site` by name, and how many more there are."""
    names = [f"latent {latent} at {site}" for latent, site in rows.head(most).select("latent", "site").iter_rows()]
    return f"{', '.join(names)}{f' and {len(rows) - most} more' if len(rows) > most else ''}"


def _closest(verdicts: pl.DataFrame, passed: int) -> Iterator[str]:
    """Say, where no latent passes all checks, which undecided ones pass most."""
    near = verdicts.filter(pl.col("verdict").cast(pl.String) == "undecided")
    if passed or near.is_empty():
        return
    near = near.with_columns(
        passes=pl.sum_horizontal(pl.col(check.name).cast(pl.String) == "pass" for check in asked(near))
    )
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


def _widest(verdicts: pl.DataFrame, min_traces: int) -> Iterator[str]:
    """Say of the most recurrent latent in what share of all such traces it may be, and what became of it."""
    recurrent = verdicts.filter(pl.col("traces") >= min_traces).sort("traces", descending=True, maintain_order=True)
    if recurrent.is_empty():
        return
    row = recurrent.row(0, named=True)
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
    if why := small(study):
        yield Objection("Too small to find a thinking pattern", why)
    elif len(study.headline):
        family = int(study.headline["family"][0])
        least = least_traces(int(study.headline["links"].to_numpy().min()), family, alpha)
        for site in study.sites:
            most = site.tables["pattern_tests"]["active_traces"].max()
            if isinstance(most, int) and most < least:
                yield Objection(
                    "Too little activity to stand out",
                    f"{site.name}: a single latent stands out among the {family:,} tested (q < {alpha:g}) only if it is"
                    f" active in {least} traces or more; the most active is in {most}.",
                )
    if traces < FEW_TRACES:
        yield Objection(
            "Few traces",
            f"{counted(traces, 'trace')} under “{study.studied}” {agree(traces, 'leaves', 'leave')} wide intervals, and"
            " much undecided.",
        )


def _controls(study: Study) -> Iterator[Objection]:
    studied, *controls = study.run
    if not controls:
        yield Objection(
            "No control",
            "There is one condition only, so no latent can be shown to recur beyond a control. Add a second to"
            " conditions.",
        )
    patterns = study.matches.filter(pl.col("kind") == "pattern").group_by("condition")
    with_any = dict(patterns.agg(pl.col("trace_id").n_unique()).iter_rows())
    for row in controls:
        theirs, ours = (with_any.get(each["condition"], 0) for each in (row, studied))
        if theirs and theirs >= ours:
            yield Objection(
                "A control that thinks, too",
                f"{theirs} of {row['traces']} traces under “{row['condition']}” have words of thinking patterns, as"
                f" have {ours} of {studied['traces']} under “{study.studied}”. What belongs to thinking may recur in"
                " both.",
            )


def _rare_patterns(study: Study) -> Iterator[Objection]:
    found = with_pattern(study.matches, study.studied)
    rare = [name for name in study.settings["patterns"] if found.get(name, 0) < MIN_TRACES]
    if rare:
        yield Objection(
            "Patterns that hardly occur",
            f"Under “{study.studied}”, {', '.join(rare)} {agree(len(rare), 'is', 'are each')} in fewer than"
            f" {MIN_TRACES} traces; no latent can be linked to {agree(len(rare), 'it', 'them')} here.",
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
        text = f"{note[0].upper()}{note[1:]}. Whether a latent tells them is reported, and no check rests on it."
        yield Objection("Right and wrong can’t be compared", text)


def by_heading(objections: Iterable[Objection]) -> list[dict[str, Any]]:
    """Return warnings with those of the same heading together, each sentence once."""
    groups: dict[str, list[str]] = {}
    for heading, text in objections:
        texts = groups.setdefault(heading, [])
        if text not in texts:
            texts.append(text)
    return [{"heading": heading, "texts": texts} for heading, texts in groups.items()]
