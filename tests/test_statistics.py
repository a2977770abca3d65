"""Statistics against scipy's own one at a time, brute force, and published examples."""

import math

import numpy as np
import pytest
from scipy import stats

from thoughtscope import statistics

CHANCE = np.random.default_rng(0)


def test_wilson_is_the_formula():
    low, high = statistics.wilson(np.array([0, 3, 28, 32]), 32)
    z = stats.norm.ppf(0.975)
    for count, below, above in zip((0, 3, 28, 32), low, high, strict=True):
        p = count / 32
        middle, half = p + z * z / 64, z * math.sqrt(p * (1 - p) / 32 + z * z / (4 * 32 * 32))
        assert below == pytest.approx(max(0, (middle - half) / (1 + z * z / 32)), abs=1e-12)
        assert above == pytest.approx((middle + half) / (1 + z * z / 32))


def test_mcnemar_is_the_binomial_test():
    first, second = np.array([0, 5, 10, 3, 0]), np.array([0, 5, 1, 12, 6])
    for a, b, p in zip(first, second, statistics.mcnemar(first, second), strict=True):
        assert p == pytest.approx(stats.binomtest(int(a), int(a + b)).pvalue if a + b else 1.0)


def test_fdr_leaves_out_what_is_not_a_number():
    p = np.array([0.001, np.nan, 0.04, 0.03, 0.5])
    q = statistics.fdr(p)
    assert np.isnan(q[1])
    assert q[[0, 3, 2, 4]] == pytest.approx([0.004, 0.05333333, 0.05333333, 0.5])  # p m / rank, made monotone
    assert np.isnan(statistics.fdr(np.array([np.nan]))).all()


def test_a_mean_without_skewness_is_students():
    half = CHANCE.normal(0.3, 1, size=(10, 5))
    values = np.vstack([half, 2 * half.mean(axis=0) - half])  # mirrored at its mean: no skewness
    found = statistics.mean_over_traces(values)
    for column in range(5):
        test = stats.ttest_1samp(values[:, column], 0, alternative="greater")
        low, high = stats.ttest_1samp(values[:, column], 0).confidence_interval()
        assert found.p[column] == pytest.approx(max(test.pvalue, 0.5**20))  # of three factors of no skewness
        assert (found.low[column], found.high[column]) == pytest.approx((low, high))
    few = statistics.mean_over_traces(values[:4])
    assert np.isnan([*few.value, *few.low, *few.p]).all()
    same = statistics.mean_over_traces(np.array([[2.0, 0.0, -1.0]] * 6))
    assert same.p.tolist() == [0.5**6, 1.0, 1.0]
    assert same.low.tolist() == same.high.tolist() == [2.0, 0.0, -1.0]


def test_halls_transformation_and_back():
    t, a = CHANCE.normal(size=50), CHANCE.uniform(-0.6, 0.6, 50)
    a[0] = 0
    there = t + a * t**2 / 3 + a**2 * t**3 / 27 + a / 6
    back = [statistics._inverse_hall(value, np.array([skew]))[0] for value, skew in zip(there, a, strict=True)]
    assert back == pytest.approx(t)


def sparse_lognormal(sigma, share, traces, columns):
    """Values of latents active in a share of traces, and their true mean."""
    values = np.exp(CHANCE.normal(0, sigma, (traces, columns))) * (CHANCE.random((traces, columns)) < share)
    return values, share * math.exp(sigma**2 / 2)


@pytest.mark.parametrize(("sigma", "share"), [(0.8, 0.6), (0.8, 1.0), (1.0, 0.6), (1.0, 1.0)])
def test_intervals_hold_the_mean_of_sparse_lognormal_values(sigma, share):
    values, truth = sparse_lognormal(sigma, share, 16, 4000)
    found = statistics.mean_over_traces(values)
    held = ((found.low <= truth) & (truth <= found.high)).mean()
    assert held > 0.94
    student = stats.t.ppf(0.975, 15) * values.std(axis=0, ddof=1) / 4
    assert (np.abs(values.mean(axis=0) - truth) <= student).mean() < held  # what it is there for


