"""Room 6, evidence: recurrence at equal length, how often a latent is present in as many tokens under each condition.

A longer trace has more tokens in which a latent can be active, and a rare one is in more long traces than short ones
for that alone. So presence is rarefied (Hurlbert 1971): the share of all stretches of l tokens of a trace in which the
latent is active on any, with the same l, at most the shorter trace's length, for both traces of a problem. Stretches
keep what is clustered together. Each latent has the l at which it is nearest to being in half of all stretches, of
both conditions together, where presence says most. Beside it stands its rate, the share of tokens it is active on.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from ..frames import Schema, complete, keys
from ..statistics import Floats, Mean, e_values, share_over_traces
from .windows import Activations, Integers, Layout, lay_out, testable

STEP = 4
"""Each stretch tried is so many times as long as the one before."""

MOST_PRESENT = 0.8
"""Share of stretches with a latent up to which these say how often it sets in."""

SCHEMA = Schema(
    "a testable latent (see `pattern_tests`) and control (without one, a latent; what compares is null); a problem is"
    " compared if tokens count under both conditions",
    **keys("latent"),
    condition=(pl.String, "the condition under study"),
    control=(pl.String, "the control"),
    problems=(pl.UInt32, "problems compared"),
    active_traces=(pl.UInt32, "traces of the condition in which it is active, of these"),
    tokens=(pl.UInt32, "l: tokens of a stretch, or the shorter trace's length where that is less"),
    presence=(pl.Float64, "share of stretches of l tokens with it, under the condition (stretches first, then traces)"),
    presence_control=(pl.Float64, "the same under the control"),
    excess=(pl.Float64, "share of its presence that is beyond the control's: 1 - presence_control / presence"),
    low=(pl.Float64, "95 % interval of the excess over problems (Hall 1992): lower end"),
    high=(pl.Float64, "95 % interval of the excess: upper end"),
    rate=(pl.Float64, "share of tokens it is active on, under the condition (tokens first, then traces)"),
    rate_control=(pl.Float64, "the same under the control"),
    rate_excess=(pl.Float64, "share of its rate that is beyond the control's: 1 - rate_control / rate"),
    rate_low=(pl.Float64, "95 % interval of that: lower end"),
    rate_high=(pl.Float64, "95 % interval of that: upper end"),
    p=(pl.Float64, "one-sided, of both excesses being `analysis.min_excess` or less: twice the smaller p of the two"),
    e=(pl.Float64, "evidence that stays valid as traces are added (see `e_values`): 20 is as sure as p = 0.05"),
)


def presence(
    activations: pl.LazyFrame,
    traces: pl.LazyFrame,
    *,
    conditions: Sequence[str],
    min_excess: float,
    include_sinks: bool,
) -> pl.DataFrame:
    """Compare in what share of equally long stretches each latent is active with each control, paired by problem."""
    layouts = [lay_out(activations, traces, condition, include_sinks) for condition in conditions]
    latents, frames = testable(layouts[0]), [pl.DataFrame(schema=SCHEMA)]
    if len(conditions) == 1:
        alone = pl.DataFrame({"latent": latents, "condition": conditions[0]}, schema_overrides={"latent": pl.UInt32})
        return complete(alone, SCHEMA)
    lengths = [dict(zip(layout.trace_ids.tolist(), layout.lengths.tolist(), strict=True)) for layout in layouts]
    for index, control in enumerate(conditions[1:], start=1):
        problems = sorted(key for key, length in lengths[0].items() if length and lengths[index].get(key))
        row: dict[str, Any] = {"latent": latents, "condition": conditions[0], "control": control}
        if not problems or not latents:
            # A control that wrote nothing is not beaten: its rows have no numbers.
            alone = pl.DataFrame(row | {"problems": 0}, schema_overrides={"latent": pl.UInt32})
            frames.append(complete(alone, SCHEMA))
            continue
        common = np.array([min(lengths[0][key], lengths[index][key]) for key in problems])
        ours, theirs = (Problems(layouts[which], problems, common) for which in (0, index))
        for part, other in zip(layouts[0].parts(latents, alike=layouts[index]),
                               layouts[index].parts(latents, alike=layouts[0]), strict=True):  # fmt: skip
            row |= {"latent": part.latents, "problems": len(problems)}
            row |= _compare(ours, part, theirs, other, min_excess)
            frames.append(complete(pl.DataFrame(row), SCHEMA))
    return pl.concat(frames).sort("latent", "control")


def ladder(common: Integers) -> list[int]:
    """Return the stretches tried, in tokens: 1, STEP, STEP² … and the longest of the problems' common lengths."""
    most = int(common.max())
    return [*(STEP**step for step in range(most.bit_length()) if STEP**step < most), most]


