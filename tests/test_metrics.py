"""Metrics, against scipy, against their definitions over all pairs, and against every way to break ties."""

import itertools
import math
import random
import time

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_nasbert import metrics
from hf_nasbert.metrics import (
    Redraws,
    bucketed_tau,
    cluster_interval,
    cluster_mean_interval,
    draw,
    kendall_tau,
    mean_bucketed_tau,
    pearson,
    precision_at_top,
    relative_improvement,
    size_buckets,
    sparse_kendall_tau,
    spearman,
    supernet_gap,
)

MEASURES = {
    "kendall_tau": kendall_tau,
    "spearman": spearman,
    "pearson": pearson,
    "sparse_kendall_tau": lambda a, b: sparse_kendall_tau(a, b, 0.1),
    "precision_at_top": lambda a, b: precision_at_top(a, b, 0.5),
    "best_rank_at": lambda a, b: metrics.best_rank_at(a, b, 1),
    "worst_rank_at": lambda a, b: metrics.worst_rank_at(a, b, 1),
    "relative_improvement": relative_improvement,
    "supernet_gap": supernet_gap,
    "bucketed_tau": lambda a, b: bucketed_tau(a, b, [1.0] * len(a)),
    "redraws": Redraws,
}

few_values = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=2, max_size=30)


def tau_by_definition(score, truth):
    concordant = discordant = untied_score = untied_truth = 0
    for (a, b), (c, d) in itertools.combinations(zip(score, truth, strict=True), 2):
        concordant += (a - c) * (b - d) > 0
        discordant += (a - c) * (b - d) < 0
        untied_score += a != c
        untied_truth += b != d
    if not untied_score or not untied_truth:
        return math.nan
    return (concordant - discordant) / math.sqrt(untied_score * untied_truth)


def all_orders(score):
    """The children, best first, in every order that respects the score."""
    groups = [[i for i, value in enumerate(score) if value == level] for level in sorted(set(score))]
    for parts in itertools.product(*(itertools.permutations(group) for group in groups)):
        yield [child for part in parts for child in part]


@given(few_values)
@settings(max_examples=60, deadline=None)
def test_correlations_equal_scipy_and_the_definition_with_ties(pairs):
    score, truth = (list(side) for side in zip(*pairs, strict=True))
    if len(set(score)) == 1 or len(set(truth)) == 1:
        assert all(math.isnan(measure(score, truth)) for measure in (kendall_tau, spearman, pearson))
        return
    assert kendall_tau(score, truth) == pytest.approx(tau_by_definition(score, truth), abs=1e-12)
    assert kendall_tau(score, truth) == pytest.approx(scipy.stats.kendalltau(score, truth).statistic, abs=1e-12)
    assert spearman(score, truth) == pytest.approx(scipy.stats.spearmanr(score, truth).statistic, abs=1e-12)
    assert pearson(score, truth) == pytest.approx(scipy.stats.pearsonr(score, truth).statistic, abs=1e-12)


def by_definition(score, truth, counts, measure):
    """A measure of every redraw, one by one."""
    redrawn = [np.repeat(np.arange(len(score)), column.astype(int)) for column in counts.T]
    return [measure(score[drawn], truth[drawn], drawn) for drawn in redrawn]


