"""Drift of embeddings and texts against plain loops in float64 and against scipy."""

import numpy as np
import pytest
from scipy import linalg

from twinreel.base.errors import UserError
from twinreel.evaluate.measures.drift import (
    frechet_distance,
    length_shift,
    mmd_test,
    moments,
    new_word_share,
)


def samples(n=24, m=17, width=5, shift=0.7):
    rng = np.random.default_rng(3)
    return rng.normal(size=(n, width)), rng.normal(size=(m, width)) * 1.3 + shift


def mmd_by_loops(first, second, sigma):
    """Equation 3 of Gretton et al. (2012), pair by pair."""

    def k(x, y):
        return np.exp(-sum((a - b) ** 2 for a, b in zip(x, y, strict=True)) / (2 * sigma**2))

    def within(rows):
        n = len(rows)
        return sum(k(rows[i], rows[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))

    across = sum(k(x, y) for x in first for y in second) / (len(first) * len(second))
    return within(first) + within(second) - 2 * across


def test_mmd_is_that_of_loops_and_its_bandwidth_the_median_distance():
    first, second = samples()
    both = np.concatenate([first, second])
    median = np.median([np.linalg.norm(both[i] - both[j]) for i in range(len(both)) for j in range(i)])
    found = mmd_test(first, second=second, permutations=50)
    assert found["bandwidth"] == pytest.approx(median, rel=1e-12)
    assert found["mmd2"] == pytest.approx(mmd_by_loops(first, second, median), rel=1e-10)
    given = mmd_test(first, second=second, bandwidth=0.8, permutations=1)
    assert given["mmd2"] == pytest.approx(mmd_by_loops(first, second, 0.8), rel=1e-10)


def test_p_is_the_share_of_exchanges_by_loops():
    """The same exchanges, each estimated anew from the rows themselves."""
    first, second = samples(n=9, m=7, shift=0.3)
    found = mmd_test(first, second=second, permutations=60, seed=5)
    both, rng = np.concatenate([first, second]), np.random.default_rng(5)
    members = rng.permuted(np.repeat((np.arange(16) < 9)[:, None].astype(float), 60, axis=1), axis=0).T > 0
    drawn = [mmd_by_loops(both[one], both[~one], found["bandwidth"]) for one in members]
    assert found["p"] == pytest.approx((1 + sum(value >= found["mmd2"] - 1e-12 for value in drawn)) / 61)


def test_the_test_keeps_its_level_and_finds_another_spread():
    rng = np.random.default_rng(0)
    p = [
        mmd_test(rng.normal(size=(30, 4)), second=rng.normal(size=(20, 4)), permutations=99, seed=i)["p"]
        for i in range(200)
    ]
    assert 0.01 <= np.mean(np.array(p) <= 0.05) <= 0.10
    wide = mmd_test(rng.normal(size=(80, 4)), second=2 * rng.normal(size=(80, 4)))
    assert wide["p"] < 0.01


def test_frechet_distance_is_that_of_scipys_matrix_root():
    (one, two), rng = samples(), np.random.default_rng(1)
    for rows in (two, np.concatenate([two, rng.normal(size=(40, 5))])):
        (m1, c1), (m2, c2) = moments(one), moments(rows)
        wanted = np.sum((m1 - m2) ** 2) + np.trace(c1 + c2 - 2 * linalg.sqrtm(c1 @ c2).real)
        found = frechet_distance(m1, cov=c1, other_mean=m2, other_cov=c2)
        assert found["distance"] == pytest.approx(wanted, rel=1e-9)
    same = frechet_distance(m1, cov=c1, other_mean=m1, other_cov=c1)
    assert same["distance"] == pytest.approx(0, abs=1e-12)


def test_moments_of_blocks_are_numpys():
    rows = (np.random.default_rng(2).normal(size=(70_000, 3)) + 40).astype(np.float32)
    mean, cov = moments(rows)
    np.testing.assert_allclose(mean, rows.astype(np.float64).mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(cov, np.cov(rows.astype(np.float64), rowvar=False), rtol=1e-9)


def test_texts():
    assert new_word_share(["", "?"], known=["a"]) == 0
    found = length_shift([1, 1, 2] * 20, reference=[5, 6, 7] * 20)
    assert found["statistic"] == 1 and found["p"] < 1e-10 and found["mean"] == pytest.approx(4 / 3)


def test_bad_input():
    rows = np.zeros((20, 3))
    with pytest.raises(UserError, match="9 rows are too few for a mean and a covariance"):
        moments(rows[:9])
    with pytest.raises(UserError, match=r"row 4 .* not finite"):
        moments(np.where(np.arange(20)[:, None] == 4, np.nan, rows))
    with pytest.raises(UserError, match=r"shape \[20, 3\] and the new data \[20, 4\].*record the reference again"):
        mmd_test(rows, second=np.zeros((20, 4)))
    with pytest.raises(UserError, match="0 permutations"):
        mmd_test(rows, second=rows, permutations=0)
