"""Intervals against scipy's bootstrap and permutation test, and against what they promise."""

import numpy as np
import pytest
from scipy import stats

from twinreel.base.errors import UserError
from twinreel.evaluate.measures.intervals import bootstrap, over_seeds, paired_test


def test_the_interval_of_a_mean_is_scipy_s():
    values = np.random.default_rng(1).exponential(size=80)
    found = bootstrap(values, samples=4000)
    other = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=4000, rng=0).confidence_interval
    assert (found["low"], found["high"]) == pytest.approx(tuple(other), abs=0.02)
    assert found["value"] == pytest.approx(values.mean())


def test_intervals_hold_the_truth_as_often_as_promised():
    rng = np.random.default_rng(2)
    inside = 0
    for trial in range(200):
        found = bootstrap((rng.random(60) < 0.4).astype(float), samples=200, seed=trial)
        inside += found["low"] <= 0.4 <= found["high"]
    assert 0.9 <= inside / 200 <= 0.99


def test_clusters_widen_the_interval_of_dependent_queries():
    values = np.repeat(np.random.default_rng(3).random(30), 20)
    alone, together = bootstrap(values), bootstrap(values, clusters=np.repeat(np.arange(30), 20))
    assert (alone["n"], together["n"]) == (600, 30)
    assert together["high"] - together["low"] > 3 * (alone["high"] - alone["low"])


def test_clusters_of_one_row_in_any_order_are_no_clusters():
    values, order = np.random.default_rng(6).random(25), np.random.default_rng(7).permutation(25)
    got, want = bootstrap(values[order], clusters=order), bootstrap(values)
    assert got == pytest.approx(want)


def test_the_mean_of_clusters_is_drawn_as_any_other_figure():
    values, clusters = np.random.default_rng(8).random(60), np.random.default_rng(9).integers(0, 12, 60)
    got, want = (bootstrap(values, figure=mean, clusters=clusters) for mean in (np.mean, lambda x: float(np.mean(x))))
    assert got == pytest.approx(want)


def test_draws_are_those_of_the_seed_and_the_figure_is_free():
    values = np.arange(50.0)
    assert bootstrap(values, seed=4) == bootstrap(values, seed=4) != bootstrap(values, seed=5)
    assert bootstrap(values, figure=np.median)["value"] == np.median(values)


def test_the_paired_test_is_scipy_s_permutation_test():
    rng = np.random.default_rng(5)
    first = rng.normal(size=40)
    second = first - 0.15 + 0.5 * rng.normal(size=40)
    found = paired_test(first, second=second, samples=5000)
    other = stats.permutation_test(
        (first, second), lambda a, b: np.mean(a - b), permutation_type="samples", n_resamples=5000, rng=0
    )
    assert found["p"] == pytest.approx(other.pvalue, abs=0.03)
    assert found["low"] < found["difference"] < found["high"]
    turned = paired_test(second, second=first, samples=5000)
    assert (turned["difference"], turned["p"]) == (-found["difference"], found["p"])


def test_the_paired_test_flips_whole_clusters():
    """Two videos of 50 captions: of four flips two are as large, so nothing can be significant."""
    difference, clusters = np.ones(100), np.repeat([0, 1], 50)
    assert paired_test(difference, second=np.zeros(100))["p"] < 0.01
    assert paired_test(difference, second=np.zeros(100), clusters=clusters)["p"] > 0.4


def test_seeds():
    found = over_seeds([30.0, 31.5, 33.0, 31.0])
    assert found["mean"] == pytest.approx(np.mean([30, 31.5, 33, 31]))
    assert found["std"] == pytest.approx(np.std([30, 31.5, 33, 31], ddof=1))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bootstrap(np.ones(1)), "1 independent query has no spread"),
        (lambda: bootstrap(np.ones(3), clusters=["v", "v", "v"]), "1 independent query has no spread"),
        (lambda: bootstrap(np.ones(0)), "'values' is float64 of shape (0,)"),
        (lambda: bootstrap(np.array([1, np.nan])), "'values' of 1 is nan"),
        (lambda: bootstrap(np.ones(3), clusters=[1, 2]), "'clusters' has 2 entries"),
        (lambda: bootstrap(np.ones(3), level=95), "level is 95"),
        (lambda: paired_test(np.ones(3), second=np.ones(2)), "'second' has 2 entries and 'first' has 3"),
        (lambda: over_seeds([]), "'values of the seeds'"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(UserError) as caught:
        call()
    assert message in str(caught.value)
