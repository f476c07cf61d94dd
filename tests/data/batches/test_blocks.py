"""The order over blocks: each record once an epoch, the same batches for any number of hosts, few shards at a time."""

import collections
import itertools

import numpy as np
import pytest

from twinreel.data.batches.block_order import Shards, make_block_order
from twinreel.data.batches.blocks import expected_distance, lanes_for, shard_ends
from twinreel.data.batches.order import unit_table

SIZES = [16, 16, 15, 16, 1, 16, 16, 13, 16, 16, 16, 16, 9, 16, 16, 16, 12, 16, 16, 17]  # of shards; 291 records


def order_of(sizes=SIZES, *, groups=None, shares=None, group_size=1, batch_size=8, block_shards=2, seed=3, **more):
    sources = sizes if isinstance(sizes, dict) else {"a": sizes}
    made = {}
    for name, own in sources.items():
        ends = np.cumsum(own)
        part = np.split(np.zeros(ends[-1], int) if groups is None else np.array(groups), ends[:-1])
        made[name] = Shards(ends, lambda shard, part=part: unit_table(part[shard], group_size=group_size))
    shares = shares or {name: 1 / len(made) for name in made}
    given = {"group_size": group_size, "batch_size": batch_size, "block_shards": block_shards, "seed": seed}
    return make_block_order(made, shares=shares, **given, **more)


def by_epoch(order, *, batches, start=0):
    found = collections.defaultdict(list)
    for k in range(start, start + batches):
        rows = order.rows(k)
        for s, r, e in zip(rows.source.tolist(), rows.record.tolist(), rows.epoch.tolist(), strict=True):
            found[s, e].append(r)
    return found


