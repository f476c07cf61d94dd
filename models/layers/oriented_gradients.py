"""Histograms of oriented gradients (HOG, Dalal & Triggs 2005): a fixed description of the contours in each cell."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jaxtyping import Array, Float, UInt8

from ..shapes import Video
from .dense import row_major

Planes = UInt8[Array, "H W 3 M"]
Plane = Float[Array, "H W M"]

_LEAST = 1e-3  # gradient of pixels 0..1; weaker ones are noise of compression, whose direction means nothing
_GAIN = 16.0  # histograms of drawn and natural pictures then have a deviation of about 1


def frames_last(video: Video) -> Planes:
    """Lay the M = B T frames of clips along the last axis, uint8 `[H,W,3,M]`.

    Neighbours of a pixel and the pixels of a cell are then whole vectors of numbers. On a CPU the descriptions below
    take a third of the time that they take with the channels last.
    """
    return jax.lax.optimization_barrier(row_major(rearrange(jnp.asarray(video), "b t h w c -> h w c (b t)")))


def mean_colours(planes: Planes, *, cell: int) -> Float[Array, "h w 3 M"]:
    """Return the mean colour of each cell of `cell` x `cell` pixels, float32 0..255."""
    total = sum(at.astype(jnp.float32) for [at] in _pixels_of_cells(planes, cell=cell))
    return row_major(jnp.float32(1 / cell**2) * total)


def oriented_gradients(planes: Planes, *, cell: int, orientations: int) -> Float[Array, "h w F M"]:
    """Return how much contour of each orientation every cell holds.

    A pixel's gradient is the central difference in the channel in which it is largest, the first of them if several
    are. It votes for each of the F directions by its magnitude times the eighth power of the cosine of the angle
    between them, which halves at 23 degrees. The square root of a cell's mean vote is kept, which brings faint contours
    closer to strong ones (as RootSIFT, Arandjelovic & Zisserman 2012). Nothing is learned here; gradients flow back to
    pixels that are real numbers alone (`capture.real_pixels`).

    Args:
      planes: of `frames_last`; `cell` divides H and W.
      cell: side of a cell, pixels.
      orientations: F, directions spread evenly over 180 degrees; the first one is horizontal, the gradient of a
        vertical edge.

    Returns:
      float32 of about unit deviation, -1 where a cell is uniform; h = H / cell and w = W / cell.
    """
    x, y = _gradients(planes)
    square = x * x + y * y + jnp.float32(_LEAST**2)
    root = jnp.exp(jnp.float32(-7 / 16) * jnp.log(square))  # |g|^(-7/8): a vote, |g| cos^8, is then one eighth power
    x, y = jax.lax.optimization_barrier((row_major(x * root), row_major(y * root)))
    angles = math.pi * np.arange(orientations) / orientations
    cosine, sine = (np.asarray(f(angles), np.float32)[None, None, :, None] for f in (np.cos, np.sin))
    votes = sum(
        jnp.square(jnp.square(jnp.square(at_x[:, :, None] * cosine + at_y[:, :, None] * sine)))
        for at_x, at_y in _pixels_of_cells(x, y, cell=cell)
    )
    mean = jnp.float32(1 / cell**2) * votes
    if jnp.issubdtype(planes.dtype, jnp.floating):
        return row_major(jnp.float32(_GAIN) * _root(mean) - jnp.float32(1))
    return jax.lax.stop_gradient(row_major(jnp.float32(_GAIN) * jnp.sqrt(mean) - jnp.float32(1)))


def _root(x: Array) -> Array:
    """Return the square root, whose gradient is 0 where `x` is: votes of faint pixels grow with the eighth power."""
    some = x > 0
    return jnp.where(some, jnp.sqrt(jnp.where(some, x, jnp.float32(1))), jnp.float32(0))


def _pixels_of_cells(*planes: Array, cell: int) -> list[tuple[Array, ...]]:
    """Return each of the `cell`^2 pixels of all cells, of all planes `[H,W,...]`.

    Their sum, written out, is one loop; a reduction over axes would first store what is summed.
    """
    return [tuple(p[i::cell, j::cell] for p in planes) for i in range(cell) for j in range(cell)]


def _gradients(planes: Planes) -> tuple[Plane, Plane]:
    """Return both components of each pixel's largest gradient, pixels scaled to 0..1; borders are repeated.

    Channels are compared as whole numbers, so that all devices choose the same one.
    """
    padded = jnp.pad(planes, ((1, 1), (1, 1), (0, 0), (0, 0)), mode="edge").astype(jnp.float32)
    x = padded[1:-1, 2:] - padded[1:-1, :-2]
    y = padded[2:, 1:-1] - padded[:-2, 1:-1]
    red, green, blue = jnp.moveaxis(x * x + y * y, 2, 0)
    first, last = red >= green, jnp.maximum(red, green) >= blue
    x, y = (jnp.where(last, jnp.where(first, c[:, :, 0], c[:, :, 1]), c[:, :, 2]) for c in (x, y))
    return jnp.float32(0.5 / 255) * x, jnp.float32(0.5 / 255) * y
