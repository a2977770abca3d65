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
from .reader import DIGITS, LEVELS, Tokens, brief, pack
from .statistics import wilson
from .verdict import CHECKS, FAILED, VERDICTS, headline, leading, waterfall

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
    "verdict": "ReasonScore against the share of activation on a latent's three top token types, and its verdict",
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
    """Return what was found, in words that follow from the numbers: `finding`, `certainty`, `fits`, and the counts."""
    steps = [waterfall(site.tables["verdict"]) for site in study.sites]
    candidates, left, passed = (sum(rows[index][1] for rows in steps) for index in (0, -2, -1))
    traces = len(study.traces.filter(condition=study.studied))
    analysis = study.settings["analysis"]
    undecided, removed = left - passed, candidates - left
    called = f"{_count(candidates, 'latent')} that {'recurs' if candidates == 1 else 'recur'}"
    if not candidates:
        finding = (
            f"No latent recurs: none is among the top {analysis['top_latents']} of {analysis['min_traces']} or more"
            " traces, at any site. There is nothing to judge."
        )
    else:
        names = [
            f"{latent} at {site.name}"
            for site in study.sites
            for latent in site.tables["verdict"].filter(verdict=VERDICTS[0])["latent"]
        ]
        listed = f": {', '.join(names[:5])}{f' and {len(names) - 5} more' if len(names) > 5 else ''}"
        opening = f"Of {called}, {passed or 'none'} {'passes' if passed < 2 else 'pass'} all {len(CHECKS)} checks"
        rest = [
            *([f"{removed} {'fails' if removed == 1 else 'fail'} at least one"] if removed else []),
            *([f"{undecided} can’t be decided with {_count(traces, 'trace')}"] if undecided else []),
        ]
        finding = f"{opening}{listed if passed else ''}. {_sentence(' and '.join(rest))}".strip()
    half = max(1, traces // 2)
    low, high = (float(edge[0]) for edge in wilson(np.array([half]), traces))
    certainty = (
        f"How sure one can be: the unit is the trace, and there are {traces} under “{study.studied}”. A latent in"
        f" {half} of {traces} traces is in {low:.0%} to {high:.0%} of all such traces (95\u00a0% interval). Each"
        f" family of tests is held to a false discovery rate of {analysis['alpha']:.0%}. “Undecided” means that these"
        " traces can’t tell, either way."
    )
    return {
        "finding": finding,
        "certainty": certainty,
        "fits": [fit_sentence(study.gate, site.name) for site in study.sites],
        "counts": [
            ("recur", candidates),
            ("ruled out", removed),
            ("undecided", undecided),
            ("pass all checks", passed),
        ],
        "steps": [
            {
                "name": "recur" if index == 0 else f"left after “{CHECK_NAMES[CHECKS[index - 1]]}”",
                "counts": [rows[index][1] for rows in steps],
                "total": sum(rows[index][1] for rows in steps),
            }
            for index in range(len(CHECKS) + 1)
        ]
        + [{"name": "pass all checks", "counts": [rows[-1][1] for rows in steps], "total": passed}],
        "most": max(1, candidates),
    }


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}." if text else ""


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def pooled_fits(gate: pl.DataFrame, site: str) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """Return the site gate's rows of a site as it is read, and of the place where its SAE fits best."""
    mine = gate.filter(pl.col("hookpoint") == parse_site(site)[0], pl.col("condition").is_null()).drop_nulls("fvu")
    used, best = mine.filter("used"), mine.sort("fvu")
    return used.row(0, named=True) if len(used) else None, best.row(0, named=True) if len(best) else None


def fit_sentence(gate: pl.DataFrame, site: str) -> dict[str, Any]:
    """Return in a sentence whether the SAE fits what it reads at a site, and whether that is `well`."""
    used, best = pooled_fits(gate, site)
    if used is None or best is None:
        return {"site": site, "text": "the fit isn’t known: there is no variance to explain", "well": False}
    interval = f" ({used['fvu_low']:.0%} to {used['fvu_high']:.0%})" if used["fvu_low"] is not None else ""
    text = f"the SAE leaves {used['fvu']:.0%}{interval} of the variance unexplained; "
    if best["fvu"] < used["fvu"]:
        text += f"it fits {best['site']} better ({best['fvu']:.0%})"
    elif used["fvu"] >= 1:
        text += "that is no better than always saying the mean"
    else:
        text += "no other place that was tried fits better"
    return {"site": site, "text": text, "well": best["fvu"] >= used["fvu"] and used["fvu"] < 1}