@given(few_values, st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_many_redraws_at_once_are_what_each_is_alone(pairs, seed):
    score, truth = np.array(pairs, dtype=float).T
    truth += 1.0
    counts = draw(len(score), 5, seed)
    assert counts[:, 0].tolist() == [1] * len(score)
    assert (counts.sum(axis=0) == len(score)).all()
    buckets = np.random.default_rng(seed).integers(3, size=len(score))
    redraws = Redraws(score, truth, counts)
    k = min(3, len(score))

    def one_by_one(name, *settings):
        return by_definition(score, truth, counts, lambda a, b, _: getattr(metrics, name)(a, b, *settings))

    for pairs_at_a_time in (1 << 22, 3 * len(score)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("hf_nasbert.metrics.redraws._PAIRS", pairs_at_a_time)
            taus, within = redraws.kendall_tau(), redraws.mean_bucketed_tau(buckets)
        np.testing.assert_array_equal(taus, one_by_one("kendall_tau"))
        expected = by_definition(score, truth, counts, lambda a, b, drawn: mean_bucketed_tau(a, b, buckets[drawn]))
        np.testing.assert_allclose(within, expected, rtol=1e-14)
    np.testing.assert_array_equal(redraws.sparse_kendall_tau(2.0), one_by_one("sparse_kendall_tau", 2.0))
    for name, *options in (
        ("pearson",), ("spearman",), ("precision_at_top", 0.3), ("best_rank_at", k), ("worst_rank_at", k),
        ("relative_improvement",), ("supernet_gap",),
    ):  # fmt: skip
        found = getattr(redraws, name)(*options)
        np.testing.assert_allclose(found, one_by_one(name, *options), rtol=1e-9, atol=1e-12, err_msg=name)


def test_redraws_of_very_many_children_are_sorted_one_by_one(monkeypatch):
    """A table of all pairs grows with the square of the children, sorting hardly more than with their number."""
    rng = np.random.default_rng(0)
    score = rng.normal(size=300)
    truth = np.round(score + rng.normal(size=300), 1)
    counts = draw(300, 5, seed=0)
    expected = Redraws(score, truth, counts).kendall_tau()
    monkeypatch.setattr("hf_nasbert.metrics.redraws._MANY", 200)
    monkeypatch.setattr("hf_nasbert.metrics.redraws._PAIRS", None)  # no table is made
    np.testing.assert_array_equal(Redraws(score, truth, counts).kendall_tau(), expected)


def test_more_than_a_thousand_redrawn_children_are_sorted(monkeypatch):
    monkeypatch.setattr("hf_nasbert.metrics.redraws._PAIRS", None)  # no table is made
    values = np.random.default_rng(0).normal(size=1001)
    np.testing.assert_allclose(Redraws(values, values, draw(1001, 2, seed=0)).kendall_tau(), 1, rtol=1e-12)


def test_ten_thousand_children_are_compared_in_no_time():
    rng = np.random.default_rng(0)
    score = rng.normal(size=10_000)
    kendall_tau(score[:9], score[:9])
    start = time.process_time()
    assert 0.3 < kendall_tau(score, score + rng.normal(size=10_000)) < 0.7
    assert time.process_time() - start < 0.25  # a table of all pairs took a second and more


def test_redraws_of_other_children_are_refused():
    with pytest.raises(ValueError, match=r"counts must be \(3 children, redraws\), but have the shape \(2, 4\)"):
        Redraws([1, 2, 3], [1, 2, 3], np.ones((2, 4)))
    with pytest.raises(ValueError, match=r"but have the shape \(3,\)"):
        Redraws([1, 2, 3], [1, 2, 3], np.ones(3))
    for bad in (-1, np.nan):
        with pytest.raises(ValueError, match="counts must say how often"):
            Redraws([1, 2, 3], [1, 2, 3], [[1], [bad], [3]])


def test_perfect_and_reversed_rankings():
    truth = [3.0, 1.0, 2.0, 2.0]
    assert kendall_tau(truth, truth) == spearman(truth, truth) == pearson(truth, truth) == 1.0
    assert kendall_tau(truth, [-value for value in truth]) == -1.0


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_pearson_of_tiny_and_huge_numbers(scale):
    assert pearson([1 * scale, 2 * scale, 4 * scale], [1, 2, 3]) == pytest.approx(pearson([1, 2, 4], [1, 2, 3]))


def test_sparse_tau_forgives_differences_below_the_resolution():
    truth = [1.00, 1.05, 2.00, 2.05]
    score = [2, 1, 4, 3]  # wrong only inside the noise
    assert kendall_tau(score, truth) < sparse_kendall_tau(score, truth, 0.5)
    assert sparse_kendall_tau(score, truth, 0.5) == pytest.approx(tau_by_definition(score, [2, 2, 4, 4]))
    assert math.isnan(sparse_kendall_tau(score, truth, 100.0))
    for resolution in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="resolution"):
            sparse_kendall_tau(score, truth, resolution)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=2, max_size=6), st.data())
