"""Room 9, report: one page that a person reads instead of a folder of parquet.

What the page says in words and tables is written here and in its template, so that it can be read without a script, and
printed; dashboards and the trace reader are drawn by its script from parcels (see `reader`). All text of models and
datasets goes through the template's escaping or into JSON, never into markup.
"""

import base64
import hashlib
import json
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from . import files
from .config import is_commit, layer_of, parse_site, traces_of
from .evidence import gate_warnings
from .provenance import problem_set, rule_graph
from .reader import LEVELS, Tokens, brief, pack
from .statistics import MIN_CLASS, MIN_TOKENS, wilson
from .verdict import CHECKS, FAILED, MIN_PATTERN_TRACES, RESULTS, VERDICTS, counted, fits, headline, leading, waterfall

CHECK_NAMES = {check: check.replace("_", " ") for check in CHECKS}

FEW_TRACES = 30
"""Below so many traces, a share's 95 % interval spans a third of all there is (Wilson 1927) or more."""

MANY_TRAINING_TOKENS = 100_000_000
"""Published SAEs are trained on as many tokens and more (Gao et al. 2024, arXiv 2406.04093: billions)."""

TABLES = (
    "recurrence", "controls", "contrasts", "outcomes", "pattern_tests", "reason_scores", "lexicality", "verdict",
    "top_tokens", "passages", "latent_histograms", "strips", "coactivation", "logit_effects", "neighbours",
)  # fmt: skip
"""The tables of a site that the page shows."""

PICTURES = {
    "verdict": "The verdict on each leading latent, by the share of its activation on its three top token types and,"
    " where there is one, its ReasonScore",
    "patterns": "How much more active each leading latent is inside a thinking pattern's windows than outside",
    "recurrence": "In how many traces each leading latent is among the top, by condition, with 95 % intervals",
    "outcomes": "How well each leading latent tells correct and truncated traces, beside what trace length alone tells",
}
"""The pictures of a site that the page shows, and what is in them."""

PICTURES_ACROSS = {
    "site_gate": "How much of the variance each SAE leaves unexplained at its site and around it, with 95 % intervals",
    "layers": "How recurrence falls off from latent to latent at each site, by condition",
    "pattern_counts": "How often each thinking pattern is in the text, by condition",
}
"""The pictures across sites that the page shows, and what is in them."""


@dataclass(frozen=True)
class Site:
    """What the page shows of a site: its SAE's info.json, TABLES by name, PICTURES by name."""

    name: str
    info: Mapping[str, Any]
    tables: Mapping[str, pl.DataFrame]
    pictures: Mapping[str, Path]

    @property
    def latents(self) -> list[int]:
        """The leading latents, which have a row and a dashboard: those that the dashboards' tables are of."""
        return self.leaders["latent"].to_list()

    @property
    def leaders(self) -> pl.DataFrame:
        """Their rows in the verdict."""
        shown = self.tables["latent_histograms"]["latent"].n_unique()
        return leading(self.tables["verdict"], shown)


@dataclass(frozen=True)
class Study:
    """What the page is made from. `settings` is the config with its defaults, `config` its text as the user gave it."""

    experiment: str
    conditions: Sequence[str]
    settings: Mapping[str, Any]
    config: str
    manifest: Mapping[str, Any]
    problems: Mapping[str, Any]
    traces: pl.DataFrame
    matches: pl.DataFrame
    gate: pl.DataFrame
    layers: pl.DataFrame
    sites: Sequence[Site]
    pictures: Mapping[str, Path]
    neuronpedia: str | None

    @property
    def model(self) -> str:
        """The model's name, without the requirement that stands behind it in brackets where it is from a wheel."""
        return str(self.manifest["name"]).partition(" (")[0]

    @property
    def studied(self) -> str:
        """The condition under study."""
        return self.conditions[0]


