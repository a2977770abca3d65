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


def matched_difference(only_first: NDArray, only_second: NDArray, pairs: int) -> tuple[Floats, Floats]:
    """Return the 95 % interval of the difference of two shares of the same pairs, from the discordant counts.

    Wald's with half a pair added to each cell of the table (Agresti and Min 2005).
    """
    from scipy import stats

    first, second, total = only_first + 0.5, only_second + 0.5, pairs + 2
    difference = (first - second) / total
    half = stats.norm.ppf(0.975) * np.sqrt(first + second - np.square(first - second) / total) / total
    return difference - half, difference + half


class Paired(NamedTuple):
    """A paired comparison, each (latents,)."""

    p: Floats
    """Two-sided Wilcoxon signed-rank p; 1 where no pair differs."""
    effect: Floats
    """Matched rank-biserial correlation (Kerby 2014): the rank sums' difference over their total, -1 to 1."""


def paired(differences: Floats) -> Paired:
    """Compare pairs by their differences, (pairs, latents): Wilcoxon signed-rank test (1945), zeros left out."""
    from scipy import stats

    count, latents = differences.shape
    if count == 0:
        return Paired(np.full(latents, np.nan), np.full(latents, np.nan))
    d = np.where(differences == 0, np.nan, differences)
    ranks = stats.rankdata(np.abs(d), axis=0, nan_policy="omit")
    total = np.nansum(ranks, axis=0)
    signed = np.nansum(np.sign(d) * ranks, axis=0)
    effect = np.divide(signed, total, out=np.zeros(latents), where=total > 0)
    p = np.ones(latents)
    differ = total > 0
    if differ.any():
        p[differ] = stats.wilcoxon(d[:, differ], axis=0, nan_policy="omit").pvalue
    return Paired(p, effect)


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