@settings(max_examples=60, deadline=None)
def test_measures_of_the_top_are_means_over_all_ways_to_break_ties(pairs, data):
    score, truth = (list(side) for side in zip(*pairs, strict=True))
    k = data.draw(st.integers(1, len(score)))
    rank = [1 + sum(other < mine for other in truth) for mine in truth]
    tops = [order[:k] for order in all_orders(score)]
    true_tops = [order[:k] for order in all_orders(truth)]
    best = np.mean([min(rank[child] for child in top) for top in tops])
    worst = np.mean([max(rank[child] for child in top) for top in tops])
    overlap = np.mean([len({*a} & {*b}) / k for a in tops for b in true_tops])
    assert metrics.best_rank_at(score, truth, k) == pytest.approx(best)
    assert metrics.worst_rank_at(score, truth, k) == pytest.approx(worst)
    assert precision_at_top(score, truth, k / len(score)) == pytest.approx(overlap)


def test_measures_of_the_top_by_hand():
    truth = [10, 20, 30, 40, 50, 60, 70, 80, 90, 100]
    score = [3, 1, 2, 4, 5, 6, 7, 8, 10, 9]
    assert precision_at_top(score, truth, 0.1) == 0.0
    assert precision_at_top(score, truth, 0.2) == 0.5
    assert precision_at_top(score, truth, 0.3) == 1.0
    assert [metrics.best_rank_at(score, truth, k) for k in (1, 2, 3)] == [2, 2, 1]
    assert [metrics.worst_rank_at(score, truth, k) for k in (1, 2, 9)] == [2, 3, 10]
    assert relative_improvement(score, truth) == pytest.approx(100 * (55 - 20) / 55)
    assert supernet_gap([1.5, 2.0], [1.0, 1.5]) == pytest.approx(0.5)


def test_relative_improvement_is_the_mean_over_tied_picks_and_needs_losses():
    assert relative_improvement([1, 1, 2], [1.0, 3.0, 8.0]) == pytest.approx(50.0)
    with pytest.raises(ValueError, match="positive"):
        relative_improvement([1, 2], [-1.0, -2.0])


@pytest.mark.parametrize("name", sorted(MEASURES.keys() - {"bucketed_tau", "redraws"}))
def test_the_order_of_children_never_matters(name):
    rng = random.Random(0)
    pairs = [(rng.randrange(1, 9), rng.randrange(1, 5)) for _ in range(40)]
    measured = MEASURES[name](*zip(*pairs, strict=True))
    for _ in range(5):
        rng.shuffle(pairs)
        assert MEASURES[name](*zip(*pairs, strict=True)) == pytest.approx(measured)


def test_agreement_by_size_alone_vanishes_within_buckets():
    rng = np.random.default_rng(0)
    sizes = np.repeat([1.0, 2.0, 3.0, 4.0], 100)
    truth = -10 * sizes + rng.normal(size=400)
    score = -10 * sizes + rng.normal(size=400)
    assert kendall_tau(score, truth) > 0.7
    buckets = bucketed_tau(score, truth, sizes)
    assert [(b.smallest, b.largest, b.num_children) for b in buckets] == [(s, s, 100) for s in (1.0, 2.0, 3.0, 4.0)]
    for bucket in buckets:
        inside = sizes == bucket.smallest
        assert bucket.tau == kendall_tau(score[inside], truth[inside])
    assert abs(mean_bucketed_tau(score, truth, size_buckets(sizes))) < 0.1
    assert mean_bucketed_tau(truth, truth, size_buckets(sizes)) == 1.0


def test_buckets_cover_every_child_and_never_part_equal_sizes():
    rng = np.random.default_rng(1)
    sizes = rng.integers(0, 6, size=50).astype(float)
    buckets = bucketed_tau(rng.normal(size=50), rng.normal(size=50), sizes, num_buckets=4)
    assert sum(bucket.num_children for bucket in buckets) == 50
    assert all(a.largest < b.smallest for a, b in itertools.pairwise(buckets))
    spread = bucketed_tau(rng.normal(size=40), rng.normal(size=40), np.arange(40), num_buckets=4)
    assert [bucket.num_children for bucket in spread] == [10] * 4


