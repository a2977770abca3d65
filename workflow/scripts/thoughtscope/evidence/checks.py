"""Room 6, evidence: the checks that a latent must pass to be called a thinking pattern.

A check is data: the verdict's columns, the waterfall, the pictures, the report and the table in README follow from
CHECKS. A check that asks for a share has one margin: it passes where the share's interval is on the right side of the
margin, fails where it is on the other, and is undecided where the margin is inside (Lakens et al. 2018); then it says
how many traces would decide it, if they went on like these. Two checks are asked only where the config has what they
rest on: twins, or interventions.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from ..statistics import MIN_CLASS, MIN_TOKENS, MIN_TRACES
from .links import LEADING, MIN_TOLD_APART, WINDOWS

if TYPE_CHECKING:
    import polars as pl

RESULTS = ("pass", "fail", "undecided")
VERDICTS = ("thinking pattern", "no", "undecided")

Row = Mapping[str, Any]
"""A row of a table."""


class Judgement(NamedTuple):
    """What a check says of a latent."""

    result: str
    """One of RESULTS."""
    number: float | None
    """The number behind it."""
    note: str
    needs: int | None = None
    """Traces that would decide it, if they went on like these; none where it is decided, or that can't be said."""


@dataclass(frozen=True)
class Known:
    """What the tables hold on one latent: its row in `candidates`, and those in others, of which there may be none."""

    about: Row
    fit: Sequence[Row]
    """Of its SAE, over all conditions: one a place where it was tried."""
    presence: Sequence[Row]
    """One a control."""
    pattern_tests: Sequence[Row]
    lexicality: Sequence[Row]
    headline: Sequence[Row]
    twins: Sequence[Row]
    """One a twin (see `twins.against_twins`)."""
    effects: Sequence[Row]
    """Of taking it away, at whatever pattern and window that was tried."""
    attribution: Sequence[Row]
    """Predictions of that, one a pattern and window."""


@dataclass(frozen=True)
class Thresholds:
    """The keys of the config's `analysis` that checks read."""

    alpha: float
    min_excess: float
    min_share: float
    max_fvu: float
    max_sink_share: float
    max_typed: float
    max_twins: float
    min_effect: float


class Interval(NamedTuple):
    """A share and its 95 % interval, from so many traces."""

    value: float
    low: float
    high: float
    traces: int

    def against(self, margin: float) -> tuple[str, int | None]:
        """Return whether it is `above` a margin, `below` or `open`, and the traces that would say if it is open.

        An interval narrows by the square root of the number of traces.
        """
        if self.low > margin:
            return "above", None
        if self.high < margin:
            return "below", None
        reach = self.value - self.low if self.value > margin else self.high - self.value
        return "open", more_traces(self.traces, reach, abs(self.value - margin))

    def judge(self, most: float, what: str) -> Judgement:
        """Judge a share of activation that is to be below `most`; what: on what it is."""
        side, needs = self.against(most)
        result = {"above": "fail", "below": "pass", "open": "undecided"}[side]
        return Judgement(result, self.value, f"{self} of its activation {what}", needs)

    def __str__(self) -> str:
        return f"{self.value:.0%} ({max(self.low, -9.99):.0%} to {min(self.high, 9.99):.0%})".replace("-", "−")


MOST_TRACES = 1_000_000
"""Traces beyond which it isn't said how many more would do."""


def more_traces(traces: int, reach: float, distance: float) -> int | None:
    """Return the traces at which what reaches `reach` now reaches `distance`; none where these would be too many."""
    if distance <= 0 or not math.isfinite(needed := traces * (reach / distance) ** 2) or needed > MOST_TRACES:
        return None
    return max(traces + 1, math.ceil(needed))


def not_a_sink(about: Row, most: float) -> Judgement:
    """Judge a latent by the share of its activation on sink tokens, at most `most`."""
    if about["sink_share"] is None:
        return Judgement("undecided", None, "active on no generated token")
    if about["sink_low"] is None:
        return Judgement("undecided", about["sink_share"], f"from fewer than {MIN_TRACES} traces")
    share = Interval(about["sink_share"], about["sink_low"], about["sink_high"], about["of"])
    if about["sink_traces"] < MIN_CLASS and share.value > most / 2:
        note = f"{share.value:.0%} of its activation is on sink tokens, of {about['sink_traces']} traces only"
        return Judgement("undecided", share.value, note)
    return share.judge(most, "is on sink tokens")


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


