"""Room 7, evidence: which recurring latents are thinking patterns, check by check, and what speaks against the rest."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import polars as pl

from .recurrence import complete
from ..statistics import MIN_CLASS, MIN_TOKENS

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
    min_excess: float,
    min_link: float,
    max_fvu: float,
    max_sink_share: float,
    max_top_3: float,
    max_length_auroc: float,
) -> pl.DataFrame:
    """Return one row a latent that recurs under the condition under study, in SCHEMA.

    It recurs if it is among the top of at least `min_traces` traces, with sinks as configured or counted; `original`:
    whether with sinks counted, as the original study did, which would call it a thinking feature.
    Each check has a result (`pass`, `fail`, `undecided`), the number behind it, and a note:

    - not_a_sink: share of its activation mass on sink tokens, at most `max_sink_share`
    - fits_its_site: FVU of its SAE at the site read, at most `max_fvu`, and no other place fits better; undecided where
      an interval leaves it open
    - recurs_beyond_control: q against each control, below `alpha` and in more traces; fails where even the upper end of
      the excess's interval over one is below `min_excess` of its own share of traces, undecided in between
    - pattern_linked: q of a pattern below `alpha`, with a bootstrap interval above 0, in at least MIN_PATTERN_TRACES
      traces; fails where, for every pattern in so many traces, the latent is active in as many of them, on MIN_TOKENS
      tokens, and the interval leaves no room for a mean activation that is higher inside than outside by `min_link` of
      that outside; undecided in between
    - not_merely_lexical: share of mass on its three top token types, below `max_top_3`; undecided on few tokens
    - not_merely_length: where its mean or maximum tells correct from wrong traces (q below `alpha`): whether it does
      among traces of equal length (fails where length surely explains a part and maybe all); else how well a trace's
      length alone tells whether it is among the top there, at most `max_length_auroc`

    The verdict is `thinking pattern` if all pass, `no` if any fails (`removed_by`: the first), else `undecided`.
    """
    tables = [frame.collect() for frame in (controls, pattern_tests, lexicality, outcomes)]
    by_latent = [{name[0]: group.to_dicts() for name, group in table.group_by("latent")} for table in tables]
    fitting = fits(fit.filter(pl.col("condition").is_null()).collect(), max_fvu)
    rows = []
    for latent, compared in sorted(by_latent[0].items()):
        about = compared[0]
        if max(about["traces"], about["traces_with_sinks"]) < min_traces:
            continue
        tests, (words, *_), ends = (found.get(latent, [{}]) for found in by_latent[1:])
        checks = {
            "not_a_sink": _not_a_sink(about, max_sink_share),
            "fits_its_site": fitting,
            "recurs_beyond_control": _recurs(compared, alpha, min_excess),
            "pattern_linked": _pattern_linked(tests, alpha, min_link),
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


def fits(fit: pl.DataFrame, max_fvu: float) -> Check:
    """Return the check `fits_its_site` (see `verdict`): its result, the FVU where the SAE is read, and a note.

    fit: the rows of one SAE in the site gate's table, over all conditions.
    """
    mine = fit.filter("used").drop_nulls("fvu")
    if mine.is_empty():
        return "undecided", None, "no variance to explain"
    row = mine.row(0, named=True)
    best = fit.drop_nulls("fvu").sort("fvu").row(0, named=True)
    if row["fvu_low"] is None or row["fvu_high"] is None:
        return "undecided", row["fvu"], f"FVU {row['fvu']:.2f}, from one problem"
    if row["fvu_low"] > max_fvu:
        return "fail", row["fvu"], f"FVU {row['fvu']:.2f} ({row['fvu_low']:.2f} to {row['fvu_high']:.2f})"
    if best["fvu"] < row["fvu"]:
        apart = best["fvu_high"] is not None and best["fvu_high"] < row["fvu_low"]
        return (
            ("fail" if apart else "undecided"),
            row["fvu"],
            f"the SAE fits {best['site']} better (FVU {best['fvu']:.2f})",
        )
    note = f"FVU {row['fvu']:.2f} ({row['fvu_low']:.2f} to {row['fvu_high']:.2f}), best at this site"
    return ("pass" if row["fvu_high"] <= max_fvu else "undecided"), row["fvu"], note


def _recurs(compared: list[dict[str, Any]], alpha: float, min_excess: float) -> Check:
    known = [row for row in compared if row["control"] is not None]
    if not known:
        return "undecided", None, "no control condition"
    results = [_recurs_beyond(row, alpha, min_excess) for row in known]
    for result in ("fail", "undecided"):
        if result in results:
            row = known[results.index(result)]
            break
    else:
        result, row = "pass", max(known, key=lambda row: row["q"])
    note = f"{row['traces']}/{row['of']} against {row['traces_control']}/{row['of']} under {row['control']}"
    return result, row["q"], note


def _recurs_beyond(row: Mapping[str, Any], alpha: float, min_excess: float) -> str:
    if row["q"] is not None and row["q"] < alpha and row["only_condition"] > row["only_control"]:
        return "pass"
    return "fail" if row["excess_high"] < min_excess * row["traces"] / row["of"] else "undecided"


def _pattern_linked(tests: list[dict[str, Any]], alpha: float, min_link: float) -> Check:
    known = [row for row in tests if row.get("p") is not None]
    if not known:
        return (
            "undecided",
            None,
            "; ".join(sorted({str(row["note"]) for row in tests if row.get("note")})) or "no pattern",
        )
    known.sort(key=lambda row: (row["q"], row["p"], -row["difference"]))
    # The shifts say that it is aligned with the words; the traces must also agree among themselves.
    aligned = [row for row in known if row["q"] < alpha and row["difference"] > 0]
    linked = [row for row in aligned if row["traces"] >= MIN_PATTERN_TRACES and row["low"] > 0]
    best = (linked or aligned or known)[0]
    note = (
        f"{best['pattern']}: {best['mean_inside']:.3g} inside, {best['mean_outside']:.3g} outside, difference"
        f" {best['low']:.3g} to {best['high']:.3g}"
    )
    if linked:
        return "pass", best["q"], note
    if aligned:
        return "undecided", best["q"], f"{note}; in {best['traces']} traces"
    if best["p"] < alpha:
        return "undecided", best["q"], f"{note}; not beyond what {best['family']} give by chance"
    # A pattern in fewer traces can't be linked to any latent; the others are, or aren't, or leave it open.
    able = [row for row in known if row["traces"] >= MIN_PATTERN_TRACES]
    if not able:
        return "undecided", best["q"], f"no pattern is in {MIN_PATTERN_TRACES} traces"
    rare = [
        row["pattern"] for row in able if row["active_traces"] < MIN_PATTERN_TRACES or row["active_tokens"] < MIN_TOKENS
    ]
    likely = [row["pattern"] for row in able if row["high"] >= min_link * row["mean_outside"]]
    if not rare and not likely:
        return "fail", best["q"], note
    why = "too rarely active in traces with" if rare else "room is left for a link to"
    return "undecided", best["q"], f"{note}; {why} {', '.join(sorted(rare or likely))}"


def _not_lexical(words: Mapping[str, Any], most: float) -> Check:
    share, tokens = words.get("top_3"), words.get("tokens") or 0
    if share is None or tokens < MIN_TOKENS:
        return "undecided", share, f"active on {tokens} tokens only"
    return ("fail" if share >= most else "pass"), share, f"{share:.0%} of its activation on {words['top_tokens']}"


def _not_length(about: Mapping[str, Any], ends: list[dict[str, Any]], alpha: float, most: float) -> Check:
    linked = [row for row in ends if row.get("outcome") == "correct" and row.get("q") is not None and row["q"] < alpha]
    if linked:
        row = min(linked, key=lambda row: row["q"])
        area, within = row["auroc"], row["within_length"]
        note = f"tells correct traces: AUROC {area:.2f} ({row['value']}), of length alone {row['length_auroc']:.2f}"
        if within is None:
            return "undecided", None, f"{note}; too few traces of equal length"
        note = f"{note}, {within:.2f} at equal length"
        if row["within_p"] < alpha and (within > 0.5) == (area > 0.5):
            return "pass", within, note
        # Length has taken a part away for certain, and may have taken all.
        explained = not row["within_low"] <= area <= row["within_high"]
        return ("fail" if explained else "undecided"), within, note
    area = about["length_auroc"]
    if area is None:
        traces, total = about["traces"], about["of"]
        if traces >= max(MIN_CLASS, MOST_TRACES * total):
            return "pass", None, f"in {traces} of {total} traces, long and short"
        return "undecided", None, f"{traces} of {total} traces; {MIN_CLASS} with and without it are needed"
    # Of short traces only is merely length, too.
    apart, surely = (area, about["length_low"]) if area >= 0.5 else (1 - area, 1 - about["length_high"])
    note = f"AUROC of a trace's length alone for its being among the top there: {area:.2f}"
    return ("pass" if apart <= most else "fail" if surely > 0.5 else "undecided"), area, note


FAILED = {
    "not_a_sink": "active on sink tokens",
    "fits_its_site": "SAE doesn't fit the site",
    "recurs_beyond_control": "hardly beyond a control",
    "pattern_linked": "linked to no pattern",
    "not_merely_lexical": "a token detector",
    "not_merely_length": "follows a trace's length",
}
"""What a latent that fails a check is, in words, for summary and pictures."""


def leading(table: pl.DataFrame, most: int) -> pl.DataFrame:
    """Return the leading rows of a verdict's table: thinking patterns first, then by traces."""
    return (
        table.with_columns(pl.col("verdict").cast(pl.String))
        .sort(pl.col("verdict") != VERDICTS[0], "traces", "latent", descending=[False, True, False])
        .head(most)
    )