def test_the_mean_over_buckets_weighs_pairs_and_skips_those_without_a_tau():
    score, truth, sizes = [1, 2, 1, 2, 3, 9], [1, 2, 3, 2, 1, 0], [1, 1, 2, 2, 2, 3]
    assert [b.tau for b in bucketed_tau(score, truth, sizes, 6)[:2]] == [1.0, -1.0]
    assert math.isnan(bucketed_tau(score, truth, sizes, 6)[2].tau)
    assert mean_bucketed_tau(score, truth, size_buckets(sizes, 6)) == pytest.approx((1 * 1 + 3 * -1) / 4)
    assert math.isnan(mean_bucketed_tau([1, 2], [1, 1], [1, 1]))
    with pytest.raises(ValueError, match="num_buckets"):
        bucketed_tau(score, truth, sizes, 0)


def test_the_share_at_the_top_is_rounded_to_the_nearest_number_of_children():
    truth = np.arange(79.0)
    score = truth.copy()
    score[[7, 20]] = score[[20, 7]]  # the eighth best changes places: a tenth of 79 are 8, not 7
    assert precision_at_top(score, truth, 0.1) == pytest.approx(7 / 8)


def test_a_redraw_of_children_leaves_them_in_their_buckets():
    """Cut anew on a redraw, buckets would be others: of sizes that are few, whole classes would change sides."""
    sizes = np.array([1.0] * 4 + [2.0] * 4 + [3.0] * 4)
    buckets = size_buckets(sizes, 3)
    drawn = np.array([0, 1, 2, 3, 3, 3, 3, 3, 4, 5, 8, 9])
    assert size_buckets(sizes[drawn], 3).tolist() != buckets[drawn].tolist()
    score, truth = np.arange(12.0), np.array([0, 1, 2, 3, 9, 8, 7, 6, 20, 21, 22, 23.0])
    expected = [
        kendall_tau(score[drawn][part], truth[drawn][part]) for part in (slice(8), slice(8, 10), slice(10, 12))
    ]
    assert mean_bucketed_tau(score[drawn], truth[drawn], buckets[drawn]) == pytest.approx(
        (28 * expected[0] + expected[1] + expected[2]) / 30
    )


def interval_of_rows(score, truth, seed=0, **settings):
    """A bootstrap over rows, each a cluster of its own."""
    return cluster_interval(Redraws.spearman, np.arange(len(score)), score, truth, seed=seed, **settings)


def test_a_bootstrap_over_rows_is_scipys():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=20), rng.normal(size=20)
    expected = scipy.stats.bootstrap(
        (a, b), spearman, paired=True, vectorized=False, n_resamples=200, confidence_level=0.9, method="percentile",
        rng=np.random.default_rng(3),
    ).confidence_interval  # fmt: skip
    found = interval_of_rows(a, b, num_resamples=200, seed=3)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=1e-9)


def test_bootstrap_covers_the_truth_as_often_as_it_says():
    covered = 0
    for seed in range(200):
        sample = np.random.default_rng(seed).normal(size=40)
        interval = cluster_mean_interval(np.arange(40), sample, num_resamples=200, confidence=0.9, seed=seed)
        assert interval.low < interval.estimate < interval.high
        covered += interval.low <= 0.0 <= interval.high
    assert 0.82 < covered / 200 < 0.95


def test_bootstrap_keeps_pairs_together_and_a_shuffled_proxy_covers_zero():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=60)
    assert interval_of_rows(truth, truth, num_resamples=50) == pytest.approx((1.0, 1.0, 1.0))
    good = interval_of_rows(truth + rng.normal(size=60), truth)
    assert 0 < good.low < good.estimate < good.high < 1
    bad = interval_of_rows(rng.permutation(truth), truth)
    assert bad.low < 0 < bad.high


def test_bootstrap_depends_on_its_seed_alone_and_widens_with_confidence():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=20), rng.normal(size=20)
    state = np.random.get_state()[1].tolist()
    first = interval_of_rows(a, b, num_resamples=100, seed=3)
    assert first == interval_of_rows(a, b, num_resamples=100, seed=3)
    assert first != interval_of_rows(a, b, num_resamples=100, seed=4)
    assert np.random.get_state()[1].tolist() == state
    wide = interval_of_rows(a, b, num_resamples=100, confidence=0.99, seed=3)
    assert wide.low < first.low < first.high < wide.high