def recurs(presence: Sequence[Row], alpha: float, min_excess: float) -> Judgement:
    """Judge whether at least `min_excess` of a latent's presence, or of its rate, is beyond each control's.

    It passes where p, of both, is below `alpha`, and fails where the interval of neither leaves room for that.
    """
    if not presence:
        return Judgement("undecided", None, "too rarely active")
    if presence[0]["control"] is None:
        return Judgement("undecided", None, "no control condition")
    judged = [_beyond(row, alpha, min_excess) for row in presence]
    for result in ("fail", "undecided"):
        if open_ := [judgement for judgement in judged if judgement.result == result]:
            return max(open_, key=lambda judgement: judgement.needs or 0)
    return min(judged, key=lambda judgement: judgement.number or 0)


def _beyond(row: Row, alpha: float, min_excess: float) -> Judgement:
    """Judge a latent against a control."""
    if row["low"] is None:
        return Judgement("undecided", row["excess"], f"{row['problems']} problems; {MIN_TRACES} are needed")
    excess = Interval(row["excess"], row["low"], row["high"], row["problems"])
    of_rate = Interval(row["rate_excess"], row["rate_low"], row["rate_high"], row["problems"])
    if excess.low >= of_rate.low:
        best = excess
        what = (
            f"presence is beyond {row['control']}’s: in {row['presence']:.0%} of stretches of {row['tokens']} tokens,"
            f" against {row['presence_control']:.0%}"
        )
    else:
        best, rates = of_rate, (row["rate"], row["rate_control"])
        what = f"rate is beyond {row['control']}’s: {rates[0]:.2%} of tokens, against {rates[1]:.2%}"
    note = f"{best} of its {what}"
    if row["p"] < alpha:
        return Judgement("pass", best.value, note)
    if max(excess.high, of_rate.high) < min_excess:
        return Judgement("fail", best.value, note)
    return Judgement("undecided", best.value, note, best.against(min_excess)[1])


def pattern_linked(tests: Sequence[Row], alpha: float, min_share: float) -> Judgement:
    """Judge whether `min_share` of a latent's activation or more is beside a pattern's words, beyond tokens alike.

    It passes where p is below `alpha` for a window before or after them, the smallest p times the number of windows. It
    fails where the interval of none leaves room for that.
    """
    known = [row for row in tests if row["share"] is not None and row["low"] is not None]
    beside = [row for row in known if row["window"] != "at"]
    if not beside:
        return Judgement("undecided", None, _notes(tests) or "too rarely active, or no pattern is looked for")
    blocked = {id(row): _blocked(row) for row in beside}
    best = min(beside, key=lambda row: (bool(blocked[id(row)]), row["p"], -row["share"]))
    share = Interval(best["share"], best["low"], best["high"], best["traces"])
    note = f"{WINDOWS[best['window']]}, {best['pattern']}: {share} of its activation beyond tokens alike"
    if best["p"] * len(beside) < alpha:
        if why := blocked[id(best)]:
            return Judgement("undecided", share.value, f"{note}; {why}")
        return Judgement("pass", share.value, note)
    if untested := sorted(
        {row["pattern"] for row in tests if row["window"] != "at" and row["share"] is None and row["traces"]}
    ):
        return Judgement("undecided", share.value, f"{note}; {', '.join(untested)} can't be tested: {_notes(tests)}")
    room = [row for row in beside if row["high"] >= min_share]
    if room:
        needs = [Interval(row["share"], row["low"], row["high"], row["traces"]).against(min_share)[1] for row in room]
        known_needs = [number for number in needs if number is not None]
        # More of one window would do, where it is above; all others need it, where they are below.
        decided = min(known_needs) if share.value > min_share and known_needs else max(known_needs, default=None)
        return Judgement("undecided", share.value, note, decided)
    words = [row for row in known if row["window"] == "at" and row["low"] > min_share]
    if words:
        word = max(words, key=lambda row: row["share"])
        note = f"{WINDOWS['at']}, {word['pattern']}: {word['share']:.0%}; {note}"
    return Judgement("fail", share.value, note)


def _notes(tests: Sequence[Row]) -> str:
    return "; ".join(sorted({str(row["note"]) for row in tests if row["note"] and row["window"] != "at"}))


