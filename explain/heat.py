"""Relevance drawn over pictures: warm where it speaks for the score, blue where it speaks against it."""

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

_FOR, _AGAINST = np.array([255.0, 96.0, 16.0]), np.array([40.0, 120.0, 255.0])
_MOST, _GREY = 0.8, 0.75  # opacity of the highest relevance; how far colours give way to grey below it
_GAP = 4  # pixels between the two pictures
_PAPER, _BAR, _HEAD = 24, np.array([255.0, 150.0, 80.0]), 235.0  # of the strip below films
SHORT_SIDE = 240
"""Pixels of the shorter side of pictures that are drawn over, at least."""


def top_of(values: Float[np.ndarray, "*shape"]) -> float:
    """Return the relevance that is drawn in full: the 99.5th percentile of absolute values."""
    return max(float(np.percentile(np.abs(values), 99.5)), 1e-12)


def enlarged(frame: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "h w 3"]:
    """Return a picture whose shorter side has at least `SHORT_SIDE` pixels, and whose sides are even."""
    factor = max(1.0, SHORT_SIDE / min(frame.shape[:2]))
    height, width = (2 * round(factor * side / 2) for side in frame.shape[:2])
    return np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.BICUBIC))


def heat(
    frame: UInt8[np.ndarray, "H W 3"], *, cells: Float[np.ndarray, "G G"], top: float
) -> UInt8[np.ndarray, "H W 3"]:
    """Return a picture with the relevance of its cells over it.

    Args:
      frame: RGB.
      cells: relevance, interpolated between the middles of cells.
      top: the relevance that is drawn in full.
    """
    height, width = frame.shape[:2]
    small = Image.fromarray(np.clip(cells / top, -1, 1).astype(np.float32))
    strength = np.asarray(small.resize((width, height), Image.Resampling.BILINEAR))[..., None]
    grey = frame @ np.array([0.299, 0.587, 0.114])
    base = _GREY * grey[..., None] + (1 - _GREY) * frame
    colour = np.where(strength > 0, _FOR, _AGAINST)
    opacity = _MOST * np.abs(strength)
    return np.clip((1 - opacity) * base + opacity * colour, 0, 255).astype(np.uint8)


def beside(
    frame: UInt8[np.ndarray, "H W 3"], *, cells: Float[np.ndarray, "G G"], top: float
) -> UInt8[np.ndarray, "h w 3"]:
    """Return a picture, enlarged, and the same with its relevance at its right; for the arguments see `heat`."""
    plain = enlarged(frame)
    gap = np.full((plain.shape[0], _GAP, 3), _PAPER, np.uint8)
    return np.concatenate([plain, gap, heat(plain, cells=cells, top=top)], axis=1)


def strip(
    width: int, *, edges: Float[np.ndarray, "n+1"], values: Float[np.ndarray, "n"], time_s: float, height: int = 40
) -> UInt8[np.ndarray, "height width 3"]:
    """Return relevance over time as bars, with a line at a time.

    Args:
      width: pixels; the whole clip.
      edges: of the time steps, seconds.
      values: their relevance; bars stand for values above 0, as shares of the highest.
      time_s: where the line stands.
      height: pixels.
    """
    made = np.full((height, width, 3), _PAPER, np.uint8)
    times = (np.arange(width) + 0.5) / width * edges[-1]
    step = np.clip(np.searchsorted(edges, times, side="right") - 1, 0, len(values) - 1)
    share = np.maximum(values[step], 0) / max(float(values.max()), 1e-12)
    rising = np.arange(height)[::-1, None] < (height - 4) * share[None]
    made[rising] = _BAR.astype(np.uint8)
    at = min(width - 2, int(time_s / max(edges[-1], 1e-9) * width))
    made[:, at : at + 2] = int(_HEAD)
    return made