def test_bootstrap_leaves_out_redraws_without_a_value():
    interval = interval_of_rows([1, 2], [1, 2])  # half of all redraws are constant
    assert interval == pytest.approx((1.0, 1.0, 1.0))
    assert math.isnan(interval_of_rows([1, 1], [1, 2], num_resamples=20).low)


@pytest.mark.parametrize("name", MEASURES)
def test_bad_input_is_refused_by_name(name):
    measure = MEASURES[name]
    with pytest.raises(ValueError, match=r"truth\[1\] is nan"):
        measure([1.0, 2.0], [1.0, math.nan])
    with pytest.raises(ValueError, match=r"score\[0\] is inf"):
        measure([math.inf, 2.0], [1.0, 2.0])
    with pytest.raises(ValueError, match="lengths differ"):
        measure([1.0, 2.0, 3.0], [1.0, 2.0])
    with pytest.raises(ValueError, match="at least 2 children"):
        measure([1.0], [1.0])
    with pytest.raises(ValueError, match="shape"):
        measure([[1.0, 2.0]], [[1.0, 2.0]])


def test_bad_options_are_refused_by_name():
    a = [1.0, 2.0, 3.0]
    for call, word in [
        (lambda: precision_at_top(a, a, 0.0), "fraction"),
        (lambda: precision_at_top(a, a, 1.5), "fraction"),
        (lambda: metrics.best_rank_at(a, a, 0), "k must"),
        (lambda: metrics.worst_rank_at(a, a, 4), "k must"),
        (lambda: draw(3, 0, seed=0), "num_resamples"),
        (lambda: interval_of_rows(a, a, confidence=1.0), "confidence"),
        (lambda: metrics.paired_difference(a, confidence=0), "confidence"),
    ]:
        with pytest.raises(ValueError, match=word):
            call()


class TestPairedDifference:
    @pytest.mark.parametrize("num", [2, 5, 9])
    def test_is_scipys(self, num):
        values = np.random.default_rng(num).normal(0.3, 1, num)
        found = metrics.paired_difference(values)
        expected = scipy.stats.ttest_1samp(values, 0).confidence_interval(0.9)
        assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=1e-9)
        flipped = scipy.stats.permutation_test(
            (values,), np.mean, permutation_type="samples", alternative="two-sided", n_resamples=np.inf
        )
        assert found.p_value == pytest.approx(flipped.pvalue, rel=1e-9)

    def test_the_least_p_value_is_two_of_all_flips(self):
        assert metrics.paired_difference([0.1, 0.2, 0.3, 0.1, 0.2]).p_value == 2 / 2**5
        assert metrics.paired_difference([0.1, -0.1]).p_value == 1
        # Summed in another order, their mean differs in its last bit.
        assert metrics.paired_difference([0.27, 0.19, 0.22, 0.17, 0.28]).p_value == 2 / 2**5

    def test_of_many_differences_signs_are_flipped_at_random(self, monkeypatch):
        monkeypatch.setattr("hf_nasbert.metrics.intervals._NUM_FLIPS", 10_000)
        values = np.random.default_rng(0).normal(0.3, 1, size=25)
        many = metrics.paired_difference(values)
        assert many == metrics.paired_difference(values)
        expected = scipy.stats.permutation_test(
            (values,), np.mean, permutation_type="samples", alternative="two-sided", n_resamples=10_000,
            rng=np.random.default_rng(1),
        )  # fmt: skip
        assert 0.02 < expected.pvalue < 0.98
        assert many.p_value == pytest.approx(expected.pvalue, abs=0.015)
        assert 0 < metrics.paired_difference([1.0] * 30).p_value < 1e-3

    @pytest.mark.parametrize("values", [[], [0.1], [0.1, math.nan]])
    def test_refuses_what_it_cannot_test(self, values):
        with pytest.raises(ValueError, match=r"at least 2|nan"):
            metrics.paired_difference(values)


