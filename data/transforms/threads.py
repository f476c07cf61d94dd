"""The threads that decode, and the batches that they write into: nothing is stacked or copied afterwards."""

import concurrent.futures
import functools
import math
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

from .blocks import Blocks
from .preprocess import VideoTransform

_BLOCKS = Blocks()


def decode_rows(
    transform: VideoTransform,
    *,
    jpegs: np.ndarray,
    heights: np.ndarray,
    widths: np.ndarray,
    uniforms: np.ndarray,
    threads: int,
) -> np.ndarray:
    """Decode and transform r clips; the result does not depend on the number of threads.

    Args:
      transform: what is done to each.
      jpegs: JPEG files, object [r,T] of bytes.
      heights: of the clips' JPEG pictures, pixels, int [r].
      widths: likewise.
      uniforms: float32 [r,draws], random numbers in [0, 1).
      threads: how many work at once.

    Returns:
      uint8 [r,T,H,W,3], or [r,V,T,H,W,3] where the transform gives V > 1 views of a clip.

    Raises:
      ValueError: a JPEG file is damaged or has another size.
    """
    rows = new_batch((len(jpegs), *transform.shape(jpegs.shape[1])), dtype=np.uint8)

    def one(row: int) -> None:
        size = {"height": int(heights[row]), "width": int(widths[row])}
        transform(jpegs[row].tolist(), **size, uniforms=uniforms[row], out=rows[row])

    in_threads(one, count=len(jpegs), threads=threads)
    return rows


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