def _blocked(row: Row) -> str:
    """Say why a test can't make a link, or nothing; as `links.links` has it."""
    if row["rank"] is not None and row["rank"] < LEADING:
        return f"{1 - row['rank']:.0%} of all latents are as selective"
    if row["told_apart"] is not None and row["told_apart"] < MIN_TOLD_APART:
        return f"its place explains {1 - row['told_apart']:.0%} of the window, too much to tell place from state"
    return ""


def not_lexical(lexicality: Sequence[Row], most: float) -> Judgement:
    """Judge a latent by the share of its activation that token types alone give it, below `most`; not on few tokens."""
    words: Row = lexicality[0] if lexicality else {"typed": None, "tokens": 0}
    share, tokens = words["typed"], words["tokens"]
    if share is None and tokens >= MIN_TOKENS:
        return Judgement("undecided", None, "each token type it is on is of one trace only")
    if share is None or tokens < MIN_TOKENS:
        return Judgement("undecided", share, f"active on {tokens} tokens only")
    if words["low"] is None or words["traces"] < MIN_CLASS:
        return Judgement("undecided", share, f"active in {words['traces']} traces; {MIN_CLASS} are needed")
    interval = Interval(share, words["low"], words["high"], words["traces"])
    return interval.judge(most, f"is what its token types alone would give it, such as {words['top_tokens']}")


def beyond_chance(headline: Sequence[Row], alpha: float) -> Judgement:
    """Judge whether a latent's p of not being a thinking pattern stands out among all latents of all sites.

    It never fails: what could speak against a latent is in the other checks.
    """
    row = headline[0] if headline else None
    if row is None or row["q"] is None:
        return Judgement("undecided", None, "not tested for a link and a control")
    note = f"p {row['p']:.2g}, among {row['family']} latents q {row['q']:.2g}"
    if row["q"] < alpha:
        later = row["q_looking"]
        return Judgement("pass", row["q"], f"{note}; {_looking(later, alpha)}")
    return Judgement("undecided", row["q"], note, _until(row, alpha))


def _looking(q: float, alpha: float) -> str:
    return "also if one looked often" if q < alpha else f"q {min(q, 1):.2g} if one looked often"


def _until(row: Row, alpha: float) -> int | None:
    """Return the traces at which its p would stand out by itself, as z grows with their square root."""
    from scipy import stats

    if row["p"] >= 0.5:
        return None
    return more_traces(row["traces"], stats.norm.isf(alpha / row["family"]), stats.norm.isf(max(row["p"], 1e-300)))


def beyond_its_twins(twins: Sequence[Row], most: float) -> Judgement:
    """Judge whether each twin has at most `most` latents for each of the study's own with as much evidence.

    It passes where the interval of that ratio is below `most` for all twins, and fails where it is above for one.
    """
    known = [row for row in twins if row["own"] is not None]
    worst = max(known, key=lambda row: (row["low"] > most, row["high"] >= most, row["high"]), default=None)
    if worst is None or (len(known) < len(twins) and worst["low"] <= most):
        return Judgement("undecided", None, "it has no p, or no latent of the site passes what a twin is put to")
    note = (
        f"{worst['reader'].replace('_', ' ')}: {worst['twins']} latents with such evidence, here {worst['own']}: for"
        f" each {worst['ratio']:.2f} ({worst['low']:.2f} to {min(worst['high'], 99):.2f})"
    )
    result = "fail" if worst["low"] > most else "undecided" if worst["high"] >= most else "pass"
    return Judgement(result, worst["ratio"], note)


def acts_on_its_pattern(
    headline: Sequence[Row], effects: Sequence[Row], attribution: Sequence[Row], alpha: float, min_effect: float
) -> Judgement:
    """Judge whether the model uses a latent at the pattern it is linked to.

    It fails where the interval of what taking it away does there beyond its controls leaves no room for `min_effect`,
    or else passes where q is below `alpha`. Where it wasn't taken away it can only fail, by what gradients predict.
    """
    about = headline[0] if headline else None
    if about is None or about["pattern"] is None:
        return Judgement("undecided", None, "not tested for a link to a pattern")
    its = about["pattern"], about["window"]
    if done := next((row for row in effects if (row["pattern"], row["window"]) == its), None):
        return _of_ablation(done, alpha, min_effect)
    predicted = next((row for row in attribution if (row["pattern"], row["window"]) == its), None)
    if predicted is None or predicted["low"] is None:
        return Judgement("undecided", None, f"not taken away; {its[0]}, or it, is in too few traces to predict it")
    excess = Interval(predicted["predicted"], predicted["low"], predicted["high"], predicted["traces"])
    note = f"not taken away; predicted to take {_log_odds(excess)} from {its[0]}"
    if excess.high < min_effect:
        return Judgement("fail", excess.value, note)
    return Judgement("undecided", excess.value, note)


