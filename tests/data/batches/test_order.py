"""The order of records: a permutation per epoch, the same for any number of processes, groups together."""

import collections

import numpy as np
import pytest

from twinreel.base.errors import UserError
from twinreel.data.batches.order import make_order, unit_table

NO_GROUPS = [0] * 103


def batches(groups, *, count, start=0, **sizes):
    """(record, epoch, first) of `count` batches of one source."""
    order = make_order({"only": groups}, shares={"only": 1.0}, **({"group_size": 1, "seed": 7} | sizes))
    return [order.rows(k)[1:] for k in range(start, start + count)]


def epochs(groups, *, units, group_size, **sizes):
    """Records of the first three epochs, as lists in order."""
    flat = collections.defaultdict(list)
    size = sizes["batch_size"]
    for record, epoch, _ in batches(groups, count=-(-3 * units * group_size // size), group_size=group_size, **sizes):
        for r, e in zip(record.tolist(), epoch.tolist(), strict=True):
            flat[e].append(r)
    return [flat[e] for e in range(3)]


@pytest.mark.parametrize("size", [2, 3, 16, 103])
def test_each_record_once_an_epoch_and_epochs_differ(size):
    seen = epochs(NO_GROUPS[: max(size, 7)], units=max(size, 7), group_size=1, batch_size=min(size, 6))
    for epoch in seen:
        assert sorted(epoch) == list(range(max(size, 7)))
    assert seen[0] != seen[1] != seen[2] != seen[0]


def test_seeds_differ_and_a_seed_repeats():
    first, again, other = (batches(NO_GROUPS, count=3, batch_size=16, seed=seed) for seed in (7, 7, 8))
    for a, b, c in zip(first, again, other, strict=True):
        np.testing.assert_array_equal(a[0], b[0])
        assert (a[0] != c[0]).any()


def test_an_order_is_uniform():
    """Over many seeds each record comes first about equally often (chi-square, 6 degrees of freedom)."""
    first = [batches([0] * 7, count=1, batch_size=1, seed=seed)[0][0][0] for seed in range(700)]
    counts = np.bincount(first, minlength=7)
    assert ((counts - 100) ** 2 / 100).sum() < 30


def test_far_steps_cost_nothing_and_stay_in_range():
    [record, epoch, _] = batches(NO_GROUPS, count=1, start=10**9, batch_size=100)[0]
    assert epoch[0] == 10**11 // 103
    assert record.min() >= 0 and record.max() < 103


def test_a_record_that_comes_twice_in_a_batch_is_marked():
    marked = 0
    for record, _, first in batches(NO_GROUPS, count=40, batch_size=64):
        seen = set()
        for r, is_first in zip(record.tolist(), first.tolist(), strict=True):
            assert is_first == (r not in seen)
            seen.add(r)
            marked += not is_first
    assert marked > 0, "no batch spanned an epoch's end with a repeated record: the test tests nothing"


GROUPS = [9, 0, 3, 9, 7, 3, 0, 7, 7, 1, 0]


def test_unit_table_by_hand():
    want = [[0, 3], [2, 5], [4, 7], [1, 6], [8, 9], [10, 0]]  # pairs of 9, 3, 7; then the rest in order; then filled up
    np.testing.assert_array_equal(unit_table(GROUPS, group_size=2), want)
    np.testing.assert_array_equal(unit_table(GROUPS, group_size=3), [[4, 7, 8], [0, 1, 2], [3, 5, 6], [9, 10, 0]])
    np.testing.assert_array_equal(unit_table(GROUPS, group_size=1), np.arange(11)[:, None])


def test_unit_table_equals_a_loop():
    rng = np.random.default_rng(0)
    for count, size in [(1, 2), (2, 3), (7, 3), (40, 2), (41, 4), (200, 5)]:
        groups = rng.integers(0, max(count // 3, 2), count)
        members = {}
        for i, group in enumerate(groups.tolist()):
            if group:
                members.setdefault(group, []).append(i)
        units = [own[i : i + size] for own in members.values() for i in range(0, len(own) - size + 1, size)]
        placed = {i for unit in units for i in unit}
        others = [i for i in range(count) if i not in placed]
        units += [others[i : i + size] for i in range(0, len(others), size)]
        whole, last = units[:-1], units[-1]
        fill = [i for i in range(count) if i not in last] + last
        want = [*whole, last + (fill * size)[: size - len(last)]]
        np.testing.assert_array_equal(unit_table(groups, group_size=size), want)


def test_groups_stay_together_and_all_records_are_seen():
    seen = epochs(GROUPS, units=6, group_size=2, batch_size=4)
    for epoch in seen:
        assert collections.Counter(epoch) == collections.Counter([*range(11), 0])
        pairs = {frozenset(epoch[i : i + 2]) for i in range(0, 12, 2)}
        assert {frozenset({0, 3}), frozenset({2, 5}), frozenset({4, 7})} <= pairs
    assert seen[0] != seen[1]


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"batch_size": 15, "group_size": 2}, r"batch_size=15 must be a multiple of group_size=2.*batch_size to 16"),
        ({"batch_size": 18, "process_count": 4}, r"divide by the 4 processes.*config\.data\.batch_size to 20"),
        ({"batch_size": 104}, r"larger than the split, which has 103 clips.*config\.data\.batch_size"),
        ({"batch_size": 0}, r"at least 1.*config\.data\.batch_size"),
        ({"batch_size": 8, "seed": -1}, r"config\.seed"),
    ],
)
def test_sizes_that_do_not_fit(sizes, message):
    with pytest.raises(UserError, match=message):
        make_order({"only": NO_GROUPS}, shares={"only": 1.0}, **({"group_size": 1, "seed": 0} | sizes))