def headline(table: pl.DataFrame) -> str:
    """Say in a sentence how many of the recurring latents survive, and what removed the rest."""
    steps = waterfall(table)
    (_, candidates), *_, (_, left), (_, survivors) = steps
    if not candidates:
        return "No latent recurs: there is nothing to judge."
    removed = [
        f"{before - after} {FAILED[check]}" for (_, before), (check, after) in pairwise(steps[:-1]) if before > after
    ]
    text = (
        f"Of {counted(candidates, 'recurring latent')}, {survivors or 'none'} {agree(survivors, 'passes', 'pass')}"
        f" all {len(CHECKS)} checks, {left - survivors or 'none'} {agree(left - survivors, 'is', 'are')} undecided"
    )
    if not removed:
        return f"{text}, none is removed."
    return f"{text}, {candidates - left} removed, by the first they fail: {'; '.join(removed)}."


def counted(number: int, noun: str) -> str:
    """Return a number and its noun, with an s where there isn't one."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def agree(number: int, one: str, many: str) -> str:
    """Return the word that goes with a number: `one` with 1 and with none."""
    return one if number < 2 else many


def waterfall(table: pl.DataFrame) -> list[tuple[str, int]]:
    """Return what is left of the recurring latents after each check.

    Pairs of a step and how many are left: `candidates`, each of CHECKS (those that fail it are gone), and at last
    `survivors`, those that pass all; the rest of the last step is undecided.
    """
    left, steps = table, [("candidates", len(table))]
    for check in CHECKS:
        left = left.filter(pl.col("removed_by").is_null() | (pl.col("removed_by") != check))
        steps.append((check, len(left)))
    return [*steps, ("survivors", len(left.filter(pl.col("verdict").cast(pl.String) == "thinking pattern")))]