def load(
    results: Path,
    *,
    conditions: Sequence[str],
    sites: Sequence[str],
    blocks: Sequence[str],
    settings: Mapping[str, Any],
    config: str,
    neuronpedia: str | None,
) -> Study:
    """Read what the page is made from, from the folder results/{experiment}."""
    tables, plots = results / "tables", results / "plots"
    traces = [results / "traces" / condition / f"{block}.parquet" for condition in conditions for block in blocks]
    return Study(
        experiment=results.name,
        conditions=conditions,
        settings=settings,
        config=config,
        manifest=files.read_json(results / "model.json"),
        problems=problem_set(results / "problems.parquet", sum(len(traces_of(block)) for block in blocks)),
        traces=pl.concat([pl.read_parquet(path) for path in traces]),
        matches=pl.read_parquet(tables / "matches.parquet"),
        gate=pl.read_parquet(tables / "site_gate.parquet"),
        layers=pl.read_parquet(tables / "layers.parquet"),
        sites=[
            Site(
                name=site,
                info=files.read_json(results / "saes" / parse_site(site)[0] / "info.json"),
                tables={name: pl.read_parquet(tables / site / f"{name}.parquet") for name in TABLES},
                pictures={name: plots / site / f"{name}.png" for name in PICTURES},
            )
            for site in sites
        ],
        pictures={name: plots / f"{name}.png" for name in PICTURES_ACROSS},
        neuronpedia=neuronpedia,
    )


def answer(study: Study) -> dict[str, Any]:
    """Return what was found, in words that follow from the numbers, and the counts behind them.

    `finding`, `meaning`, `certainty` (sentences); `fits` (see `fit_sentence`); `counts`; `steps` of the waterfall.
    """
    analysis, traces = study.settings["analysis"], len(study.traces.filter(condition=study.studied))
    verdicts = pl.concat(site.tables["verdict"].with_columns(site=pl.lit(site.name)) for site in study.sites)
    steps = [waterfall(site.tables["verdict"]) for site in study.sites]
    candidates, left, passed = (sum(rows[index][1] for rows in steps) for index in (0, -2, -1))
    found = {check: verdicts[check].cast(pl.String) for check in CHECKS}
    results = {check: {result: int((found[check] == result).sum()) for result in RESULTS} for check in CHECKS}
    return {
        "finding": _finding(verdicts, candidates, candidates - left, left - passed, analysis),
        "meaning": f"A latent recurs if it is among the {analysis['top_latents']} most active of at least"
        f" {counted(analysis['min_traces'], 'trace')} under “{study.studied}”, with sinks left out or counted. That"
        f" alone made it a thinking feature in the study this grew out of; here it must pass {len(CHECKS)} checks.",
        "certainty": [
            *_closest(verdicts, passed),
            *_unreached(verdicts, results),
            *_widest(verdicts),
            f"The unit is the trace, and there {'is' if traces == 1 else 'are'} {traces} under “{study.studied}”; each"
            f" family of tests has a false discovery rate of {100 * analysis['alpha']:g}\u00a0%.",
            "“Undecided” means that this run can’t tell, either way; each latent’s dashboard says why.",
        ],
        "fits": [fit_sentence(study.gate, site.name, analysis["max_fvu"]) for site in study.sites],
        "counts": [
            ("recur" if candidates != 1 else "recurs", candidates),
            ("ruled out", candidates - left),
            ("undecided", left - passed),
            ("pass all checks" if passed != 1 else "passes all checks", passed),
        ],
        "steps": [
            {"name": "recur", "counts": [rows[0][1] for rows in steps], "results": None},
            *(
                {
                    "name": CHECK_NAMES[check],
                    "counts": [rows[index][1] for rows in steps],
                    "results": results[check],
                }
                for index, check in enumerate(CHECKS, 1)
            ),
            {"name": "of these undecided", "counts": [rows[-2][1] - rows[-1][1] for rows in steps], "results": None},
            {"name": "pass all checks", "counts": [rows[-1][1] for rows in steps], "results": None},
        ],
        "most": max(1, candidates),
    }


def _finding(verdicts: pl.DataFrame, candidates: int, removed: int, undecided: int, analysis: Mapping[str, Any]) -> str:
    """Return the answer: yes, no or not shown, and the counts it rests on."""
    if not candidates:
        return (
            f"No latent recurs: none is among the top {analysis['top_latents']} of {analysis['min_traces']} or more"
            " traces, at any site. There is nothing to judge."
        )
    called = f"{counted(candidates, 'latent')} that {'recurs' if candidates == 1 else 'recur'}"
    rest = [
        *([f"{removed} {'fails' if removed == 1 else 'fail'} at least one"] if removed else []),
        *([f"{undecided} {'is' if undecided == 1 else 'are'} undecided"] if undecided else []),
    ]
    ending = f" {' and '.join(rest)}." if rest else ""
    if passed := candidates - removed - undecided:
        which = _names(verdicts.filter(pl.col("verdict").cast(pl.String) == VERDICTS[0]), 5)
        passes = "passes" if passed == 1 else "pass"
        return f"Yes, by these checks: of {called}, {passed} {passes} all {len(CHECKS)}: {which}.{ending}"
    if not undecided:
        return f"No, by these checks: of {called}, none passes all {len(CHECKS)}.{ending}"
    return f"Not shown: of {called}, none passes all {len(CHECKS)} checks.{ending}"


