"""Statistics, vectorised over latents: columns are latents, rows are traces; the trace is the unit of every test.

scipy.stats is imported where it is used: it takes longer than most tables do, and most need none of it.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

BOOTSTRAPS = 1000
"""Resamples of a bootstrap interval."""

MIN_CLASS = 8
"""Traces a class needs at least for an AUROC."""

MIN_TOKENS = 10
"""Tokens a latent must be active on before it says anything on which."""

MIN_TRACES = 5
"""Traces a mean over traces needs at least before it is tested: with fewer no p is below 0.05 (2^-4)."""

LESS_SKEWED, SKEWER = 0.5, 1.4
"""How much less and more skewed than its sample a population may well be.

Small samples of skewed values hardly show it, and a few large values make others look skewed."""


def wilson(successes: NDArray, trials: int) -> tuple[Floats, Floats]:
    """Return the 95 % Wilson interval (Wilson 1927) of each share successes / trials."""
    z = 1.959963984540054  # the standard normal quantile at 0.975
    share, scale = successes / trials, 2 * (trials + z**2)
    center = (2 * trials * share + z**2) / scale
    reach = z / scale * np.sqrt(4 * trials * share * (1 - share) + z**2)
    return np.where(successes == 0, 0.0, center - reach), np.where(successes == trials, 1.0, center + reach)


def mcnemar(only_first: NDArray, only_second: NDArray) -> Floats:
    """Return the exact two-sided McNemar p of each pair of discordant counts (McNemar 1947, binomial form)."""
    from scipy import stats

    fewer, both = np.minimum(only_first, only_second), only_first + only_second
    return np.minimum(1.0, 2 * stats.binom.cdf(fewer, both, 0.5))


def fdr(p: Floats) -> Floats:
    """Return Benjamini-Hochberg q values (Benjamini and Hochberg 1995); where p is not a number, q is neither."""
    from scipy import stats

    q = np.full(len(p), np.nan)
    known = np.isfinite(p)
    if known.any():
        q[known] = stats.false_discovery_control(p[known], method="bh")
    return q


def holm(p: Floats) -> Floats:
    """Return p values by Holm's (1979) step-down procedure, which holds the rate of any error at all."""
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)) if len(p) else p
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


def matched_difference(only_first: NDArray, only_second: NDArray, pairs: int) -> tuple[Floats, Floats]:
    """Return the 95 % interval of the difference of two shares of the same pairs, from the discordant counts.

    Wald's with half a pair added to each cell of the table (Agresti and Min 2005).
    """
    from scipy import stats

    first, second, total = only_first + 0.5, only_second + 0.5, pairs + 2
    difference = (first - second) / total
    half = stats.norm.ppf(0.975) * np.sqrt(first + second - np.square(first - second) / total) / total
    return difference - half, difference + half


class Mean(NamedTuple):
    """Means over traces, each (latents,); not a number below MIN_TRACES."""

    value: Floats
    low: Floats
    """95 % interval."""
    high: Floats
    p: Floats
    """One-sided, of the mean being 0 or less."""


def mean_over_traces(values: Floats) -> Mean:
    """Return the mean of each column of values (traces, latents), its interval and p.

    Student's t, with Hall's (1992) cubic transformation for what skewness does to it: with a = skewness / sqrt(n),
    g(t) = t + a t²/3 + a² t³/27 + a/6. As a sample's skewness (G1) says little of where it is from, LESS_SKEWED and
    SKEWER times it count, too, and for the interval none: the widest interval and the largest p are returned. No p is
    below 2^-n, what the sign test gives of n traces that are not 0.
    """
    mean = values.mean(axis=0) if len(values) else np.zeros(values.shape[1])
    centred = values - mean
    squares, cubes = np.einsum("ij,ij->j", centred, centred), np.einsum("ij,ij,ij->j", centred, centred, centred)
    # Rounding leaves a trace of variance where there is none.
    found = _student_hall(len(values), mean, squares, cubes, 1e-24 * len(values) * np.square(mean))
    return found._replace(p=np.maximum(found.p, 0.5 ** (values != 0).sum(axis=0)))


FLIPS = 20_000
"""Sign flips that a mean is tested against."""


def sign_flips(values: Floats, seed: int = 0) -> Floats:
    """Return the one-sided p of each column of values (traces, tests) having a mean of 0 or less.

    Were a value as likely as its negative, any signs of the traces' would give as large a mean (Fisher 1935): p is the
    share of FLIPS random ones, and the one seen, that do.
    """
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], size=(FLIPS, len(values)))
    seen, scale = values.sum(axis=0), np.abs(values).sum(axis=0)
    # Rounding must not make a tie an exceedance or the contrary.
    return (1 + (signs @ values >= seen - 1e-9 * scale).sum(axis=0)) / (1 + FLIPS)