def warnings(study: Study) -> list[tuple[str, str]]:
    """Return what a careful reviewer would hold against the study, as pairs of a heading and a sentence or two."""
    analysis, found = study.settings["analysis"], []
    found += [("The SAE and its site", line) for line in gate_warnings(study.gate, analysis["max_fvu"])]
    mine = study.traces.filter(condition=study.studied)
    found += _few_traces(study, len(mine))
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
    for name, section in (("problems", study.settings["problems"]), ("model", study.settings["model"]),
                          ("SAE", study.settings["sae"])):  # fmt: skip
        if section["source"] == "hub" and not is_commit(section["revision"]):
            found.append(
                (
                    "A revision that may move",
                    f"The {name}’s revision isn’t pinned to a commit; see Provenance for the one used.",
                )
            )
    return found


def _segments(traces: pl.DataFrame) -> set[str]:
    parts = traces["segments"].explode(empty_as_null=False)
    return set(parts.struct.field("segment").cast(pl.String)) if len(parts) else set()


def _few_traces(study: Study, traces: int) -> list[tuple[str, str]]:
    alpha = study.settings["analysis"]["alpha"]
    families = [
        len(table.filter(pl.col("q").is_not_null()))
        for site in study.sites
        for (control,), table in site.tables["controls"].group_by("control")
        if control is not None
    ]
    # The least p of an exact McNemar test, every problem being one for the latent, and what it is among so many.
    if families and min(families) > 0 and min(1.0, 2 * 0.5**traces) * min(families) >= alpha:
        return [
            (
                "Too few traces for any claim",
                f"With {traces} traces not even a latent in all of them and in no control could pass the control check"
                f" (q < {alpha:g} among {min(families)} latents). Raise inferences.",
            )
        ]
    if traces < FEW_TRACES:
        return [
            (
                "Few traces",
                f"{traces} traces under “{study.studied}” leave wide intervals, and much undecided; only what is in"
                " nearly all of them can stand out. Raise inferences.",
            )
        ]
    return []


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
            f" on sinks (largest {row['largest_on_sinks']:.3g}, elsewhere {row['largest_elsewhere'] or 0:.3g}). They"
            " are left out of the counts.",
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


def unique_warnings(found: Iterable[tuple[str, str]]) -> list[dict[str, Any]]:
    """Return warnings with those of the same heading together, each sentence once."""
    groups: dict[str, list[str]] = {}
    for heading, text in found:
        texts = groups.setdefault(heading, [])
        if text not in texts:
            texts.append(text)
    return [{"heading": heading, "texts": texts} for heading, texts in groups.items()]


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
        low, high = (float(edge[0]) for edge in wilson(np.array([row["traces"]]), row["of"]))
        linked = [test for test in tests.get(latent, []) if test["q"] is not None and test["difference"] > 0]
        best = min(linked, key=lambda test: (test["q"], test["p"], -test["difference"]), default=None)
        outcome = [end for end in ends.get(latent, []) if end["outcome"] == "correct" and end["auroc"] is not None]
        rows.append(
            {
                "latent": latent,
                "verdict": row["verdict"],
                "why": FAILED[row["removed_by"]] if row["removed_by"] else "",
                "traces": row["traces"],
                "of": row["of"],
                "low": low,
                "high": high,
                "controls": [control for control in controls.get(latent, []) if control["control"] is not None],
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
                "why": FAILED[row["removed_by"]] if row["removed_by"] else "",
                "traces": row["traces"],
                "of": row["of"],
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
                "histograms": [_keep(each, "condition", "tokens_active", "tokens", "largest", "counts")
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
    environment.filters |= {"shown": shown_number, "percent": percent}
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
                "rows": site_rows(study, site), "judged": len(site.tables["verdict"]),
                "pictures": [picture(path) | {"alt": PICTURES[name]} for name, path in site.pictures.items()],
            }
            for index, site in enumerate(study.sites)
        ],
        "pictures": {name: picture(path) | {"alt": PICTURES_ACROSS[name]} for name, path in study.pictures.items()},
        "checks": CHECK_NAMES, "failed": FAILED, "verdicts": VERDICTS, "analysis": study.settings["analysis"],
        "provenance": provenance, "graph": rule_graph(provenance["rules"]) if provenance["rules"] else None,
        "code": code, "style": style, "max_megabytes": max_megabytes, "digits": DIGITS, "levels": LEVELS,
        "code_hash": base64.b64encode(hashlib.sha256(code.encode("utf-8")).digest()).decode("ascii"),
    }  # fmt: skip
    core = {
        "conditions": list(study.conditions),
        "sites": [site.name for site in study.sites],
        "latents": [site.latents for site in study.sites],
        "traces": trace_index(study),
        "top": study.settings["analysis"]["top_latents"],
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
