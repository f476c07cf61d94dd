"""Mixtures of sources: shares, epochs and places against plain walks and formulas."""

import numpy as np
import pytest

from twinreel.base.errors import UserError
from twinreel.data.batches.mixture import SLOTS, Mixture, shares
from twinreel.data.batches.order import make_order

SIZES = {"a": 40, "b": 300, "c": 7}
WEIGHTS = {"a": 3.0, "b": 2.0, "c": 1.0}


def mixed(*, weights, batch_size=12, mix_by="row", seed=7, groups=None):
    groups = groups or {name: [None] * size for name, size in SIZES.items()}
    sizes = {name: len(members) for name, members in groups.items()}
    parts = shares(sizes, weights=weights, temperature=1.0)
    return make_order(groups, shares=parts, group_size=1, batch_size=batch_size, seed=seed, mix_by=mix_by)


@pytest.mark.parametrize("mix_by", ["row", "batch"])
def test_each_source_is_gone_through_epoch_by_epoch_and_counted(mix_by):
    """A plain walk over the batches, kept in lists, against what the arithmetic says."""
    order = mixed(weights=WEIGHTS, mix_by=mix_by, batch_size=6)
    seen = {i: [] for i in range(3)}
    for k in range(150):
        for name, epochs in order.epochs(k).items():
            assert epochs == len(seen["abc".index(name)]) / SIZES[name]
        rows = order.rows(k)
        for source, record, epoch in zip(*(column.tolist() for column in rows[:3]), strict=True):
            assert epoch == len(seen[source]) // SIZES["abc"[source]]
            seen[source].append(record)
        assert mix_by == "row" or len(set(rows.source.tolist())) == 1
    for i, name in enumerate("abc"):
        for e in range(len(seen[i]) // SIZES[name]):
            part = seen[i][e * SIZES[name] : (e + 1) * SIZES[name]]
            assert sorted(part) == list(range(SIZES[name])), (name, e)
    assert len(seen[2]) // SIZES["c"] > 5, "no source was gone through often: the test tests little"


def test_shares_are_kept_in_every_batch():
    order = mixed(weights=WEIGHTS)
    counts = np.stack([np.bincount(order.rows(k).source, minlength=3) for k in range(200)])
    assert np.abs(counts - [6, 4, 2]).max() <= 1
    assert np.abs(counts.mean(axis=0) / 12 - [1 / 2, 1 / 3, 1 / 6]).max() < 2e-3


def test_places_against_counting_one_by_one():
    mixture = Mixture.of([0.5, 0.3, 0.2], names="abc")
    places = np.arange(2 * SLOTS + 1000)
    source, earlier = mixture.at(places)
    for i in range(3):
        np.testing.assert_array_equal(earlier[source == i], np.arange((source == i).sum()))
        assert mixture.before(len(places))[i] == (source == i).sum()
    far, _ = mixture.at(places + 10**9 * SLOTS)
    np.testing.assert_array_equal(source, far)


def test_sources_have_orders_of_their_own():
    order = mixed(weights=dict.fromkeys("abc", 1.0), groups={name: [None] * 40 for name in "abc"})
    rows = [order.rows(k) for k in range(10)]
    a, b = (np.concatenate([r.record[r.source == i] for r in rows]) for i in (0, 1))
    assert min(len(a), len(b)) >= 39 and a[:39].tolist() != b[:39].tolist()


def test_temperature_against_the_formula():
    for temperature in (1.0, 2.0, 5.0, 100.0):
        got = shares(SIZES, weights=dict.fromkeys(SIZES), temperature=temperature)
        raw = {name: np.exp(np.log(size) / temperature) for name, size in SIZES.items()}
        assert got == pytest.approx({name: value / sum(raw.values()) for name, value in raw.items()})
    assert max(got.values()) < 0.35


@pytest.mark.parametrize(
    ("weights", "temperature", "message"),
    [
        ({"a": 1.0, "b": None, "c": 1.0}, 1.0, r"gives 'a' a weight and 'b' none"),
        ({"a": 1.0, "b": -1.0, "c": 1.0}, 1.0, r"config\.data\.mixture\.b\.weight=-1.0 must be above 0"),
        ({"a": 1.0, "b": float("nan"), "c": 1.0}, 1.0, r"mixture\.b\.weight=nan"),
        (dict.fromkeys(SIZES), 0.0, r"temperature=0\.0 must be above 0"),
    ],
)
def test_shares_that_cannot_be(weights, temperature, message):
    with pytest.raises(UserError, match=message):
        shares(SIZES, weights=weights, temperature=temperature)


def test_a_source_too_small_for_its_share_is_named():
    groups = {"a": [None] * 40, "b": [None] * 40, "c": [None] * 7}
    with pytest.raises(UserError, match=r"share is 9\.0 rows.*source 'c', which has 7 clips.*batch_size to 21 or less"):
        mixed(weights=dict.fromkeys(SIZES, 1.0), batch_size=27, groups=groups)
    with pytest.raises(UserError, match=r"share of source 'c' .* below 1 in 131,072"):
        mixed(weights={"a": 1.0, "b": 1.0, "c": 1e-9})
    with pytest.raises(UserError, match=r"mix_by.*'rows'; did you mean 'row'"):
        mixed(weights=WEIGHTS, mix_by="rows")
