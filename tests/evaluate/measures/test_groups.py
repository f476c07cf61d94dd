"""Figures per group against loops and scipy, and whether a gap could be chance."""

import numpy as np
import pytest
from scipy.stats import binomtest

from twinreel.base.errors import UserError
from twinreel.evaluate.measures.groups import OTHER, Groups, category_groups, group_figures, number_groups
from twinreel.evaluate.measures.intervals import bootstrap

RNG = np.random.default_rng(3)


def test_numbers_are_divided_at_quartiles_and_never_between_equal_ones():
    values = np.concatenate([np.full(50, 3.0), RNG.uniform(4, 9, 50)])
    found = number_groups(values)
    assert found.names[0] == "3"
    assert (found.members.sum(axis=1) == 1).all()
    for name, column in zip(found.names, found.members.T, strict=True):
        low, high = values[column].min(), values[column].max()
        assert not ((values >= low) & (values <= high) & ~column).any(), name
    plain = number_groups(RNG.permutation(1000))
    assert plain.members.sum(axis=0).tolist() == [250] * 4
    assert plain.names == ("0–249", "250–499", "500–749", "750–999")


def test_names_of_bins_have_as_many_digits_as_tell_them_apart():
    found = number_groups([1000.1, 1000.2, 1000.3])
    assert len(set(found.names)) == 3


def test_items_without_a_value_are_in_no_group():
    assert number_groups([1.0, float("nan"), 2.0]).unknown == 1
    assert category_groups([["a"], []], least=1).unknown == 1
    assert number_groups([float("nan")] * 3).names == ()


def test_rare_values_are_pooled_and_counted():
    found = category_groups([["a"]] * 6 + [["b", "a"]] * 5 + [["c"], ["d"], ["d"]])
    assert found.names == ("a", "b", OTHER) and found.pooled == 2
    assert found.members.sum(axis=0).tolist() == [11, 5, 3]
    assert len(category_groups([[str(n)] for n in range(30) for _ in range(5)]).names) == 13


def test_means_and_intervals_are_those_of_a_loop():
    clips = np.repeat(np.arange(60), RNG.integers(1, 4, 60))
    groups = number_groups(clips % 3).of(np.arange(len(clips)))
    values = 100.0 * (RNG.uniform(size=len(clips)) < 0.4)
    found = group_figures(values, groups=groups, clusters=clips)["groups"]
    for name, one in found.items():
        rows = clips % 3 == int(name)
        assert one["n"] == rows.sum() and one["clusters"] == len(set(clips[rows].tolist())) == 20
        assert one["value"] == pytest.approx(sum(values[rows].tolist()) / rows.sum())
        other = bootstrap(values[rows], clusters=clips[rows], seed=7, samples=4000)  # its draws are others
        assert (one["low"], one["high"]) == pytest.approx((other["low"], other["high"]), abs=2.5)


def test_a_group_that_never_fails_has_an_interval_all_the_same():
    groups = category_groups([["a"]] * 8 + [["b"]] * 8)
    found = group_figures(np.repeat([100.0, 0.0], 8), groups=groups)["groups"]
    wanted = binomtest(8, 8).proportion_ci(method="wilson")
    assert (found["a"]["low"], found["a"]["high"]) == pytest.approx((100 * wanted.low, 100 * wanted.high))
    assert found["b"]["low"] == 0 and found["b"]["high"] == pytest.approx(100 - 100 * wanted.low)


def test_one_clip_has_no_interval_and_does_not_count_for_the_gap():
    groups = category_groups([["a"]] * 3 + [["b"]] * 9, least=1)
    found = group_figures(np.arange(12.0), groups=groups, clusters=np.array([0] * 3 + list(range(1, 10))))
    assert found["groups"]["a"]["low"] is None and found["gap"] == {}


def test_the_interval_of_the_gap_is_newcombes():
    values = 100.0 * np.array([1] * 56 + [0] * 14 + [1] * 48 + [0] * 32)
    gap = group_figures(values, groups=category_groups([["a"]] * 70 + [["b"]] * 80), samples=20000)["gap"]
    assert (gap["best"], gap["worst"], gap["difference"]) == ("a", "b", pytest.approx(20.0))
    # Newcombe (1998), table II, method 10, 56/70 - 48/80: 0.0524 to 0.3339; the bootstrap's ends differ a little
    assert (gap["low"], gap["high"]) == pytest.approx((5.24, 33.39), abs=2.0)


@pytest.mark.parametrize("mixed", [False, True], ids=["clips", "captions"])
def test_p_of_the_gap_is_uniform_by_chance_and_small_for_a_real_gap(mixed):
    clips = np.repeat(np.arange(40), 2)
    kinds = np.tile([0, 1], 40) if mixed else clips % 4
    groups = category_groups([[str(kind)] for kind in kinds])
    own = RNG.normal(size=(60, 40))
    values = [noise[clips] + 0.3 * RNG.normal(size=80) for noise in own]  # captions of a clip are alike
    ps = np.array([group_figures(one, groups=groups, clusters=clips, samples=99)["gap"]["p"] for one in values])
    assert np.mean(ps <= 0.1) <= 0.25 and np.mean(ps) > 0.35  # uniform: 0.1 and 0.5
    real = group_figures(values[0] + 2.0 * kinds, groups=groups, clusters=clips, samples=199)["gap"]
    assert real["p"] <= 0.01


def test_a_pooled_group_is_neither_best_nor_worst():
    groups = category_groups([["a"]] * 6 + [["b"]] * 6 + [[str(n)] for n in range(9)])
    gap = group_figures(np.repeat([50.0, 60.0, 0.0], [6, 6, 9]), groups=groups)["gap"]
    assert (gap["best"], gap["worst"]) == ("b", "a")


def test_groups_of_other_queries_are_refused():
    with pytest.raises(UserError, match="members of shape"):
        group_figures(np.zeros(3), groups=Groups(names=("a",), members=np.ones((4, 1), bool)))