def share_over_traces(part: Floats, whole: Floats, margin: float) -> Mean:
    """Return the share Σ part / Σ whole of each column of (traces, latents), its interval, and p of `margin` or less.

    The share is above a margin where the mean of part - margin · whole is above 0, which is tested as
    `mean_over_traces` does. Its interval has the margins that this leaves open (Fieller 1954): two steps towards each
    end, from an interval at the share itself.
    """
    count = len(part)
    if count < MIN_TRACES:
        return Mean(*(np.full(part.shape[1], np.nan) for _ in Mean._fields))
    means = part.mean(axis=0), whole.mean(axis=0)
    x, y = part - means[0], whole - means[1]
    xx, xy, yy = (np.einsum("ij,ij->j", *pair) for pair in ((x, x), (x, y), (y, y)))
    xxx, xxy, xyy, yyy = (np.einsum("ij,ij,ij->j", *three) for three in ((x, x, x), (x, x, y), (x, y, y), (y, y, y)))

    def at(share: Floats) -> Mean:
        """The mean of part - share · whole, whose moments follow from those of both."""
        squares = xx - 2 * share * xy + share**2 * yy
        cubes = xxx - 3 * share * xxy + 3 * share**2 * xyy - share**3 * yyy
        return _student_hall(count, means[0] - share * means[1], squares, cubes, 1e-12 * (xx + share**2 * yy))

    scale = np.maximum(means[1], 1e-300)
    tested, value = at(np.full(part.shape[1], margin)), means[0] / scale
    here = at(value)
    low, high = value + here.low / scale, value + here.high / scale
    for _ in range(2):
        low, high = low + at(low).low / scale, high + at(high).high / scale
    # A sample that lacks the large values of what it is from draws the upper end in: one more trace, as far off as the
    # farthest, is allowed for.
    high = high + np.abs(part - value * whole).max(axis=0) / (count * scale)
    least = 0.5 ** ((part != 0) | (whole != 0)).sum(axis=0)
    return Mean(value, low, high, np.maximum(tested.p, least))


def _student_hall(count: int, mean: Floats, squares: Floats, cubes: Floats, none: Floats) -> Mean:
    """Return what `mean_over_traces` does, from sums of squares (none up to `none`) and cubes around the mean."""
    from scipy import stats

    if count < MIN_TRACES:
        return Mean(*(np.full(len(mean), np.nan) for _ in Mean._fields))
    varies = squares > none
    squares = np.where(varies, squares, 1.0)
    scale = np.sqrt(squares / (count * (count - 1)))
    a = np.where(varies, cubes / count / (squares / count) ** 1.5, 0.0) * np.sqrt(count - 1) / (count - 2)
    t, quantile = mean / scale, stats.t.ppf(0.975, count - 1)
    low, high, p = mean - scale * quantile, mean + scale * quantile, np.zeros(len(mean))
    for factor in (LESS_SKEWED, 1.0, SKEWER):
        skewed = factor * a
        low = np.minimum(low, mean - scale * _inverse_hall(quantile, skewed))
        high = np.maximum(high, mean - scale * _inverse_hall(-quantile, skewed))
        p = np.maximum(p, stats.t.sf(t + skewed * t**2 / 3 + skewed**2 * t**3 / 27 + skewed / 6, count - 1))
    p = np.where(varies, p, np.where(mean > 0, 0.0, 1.0))
    return Mean(mean, np.where(varies, low, mean), np.where(varies, high, mean), p)


def _inverse_hall(value: float, a: Floats) -> Floats:
    """Return the t of which Hall's transformation is `value`."""
    small = np.abs(a) < 1e-8
    divisor = np.where(small, 1.0, a)
    return np.where(small, value, 3 / divisor * (np.cbrt(1 + divisor * (value - divisor / 6)) - 1))


LOOKS = 100.0
"""Traces at which `e_values` are the strongest; elsewhere they are nearly so."""


def e_values(p: Floats, traces: int) -> Floats:
    """Return the evidence, for each one-sided p of a mean over so many traces, that stays valid as traces are added.

    An e-value is on average at most 1 where there is no effect, however often and whenever one looks (Ramdas et al.
    2023), so that e >= 1/α is as sure as p < α. Robbins's (1970) one-sided normal mixture, applied to the z of p: with
    r = n / (n + LOOKS), E = 2 sqrt(1 - r) exp(r z² / 2) Φ(z sqrt(r)); valid as far as means are nearly normal
    (Waudby-Smith et al. 2024), which the z of `mean_over_traces` is made to be.
    """
    from scipy import stats

    ratio, z = traces / (traces + LOOKS), stats.norm.isf(np.clip(p, 1e-300, 1 - 1e-16))
    return 2 * np.sqrt(1 - ratio) * np.exp(np.minimum(ratio * z**2 / 2, 700)) * stats.norm.cdf(z * np.sqrt(ratio))


class Auroc(NamedTuple):
    """Areas under the ROC curve with 95 % intervals, each (latents,)."""

    value: Floats
    low: Floats
    high: Floats
    p: Floats
    """Two-sided Mann-Whitney p, asymptotic, corrected for ties; van Elteren's (1960) over strata."""


