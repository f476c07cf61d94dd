"""The threads that decode, and the batches that they write into: nothing is stacked or copied afterwards."""

import concurrent.futures
import functools
import math
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

from .blocks import Blocks

_BLOCKS = Blocks()


def in_threads(function: Callable[[int], None], *, count: int, threads: int) -> None:
    """Call `function(0)` ... `function(count - 1)`, `threads` at once; raises what the first of them raises.

    All callers with the same number of threads share them.
    """
    futures = [_pool(threads).submit(function, i) for i in range(count)]
    try:
        for future in futures:
            future.result()
    finally:
        for future in futures:
            future.cancel()
        concurrent.futures.wait(futures)  # none writes into the batch any more


def new_batch(shape: tuple[int, ...], *, dtype: Any) -> np.ndarray:
    """Return an array, not initialised, that tensorflow takes over as a tensor without a copy; memory is used again."""
    dtype = np.dtype(dtype)
    return _BLOCKS.array(math.prod(shape) * dtype.itemsize).view(dtype).reshape(shape)


@functools.cache
def _pool(threads: int) -> concurrent.futures.ThreadPoolExecutor:
    # OpenCV's own threads, which it would start inside each of these, would only get in their way.
    cv2.setNumThreads(1)
    return concurrent.futures.ThreadPoolExecutor(threads, thread_name_prefix="decode")
