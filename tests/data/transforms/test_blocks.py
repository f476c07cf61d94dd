"""Memory that is used again, but never while somebody looks into it."""

import gc

import numpy as np
import pytest

from twinreel.data.transforms.blocks import Blocks
from twinreel.data.transforms.threads import in_threads, new_batch

SIZE = 1 << 20


def test_a_block_comes_back_only_after_its_last_view():
    blocks = Blocks()
    whole = blocks.array(SIZE)
    place = whole.ctypes.data
    view = whole.reshape(4, -1)[1:, ::2].view(np.int8)
    del whole
    gc.collect()
    other = blocks.array(SIZE)
    assert other.ctypes.data != place and not np.shares_memory(view, other)
    del view
    gc.collect()
    again = blocks.array(SIZE)
    assert again.ctypes.data == place
    assert blocks.array(2 * SIZE).ctypes.data not in (place, other.ctypes.data)


def test_batches_have_their_type_and_are_aligned():
    for dtype in (np.uint8, np.int16, np.float32, np.bool_):
        batch = new_batch((3, 100, 700), dtype=dtype)
        assert batch.dtype == dtype and batch.shape == (3, 100, 700) and batch.ctypes.data % 64 == 0
    assert new_batch((0, 5), dtype=np.uint8).shape == (0, 5)


def test_an_error_in_a_thread_is_raised_after_all_have_stopped():
    done = []

    def work(i: int) -> None:
        if i == 2:
            raise ValueError("two")
        done.append(i)

    with pytest.raises(ValueError, match="two"):
        in_threads(work, count=50, threads=3)
    before = len(done)
    in_threads(lambda i: None, count=9, threads=3)
    assert len(done) == before