def test_p_of_a_mean_is_rarely_small_where_it_is_0():
    for traces in (16, 100):
        values, truth = sparse_lognormal(1.0, 0.5, traces, 4000)
        for sign in (1, -1):
            below = (statistics.mean_over_traces(sign * (values - truth)).p < 0.05).mean()
            assert below < 0.05 + 3 * math.sqrt(0.05 * 0.95 / 4000)


def test_a_share_is_above_a_margin_where_its_mean_is():
    whole = CHANCE.exponential(size=(40, 3))
    part = whole * np.array([0.1, 0.3, 0.5]) * CHANCE.uniform(0.8, 1.2, size=(40, 3))
    found = statistics.share_over_traces(part, whole, 0.3)
    assert found.value == pytest.approx(part.sum(axis=0) / whole.sum(axis=0))
    assert found.low[2] > 0.3 > found.high[0]
    assert found.low[1] < found.value[1] < found.high[1]
    assert found.p[2] < 1e-4
    assert found.p[0] > 0.999
    # The ends are where the test of them leaves it open, the upper one but for one more trace.
    scale, reach = whole.mean(axis=0), found.high - found.low
    farthest = np.abs(part - found.value * whole).max(axis=0) / (40 * scale)
    below = statistics.mean_over_traces(part - found.low * whole).low
    above = statistics.mean_over_traces(part - (found.high - farthest) * whole).high
    assert (np.abs(below) < 0.05 * scale * reach).all()
    assert (np.abs(above) < 0.05 * scale * reach).all()


@pytest.mark.parametrize("traces", [16, 32])
def test_intervals_hold_a_share_of_sparse_lognormal_values(traces):
    whole, _ = sparse_lognormal(1.0, 0.6, traces, 4000)
    part = whole * CHANCE.beta(0.5, 1, size=whole.shape)
    found = statistics.share_over_traces(part, whole, 0.25)
    assert ((found.low <= 1 / 3) & (found.high >= 1 / 3)).mean() > 0.93


def test_evidence_stays_valid_however_often_one_looks():
    """Twenty looks at values without an effect: e reaches 20 in at most 5 % of studies, p falls below 0.05 in more."""
    studies, looks = 2000, range(20, 401, 20)
    values = CHANCE.normal(size=(400, studies))
    p = np.array([statistics.mean_over_traces(values[:look]).p for look in looks])
    e = np.array([statistics.e_values(row, look) for row, look in zip(p, looks, strict=True)])
    assert (e.max(axis=0) >= 20).mean() < 0.05
    assert (p.min(axis=0) < 0.05).mean() > 0.15
    assert e.mean(axis=1) == pytest.approx(1, abs=0.25)  # on average 1, where p is exact
    effect = values[:200] + 0.4
    assert np.median(statistics.e_values(statistics.mean_over_traces(effect).p, 200)) > 1000  # and grows where one is


def brute_auroc(values, positive):
    pairs = [(a > b) + 0.5 * (a == b) for a in values[positive] for b in values[~positive]]
    return np.mean(pairs)


def test_auroc_is_the_share_of_pairs_and_delongs_variance():
    values = CHANCE.integers(0, 6, size=(30, 4)).astype(float)
    positive = CHANCE.random(30) < 0.4
    found = statistics.auroc(values, positive)
    for column in range(4):
        x, y = values[positive, column], values[~positive, column]
        area = brute_auroc(values[:, column], positive)
        assert found.value[column] == pytest.approx(area)
        # DeLong's structural components, written out.
        v10 = [np.mean([(a > b) + 0.5 * (a == b) for b in y]) for a in x]
        v01 = [np.mean([(a > b) + 0.5 * (a == b) for a in x]) for b in y]
        half = 1.959964 * math.sqrt(np.var(v10, ddof=1) / len(x) + np.var(v01, ddof=1) / len(y))
        assert found.low[column] == pytest.approx(max(0, area - half), abs=1e-5)
        assert found.high[column] == pytest.approx(min(1, area + half), abs=1e-5)
        assert found.p[column] == pytest.approx(stats.mannwhitneyu(x, y, method="asymptotic").pvalue)
    constant = statistics.auroc(np.ones((30, 1)), positive)
    assert (constant.value[0], constant.p[0]) == (0.5, 1.0)


