"""Transparency, one rule for films and stills: what is transparent is shown on white."""

import functools
from typing import Any

import av
import numpy as np

ON_WHITE = "transparent parts shown on white"
LEFT_OUT = "transparency left out"


@functools.cache
def has_alpha(pixels: str) -> bool:
    """Return whether pictures of a pixel format may be transparent, as those with a palette; "" = not known: no."""
    if pixels in ("", "pal8"):
        return pixels == "pal8"
    return any(component.is_alpha for component in av.VideoFormat(pixels).components)


def opacity(frame: Any, *, reformatter: Any) -> np.ndarray | None:
    """Return the opacity uint8 [H,W] of a PyAV frame, 255 = opaque; None where all of it is opaque."""
    if not has_alpha(frame.format.name):
        return None
    alpha = reformatter.reformat(frame, format="rgba", threads=1).to_ndarray()[..., 3]
    return None if (alpha == 255).all() else alpha


def on_white(rgb: np.ndarray, *, alpha: np.ndarray) -> np.ndarray:
    """Return uint8 [H,W,3]: the colours uint8 [H,W,3] with opacity uint8 [H,W], laid on white."""
    share = alpha[..., None].astype(np.uint16)
    mixed = rgb * share + 255 * (255 - share)
    return ((mixed + 127) // 255).astype(np.uint8)