@pytest.mark.parametrize(("batch_size", "block_shards"), [(8, 2), (12, 1), (6, 3), (7, 100), (64, 1)])
def test_each_record_once_an_epoch(batch_size, block_shards):
    order = order_of(batch_size=batch_size, block_shards=block_shards)
    found = by_epoch(order, batches=3 * 291 // batch_size + 20)
    for epoch in range(2):
        assert sorted(found[0, epoch]) == list(range(291))
    assert found[0, 0] != found[0, 1]


def test_lanes_are_of_the_data_alone_and_divide_the_batch():
    assert [lanes_for(n, shards=1000, block_shards=4) for n in (1, 6, 12, 96, 32_768)] == [1, 2, 4, 32, 64]
    assert lanes_for(32_768, shards=100_000, block_shards=4) == 256
    assert lanes_for(32_768, shards=3, block_shards=4) == 1


def test_a_far_place_costs_what_the_first_does_and_a_place_is_a_function_of_its_number():
    order = order_of()
    near = [order.rows(k) for k in range(40)]
    again = order_of()
    for k in (39, 3, 17):
        for a, b in zip(near[k], again.rows(k), strict=True):
            np.testing.assert_array_equal(a, b)
    far = order.rows(10**9)
    # Lanes of 72 and 73 records take turns at being the longer ones: after so long all are in the same epoch.
    assert set(far.epoch.tolist()) == {8 * 10**9 // 291} and far.record.max() < 291


def test_rows_of_a_host_lie_in_few_shards_each_needed_once_an_epoch():
    """What a host fetches for its rows of an epoch is its share, and a shard more at each end of a lane."""
    order = order_of(batch_size=8, block_shards=2)
    ends = np.cumsum(SIZES)
    assert order.lanes == 4
    fetched = [0, 0]
    for host in range(2):
        rows = slice(4 * host, 4 * host + 4)
        numbers, held = None, set()
        for k in range(291 // 8):
            taken = {(0, int(s)) for s in np.searchsorted(ends, order.rows(k).record[rows], side="right")}
            now = order.needs(k, rows=rows)
            if k and order.block_numbers(k - 1, rows=rows) == order.block_numbers(k, rows=rows):
                assert taken <= now
            if order.block_numbers(k, rows=rows) != numbers:
                numbers = order.block_numbers(k, rows=rows)
                fetched[host] += len(now - held)
                held = now | order.needs(k, rows=rows, ahead=1)
                fetched[host] += len(held - now)
    assert max(fetched) <= len(SIZES) / 2 + 2 * 2 + 6, fetched  # its half, the ends of two lanes, a block ahead


def test_what_is_needed_is_what_the_rows_of_the_blocks_take():
    order = order_of(batch_size=4, block_shards=2)
    ends, rows = np.cumsum(SIZES), slice(0, 4)
    needed, taken = collections.defaultdict(set), collections.defaultdict(set)
    for k in range(140):
        found = order.rows(k)
        one = next(iter(order.sources.values()))
        lane = np.arange(4) // (4 // order.lanes)
        for row in range(4):
            ordinal = k * (4 // order.lanes) + row % (4 // order.lanes)
            number = lane[row], one.block(int(lane[row]), ordinal=ordinal)
            taken[number].add(int(np.searchsorted(ends, found.record[row], side="right")))
            needed[number] |= set(one.shards(int(lane[row]), ordinal=ordinal))
            after = lane[row], number[1] + 1
            needed[after] |= set(one.shards(int(lane[row]), ordinal=ordinal, ahead=1))
    complete = sorted(taken)[: len(taken) // 2]
    for number in complete:
        assert taken[number] <= needed[number]
    assert rows.stop == 4 and sum(taken[n] == needed[n] for n in complete) > len(complete) // 2


def test_members_of_a_group_stay_together_if_one_shard_has_them():
    groups = [1 + i // 2 for i in range(291)]
    order = order_of(groups=groups, group_size=2, batch_size=8)
    found = by_epoch(order, batches=90)[0, 0]
    counts = collections.Counter(found)
    assert set(counts) == set(range(291)) and sum(counts.values()) == 291 + sum(size % 2 for size in SIZES)
    pairs = {frozenset(pair) for pair in zip(found[::2], found[1::2], strict=True)}
    shard = np.searchsorted(np.cumsum(SIZES), np.arange(291), side="right")
    whole = [{i, i + 1} for i in range(0, 290, 2) if shard[i] == shard[i + 1]]
    assert all(frozenset(pair) in pairs for pair in whole) and len(whole) > 130


@pytest.mark.parametrize("mix_by", ["row", "batch"])
def test_mixtures_keep_their_shares_and_their_epochs(mix_by):
    sizes = {"big": SIZES, "small": [8, 8, 8]}
    order = order_of(sizes, shares={"big": 0.75, "small": 0.25}, mix_by=mix_by)
    drawn = np.concatenate([order.rows(k).source for k in range(400)])
    assert abs((drawn == 1).mean() - 0.25) < 0.01
    if mix_by == "batch":
        assert all(len(set(order.rows(k).source.tolist())) == 1 for k in range(50))
    else:  # no batch is far from the shares
        shares = [(order.rows(k).source == 1).mean() for k in range(200)]
        assert 0.2 < np.mean(shares) < 0.3 and max(shares) <= 0.625
    found = by_epoch(order, batches=200)
    for epoch in range(3):
        assert sorted(found[1, epoch]) == list(range(24))
    done = order.epochs(200)
    assert done["small"] == pytest.approx(np.sum([order.rows(k).source == 1 for k in range(200)]) / 24)


@pytest.mark.parametrize("small", [[5], [40], [20, 13]])
def test_a_source_with_few_records_for_its_lanes_gives_each_as_often(small):
    """Sources that share a batch share its lanes, of which the smallest source fills some unevenly or not at all."""
    order = order_of({"big": [16] * 80, "small": small}, shares={"big": 0.95, "small": 0.05}, batch_size=64)
    total = sum(small)
    assert order.lanes == 16 and total < 3 * order.lanes
    found = by_epoch(order, batches=40 * total // 3)
    complete = max(epoch for source, epoch in found if source == 1) - 8  # of these, all lanes are past
    assert complete > 20
    for epoch in range(complete):
        assert sorted(found[1, epoch]) == list(range(total))
    shards = {(1, number) for number in range(len(small))}
    for k in range(0, 40, 7):
        assert {need for need in order.needs(k, rows=slice(0, 64), ahead=k % 2) if need[0]} <= shards


def test_records_that_take_part_are_chosen_before_shards_are_dealt():
    only = np.array([0, 1, 17, 40, 41, 42, 200, 290])
    ends, numbers = shard_ends(np.cumsum(SIZES), only=only)
    by_shard = collections.Counter(np.searchsorted(np.cumsum(SIZES), only, side="right").tolist())
    assert ends.tolist() == np.cumsum(list(by_shard.values())).tolist() and numbers.tolist() == list(by_shard)
    assert [part.tolist() for part in shard_ends([3, 3, 5], only=None)] == [[3, 5], [0, 2]]


def test_the_expected_distance_is_that_of_a_simulation():
    sizes = [8] * 64
    order = order_of(sizes, batch_size=32, block_shards=2)
    assert order.lanes == 16
    distances = []
    for k in range(0, 320):
        record = order.rows(k).record
        first, second = np.triu_indices(32, 1)
        distances.append(np.abs(record[first] - record[second]).mean() / 512)
    want = expected_distance(shards=64, lanes=16, block_shards=2)
    assert np.mean(distances) == pytest.approx(want, rel=0.02)
    assert order.distance == want < 1 / 3 + 0.01
    narrow = order_of(sizes, batch_size=32, block_shards=32)
    assert narrow.lanes == 1 and narrow.distance == want  # as many shards at a time
    assert order_of(sizes, batch_size=32, block_shards=1).lanes == 32
    assert order_of(sizes, batch_size=2, block_shards=1).distance < want


@pytest.mark.parametrize("width", [1, 2, 8])
def test_neighbours_in_a_lane_are_of_one_shard_once_in_the_width_of_a_block(width):
    """And else of any two: the formula of docs/data.md."""
    shards, records = 256, 16
    order = order_of([records] * shards, batch_size=512, block_shards=width)
    lanes = np.stack([order.rows(k).record.reshape(order.lanes, -1) for k in range(16)])
    first, second = lanes[..., :-1], lanes[..., 1:]
    assert (first // records == second // records).mean() == pytest.approx(1 / width, rel=0.15)
    apart = np.abs(first - second).mean() / (shards * records)
    other = (shards + 1) / (3 * shards)
    assert apart == pytest.approx(1 / (3 * shards * width) + (1 - 1 / width) * other, rel=0.1)


def test_seeds_differ():
    batches = [order_of(seed=seed).rows(0).record.tolist() for seed in (0, 1, 2**31 - 1)]
    assert all(a != b for a, b in itertools.pairwise(batches))