def test_stratified_auroc_counts_pairs_within_strata():
    strata = np.repeat([0, 1, 2], 12)
    positive = CHANCE.random(36) < 0.5
    # All that tells the classes apart is the stratum: none of it is left within.
    positive[strata == 0], positive[strata == 2] = np.arange(12) < 2, np.arange(12) < 10
    values = strata[:, None].astype(float)
    assert statistics.auroc(values, positive).value[0] > 0.7
    assert statistics.stratified_auroc(values, positive, strata, 2).value[0] == 0.5
    noisy = CHANCE.normal(size=(36, 1))
    found = statistics.stratified_auroc(noisy, positive, strata, 2)
    won = total = 0
    for stratum in range(3):
        inside = strata == stratum
        pairs = positive[inside].sum() * (~positive[inside]).sum()
        won += pairs * brute_auroc(noisy[inside, 0], positive[inside])
        total += pairs
    assert found.value[0] == pytest.approx(won / total)
    assert found.low[0] < found.value[0] < found.high[0]
    assert statistics.stratified_auroc(noisy, np.ones(36, dtype=bool), strata, 2) is None
    assert statistics.stratified_auroc(noisy, positive, strata, 99) is None
    # One stratum: the p is Mann-Whitney's without its correction for continuity, ties and all.
    tied = CHANCE.integers(0, 4, size=(30, 3)).astype(float)
    labels = CHANCE.random(30) < 0.4
    one = statistics.stratified_auroc(tied, labels, np.zeros(30), 2)
    for column in range(3):
        x, y = tied[labels, column], tied[~labels, column]
        expected = stats.mannwhitneyu(x, y, method="asymptotic", use_continuity=False).pvalue
        assert one.p[column] == pytest.approx(expected)


def test_classes_that_are_apart_still_have_an_interval():
    """DeLong's variance is 0 there; of 2 against 2 traces nothing is certain."""
    apart = np.array([[0.0], [1.0], [2.0], [3.0]])
    found = statistics.auroc(apart, np.array([False, False, True, True]))
    assert (found.value[0], found.high[0]) == (1.0, 1.0)
    assert 0.4 < found.low[0] < 0.8
    strata = np.repeat(np.arange(8), 4)
    many = statistics.stratified_auroc(np.tile(apart, (8, 1)), np.tile([False, False, True, True], 8), strata, 8)
    assert 0.8 < many.low[0] < 1
    assert 1e-8 < many.p[0] < 1e-3


def test_stratified_p_is_right_where_nothing_is():
    below = 0
    for seed in range(400):
        chance = np.random.default_rng(seed)
        strata, positive = np.repeat(np.arange(4), 8), chance.random(32) < 0.3
        found = statistics.stratified_auroc(chance.normal(size=(32, 1)), positive, strata, 2)
        below += found is not None and found.p[0] < 0.05
    assert 6 <= below <= 36


def test_matched_difference_is_agresti_and_mins():
    low, high = statistics.matched_difference(np.array([0, 9]), np.array([0, 1]), 16)
    assert low[0] == pytest.approx(-high[0])
    assert high[0] == pytest.approx(1.959964 / 18)
    d, n = (9.5 - 1.5) / 18, 18
    assert high[1] == pytest.approx(d + 1.959964 * math.sqrt(11 - 64 / n) / n)


def test_percentiles_leave_out_what_is_not_a_number():
    values = CHANCE.normal(size=(1000, 3))
    values[:500, 1], values[:, 2] = np.nan, np.nan
    low, high = statistics.percentiles(values)
    assert low[0] == pytest.approx(np.percentile(values[:, 0], 2.5))
    assert high[1] == pytest.approx(np.percentile(values[500:, 1], 97.5))
    assert np.isnan(low[2])
    assert statistics.resamples(7).sum(axis=1).tolist() == [7.0] * statistics.BOOTSTRAPS


def test_truncated_traces_are_a_stratum_of_their_own():
    from thoughtscope.evidence.outcomes import length_strata

    lengths = np.array([100.0] * 5 + [150.0, 160, 170, 180, 190] + [400.0] * 22)
    strata = length_strata(lengths)
    assert set(strata[lengths == 400]).isdisjoint(strata[lengths < 400])
    assert len(set(length_strata(np.full(9, 400.0)))) == 1
    assert len(set(length_strata(np.arange(30.0)))) >= 3