def auroc(values: Floats, positive: NDArray[np.bool_]) -> Auroc:
    """Return how well each column of values (traces, latents) tells positive traces from the others.

    The area is the share of (positive, negative) pairs in the right order, ties a half (Hanley and McNeil 1982); its
    interval is DeLong's (DeLong et al. 1988), cut to [0, 1], and never narrower than a share's of as many traces would
    be, as DeLong's is nothing where the classes are apart. Both classes must have members.
    """
    from scipy import stats

    area, variance = _delong(values, positive)
    half = stats.norm.ppf(0.975) * np.sqrt(variance)
    with np.errstate(divide="ignore", invalid="ignore"):
        p = stats.mannwhitneyu(values[positive], values[~positive], axis=0, method="asymptotic").pvalue
    return Auroc(area, np.clip(area - half, 0, 1), np.clip(area + half, 0, 1), np.nan_to_num(p, nan=1.0))


def stratified_auroc(values: Floats, positive: NDArray[np.bool_], strata: NDArray, least: int) -> Auroc | None:
    """Return the area over the pairs within the same stratum, which counts by its number of pairs.

    None where the strata that have both classes have fewer than `least` traces of either together.
    """
    from scipy import stats

    parts = [(strata == stratum) for stratum in np.unique(strata)]
    parts = [inside for inside in parts if 0 < positive[inside].sum() < inside.sum()]
    counts = np.array([[positive[inside].sum(), (~positive[inside]).sum()] for inside in parts], dtype=float)
    if not parts or counts.sum(axis=0).min() < least:
        return None
    pairs = counts.prod(axis=1)
    weights = pairs / pairs.sum()
    found = [_delong(values[inside], positive[inside]) for inside in parts]
    area = weights @ np.array([area for area, _ in found])
    half = stats.norm.ppf(0.975) * np.sqrt(np.square(weights) @ np.array([variance for _, variance in found]))
    # Under the null, a stratum's rank sum has variance n1 n0 (N + 1 - ties) / 12.
    null = np.array([_null_variance(values[inside], positive[inside]) for inside in parts])
    with np.errstate(divide="ignore", invalid="ignore"):
        p = 2 * stats.norm.sf(np.abs(area - 0.5) / np.sqrt(np.square(weights) @ null))
    return Auroc(area, np.clip(area - half, 0, 1), np.clip(area + half, 0, 1), np.nan_to_num(p, nan=1.0))


def _null_variance(values: Floats, positive: NDArray[np.bool_]) -> Floats:
    """Return the variance of the area where the classes don't differ, corrected for ties (Lehmann 1975)."""
    total, first, second = len(values), int(positive.sum()), int((~positive).sum())
    ties = np.array([(np.unique(column, return_counts=True)[1] ** 3.0).sum() for column in values.T])
    # Σ(t³ - t) over groups of equal values; Σt is the number of values.
    correction = (ties - total) / (total * (total - 1))
    return (total + 1 - correction) / (12 * first * second)


def _delong(values: Floats, positive: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Return area and DeLong variance of each column, from midranks (Sun and Xu 2014, algorithm 2).

    The variance is at least that of a share of as many traces, the share drawn a little to the middle.
    """
    from scipy import stats

    first, second = int(positive.sum()), int((~positive).sum())
    ranks = stats.rankdata(values, axis=0)
    of_positive = ranks[positive] - stats.rankdata(values[positive], axis=0)  # pairs each positive wins, ties a half
    of_negative = ranks[~positive] - stats.rankdata(values[~positive], axis=0)
    wins, losses = of_positive / second, of_negative / first
    variance = np.zeros(values.shape[1])
    if first > 1:
        variance += wins.var(axis=0, ddof=1) / first
    if second > 1:
        variance += losses.var(axis=0, ddof=1) / second
    area = wins.mean(axis=0)
    shrunk = (area * first * second + 0.5) / (first * second + 1)
    return area, np.maximum(variance, shrunk * (1 - shrunk) / (first + second))


def resamples(traces: int, seed: int = 0) -> Floats:
    """Return how often each trace is drawn in each bootstrap resample, (BOOTSTRAPS, traces)."""
    if traces == 0:
        return np.zeros((BOOTSTRAPS, 0))
    return np.random.default_rng(seed).multinomial(traces, np.full(traces, 1 / traces), BOOTSTRAPS).astype(float)


def percentiles(values: Floats) -> tuple[Floats, Floats]:
    """Return the 95 % percentile interval over the first axis, the resamples; those that aren't numbers left out."""
    known = np.isfinite(values).any(axis=0)
    low, high = np.full(values.shape[1:], np.nan), np.full(values.shape[1:], np.nan)
    if known.any():
        low[known], high[known] = np.nanpercentile(values[:, known], [2.5, 97.5], axis=0)
    return low, high