def _closest(verdicts: pl.DataFrame, passed: int) -> list[str]:
    """Say, where no latent passes all checks, which undecided ones pass most."""
    near = verdicts.filter(pl.col("verdict").cast(pl.String) == "undecided")
    if passed or near.is_empty():
        return []
    near = near.with_columns(passes=pl.sum_horizontal(pl.col(check).cast(pl.String) == "pass" for check in CHECKS))
    near = near.filter(pl.col("passes") == near["passes"].max()).sort("traces", descending=True, maintain_order=True)
    one = len(near) == 1
    return [
        f"Closest {'is' if one else 'are'} {_names(near, 3)}: {'it passes' if one else 'they pass'}"
        f" {counted(near['passes'][0], 'check')} and {'fails' if one else 'fail'} none."
    ]


def _names(rows: pl.DataFrame, most: int) -> str:
    """Return the first latents of rows with `latent` and `site` by name, and how many more there are."""
    names = [f"latent {latent} at {site}" for latent, site in rows.head(most).select("latent", "site").iter_rows()]
    return f"{', '.join(names)}{f' and {len(rows) - most} more' if len(rows) > most else ''}"


def _unreached(verdicts: pl.DataFrame, results: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Say which checks no latent passes, so that this run could not have confirmed any."""
    if verdicts.is_empty():
        return []
    none = [
        f"“{CHECK_NAMES[check]}” ({counts['undecided']} undecided, {counts['fail']} failed)"
        for check, counts in results.items()
        if not counts["pass"]
    ]
    return [f"No latent at all passes {' or '.join(none)}, so this run could confirm none."] if none else []


def _widest(verdicts: pl.DataFrame) -> list[str]:
    """Say of the most recurrent latent in what share of all such traces it may be."""
    if verdicts.is_empty():
        return []
    row = verdicts.sort("traces", descending=True, maintain_order=True).row(0, named=True)
    low, high = _interval(row)
    return [
        f"The most recurrent, latent {row['latent']} at {row['site']}, is among the top of {row['traces']} of"
        f" {counted(row['of'], 'trace')}, which means {low:.0%} to {high:.0%} of all such traces (95\u00a0% interval)."
    ]


def _interval(row: Mapping[str, Any]) -> tuple[float, float]:
    """Return the 95 % interval (Wilson) of the share of all such traces that a latent is among the top of."""
    low, high = wilson(np.array([row["traces"]]), row["of"])
    return float(low[0]), float(high[0])


def pooled_fits(gate: pl.DataFrame, site: str) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """Return the site gate's rows of a site as it is read, and of the place where its SAE fits best."""
    mine = gate.filter(pl.col("hookpoint") == parse_site(site)[0], pl.col("condition").is_null()).drop_nulls("fvu")
    used, best = mine.filter("used"), mine.sort("fvu")
    return used.row(0, named=True) if len(used) else None, best.row(0, named=True) if len(best) else None


def fit_sentence(gate: pl.DataFrame, site: str, max_fvu: float) -> dict[str, Any]:
    """Return in a sentence whether the SAE fits what it reads at a site, and the `result` of the check of that."""
    used, best = pooled_fits(gate, site)
    if used is None or best is None:
        return {"site": site, "text": "the fit isn’t known: there is no variance to explain", "result": "undecided"}
    interval = f" ({used['fvu_low']:.0%} to {used['fvu_high']:.0%})" if used["fvu_low"] is not None else ""
    text = f"the SAE leaves {used['fvu']:.0%}{interval} of the variance unexplained"
    if used["fvu"] >= 1:
        text += ", no better than always saying the mean"
    elif used["fvu"] > max_fvu:
        text += f", more than the {max_fvu:.0%} allowed"
    if best["fvu"] < used["fvu"]:
        text += f"; it fits {best['site']} better ({best['fvu']:.0%})"
    else:
        text += "; no other place that was tried fits better"
    mine = gate.filter(pl.col("hookpoint") == parse_site(site)[0], pl.col("condition").is_null())
    return {"site": site, "text": text, "result": fits(mine, max_fvu)[0]}


def warnings(study: Study) -> list[tuple[str, str]]:
    """Return what a careful reviewer would hold against the study, as pairs of a heading and a sentence or two."""
    analysis, found = study.settings["analysis"], []
    found += [("The SAE and its site", line) for line in gate_warnings(study.gate, analysis["max_fvu"])]
    mine = study.traces.filter(condition=study.studied)
    found += _few_traces(study, len(mine))
    found += _rare_patterns(study, len(mine))
    if len(study.conditions) == 1:
        found.append(
            (
                "No control",
                "There is one condition only, so no latent can be shown to recur beyond a control. Add a second to"
                " conditions.",
            )
        )
    if study.settings["model"]["think"] is None:
        found.append(
            (
                "Not run as a reasoning model",
                f"No think markers are set for {study.manifest['name']}: all that it writes counts as answer, and what"
                " recurs in it need not be thinking.",
            )
        )
    elif "think" not in _segments(mine):
        found.append(("No thinking", f"No trace under “{study.studied}” has a think segment, though markers are set."))
    for condition in study.conditions:
        rows = study.traces.filter(condition=condition)
        truncated = (rows["finish_reason"].cast(pl.String) == "length").sum()
        if 2 * truncated > len(rows):
            found.append(
                (
                    "Most traces are truncated",
                    f"{truncated} of {len(rows)} under “{condition}” reached"
                    f" {study.settings['generation']['max_new_tokens']} tokens before they ended: their conclusions are"
                    " missing. Raise generation.max_new_tokens.",
                )
            )
        graded = rows["correct"].drop_nulls()
        if len(graded) and 2 * graded.sum() < len(graded):
            found.append(
                (
                    "Mostly wrong answers",
                    f"{graded.sum()} of {len(graded)} graded answers under “{condition}” are right. What recurs here"
                    " may be the patterns of reasoning that doesn’t work.",
                )
            )
    found += _sinks(study)
    for site in study.sites:
        found += _of_site(study, site)
    sections = {"problems": "problems’", "model": "model’s", "sae": "SAE’s", "sae.text": "SAE’s training text’s"}
    for key, owner in sections.items():
        section = study.settings["sae"].get("text") if key == "sae.text" else study.settings[key]
        if section and section["source"] == "hub" and not is_commit(section["revision"]):
            found.append(
                ("A revision that may move", f"The {owner} revision isn’t pinned to a commit. Set {key}.revision.")
            )
    return found


def _segments(traces: pl.DataFrame) -> set[str]:
    parts = traces["segments"].explode(empty_as_null=False)
    return set(parts.struct.field("segment").cast(pl.String)) if len(parts) else set()


def _few_traces(study: Study, traces: int) -> list[tuple[str, str]]:
    alpha, found = study.settings["analysis"]["alpha"], []
    if least_apart(1, alpha) > traces:
        found.append(
            (
                "Too few traces for any claim",
                f"With {counted(traces, 'trace')} not even a latent in all of them and in none under a control recurs"
                " beyond it (exact McNemar test). Raise inferences.",
            )
        )
        return found
    for site in study.sites:
        controls = site.tables["controls"].filter(pl.col("q").is_not_null())
        tests = max((len(table) for _, table in controls.group_by("control")), default=0)
        needed, most = least_apart(tests, alpha), site.tables["verdict"]["traces"].max()
        if tests and isinstance(most, int) and most < needed:
            found.append(
                (
                    "Too little recurrence to stand out",
                    f"{site.name}: to recur beyond a control (q < {alpha:g} among {counted(tests, 'latent')}), a latent"
                    f" that stands out alone must be in {needed} traces and, on these problems, in none under the"
                    f" control; the most recurrent is in {most}.",
                )
            )
    if traces < FEW_TRACES:
        found.append(
            (
                "Few traces",
                f"{traces} traces under “{study.studied}” leave wide intervals, and much undecided; only what is in"
                " nearly all of them can stand out. Raise inferences.",
            )
        )
    return found


def least_apart(tests: int, alpha: float) -> int:
    """Return in how many problems a latent must be a top one, and in none under a control, for q < alpha by itself.

    The least n with 2 / 2^n (exact McNemar) below alpha / tests (Benjamini and Hochberg's bound on the smallest p).
    """
    pairs = 1
    while 2 * 0.5**pairs * tests >= alpha:
        pairs += 1
    return pairs


def _rare_patterns(study: Study, traces: int) -> list[tuple[str, str]]:
    seen = study.matches.filter(pl.col("kind") == "pattern", pl.col("condition") == study.studied)
    within = dict(seen.group_by("name").agg(pl.col("trace_id").n_unique()).iter_rows())
    rare = [name for name in study.settings["patterns"] if within.get(name, 0) < MIN_PATTERN_TRACES]
    if not rare:
        return []
    return [
        (
            "Patterns that hardly occur",
            f"Under “{study.studied}”, {', '.join(rare)} {'is' if len(rare) == 1 else 'are each'} in fewer than"
            f" {MIN_PATTERN_TRACES} of {counted(traces, 'trace')}; no latent can be linked to"
            f" {'it' if len(rare) == 1 else 'them'} here.",
        )
    ]


def _sinks(study: Study) -> list[tuple[str, str]]:
    if study.settings["analysis"]["include_sinks"]:
        return [
            (
                "Sinks are counted",
                "analysis.include_sinks is set: attention sinks are among the activations that are ranked.",
            )
        ]
    rows = study.layers.filter(scope="generated", condition=study.studied).filter(pl.col("sinks_on_top") > 0)
    return [
        (
            "Sinks among the top activations",
            f"{row['site']}: {row['sinks_on_top']} of the {row['listed']} largest activations on generated tokens are"
            f" on sinks (largest {row['largest_on_sinks']:.3g}, elsewhere {row['largest_elsewhere'] or 0:.3g}). Counts"
            " leave them out, but a latent that is among the top for them alone is judged, too.",
        )
        for row in rows.iter_rows(named=True)
    ]


def _of_site(study: Study, site: Site) -> list[tuple[str, str]]:
    found = []
    analysis = study.settings["analysis"]
    row = study.layers.filter(site=site.name, scope="generated", condition=study.studied).to_dicts()
    if row and row[0]["peaks"] is not None and row[0]["peaks"] < analysis["top_latents"] / 2:
        found.append(
            (
                "Top latents peak on few tokens",
                f"{site.name}: a trace’s top {analysis['top_latents']} latents have their maxima on"
                f" {row[0]['peaks']:.1f} different tokens. They may respond to the size of what is there, not to its"
                " content.",
            )
        )
    if (trained := site.info.get("train")) and trained["tokens"] < MANY_TRAINING_TOKENS:
        text = f"The SAE was trained on {trained['tokens']:,} tokens; published ones see 100 million and more."
        found.append(("A small SAE run", text))
    notes = site.tables["outcomes"].filter(pl.col("outcome") == "correct")["note"].drop_nulls().unique()
    found += [("Right and wrong can’t be compared", _sentence(note)) for note in notes]
    pairs = (
        site.tables["controls"].select("control", "tokens", "tokens_control").unique(maintain_order=True).drop_nulls()
    )
    for control, tokens, other in pairs.iter_rows():
        if max(tokens, other) > 1.5 * min(tokens, other):
            found.append(
                (
                    "Controls of another length",
                    f"Traces under “{control}” have {other:.0f} tokens on average, under “{study.studied}”"
                    f" {tokens:.0f}: recurrence may differ for that alone.",
                )
            )
    return found


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def unique_warnings(found: Iterable[tuple[str, str]]) -> list[dict[str, Any]]:
    """Return warnings with those of the same heading together, each sentence once."""
    groups: dict[str, list[str]] = {}
    for heading, text in found:
        texts = groups.setdefault(heading, [])
        if text not in texts:
            texts.append(text)
    return [{"heading": heading, "texts": texts} for heading, texts in groups.items()]


def saes(study: Study) -> list[str]:
    """Return what SAEs were read, and where, in a sentence for each kind."""
    kinds: dict[str, list[str]] = {}
    for site in study.sites:
        info = site.info
        origin = f"trained here on {info['train']['tokens']:,} tokens" if "train" in info else f"from {info['name']}"
        kinds.setdefault(f"k-SAEs of {info['num_latents']:,} latents, k = {info['k']}, {origin}", []).append(site.name)
    return [f"{kind}: {', '.join(names)}" for kind, names in kinds.items()]


def what_was_run(study: Study) -> list[dict[str, Any]]:
    """Return a row a condition: traces, tokens, truncated, graded, correct."""
    rows = []
    for condition in study.conditions:
        traces = study.traces.filter(condition=condition)
        written = traces["generated_ids"].list.len()
        graded = traces["correct"].drop_nulls()
        prompt = study.settings["prompts"][condition]
        rows.append(
            {
                "condition": condition,
                "prompt": prompt,
                "traces": len(traces),
                "tokens": int(written.sum()),
                "median": written.quantile(0.5, interpolation="linear"),
                "truncated": int((traces["finish_reason"].cast(pl.String) == "length").sum()),
                "graded": len(graded),
                "correct": int(graded.sum()),
            }
        )
    return rows


def layer_rows(study: Study) -> list[dict[str, Any]]:
    """Return a row a site: its SAE, how it fits, and how many latents are active, recur, and survive."""
    rows = []
    for site in study.sites:
        used, best = pooled_fits(study.gate, site.name)
        counts = {
            row["condition"]: row
            for row in study.layers.filter(site=site.name, scope="generated").iter_rows(named=True)
        }
        verdict = site.tables["verdict"]["verdict"].cast(pl.String)
        rows.append(
            {
                "site": site.name,
                "info": site.info,
                "used": used,
                "best": best,
                "recurring": {
                    condition: counts.get(condition, {}).get("recurring", 0) for condition in study.conditions
                },
                "active": counts.get(study.studied, {}).get("active", 0),
                "peaks": counts.get(study.studied, {}).get("peaks"),
                "verdicts": {name: int((verdict == name).sum()) for name in VERDICTS},
            }
        )
    return rows


def site_rows(study: Study, site: Site) -> list[dict[str, Any]]:
    """Return a row a leading latent, as the page's table of a site has it."""
    tables, rows = site.tables, []
    scores, words = _by_latent(tables["reason_scores"]), _by_latent(tables["lexicality"])
    controls, tests, ends = (_by_latent(tables[name]) for name in ("controls", "pattern_tests", "outcomes"))
    alpha = study.settings["analysis"]["alpha"]
    for row in site.leaders.iter_rows(named=True):
        latent = row["latent"]
        low, high = _interval(row)
        linked = [test for test in tests.get(latent, []) if test["q"] is not None and test["difference"] > 0]
        best = min(linked, key=lambda test: (test["q"], test["p"], -test["difference"]), default=None)
        outcome = [end for end in ends.get(latent, []) if end["outcome"] == "correct" and end["auroc"] is not None]
        compared = {control["control"]: control for control in controls.get(latent, [])}
        rows.append(
            {
                "latent": latent,
                "verdict": row["verdict"],
                "why": _why(row),
                "traces": row["traces"],
                "of": row["of"],
                "low": low,
                "high": high,
                "controls": [compared[control] for control in study.conditions[1:]],
                "reason": scores.get(latent, [{}])[0],
                "pattern": best,
                "pattern_counts": best is not None and best["q"] < alpha,
                "words": words.get(latent, [{}])[0],
                "outcome": min(outcome, key=lambda end: end["p"], default=None),
                "checks": [
                    {"name": CHECK_NAMES[check], "result": row[check], "note": row[f"{check}_note"]} for check in CHECKS
                ],
            }
        )
    return rows


def _why(row: Mapping[str, Any]) -> str:
    """Return what a latent fails first, or else which checks leave it undecided; nothing if it passes all."""
    if row["removed_by"]:
        return FAILED[row["removed_by"]]
    return ", ".join(CHECK_NAMES[check] for check in CHECKS if row[check] == "undecided")


def absent(site: Site) -> dict[str, str]:
    """Return the columns of a site's table that no leading latent has a number for, each with the reason."""
    scores, outcomes = (
        site.tables[name].filter(pl.col("latent").is_in(site.latents)) for name in ("reason_scores", "outcomes")
    )
    columns = {"ReasonScore": (scores, "score"), "tells correct": (outcomes.filter(outcome="correct"), "auroc")}
    return {
        column: "; ".join(sorted(set(table["note"].drop_nulls())))
        for column, (table, value) in columns.items()
        if table[value].null_count() == len(table)
    }


def check_numbers(analysis: Mapping[str, Any]) -> dict[str, str]:
    """Return what number each check is about, and what it asks of it, by the check's name."""
    alpha = f"q, below {analysis['alpha']:g}"
    numbers = {
        "not_a_sink": f"share on sinks, at most {analysis['max_sink_share']:g}",
        "fits_its_site": f"FVU, at most {analysis['max_fvu']:g}",
        "recurs_beyond_control": alpha,
        "pattern_linked": alpha,
        "not_merely_lexical": f"share on three types, below {analysis['max_top_3']:g}",
        "not_merely_length": f"AUROC; of length alone, at most {analysis['max_length_auroc']:g} from either end",
    }
    return {CHECK_NAMES[check]: text for check, text in numbers.items()}


def _by_latent(table: pl.DataFrame) -> dict[int, list[dict[str, Any]]]:
    return {key[0]: rows.to_dicts() for key, rows in table.partition_by("latent", as_dict=True).items()}


def dashboards(study: Study, site: Site, tokens: Tokens) -> dict[str, Any]:
    """Return the dashboards of a site's leading latents, for the page's script, by latent."""
    tables = {name: _by_latent(table) for name, table in site.tables.items()}
    most = site.tables["top_tokens"].filter(scope="generated", condition=study.studied)
    types = _by_latent(most.filter(pl.col("rank") <= TOKEN_TYPES))
    found = {}
    for row in site.leaders.iter_rows(named=True):
        latent = row["latent"]
        of = {name: table.get(latent, []) for name, table in tables.items()}
        found[str(latent)] = brief(
            {
                "verdict": row["verdict"],
                "why": _why(row),
                "traces": row["traces"],
                "of": row["of"],
                "interval": _interval(row),
                "checks": [
                    [CHECK_NAMES[check], row[check], row[f"{check}_number"], row[f"{check}_note"]] for check in CHECKS
                ],
                "controls": [_keep(each, "control", "traces", "traces_control", "of", "excess", "excess_low",
                                   "excess_high", "p", "q", "traces_with_sinks", "traces_control_with_sinks")
                             for each in of["controls"] if each["control"] is not None],
                "reason": next((_keep(each, "score", "low", "high", "least_without_a_word", "that_word", "p", "q",
                                      "note") for each in of["reason_scores"]), None),
                "patterns": [_keep(each, "pattern", "traces", "mean_inside", "mean_outside", "difference", "low",
                                   "high", "p", "q", "note") for each in of["pattern_tests"]],
                "words": next((_keep(each, "tokens", "types", "top_1", "top_3", "top_10", "entropy", "types_90",
                                     "eta_squared", "eta_squared_by_chance") for each in of["lexicality"]), None),
                "outcomes": [_keep(each, "outcome", "value", "positive", "negative", "auroc", "low", "high", "q",
                                   "length_auroc", "within_length", "note") for each in of["outcomes"]],
                "contrasts": [_keep(each, "contrast", "pairs", "effect", "p", "q", "note") for each in of["contrasts"]],
                "histograms": [_keep(each, "condition", "tokens_active", "tokens", "largest", "counts", "quartiles")
                               for each in of["latent_histograms"]],
                "types": [[tokens.number(each["token_id"]), each["max"], each["tokens"], each["traces"]]
                          for each in types.get(latent, [])],
                "strip": {condition: [[each["trace_id"], each["rank"], each["max"]] for each in of["strips"]
                                      if each["condition"] == condition] for condition in study.conditions},
                "passages": [[each["band"], each["condition"], each["trace_id"], each["start"], each["peak"],
                              tokens.numbers(each["token_ids"]), each["values"]] for each in of["passages"]],
                "effects": {side: [[tokens.number(each["token_id"]), each["effect"]] for each in of["logit_effects"]
                                   if each["side"] == side] for side in ("top", "bottom")},
                "neighbours": [[each["neighbour"], each["cosine"]] for each in of["neighbours"]],
                "coactive": [[each["neighbour"], each["phi"], each["both"]] for each in of["coactivation"]],
                "neuronpedia": neuronpedia(study.neuronpedia, site.name, latent),
            }
        )  # fmt: skip
    return found


TOKEN_TYPES = 20
"""Token types of a latent that its dashboard lists."""


def _keep(row: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: row[name] for name in names}


def neuronpedia(name: str | None, site: str, latent: int) -> str | None:
    """Return the address of a latent on Neuronpedia, from the SAE's name there (with `{layer}`); none off its site."""
    hookpoint, read_from = parse_site(site)
    if name is None or read_from != "hookpoint":
        return None
    return f"https://www.neuronpedia.org/{name.replace('{layer}', str(layer_of(hookpoint)))}/{latent}"


def trace_index(study: Study) -> list[list[Any]]:
    """Return every trace for the page's script: condition, id, correct, finish reason, predicted, reference."""
    columns = ["condition", "trace_id", "correct", "finish_reason", "predicted", "reference"]
    number = {condition: index for index, condition in enumerate(study.conditions)}
    rows = study.traces.select(columns).sort("trace_id").rows()
    return [[number[condition], *rest] for condition, *rest in sorted(rows, key=lambda row: number[row[0]])]


def picture(path: str | Path) -> dict[str, Any]:
    """Return a png as the page embeds it: `data`, in base64, `width` and `height` in pixels."""
    content = Path(path).read_bytes()
    width, height = struct.unpack(">II", content[16:24])
    return {"data": base64.b64encode(content).decode("ascii"), "width": width, "height": height}


def render(
    study: Study,
    *,
    folder: Path,
    parcels: Iterable[tuple[str, int, str]],
    tokens: Tokens,
    provenance: Mapping[str, Any],
    max_megabytes: int,
) -> tuple[str, list[tuple[str, int]]]:
    """Return the page, and which traces its reader holds, as (condition, trace_id).

    `folder` has the template, page.css and page.js; `parcels` are those of `reader.trace_parcels`, of which as many are
    taken as `max_megabytes` have room for. `provenance` has `versions`, `hashes`, `stages`, `rules`, `run`.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"shown": shown_number, "percent": percent, "counted": counted}
    code, style = ((folder / name).read_text(encoding="utf-8") for name in ("page.js", "page.css"))
    boards = [pack(dashboards(study, site, tokens)) for site in study.sites]
    context = {
        "study": study,
        "answer": answer(study),
        "warnings": unique_warnings(warnings(study)),
        "run": what_was_run(study),
        "layers": layer_rows(study),
        "sites": [
            {
                "name": site.name, "index": index, "headline": headline(site.tables["verdict"]),
                "rows": site_rows(study, site), "judged": len(site.tables["verdict"]), "absent": absent(site),
                "pictures": [
                    picture(path) | {"caption": PICTURES[name], "alt": f"{name} of {site.name}"}
                    for name, path in site.pictures.items()
                    if name != "outcomes" or site.tables["outcomes"]["auroc"].count()  # else there is nothing in it
                ],
            }
            for index, site in enumerate(study.sites)
        ],
        "pictures": {
            name: picture(path) | {"caption": PICTURES_ACROSS[name], "alt": name.replace("_", " ")}
            for name, path in study.pictures.items()
        },
        "checks": CHECK_NAMES, "failed": FAILED, "verdicts": VERDICTS, "analysis": study.settings["analysis"],
        "min_tokens": MIN_TOKENS, "min_class": MIN_CLASS, "min_pattern_traces": MIN_PATTERN_TRACES,
        "saes": saes(study), "provenance": provenance,
        "graph": rule_graph(provenance["rules"]) if provenance["rules"] else None,
        "code": code, "style": style, "max_megabytes": max_megabytes, "levels": LEVELS,
        "code_hash": base64.b64encode(hashlib.sha256(code.encode("utf-8")).digest()).decode("ascii"),
    }  # fmt: skip
    core = {
        "conditions": list(study.conditions),
        "sites": [site.name for site in study.sites],
        "latents": [site.latents for site in study.sites],
        "traces": trace_index(study),
        "top": study.settings["analysis"]["top_latents"],
        "levels": LEVELS,
        "numbers": check_numbers(study.settings["analysis"]),
    }
    template = environment.get_template("page.html.j2")

    def page(held: Mapping[tuple[str, int], str]) -> str:
        named = {"tokens": pack(tokens.rows)} | {f"site-{index}": board for index, board in enumerate(boards)}
        named |= {f"trace-{study.conditions.index(condition)}-{number}": parcel
                  for (condition, number), parcel in held.items()}  # fmt: skip
        data = json.dumps(core, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
        counts = {condition: sum(key[0] == condition for key in held) for condition in study.conditions}
        return template.render(**context, data=data, parcels=named, held=counts)

    room = max_megabytes * 1_000_000 - len(page({}).encode("utf-8"))
    held: dict[tuple[str, int], str] = {}
    known = len(pack(tokens.rows))
    for condition, number, parcel in parcels:
        # What the parcel takes, with its element around it, and what tokens that are new make the names' parcel grow.
        names = len(pack(tokens.rows))
        room -= len(parcel) + 100 + names - known
        if room < 0:
            break
        known = names
        held[condition, number] = parcel
    return page(held), list(held)


def shown_number(value: float | None, digits: int = 3) -> str:
    """Return a number with so many significant digits, without an exponent where that is short; “–” for none."""
    if value is None:
        return "–"
    text = f"{value:.{digits}g}"
    if "e" in text and 1e-4 < abs(value) < 1e6:
        text = f"{value:.0f}"
    return text.replace("-", "−")


def percent(value: float | None) -> str:
    """Return a share as a percentage; “–” for none."""
    return "–" if value is None else f"{value:.0%}"
