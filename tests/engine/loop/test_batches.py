import itertools
import threading
import time

import numpy as np
import pytest
from engine_toy import batch_of, batches

from twinreel.base.errors import UserError
from twinreel.engine.loop.batches import Prefetcher
from twinreel.engine.sharding.mesh import make_mesh


class SourceError(RuntimeError):
    pass


def test_order_peek_and_names():
    with Prefetcher(batches(5), mesh=make_mesh(), start_step=5) as stream:
        first = stream.peek()
        assert stream.next() is first
        np.testing.assert_array_equal(stream.next()["x"], batch_of(6)["x"])
        assert stream.batch_size == 8
        assert stream.clips_of(6) == list(range(48, 56))
        assert stream.clips_of(99) == []


def test_reads_at_most_two_ahead():
    read = []

    def source():
        for step in itertools.count():
            read.append(step)
            yield batch_of(step)

    with Prefetcher(source(), mesh=make_mesh(), start_step=0) as stream:
        stream.next()
        time.sleep(0.5)
        assert len(read) <= 4  # one taken, two in the queue, one in hand


def test_errors_keep_their_type_and_come_after_the_good_batches():
    def source():
        yield batch_of(0)
        raise SourceError("shard 3 is gone")

    with Prefetcher(source(), mesh=make_mesh(), start_step=0) as stream:
        stream.next()
        for _ in range(2):
            with pytest.raises(SourceError, match="shard 3 is gone"):
                stream.next()


def test_an_input_that_ends_is_named():
    with (
        Prefetcher(iter([batch_of(4)]), mesh=make_mesh(), start_step=4) as stream,
        pytest.raises(UserError, match="the input ended at step 5"),
    ):
        stream.next()
        stream.next()


def test_a_batch_that_does_not_divide_is_named():
    small = {key: value[:6] for key, value in batch_of(0).items()}
    with (
        Prefetcher(iter([small]), mesh=make_mesh(), start_step=0) as stream,
        pytest.raises(UserError, match="batch_size=6 must divide by the 8 devices"),
    ):
        stream.peek()


def test_waiting_is_measured_and_closing_ends_the_thread():
    def slow():
        for step in itertools.count():
            time.sleep(0.05)
            yield batch_of(step)

    with Prefetcher(slow(), mesh=make_mesh(), start_step=0) as stream:
        for _ in range(4):
            stream.next()
        assert 0.1 < stream.waited_s < 5.0
    assert not [thread for thread in threading.enumerate() if thread.name == "twinreel-prefetch"]
