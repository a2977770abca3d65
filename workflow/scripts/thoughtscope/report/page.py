"""Room 9, report: one page that a person reads instead of a folder of parquet.

What the page says in words and tables is in `findings`, here and in its template, so that it can be read without a
script, and printed; dashboards and the trace reader are drawn by its script from parcels (see `reader`). All text of
models and datasets goes through the template's escaping or into JSON, never into markup.
"""

import base64
import hashlib
import json
import re
import struct
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
from markupsafe import Markup, escape

from ..config import layer_of, parse_site, report_pictures, report_pictures_across
from ..evidence.alike import NEAR
from ..evidence.checks import RESULTS, VERDICTS
from ..evidence.outcomes import OF_EQUAL_LENGTH
from ..evidence.links import LEADING, MIN_TOLD_APART, RANKED, WINDOWS, links
from ..evidence.seeds import SHARED
from ..interventions.tables import REACH
from ..saes.record import sparsity
from ..statistics import MIN_TOKENS, MIN_TRACES
from ..vocabulary import label
from . import effects, seeds, truth, twins
from .dashboards import AFTER, BEFORE
from .findings import answer, by_heading, share_interval, small, warnings
from .needs import in_words
from .provenance import rule_graph
from .reader import LEVELS, Token, Tokens, brief, pack
from .study import Site, Study
from .words import counted, headline, link, why


def saes(study: Study) -> list[str]:
    """Return what SAEs were read, and where, in a sentence for each kind."""
    kinds: dict[str, list[str]] = {}
    for site in study.sites:
        info = site.info
        origin = f"trained here on {info['train']['tokens']:,} tokens" if "train" in info else f"from {info['name']}"
        kinds.setdefault(f"SAEs of {info['num_latents']:,} latents, {sparsity(info)}, {origin}", []).append(site.name)
    return [f"{kind}: {', '.join(names)}" for kind, names in kinds.items()]


def truth_section(study: Study) -> dict[str, Any] | None:
    """Return what was put into a taught model and what was found; None of any other."""
    if study.truth is None:
        return None
    return {"sentences": truth.sentences(study.truth), "rows": truth.rows(study.truth)}


def twins_section(study: Study) -> dict[str, Any] | None:
    """Return how much the twins have of what is found; None without twins."""
    if study.twins is None:
        return None
    rows = [row | {"name": twins.name(row["reader"])} for row in study.twins.iter_rows(named=True)]
    return {"sentences": twins.sentences(study.twins), "rows": rows}


def seeds_section(study: Study) -> dict[str, Any] | None:
    """Return which latents and verdicts another seed of the SAEs gives, too; None without one."""
    if not study.seeds:
        return None
    return {"sentences": seeds.sentences(study.seeds), "rows": seeds.rows(study.seeds), "shared": SHARED}


def effects_section(study: Study) -> dict[str, Any] | None:
    """Return what taking latents away did; None where none was."""
    if not study.effects:
        return None
    return {
        "sentences": [
            *effects.sentences(study.effects, study.cost, study.settings["analysis"]["alpha"]),
            *effects.of_linked(study),
            *effects.of_cues(study.responses, study.settings["analysis"]["alpha"]),
            *effects.of_stability(study),
        ],
        "responses": [
            row | {"site": site} for site, table in study.responses.items() for row in table.iter_rows(named=True)
        ],
        "stable": [] if study.stable_patterns is None else study.stable_patterns.to_dicts(),
        "rows": effects.rows(study.effects),
        "steered": [
            row | {"site": site} for site, table in study.steered.items() for row in table.iter_rows(named=True)
        ],
    }