class TestClusters:
    rng = np.random.default_rng(0)
    clusters = np.repeat(np.arange(12), rng.integers(1, 9, size=12))
    values = rng.normal(size=12)[clusters] + 0.01 * rng.normal(size=len(clusters))

    def test_neither_the_clusters_numbers_nor_the_order_of_rows_matter(self):
        order = np.random.default_rng(1).permutation(len(self.values))
        shuffled = cluster_mean_interval(self.clusters[order] * 7 - 3, self.values[order], seed=0)
        assert shuffled == pytest.approx(cluster_mean_interval(self.clusters, self.values, seed=0))

    def test_rows_of_one_cluster_are_redrawn_together(self):
        by_cluster = cluster_mean_interval(self.clusters, self.values, seed=0)
        by_row = cluster_mean_interval(np.arange(len(self.values)), self.values, seed=0)
        assert by_cluster.estimate == by_row.estimate == self.values.mean()
        assert by_cluster.high - by_cluster.low > 1.5 * (by_row.high - by_row.low)
        # Every row five times is no new evidence.
        again = cluster_mean_interval(np.tile(self.clusters, 5), np.tile(self.values, 5), seed=0)
        assert again == pytest.approx(by_cluster)

    def test_any_measure_is_that_of_the_rows_of_the_clusters_drawn(self, monkeypatch):
        monkeypatch.setattr("hf_nasbert.metrics.intervals._NUM_AT_ONCE", 30)
        truth = np.random.default_rng(1).normal(size=len(self.values)) + self.values
        chosen = np.random.default_rng(7).integers(12, size=(100, 12))
        rows = [np.concatenate([np.flatnonzero(self.clusters == cluster) for cluster in drawn]) for drawn in chosen]
        expected = np.quantile([spearman(self.values[some], truth[some]) for some in rows], [0.05, 0.95])
        found = cluster_interval(Redraws.spearman, self.clusters, self.values, truth, num_resamples=100, seed=7)
        assert found == pytest.approx((spearman(self.values, truth), *expected))

    @pytest.mark.parametrize(
        "interval", [lambda c, v, **s: cluster_interval(Redraws.supernet_gap, c, v, np.zeros(len(v)), **s),
                     cluster_mean_interval],
    )  # fmt: skip
    def test_one_cluster_says_nothing_of_others(self, interval):
        found = interval([4, 4, 4], [1.0, 2.0, 3.0], seed=0)
        assert found.estimate == 2
        assert np.isnan([found.low, found.high]).all()
        with pytest.raises(ValueError, match="lengths differ"):
            interval([0, 1], [1.0, 2.0, 3.0], seed=0)
        with pytest.raises(ValueError, match="num_resamples"):
            interval([0, 1], [1.0, 2.0], seed=0, num_resamples=0)


def test_bounds_that_differ_in_their_last_bits_only_are_one_number():
    """Another processor adds in another order: what is printed of an interval must not depend on it."""
    exact, below = (metrics.percentile_interval(0.0, [bound] * 5) for bound in (25.05, np.nextafter(25.05, 0)))
    assert exact == below
    assert f"{below.high:.1f}" == "25.1"
    assert metrics.percentile_interval(0.0, [25.0499999]).high < 25.05  # a real difference stays one


def test_calibration_error_by_hand():
    """Four examples in two bins: three of confidence 0.8, of which one is right, and a sure one that is."""
    logits = np.log([[0.8, 0.2], [0.8, 0.2], [0.2, 0.8], [1e-9, 1.0]])
    found = metrics.calibration_error(logits, [0, 1, 0, 1], num_bins=10)
    assert found == pytest.approx((3 * abs(1 / 3 - 0.8) + 0) / 4, abs=1e-6)
    assert metrics.calibration_error(np.zeros((0, 2)), []) != metrics.calibration_error(logits, [0, 1, 0, 1])
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(20_000, 3))
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = (rng.random((20_000, 1)) > shares.cumsum(axis=1)).sum(axis=1)
    assert metrics.calibration_error(logits, labels) < 0.02 < metrics.calibration_error(3 * logits, labels)
