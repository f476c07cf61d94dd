"""Pictures to JPEG files."""

import numpy as np
import simplejpeg


def encode_jpeg(rgb: np.ndarray, *, quality: int) -> bytes:
    """Return a picture, uint8 RGB [H,W,3], as a JPEG file; of quality 100 colours keep their full resolution."""
    # The accurate DCT costs next to nothing with SIMD; the fast one loses precision at high quality.
    return simplejpeg.encode_jpeg(
        np.ascontiguousarray(rgb),
        quality=quality,
        colorspace="RGB",
        colorsubsampling="444" if quality == 100 else "420",
        fastdct=False,
    )
