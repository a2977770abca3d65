"""Room 6, evidence: the checks that a recurring latent must pass to be called a thinking pattern.

A check is data: the verdict's columns, the waterfall, the pictures, the report and the table in README follow from
CHECKS. The shares of the checks on sinks and words are what they are in these traces; the others fail only where an
interval rules the opposite out.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ..statistics import MIN_CLASS, MIN_TOKENS

RESULTS = ("pass", "fail", "undecided")
VERDICTS = ("thinking pattern", "no", "undecided")

MIN_PATTERN_TRACES = 5
"""Traces a pattern must be in before a link to it counts."""

MOST_TRACES = 0.75
"""Share of traces from which a latent counts as present in long and short ones alike, where too few lack it to test."""

Row = Mapping[str, Any]
"""A row of a table."""


class Judgement(NamedTuple):
    """What a check says of a latent."""

    result: str
    """One of RESULTS."""
    number: float | None
    """The number behind it."""
    note: str


@dataclass(frozen=True)
class Known:
    """What the tables hold on one latent: its rows, of which there may be none, but for `controls`."""

    controls: Sequence[Row]
    """One a control."""
    fit: Sequence[Row]
    """Of its SAE, over all conditions: one a place where it was tried."""
    pattern_tests: Sequence[Row]
    lexicality: Sequence[Row]
    outcomes: Sequence[Row]


@dataclass(frozen=True)
class Thresholds:
    """The keys of the config's `analysis` that checks read."""

    alpha: float
    min_excess: float
    min_link: float
    max_fvu: float
    max_sink_share: float
    max_top_3: float
    max_length_auroc: float


def not_a_sink(controls: Sequence[Row], most: float) -> Judgement:
    """Judge a latent by the share of its activation mass on sink tokens, at most `most`."""
    share = controls[0]["sink_share"]
    if share is None:
        return Judgement("undecided", None, "active on no generated token")
    return Judgement("fail" if share > most else "pass", share, f"{share:.0%} of its activation is on sink tokens")


def fits(fit: Sequence[Row], max_fvu: float) -> Judgement:
    """Judge an SAE by its FVU at the site read, at most `max_fvu`, and whether it fits another place better.

    fit: the SAE's rows of the site gate's table, over all conditions. Undecided where an interval leaves it open.
    """
    known = [row for row in fit if row["fvu"] is not None]
    used = next((row for row in known if row["used"]), None)
    if used is None:
        return Judgement("undecided", None, "no variance to explain")
    fvu, low, high = used["fvu"], used["fvu_low"], used["fvu_high"]
    if low is None or high is None:
        return Judgement("undecided", fvu, f"FVU {fvu:.2f}, from one problem")
    interval = f"FVU {fvu:.2f} ({low:.2f} to {high:.2f})"
    if low > max_fvu:
        return Judgement("fail", fvu, interval)
    best = min(known, key=lambda row: row["fvu"])
    if best["fvu"] < fvu:
        apart = best["fvu_high"] is not None and best["fvu_high"] < low
        note = f"the SAE fits {best['site']} better (FVU {best['fvu']:.2f})"
        return Judgement("fail" if apart else "undecided", fvu, note)
    return Judgement("pass" if high <= max_fvu else "undecided", fvu, f"{interval}, best at this site")


def recurs(controls: Sequence[Row], alpha: float, min_excess: float) -> Judgement:
    """Judge whether a latent recurs in more traces than under each control, with a q below `alpha`.

    It fails where even the upper end of the excess's interval over one is below `min_excess` of its share of traces.
    """
    known = [row for row in controls if row["control"] is not None]
    if not known:
        return Judgement("undecided", None, "no control condition")
    results = [_recurs_beyond(row, alpha, min_excess) for row in known]
    for result in ("fail", "undecided"):
        if result in results:
            row = known[results.index(result)]
            break
    else:
        result, row = "pass", max(known, key=lambda row: row["q"])
    note = f"{row['traces']}/{row['of']} against {row['traces_control']}/{row['of']} under {row['control']}"
    return Judgement(result, row["q"], note)


def _recurs_beyond(row: Row, alpha: float, min_excess: float) -> str:
    if row["q"] is not None and row["q"] < alpha and row["only_condition"] > row["only_control"]:
        return "pass"
    return "fail" if row["excess_high"] < min_excess * row["traces"] / row["of"] else "undecided"


def pattern_linked(tests: Sequence[Row], alpha: float, min_link: float) -> Judgement:
    """Judge whether a latent is linked to a pattern: q below `alpha`, and a bootstrap interval above 0.

    In at least MIN_PATTERN_TRACES traces. It fails where, for every pattern in so many traces, the latent is active in
    as many of them, on MIN_TOKENS tokens, and the interval leaves no room for a mean activation that is higher inside
    than outside by `min_link` of that outside.
    """
    known = [row for row in tests if row["p"] is not None]
    if not known:
        notes = sorted({str(row["note"]) for row in tests if row["note"]})
        return Judgement("undecided", None, "; ".join(notes) or "no pattern")
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
        return Judgement("pass", best["q"], note)
    if aligned:
        return Judgement("undecided", best["q"], f"{note}; in {best['traces']} traces")
    if best["p"] < alpha:
        return Judgement("undecided", best["q"], f"{note}; not beyond what {best['family']} give by chance")
    # A pattern in fewer traces can't be linked to any latent; the others are, or aren't, or leave it open.
    able = [row for row in known if row["traces"] >= MIN_PATTERN_TRACES]
    if not able:
        return Judgement("undecided", best["q"], f"no pattern is in {MIN_PATTERN_TRACES} traces")
    rare = [
        row["pattern"] for row in able if row["active_traces"] < MIN_PATTERN_TRACES or row["active_tokens"] < MIN_TOKENS
    ]
    likely = [row["pattern"] for row in able if row["high"] >= min_link * row["mean_outside"]]
    if not rare and not likely:
        return Judgement("fail", best["q"], note)
    why = "too rarely active in traces with" if rare else "room is left for a link to"
    return Judgement("undecided", best["q"], f"{note}; {why} {', '.join(sorted(rare or likely))}")


