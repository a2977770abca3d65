"""Room 7, evidence: which recurring latents are thinking patterns, check by check, and what speaks against the rest."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import polars as pl

from .controls import MIN_CLASS
from .evidence import complete

CHECKS = (
    "not_a_sink",
    "fits_its_site",
    "recurs_beyond_control",
    "pattern_linked",
    "not_merely_lexical",
    "not_merely_length",
)
"""In the order in which they take latents away; what comes first would make the later ones meaningless."""

RESULTS = ("pass", "fail", "undecided")
VERDICTS = ("thinking pattern", "no", "undecided")

MIN_TOKENS = 10
"""Tokens a latent must be active on before its types say anything."""

MIN_PATTERN_TRACES = 5
"""Traces a pattern must be in before a link to it counts."""

MOST_TRACES = 0.75
"""Share of traces from which a latent counts as present in long and short ones alike, where too few lack it to test."""

SCHEMA: dict[str, Any] = {
    "latent": pl.UInt32,
    "traces": pl.UInt32,
    "of": pl.UInt32,
    "original": pl.Boolean,
    "verdict": pl.Enum(VERDICTS),
    "removed_by": pl.String,
} | {
    f"{check}{part}": kind
    for check in CHECKS
    for part, kind in (("", pl.Enum(RESULTS)), ("_number", pl.Float64), ("_note", pl.String))
}


def verdict(
    controls: pl.LazyFrame,
    fit: pl.LazyFrame,
    pattern_tests: pl.LazyFrame,
    lexicality: pl.LazyFrame,
    outcomes: pl.LazyFrame,
    *,
    min_traces: int,
    alpha: float,
    max_fvu: float,
    max_sink_share: float,
    max_top_3: float,
    max_length_auroc: float,
) -> pl.DataFrame:
    """Return one row a latent that recurs under the condition under study, in SCHEMA.

    `original`: whether the original study's method would call it a thinking feature, as it recurs with sinks counted.
    Each check has a result (`pass`, `fail`, `undecided`), the number behind it, and a note:

    - not_a_sink: share of its activation mass on sink tokens, at most `max_sink_share`
    - fits_its_site: FVU of its SAE at the site read, at most `max_fvu`, and no other place fits better
    - recurs_beyond_control: the largest q against a control; below `alpha` and in more traces than every control; fails
      where a control has it in as many problems that it hasn't under the condition, undecided in between
    - pattern_linked: the least q over patterns, below `alpha`, with a bootstrap interval above 0, in at least
      MIN_PATTERN_TRACES traces; undecided where only part of that holds, or where no pattern is in MIN_CLASS traces
    - not_merely_lexical: share of mass on its three top token types, below `max_top_3`; undecided on few tokens
    - not_merely_length: where its mean or maximum tells correct from wrong traces (q below `alpha`), the area within
      strata of length, whose interval must leave out 0.5; else how well a trace's length alone tells whether it is
      among the top there, at most `max_length_auroc`

    The verdict is `thinking pattern` if all pass, `no` if any fails (`removed_by`: the first), else `undecided`.
    """
    tables = [frame.collect() for frame in (controls, pattern_tests, lexicality, outcomes)]
    by_latent = [{name[0]: group.to_dicts() for name, group in table.group_by("latent")} for table in tables]
    fits = _fits(fit.filter(pl.col("condition").is_null()).collect(), max_fvu)
    rows = []
    for latent, compared in sorted(by_latent[0].items()):
        about = compared[0]
        if max(about["traces"], about["traces_with_sinks"]) < min_traces:
            continue
        tests, (words, *_), ends = (found.get(latent, [{}]) for found in by_latent[1:])
        checks = {
            "not_a_sink": _not_a_sink(about, max_sink_share),
            "fits_its_site": fits,
            "recurs_beyond_control": _recurs(compared, alpha),
            "pattern_linked": _pattern_linked(tests, alpha),
            "not_merely_lexical": _not_lexical(words, max_top_3),
            "not_merely_length": _not_length(about, ends, alpha, max_length_auroc),
        }
        failed = [check for check in CHECKS if checks[check][0] == "fail"]
        passed = all(result == "pass" for result, _, _ in checks.values())
        row = {"latent": latent, "traces": about["traces"], "of": about["of"]}
        row |= {"original": about["traces_with_sinks"] >= min_traces, "removed_by": failed[0] if failed else None}
        row["verdict"] = "no" if failed else "thinking pattern" if passed else "undecided"
        for check, values in checks.items():
            row |= dict(zip((check, f"{check}_number", f"{check}_note"), values, strict=True))
        rows.append(row)
    table = complete(pl.DataFrame(rows, infer_schema_length=None), SCHEMA)
    order = pl.col("verdict").replace_strict({"thinking pattern": 0, "undecided": 1, "no": 2}, return_dtype=pl.UInt8)
    return table.sort(order, -pl.col("traces").cast(pl.Int64), "latent")


Check = tuple[str, float | None, str]


def _not_a_sink(about: Mapping[str, Any], most: float) -> Check:
    share = about["sink_share"]
    if share is None:
        return "undecided", None, "active on no generated token"
    return ("fail" if share > most else "pass"), share, f"{share:.0%} of its activation is on sink tokens"


def _fits(fit: pl.DataFrame, max_fvu: float) -> Check:
    mine = fit.filter("used").drop_nulls("fvu")
    if mine.is_empty():
        return "undecided", None, "no variance to explain"
    row = mine.row(0, named=True)
    best = fit.drop_nulls("fvu").sort("fvu").row(0, named=True)
    if best["fvu"] < row["fvu"]:
        return "fail", row["fvu"], f"the SAE fits {best['site']} better (FVU {best['fvu']:.2f})"
    return ("fail" if row["fvu"] > max_fvu else "pass"), row["fvu"], f"FVU {row['fvu']:.2f}, best at this site"


def _recurs(compared: list[dict[str, Any]], alpha: float) -> Check:
    known = [row for row in compared if row["control"] is not None]
    if not known:
        return "undecided", None, "no control condition"
    worst = max(
        known, key=lambda row: (row["only_condition"] <= row["only_control"], 1 if row["q"] is None else row["q"])
    )
    note = f"{worst['traces']}/{worst['of']} against {worst['traces_control']}/{worst['of']} under {worst['control']}"
    if worst["only_condition"] <= worst["only_control"]:
        return "fail", worst["q"], note
    return ("pass" if worst["q"] is not None and worst["q"] < alpha else "undecided"), worst["q"], note


def _pattern_linked(tests: list[dict[str, Any]], alpha: float) -> Check:
    known = [row for row in tests if row.get("p") is not None]
    if not known:
        return "undecided", None, "no pattern occurs"
    best = min(known, key=lambda row: (row["q"], row["p"], -row["difference"]))
    note = f"{best['pattern']}: {best['mean_inside']:.3g} inside, {best['mean_outside']:.3g} outside"
    if best["q"] < alpha and best["difference"] > 0:
        # The shifts say that it is aligned with the words; the traces must also agree among themselves.
        if best["traces"] < MIN_PATTERN_TRACES:
            return "undecided", best["q"], f"{note}; in {best['traces']} traces only"
        if best["low"] <= 0:
            return "undecided", best["q"], f"{note}; the interval over traces holds 0"
        return "pass", best["q"], note
    if best["p"] < alpha:
        return "undecided", best["q"], f"{note}; not beyond what {best['family']} give by chance"
    if max(row["traces"] for row in known) < MIN_CLASS:
        return "undecided", best["q"], f"no pattern in {MIN_CLASS} traces"
    return "fail", best["q"], note


def _not_lexical(words: Mapping[str, Any], most: float) -> Check:
    share, tokens = words.get("top_3"), words.get("tokens") or 0
    if share is None or tokens < MIN_TOKENS:
        return "undecided", share, f"active on {tokens} tokens only"
    return ("fail" if share >= most else "pass"), share, f"{share:.0%} of its activation on {words['top_tokens']}"


def _not_length(about: Mapping[str, Any], ends: list[dict[str, Any]], alpha: float, most: float) -> Check:
    linked = [row for row in ends if row.get("outcome") == "correct" and row.get("q") is not None and row["q"] < alpha]
    if linked:
        row = min(linked, key=lambda row: row["q"])
        area, of_length = row["auroc"], row["length_auroc"]
        note = f"tells correct traces: AUROC {area:.2f} ({row['value']}), of length alone {of_length:.2f}"
        if row["within_length"] is None:
            return "undecided", None, f"{note}; no stratum of length has both"
        apart = row["within_low"] > 0.5 or row["within_high"] < 0.5
        return (
            ("pass" if apart else "fail"),
            row["within_length"],
            f"{note}, {row['within_length']:.2f} at equal length",
        )
    area = about["length_auroc"]
    if area is None:
        traces, total = about["traces"], about["of"]
        if traces >= MOST_TRACES * total:
            return "pass", None, f"in {traces} of {total} traces, long and short"
        return "undecided", None, f"{traces} of {total} traces; {MIN_CLASS} with and without it are needed"
    note = f"length alone tells where it is among the top: AUROC {area:.2f}"
    if area > most and about["length_low"] > 0.5:
        return "fail", area, note
    return ("undecided" if area > most else "pass"), area, note


NAMES = {
    "not_a_sink": "one of sink tokens",
    "fits_its_site": "off a site its SAE fits",
    "recurs_beyond_control": "no more recurrent than under a control",
    "pattern_linked": "linked to no pattern",
    "not_merely_lexical": "a token detector",
    "not_merely_length": "merely length",
}
"""What a latent that fails a check is, in words."""


def headline(table: pl.DataFrame) -> str:
    """Say in a sentence how many of the original's candidates survive, and what removed the rest."""
    steps = waterfall(table)
    (_, candidates), *_, (_, left), (_, survivors) = steps
    if not candidates:
        return "No latent recurs: there is nothing to judge."
    removed = [
        f"{before - after} {NAMES[check]}" for (_, before), (check, after) in pairwise(steps[:-1]) if before > after
    ]
    text = (
        f"Of {candidates} latents that the original study's method would call thinking features, {survivors} pass all"
        f" {len(CHECKS)} checks, {left - survivors} {'is' if left - survivors == 1 else 'are'} undecided"
    )
    return f"{text}, {candidates - left} removed: {'; '.join(removed)}." if removed else f"{text}, none is removed."


def waterfall(table: pl.DataFrame) -> list[tuple[str, int]]:
    """Return what is left of the latents that the original's method would call thinking features, after each check.

    Pairs of a step and how many are left: `candidates`, each of CHECKS (those that fail it are gone), and at last
    `survivors`, those that pass all; the rest of the last step is undecided.
    """
    left = table.filter("original")
    steps = [("candidates", len(left))]
    for check in CHECKS:
        left = left.filter(pl.col("removed_by").is_null() | (pl.col("removed_by") != check))
        steps.append((check, len(left)))
    return [*steps, ("survivors", len(left.filter(pl.col("verdict").cast(pl.String) == "thinking pattern")))]