def _compare(
    ours: "Problems", part: Activations, theirs: "Problems", other: Activations, margin: float
) -> dict[str, Any]:
    """Return the columns of SCHEMA that are numbers."""
    gaps, other_gaps = ours.gaps(part), theirs.gaps(other)
    best = np.full(len(part.latents), np.inf)
    first, second = np.zeros((2, len(ours.common), len(part.latents)))
    tokens = np.zeros(len(part.latents))
    often, often_control = gaps.presence(1), other_gaps.presence(1)
    for stretch in ladder(ours.common):
        present, present_control = (
            (often, often_control) if stretch == 1 else (gaps.presence(stretch), other_gaps.presence(stretch))
        )
        off = np.abs((present.mean(axis=0) + present_control.mean(axis=0)) / 2 - 0.5)
        better = off < best
        best = np.where(better, off, best)
        tokens = np.where(better, stretch, tokens)
        first[:, better], second[:, better] = present[:, better], present_control[:, better]
    active, count = (often > 0).sum(axis=0), len(ours.common)
    counts = _bursts(gaps, often, often_control, ours, theirs)
    excess, of_rate = (
        counts.widen(share_over_traces(here - there, here, margin))
        for here, there in ((first, second), (often, often_control))
    )
    # No p is below that of the counts, nor below a sign test's of the traces that say anything.
    least = np.maximum(counts.p(margin), 0.5**active)
    tests = [np.maximum(test.p, least) for test in (excess, of_rate)]
    return {
        "active_traces": active, "tokens": tokens, "presence": first.mean(axis=0),
        "presence_control": second.mean(axis=0), "excess": excess.value, "low": excess.low, "high": excess.high,
        "rate": often.mean(axis=0), "rate_control": often_control.mean(axis=0), "rate_excess": of_rate.value,
        "rate_low": of_rate.low, "rate_high": of_rate.high,
        "p": np.maximum(np.minimum(1.0, 2 * np.minimum(excess.p, of_rate.p)), least),
        "e": np.mean([e_values(p, count) for p in tests], axis=0),
    }  # fmt: skip


class Bursts(NamedTuple):
    """How often a latent sets in under the control, and how often it would if it did as under the condition.

    A control in which a rare latent is hardly ever seen, in few and short traces, has no spread to tell how unsure that
    is. Counts have, as Poisson's.
    """

    seen: Floats
    """Bursts under the control, (latents,)."""
    alike: Floats
    """Bursts expected of as many tokens, if they came as often as under the condition."""

    def p(self, margin: float) -> Floats:
        """Return P(N <= seen), N of mean (1 - margin) alike."""
        from scipy import special

        return np.asarray(special.gammaincc(self.seen + 1, (1 - margin) * self.alike))

    def widen(self, found: Mean) -> Mean:
        """Return an excess with an interval no narrower than that of the counts (Garwood 1936)."""
        from scipy import special

        scale = np.maximum(self.alike, 1e-300)
        low = 1 - special.gammainccinv(self.seen + 1, 0.025) / scale
        high = 1 - special.gammainccinv(np.maximum(self.seen, 1e-9), 0.975) / scale
        return found._replace(low=np.minimum(found.low, low), high=np.maximum(found.high, high))


def _bursts(gaps: "Gaps", often: Floats, control: Floats, ours: "Problems", theirs: "Problems") -> Bursts:
    """Count bursts from rates (problems, latents) and from what presence in long stretches is under the condition.

    If bursts set in at random, λ a token, a stretch of l has one with 1 - exp(-λ l), so that presence gives λ, and the
    rate over λ the tokens of a burst. Of the longest stretches that say so, as long ones cut few bursts in two.
    """
    set_in = np.zeros(often.shape[1])
    for stretch in ladder(ours.lengths):
        present = gaps.presence(stretch, ours.lengths).mean(axis=0)
        says = (present < MOST_PRESENT) | (set_in == 0)
        length = np.minimum(stretch, ours.lengths).mean()
        set_in = np.where(says, -np.log1p(-np.clip(present, 1e-12, 0.99)) / length, set_in)
    size = np.maximum(often.mean(axis=0) / set_in, 1.0)
    seen, alike = (np.asarray(theirs.lengths @ rates / size) for rates in (control, often))
    return Bursts(seen, alike)


class Problems:
    """The traces of a condition on the problems compared, in that order."""

    def __init__(self, layout: Layout, problems: Sequence[int], common: Integers) -> None:
        self.common = common
        """Length of the shorter trace of each problem, in tokens."""
        self.layout = layout
        self.row = np.full(len(layout.trace_ids), -1)
        self.row[np.searchsorted(layout.trace_ids, problems)] = np.arange(len(problems))
        self.lengths = layout.lengths[self.row >= 0]

    def gaps(self, part: Activations) -> "Gaps":
        """Return the stretches without each latent: before, between and behind the tokens it is active on."""
        values = part.by_latent
        values.sort_indices()
        latent = np.repeat(np.arange(len(part.latents)), np.diff(values.indptr))
        trace = self.layout.trace[values.indices]
        kept = self.row[trace] >= 0
        latent, problem, place = (
            latent[kept],
            self.row[trace[kept]],
            values.indices[kept] - self.layout.starts[trace[kept]],
        )
        new = np.ones(len(latent), dtype=bool)
        new[1:] = (np.diff(latent) != 0) | (np.diff(problem) != 0)
        last = np.append(new[1:], True)[: len(latent)]
        before = np.where(new, place, place - np.roll(place, 1) - 1)
        behind = self.lengths[problem[last]] - place[last] - 1
        cell = problem * len(part.latents) + latent
        return Gaps(self, np.concatenate([cell, cell[last]]), np.concatenate([before, behind]), len(part.latents))


class Gaps:
    """Lengths of stretches without a latent, one a row."""

    def __init__(self, problems: Problems, cell: Integers, gap: Integers, latents: int) -> None:
        self.problems, self.cell, self.gap, self.latents = problems, cell, gap, latents
        self.absent = np.ones((len(problems.common), latents), dtype=bool)
        self.absent.ravel()[cell] = False

    def presence(self, tokens: int, most: Integers | None = None) -> Floats:
        """Return in which share of stretches of `tokens` each is, (problems, latents).

        Stretches are at most as long as `most` says for each problem, or the common length.
        """
        stretch = np.minimum(tokens, self.problems.common if most is None else most)
        without = np.maximum(self.gap - stretch[self.cell // self.latents] + 1, 0)
        empty = np.bincount(self.cell, weights=without, minlength=self.absent.size).reshape(self.absent.shape)
        present = 1 - empty / (self.problems.lengths - stretch + 1)[:, None]
        return np.where(self.absent, 0.0, present)