def not_lexical(lexicality: Sequence[Row], most: float) -> Judgement:
    """Judge a latent by the share of its activation on its three top token types, below `most`; not on few tokens."""
    words: Row = lexicality[0] if lexicality else {"top_3": None, "tokens": 0}
    share, tokens = words["top_3"], words["tokens"]
    if share is None or tokens < MIN_TOKENS:
        return Judgement("undecided", share, f"active on {tokens} tokens only")
    note = f"{share:.0%} of its activation on {words['top_tokens']}"
    return Judgement("fail" if share >= most else "pass", share, note)


def not_length(controls: Sequence[Row], outcomes: Sequence[Row], alpha: float, most: float) -> Judgement:
    """Judge whether a latent merely follows the length of a trace.

    Where its mean or maximum tells correct from wrong traces (q below `alpha`): whether it does among traces of equal
    length; it fails where length surely explains a part and maybe all. Else how well a trace's length alone tells
    whether it is among the top there, at most `most` from either end.
    """
    about = controls[0]
    linked = [row for row in outcomes if row["outcome"] == "correct" and row["q"] is not None and row["q"] < alpha]
    if linked:
        row = min(linked, key=lambda row: row["q"])
        area, within = row["auroc"], row["within_length"]
        note = f"tells correct traces: AUROC {area:.2f} ({row['value']}), of length alone {row['length_auroc']:.2f}"
        if within is None:
            return Judgement("undecided", None, f"{note}; too few traces of equal length")
        note = f"{note}, {within:.2f} at equal length"
        if row["within_p"] < alpha and (within > 0.5) == (area > 0.5):
            return Judgement("pass", within, note)
        # Length has taken a part away for certain, and may have taken all.
        explained = not row["within_low"] <= area <= row["within_high"]
        return Judgement("fail" if explained else "undecided", within, note)
    area = about["length_auroc"]
    if area is None:
        traces, total = about["traces"], about["of"]
        if traces >= max(MIN_CLASS, MOST_TRACES * total):
            return Judgement("pass", None, f"in {traces} of {total} traces, long and short")
        return Judgement("undecided", None, f"{traces} of {total} traces; {MIN_CLASS} with and without it are needed")
    # Of short traces only is merely length, too.
    apart, surely = (area, about["length_low"]) if area >= 0.5 else (1 - area, 1 - about["length_high"])
    note = f"AUROC of a trace's length alone for its being among the top there: {area:.2f}"
    return Judgement("pass" if apart <= most else "fail" if surely > 0.5 else "undecided", area, note)


@dataclass(frozen=True)
class Check:
    """A check: what it asks, in words, and how it judges."""

    name: str
    """The verdict's column."""
    topic: str
    """What it is about, in a word."""
    asks: str
    """It passes if …"""
    fails: str
    """What a latent that fails it is."""
    number: str
    """What its number is, and what is asked of that; keys of the config's `analysis` in braces, for `format`."""
    table: str
    """Where its numbers are."""
    judge: Callable[[Known, Thresholds], Judgement]

    @property
    def label(self) -> str:
        """Its name, to be read."""
        return self.name.replace("_", " ")


CHECKS = (
    Check(
        name="not_a_sink",
        topic="sinks",
        asks="at most half of its activation is on sink tokens",
        fails="active on sink tokens",
        number="share on sinks, at most {max_sink_share}",
        table="controls",
        judge=lambda known, given: not_a_sink(known.controls, given.max_sink_share),
    ),
    Check(
        name="fits_its_site",
        topic="site",
        asks="its SAE explains what it reads there, and better than elsewhere",
        fails="SAE doesn't fit the site",
        number="FVU, at most {max_fvu}",
        table="fit",
        judge=lambda known, given: fits(known.fit, given.max_fvu),
    ),
    Check(
        name="recurs_beyond_control",
        topic="control",
        asks="it is among the top of more traces than under every other condition, on the same problems (exact McNemar"
        " test)",
        fails="hardly beyond a control",
        number="q, below {alpha}",
        table="controls",
        judge=lambda known, given: recurs(known.controls, given.alpha, given.min_excess),
    ),
    Check(
        name="pattern_linked",
        topic="pattern",
        asks="it is more active in the windows of a thinking pattern than outside: against circular shifts of the"
        " windows within segments, and in an interval over traces",
        fails="linked to no pattern",
        number="q, below {alpha}",
        table="pattern_tests",
        judge=lambda known, given: pattern_linked(known.pattern_tests, given.alpha, given.min_link),
    ),
    Check(
        name="not_merely_lexical",
        topic="tokens",
        asks="less than 80 % of its activation is on three token types",
        fails="a token detector",
        number="share on three types, below {max_top_3}",
        table="lexicality",
        judge=lambda known, given: not_lexical(known.lexicality, given.max_top_3),
    ),
    Check(
        name="not_merely_length",
        topic="length",
        asks="if it tells right from wrong answers, it does so among traces of equal length; else length doesn't tell"
        " where it is",
        fails="follows a trace's length",
        number="AUROC; of length alone, at most {max_length_auroc} from either end",
        table="outcomes",
        judge=lambda known, given: not_length(known.controls, known.outcomes, given.alpha, given.max_length_auroc),
    ),
)
"""In the order in which they take latents away; what comes first would make the later ones meaningless."""

BY_NAME = {check.name: check for check in CHECKS}
