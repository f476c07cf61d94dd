"""Decodes and transforms the clips of a batch in threads, straight into its array: nothing is stacked or copied."""

import concurrent.futures
import functools

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
      jpegs: JPEG files, object [r,T] of bytes; a row whose first is empty (there is no clip) becomes black.
      heights: of the clips' JPEG pictures, pixels, int [r].
      widths: likewise.
      uniforms: float32 [r,draws], random numbers in [0, 1).
      threads: how many work at once; all calls with the same number share them.

    Returns:
      uint8 [r,T,H,W,3], or [r,V,T,H,W,3] where the transform gives V > 1 views of a clip.

    Raises:
      ValueError: a JPEG file is damaged or has another size.
    """
    shape = (len(jpegs), *transform.shape(jpegs.shape[1]))
    rows = _BLOCKS.array(shape)  # aligned: tensorflow takes such memory over as a tensor, and copies any other

    def one(row: int) -> None:
        if not jpegs[row, 0]:
            rows[row] = 0
            return
        size = {"height": int(heights[row]), "width": int(widths[row])}
        transform(jpegs[row].tolist(), **size, uniforms=uniforms[row], out=rows[row])

    for _ in _pool(threads).map(one, range(len(jpegs))):
        pass
    return rows


@functools.cache
def _pool(threads: int) -> concurrent.futures.ThreadPoolExecutor:
    # OpenCV's own threads, which it would start inside each of these, would only get in their way.
    cv2.setNumThreads(1)
    return concurrent.futures.ThreadPoolExecutor(threads, thread_name_prefix="decode")