def layer_rows(study: Study) -> list[dict[str, Any]]:
    """Return a row a site: its SAE, how it fits, and how many latents are active, recur, and survive."""
    rows = []
    for site in study.sites:
        fits = study.pooled_gate(site.name).drop_nulls("fvu")
        counts = {
            row["condition"]: row
            for row in study.layers.filter(site=site.name, scope="generated").iter_rows(named=True)
        }
        verdict = site.tables["verdict"]["verdict"].cast(pl.String)
        rows.append(
            {
                "site": site.name,
                "info": site.info,
                "sparsity": sparsity(site.info),
                "used": next(fits.filter("used").iter_rows(named=True), None),
                "best": next(fits.iter_rows(named=True), None),
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
    """Return a row a leading latent, as the page's table of a site has it: its row in the verdict, and more."""
    tables, rows = site.tables, []
    scores, words = _by_latent(tables["reason_scores"]), _by_latent(tables["lexicality"])
    ends, beside = _by_latent(tables["outcomes"]), best_links(site, study.settings["analysis"]["min_share"])
    controls, presence = (
        {(row["latent"], row["control"]): row for row in tables[name].iter_rows(named=True)}
        for name in ("controls", "presence")
    )
    for row in site.leaders.iter_rows(named=True):
        latent = row["latent"]
        low, high = share_interval(row)
        outcome = [end for end in ends.get(latent, []) if end["outcome"] == "correct" and end["auroc"] is not None]
        more: dict[str, Any] = {
            "why": why(row),
            "needs": in_words(row),
            "low": low,
            "high": high,
            "controls": [
                {"count": controls.get((latent, control)), "excess": _excess(presence.get((latent, control)))}
                for control in study.conditions[1:]
            ],
            "reason": next((score for score in scores.get(latent, []) if score["score"] is not None), None),
            "link": beside.get(latent),
            "words": next((share for share in words.get(latent, []) if share["typed"] is not None), None),
            "outcome": min(outcome, key=lambda end: end["p"], default=None),
        }
        rows.append(row | more)
    return rows


def _excess(row: Mapping[str, Any] | None) -> float | None:
    """Return the excess of a latent over a control by which it is judged, of its presence or its rate."""
    if row is None or row["low"] is None:
        return None
    return float(row["excess"] if row["low"] >= row["rate_low"] else row["rate_excess"])


def best_links(site: Site, min_share: float) -> dict[int, dict[str, Any]]:
    """Return what each leading latent has most to do with: its row of `pattern_tests`, and whether that `counts`.

    As its check has it: the link that passes; or else the pattern whose word it surely is; or else the window before or
    after words with the smallest p.
    """
    tests = site.tables["pattern_tests"].filter(pl.col("latent").is_in(site.latents)).drop_nulls(["share", "low"])
    passing = pl.col("pattern_linked").cast(pl.String) == "pass"
    counts = set(site.leaders.filter(passing)["latent"])
    of_words = _by_latent(tests.filter(pl.col("window").cast(pl.String) == "at", pl.col("low") > min_share))
    found = {latent: max(rows, key=lambda row: row["share"]) for latent, rows in of_words.items()}
    for latent, rows in _by_latent(links(tests.lazy()).collect()).items():
        if latent in counts or latent not in found:
            found[latent] = min(rows, key=lambda row: (row["p"], -row["share"]))
    return {latent: row | {"counts": latent in counts} for latent, row in found.items()}


def absent(site: Site) -> dict[str, str]:
    """Return the columns that a site's table is without, as no leading latent has a number for them, and why."""
    scores, outcomes = (
        site.tables[name].filter(pl.col("latent").is_in(site.latents)) for name in ("reason_scores", "outcomes")
    )
    tables = {"ReasonScore": (scores, "score"), "tells correct": (outcomes.filter(outcome="correct"), "auroc")}
    return {
        column: "; ".join(sorted(set(table["note"].drop_nulls())))
        for column, (table, value) in tables.items()
        if table[value].null_count() == len(table)
    }


def without_columns(absent: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Say which columns are left out, and why, in a sentence for each reason; `absent` by site, see there."""
    sites: dict[tuple[str, str], list[str]] = {}
    for site, reasons in absent.items():
        for reason in reasons.items():
            sites.setdefault(reason, []).append(site)
    return [
        f"No latent{'' if len(names) == len(absent) else ' at ' + ', '.join(names)} has a number for “{column}”"
        f"{f' ({note})' if note else ''}."
        for (column, note), names in sites.items()
    ]


def _by_latent(table: pl.DataFrame) -> dict[int, list[dict[str, Any]]]:
    return {key[0]: rows.to_dicts() for key, rows in table.partition_by("latent", as_dict=True).items()}


def dashboards(study: Study, site: Site, tokens: Tokens) -> dict[str, Any]:
    """Return the dashboards of a site's leading latents, for the page's script, by latent; tables are `columns`."""

    def with_tokens(rows: Sequence[Mapping[str, Any]], *names: str) -> dict[str, list[Any]]:
        return {"token": [tokens.number(row["token_id"]) for row in rows]} | columns(rows, *names)

    tables = {name: _by_latent(table) for name, table in site.tables.items()}
    changes, predicted, tried, amplified = {}, {}, {}, {}
    if study.effects:
        changes = effects.by_token(study, site.name)
        predicted = _by_latent(effects.leading_predictions(study, site))
        tried = _by_latent(study.effects[site.name])
        amplified = _by_latent(study.token_changes[site.name])
    most = site.tables["top_tokens"].filter(scope="generated", condition=study.studied)
    types = _by_latent(most.filter(pl.col("rank") <= TOKEN_TYPES))
    boards, checks = {}, study.checks
    for row in site.leaders.iter_rows(named=True):
        latent = row["latent"]
        of = {name: table.get(latent, []) for name, table in tables.items()}
        boards[str(latent)] = brief(
            {
                "verdict": row["verdict"],
                "why": why(row),
                "needs": in_words(row),
                "traces": row["traces"],
                "of": row["of"],
                "interval": " to ".join(percent(edge) for edge in share_interval(row)),
                "checks": {
                    "check": [check.label for check in checks],
                    "result": [row[check.name] for check in checks],
                    "number": [row[f"{check.name}_number"] for check in checks],
                    "note": [(row[f"{check.name}_note"] or "").replace(" -", " −") for check in checks],
                    "needs": [in_words(row, f"{check.name}_needs") for check in checks],
                },
                "controls": columns([each for each in of["controls"] if each["control"] is not None], "control",
                                    "traces", "traces_control", "of", "excess", "excess_low", "excess_high", "p", "q",
                                    "traces_with_sinks", "traces_control_with_sinks"),
                "presence": columns(of["presence"], "control", "tokens", "presence", "presence_control", "excess",
                                    "low", "high", "rate", "rate_control", "rate_excess", "rate_low", "rate_high", "p"),
                "reason": next((_keep(each, "score", "low", "high", "least_without_a_word", "that_word", "q",
                                      "note") for each in of["reason_scores"]), None),
                "patterns": columns(of["pattern_tests"], "pattern", "window", "traces", "mean_inside", "mean_alike",
                                    "share", "low", "high", "p", "told_apart", "rank", "note"),
                "rule": next((_keep(each, "rule", "tokens", "precision", "precision_low", "precision_high", "recall",
                                    "recall_low", "recall_high", "f1", "shuffled")
                              for each in of["descriptions"] if each["rule"]), None),
                "coherence": next((_keep(each, "passages", "embedding", "low", "high", "groups", "intruder",
                                         "intruder_low", "intruder_high")
                                   for each in of["coherence"] if each["embedding"] is not None), None),
                "words": next((_keep(each, "tokens", "types", "types_90") | {
                                   share: percent(each[share]) for share in
                                   ("top_1", "top_3", "typed", "low", "high", "top_10", "in_words", "eta_squared",
                                    "eta_squared_by_chance")
                               } for each in of["lexicality"]), None),
                "outcomes": columns(of["outcomes"], "outcome", "value", "auroc", "low", "high", "q", "length_auroc",
                                    "length_low", "length_high", "within_length", "within_low", "within_high",
                                    "within_p", "note"),
                "contrasts": columns(of["contrasts"], "contrast", "pairs", "effect", "low", "high", "p", "q", "note"),
                "histograms": columns(of["latent_histograms"], "condition", "tokens_active", "tokens", "largest",
                                      "counts", "quartiles"),
                "types": with_tokens(types.get(latent, []), "max", "tokens", "traces"),
                "strips": brief(columns(of["strips"], "condition", "trace_id", "rank", "max"), 4),
                "passages": columns(of["passages"], "band", "condition", "trace_id", "start", "peak") | {
                    "tokens": [tokens.numbers(each["token_ids"]) for each in of["passages"]],
                    "values": [brief(each["values"], 4) for each in of["passages"]],
                    "changes": [
                        effects.within(changes.get((latent, each["trace_id"])), each["start"], len(each["values"]))
                        if each["condition"] == study.studied else None
                        for each in of["passages"]
                    ],
                },
                "use": effects.board(tried.get(latent, []), predicted.get(latent, [])) if study.effects else None,
                "effects": with_tokens(of["logit_effects"], "side", "effect"),
                "amplified": with_tokens(amplified.get(latent, []), "side", "change", "others", "low", "high")
                        if study.effects else None,
                "neighbours": columns(of["neighbours"], "neighbour", "cosine"),
                "coactive": columns(of["coactivation"], "neighbour", "phi", "both"),
                "neuronpedia": neuronpedia(study.neuronpedia, site.name, latent),
            }
        )  # fmt: skip
    return boards


FOLDER = Path(__file__).parents[3] / "report" / "page"
"""Has the template, page.css and SCRIPTS."""

SCRIPTS = ("base", "tables", "dashboards", "sketches", "beside", "reader", "search", "notes", "page")
"""The parts of the page's script, in their order."""

TOKEN_TYPES = 20
"""Token types of a latent that its dashboard lists."""


def columns(rows: Sequence[Mapping[str, Any]], *names: str) -> dict[str, list[Any]]:
    """Return a table as the page's script takes it: columns by name, which so stand there once."""
    return {name: [row[name] for row in rows] for name in names}


def _keep(row: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: row[name] for name in names}


def neuronpedia(name: str | None, site: str, latent: int) -> str | None:
    """Return the address of a latent on Neuronpedia, from the SAE's name there (with `{layer}`); none off its site."""
    hookpoint, read_from = parse_site(site)
    if name is None or read_from != "hookpoint":
        return None
    return f"https://www.neuronpedia.org/{name.replace('{layer}', str(layer_of(hookpoint)))}/{latent}"


def trace_index(study: Study) -> dict[str, list[Any]]:
    """Return every trace, as `columns`; its condition is the place of that in the study's."""
    condition = pl.col("condition").replace_strict(list(study.conditions), range(len(study.conditions)))
    names = ["trace_id", "correct", "finish_reason", "predicted", "reference"]
    return study.traces.select(condition, *names).sort("condition", "trace_id").to_dict(as_series=False)


def picture(path: str | Path) -> dict[str, Any]:
    """Return a png as the page embeds it: `data`, in base64, `width` and `height` in pixels."""
    content = Path(path).read_bytes()
    width, height = struct.unpack(">II", content[16:24])
    return {"data": base64.b64encode(content).decode("ascii"), "width": width, "height": height}


def render(
    study: Study,
    *,
    parcels: Iterable[tuple[str, int, str]],
    tokens: Tokens,
    provenance: Mapping[str, Any],
    max_megabytes: int,
) -> tuple[str, list[tuple[str, int]]]:
    """Return the page, and which traces its reader holds, as (condition, trace_id).

    `parcels` are those of `reader.trace_parcels`, of which as many are
    taken as `max_megabytes` have room for. `provenance` has `versions`, `hashes`, `stages`, `rules`, `run`.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {
        "shown": shown_number,
        "percent": percent,
        "label": label,
        "counted": counted,
        "linked": linked,
        "link": link,
    }
    code = "\n".join((FOLDER / f"{name}.js").read_text(encoding="utf-8") for name in SCRIPTS)
    style = (FOLDER / "page.css").read_text(encoding="utf-8")
    boards = [pack(dashboards(study, site, tokens)) for site in study.sites]
    without = {site.name: absent(site) for site in study.sites}
    too_small = small(study) is not None
    captions, captions_across = report_pictures(study.settings), report_pictures_across(study.settings)
    context = {
        "study": study,
        "answer": answer(study),
        "warnings": by_heading(warnings(study)),
        "truth": truth_section(study),
        "twins": twins_section(study),
        "effects": effects_section(study),
        "seeds": seeds_section(study),
        "layers": layer_rows(study),
        "sites": [
            {
                "name": site.name, "index": index, "headline": headline(site.tables["verdict"], too_small=too_small),
                "rows": site_rows(study, site), "judged": len(site.tables["verdict"]), "absent": without[site.name],
                "pictures": [
                    picture(path) | {"caption": captions[name], "alt": f"{name.replace('_', ' ')} of {site.name}"}
                    for name, path in site.pictures.items()
                    if name != "outcomes" or site.tables["outcomes"]["auroc"].count()  # else there is nothing in it
                ],
            }
            for index, site in enumerate(study.sites)
        ],
        "pictures": {
            name: picture(path) | {"caption": captions_across[name], "alt": name.replace("_", " ")}
            for name, path in study.pictures.items()
        },
        "absent": without_columns(without), "checks": study.checks, "results": RESULTS, "verdicts": VERDICTS,
        "analysis": study.settings["analysis"],
        "min_tokens": MIN_TOKENS, "min_traces": MIN_TRACES, "leading": LEADING, "ranked": RANKED,
        "told_apart": MIN_TOLD_APART, "near": NEAR, "of_equal_length": OF_EQUAL_LENGTH, "windows": WINDOWS,
        "saes": saes(study), "provenance": provenance,
        "graph": rule_graph(provenance["rules"]) if provenance["rules"] else None,
        "code": code, "style": style, "max_megabytes": max_megabytes, "levels": LEVELS, "reach": REACH,
        "code_hash": base64.b64encode(hashlib.sha256(code.encode("utf-8")).digest()).decode("ascii"),
    }  # fmt: skip
    infos = json.dumps([site.info for site in study.sites], sort_keys=True)
    core = {
        "experiment": study.experiment,
        "saes": hashlib.sha256(infos.encode("utf-8")).hexdigest()[:16],  # notes are of these SAEs' latents
        "include_sinks": study.settings["analysis"]["include_sinks"],
        "passage": [BEFORE, AFTER],
        "min_tokens": MIN_TOKENS,
        "patterns": list(study.settings["patterns"]),
        "conditions": list(study.conditions),
        "sites": [{"name": site.name, "latents": site.latents, "size": site.info["num_latents"]}
                  for site in study.sites],
        "traces": trace_index(study),
        "top": study.settings["analysis"]["top_latents"],
        "levels": LEVELS,
        "windows": WINDOWS,
        "min_share": percent(study.settings["analysis"]["min_share"]),
        "numbers": {check.label: check.number.format(**study.settings["analysis"]) for check in study.checks},
    }  # fmt: skip
    template = environment.get_template("page.html.j2")

    def page(held: Mapping[tuple[str, int], str]) -> str:
        named = {"tokens": pack(columns([token._asdict() for token in tokens.rows], *Token._fields))}
        named |= {f"site-{index}": board for index, board in enumerate(boards)}
        named |= {f"trace-{study.conditions.index(condition)}-{number}": parcel
                  for (condition, number), parcel in held.items()}  # fmt: skip
        data = json.dumps(core, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
        counts = {condition: sum(key[0] == condition for key in held) for condition in study.conditions}
        return template.render(**context, data=data, parcels=named, held=counts)

    room = max_megabytes * 1_000_000 - len(page({}).encode("utf-8"))
    held: dict[tuple[str, int], str] = {}
    known = len(tokens.rows)
    for condition, number, parcel in parcels:
        # What the parcel takes, with its element around it, and what tokens that are new add to the names, at most.
        room -= len(parcel) + 100 + len(json.dumps(tokens.rows[known:]))
        if room < 0:
            break
        known = len(tokens.rows)
        held[condition, number] = parcel
    return page(held), list(held)


def linked(text: str) -> Markup:
    """Return text, escaped, in which each latent named with its site is a link to its dashboard, and `code` is code."""
    name, code = r"(latent (\d+)) at ([\w.@]*\w)", "`([^`]*)`"  # nothing in them can be markup
    text = re.sub(name, r'<a href="#\3/\2">\1</a> at \3', str(escape(text)))
    return Markup(re.sub(code, r"<code>\1</code>", text))  # noqa: S704


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
    return "–" if value is None else f"{value:.0%}".replace("-0%", "0%").replace("-", "−")
