"""Batches of static sizes: who is encoded with whom, what is refused, what fails alone."""

import threading

import numpy as np
import pytest

from twinreel.base.errors import UserError
from twinreel.serve.web.batching import Batcher, BatchOptions, Busy, Watch


class Tower:
    """Encodes a number to (number, its double), when it may; keeps the sizes of its batches."""

    def __init__(self):
        self.batches, self.begun, self.may = [], threading.Event(), threading.Event()
        self.may.set()

    def __call__(self, rows):
        self.begun.set()
        assert self.may.wait(30)
        self.batches.append(list(rows))
        if -1 in rows:
            raise ValueError("no such row")
        return np.array([[row, 2 * row] for row in rows], np.float32)


@pytest.fixture
def tower():
    return Tower()


@pytest.fixture
def batcher(tower):
    seen = {"batches": [], "queue": []}
    watch = Watch(batch=lambda rows, seconds: seen["batches"].append(rows), queue=seen["queue"].append)
    made = Batcher(tower, name="text", options=BatchOptions(most=8, wait_s=0, queue=20), watch=watch)
    made.seen = seen
    yield made
    tower.may.set()
    made.close()


def held(tower, batcher):
    """Let a first row be under way, so that what follows waits."""
    tower.may.clear()
    tower.begun.clear()
    first = batcher.submit([100])
    assert tower.begun.wait(30)
    return first


def test_rows_of_several_requests_share_padded_batches(tower, batcher):
    first = held(tower, batcher)
    futures = [batcher.submit([10 * n + i for i in range(n)]) for n in (1, 3, 7)]
    tower.may.set()
    assert first.result(30).tolist() == [[100, 200]]
    for n, future in zip((1, 3, 7), futures, strict=True):
        np.testing.assert_array_equal(future.result(30), [[10 * n + i, 2 * (10 * n + i)] for i in range(n)])
    assert [len(batch) for batch in tower.batches] == [1, 8, 4]  # 11 rows: 8, and 3 in a batch of 4
    assert batcher.seen["batches"] == [1, 8, 3] and max(batcher.seen["queue"]) == 11


def test_a_full_queue_refuses_whole_requests(tower, batcher):
    held(tower, batcher)
    kept = batcher.submit(list(range(18)))
    with pytest.raises(Busy, match="18 rows wait"):
        batcher.submit([1, 2, 3])
    also = batcher.submit([7, 8])
    tower.may.set()
    assert len(kept.result(30)) == 18 and also.result(30)[:, 0].tolist() == [7, 8]


def test_an_error_fails_its_batch_alone(tower, batcher):
    first = held(tower, batcher)
    bad, later = batcher.submit([-1, *range(7)]), batcher.submit([5])
    tower.may.set()
    with pytest.raises(ValueError, match="no such row"):
        bad.result(30)
    assert later.result(30).tolist() == [[5, 10]] and first.done() and batcher.alive


def test_closing_fails_what_waits(tower, batcher):
    held(tower, batcher)
    waiting = batcher.submit([1])
    closing = threading.Thread(target=batcher.close)
    closing.start()
    with pytest.raises(Busy, match="shutting down"):
        waiting.result(30)
    tower.may.set()
    closing.join(30)
    assert not batcher.alive
    with pytest.raises(Busy):
        batcher.submit([1])


def test_no_rows_and_a_wait_for_others(tower):
    batcher = Batcher(tower, name="text", options=BatchOptions(most=4, wait_s=9, queue=4))
    assert batcher.submit([]).result(0).shape == (0, 0)
    futures = [batcher.submit([n]) for n in range(4)]  # a full batch does not wait any longer
    assert [future.result(8)[0, 0] for future in futures] == [0, 1, 2, 3]
    assert tower.batches == [[0, 1, 2, 3]]
    batcher.close()


def test_sizes_and_bad_options():
    assert BatchOptions(most=16).sizes == (1, 4, 16) and BatchOptions(most=24).sizes == (1, 4, 16, 24)
    assert BatchOptions(most=1).sizes == (1,)
    for bad in ({"most": 0}, {"most": 8, "queue": 7}, {"wait_s": -1}):
        with pytest.raises(UserError, match="wanted at least one row"):
            BatchOptions(**bad)