def _of_ablation(row: Row, alpha: float, min_effect: float) -> Judgement:
    """Judge a latent that was taken away at its pattern."""
    if row["q"] is None or row["low"] is None:
        return Judgement("undecided", row["effect"], str(row["note"] or "too few traces"))
    excess = Interval(row["excess"], row["low"], row["high"], row["traces"])
    note = f"taken away it takes {_log_odds(excess)} from {row['pattern']} beyond its controls, q {row['q']:.2g}"
    if row["strengths"]:
        dose, gain, low, high = (row[name][-1] for name in ("strengths", "added", "added_low", "added_high"))
        note += f"; {dose:g} times added elsewhere it gives {_log_odds(Interval(gain, low, high, row['traces']))}"
    if excess.high < min_effect:
        return Judgement("fail", excess.value, note)
    # How many traces would decide it isn't said: it is tried in interventions.traces of them, however many there are.
    return Judgement("pass" if row["q"] < alpha else "undecided", excess.value, note)


def _log_odds(of: Interval) -> str:
    return f"{of.value:.2g} log-odds ({of.low:.2g} to {of.high:.2g})".replace("-", "−").replace("log−odds", "log-odds")


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
    asked_by: str | None = None
    """The section of the config that it is asked by; None: always."""

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
        table="candidates",
        judge=lambda known, given: not_a_sink(known.about, given.max_sink_share),
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
        asks="a quarter of its presence, in stretches of equal length on the same problems, or of its rate, is beyond"
        " every other condition's",
        fails="hardly beyond a control",
        number="excess of its presence or rate, at least {min_excess}",
        table="presence",
        judge=lambda known, given: recurs(known.presence, given.alpha, given.min_excess),
    ),
    Check(
        name="pattern_linked",
        topic="pattern",
        asks="a twentieth of its activation is shortly before or after the words of a thinking pattern, beyond what the"
        " same tokens at like places have, the words themselves left out",
        fails="linked to no pattern",
        number="selectivity, at least {min_share}",
        table="pattern_tests",
        judge=lambda known, given: pattern_linked(known.pattern_tests, given.alpha, given.min_share),
    ),
    Check(
        name="not_merely_lexical",
        topic="tokens",
        asks="less than half of its activation is what the token's type alone would give it: it isn't on these tokens"
        " wherever they are",
        fails="a token detector",
        number="share that token types alone would give, below {max_typed}",
        table="lexicality",
        judge=lambda known, given: not_lexical(known.lexicality, given.max_typed),
    ),
    Check(
        name="beyond_chance",
        topic="chance",
        asks="its evidence on control and pattern stands out among all latents of all sites (one false discovery rate"
        " for the study)",
        fails="within chance",
        number="q, below {alpha}",
        table="headline",
        judge=lambda known, given: beyond_chance(known.headline, given.alpha),
    ),
    Check(
        name="beyond_its_twins",
        topic="twins",
        asks="each twin, which can't think or doesn't, has at most a quarter as many latents with as much evidence",
        fails="as frequent in a twin",
        number="a twin’s latents for each of the study’s, at most {max_twins}",
        table="twins",
        judge=lambda known, given: beyond_its_twins(known.twins, given.max_twins),
        asked_by="twins",
    ),
    Check(
        name="acts_on_its_pattern",
        topic="use",
        asks="without it the model makes less of its pattern, by more than controls do that change its states as much",
        fails="without effect on its pattern",
        number="log-odds it takes from its pattern beyond its controls, not below {min_effect} for sure",
        table="effects",
        judge=lambda known, given: acts_on_its_pattern(
            known.headline, known.effects, known.attribution, given.alpha, given.min_effect
        ),
        asked_by="interventions",
    ),
)
"""In the order in which they take latents away; what comes first would make the later ones meaningless."""

BY_NAME = {check.name: check for check in CHECKS}


def asked(verdict: "pl.DataFrame") -> tuple[Check, ...]:
    """Return the checks that latents of a verdict's table were put to."""
    return tuple(check for check in CHECKS if check.asked_by is None or verdict[check.name].count())
