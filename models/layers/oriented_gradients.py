"""Histograms of oriented gradients (HOG, Dalal & Triggs 2005): a fixed description of the contours in each cell."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from ..shapes import Video

Plane = Float[Array, "B H W"]

_LEAST = 1e-3  # gradient of pixels 0..1; weaker ones are noise of compression, whose direction means nothing
_GAIN = 16.0  # histograms of drawn and natural pictures then have a deviation of about 1


def oriented_gradients(video: Video, *, cell: int, orientations: int) -> Float[Array, "B T h w F"]:
    """Return how much contour of each orientation every cell holds.

    A pixel's gradient is the central difference in the channel in which it is largest. It votes for each of the F
    directions by its magnitude times the eighth power of the cosine of the angle between them, which halves at 23
    degrees. The square root of a cell's mean vote is kept, which brings faint contours closer to strong ones (as
    RootSIFT, Arandjelovic & Zisserman 2012). Nothing is learned here, and no gradient flows back.

    Args:
      video: uint8 RGB 0..255; `cell` divides H and W.
      cell: side of a cell, pixels.
      orientations: F, directions spread evenly over 180 degrees; the first one is horizontal, the gradient of a
        vertical edge.

    Returns:
      float32 of about unit deviation, -1 where a cell is uniform; h = H / cell and w = W / cell.
    """
    batch, times, height, width, _ = video.shape
    x, y = jax.lax.optimization_barrier(_gradients(video.reshape(batch * times, height, width, 3)))
    inverse = jax.lax.rsqrt(x * x + y * y + jnp.float32(_LEAST**2))
    votes = jnp.stack([_votes(x, y, inverse, angle=math.pi * k / orientations) for k in range(orientations)])
    rows = jnp.sum(votes.reshape(orientations, -1, height // cell, cell, width), axis=3)
    means = jnp.matmul(rows, _averaging(width, cell=cell), precision="highest")  # [F,B*T,h,w]
    found = jnp.float32(_GAIN) * jnp.sqrt(jnp.moveaxis(means, 0, -1)) - jnp.float32(1)
    return jax.lax.stop_gradient(found.reshape(batch, times, *found.shape[1:]))


def _votes(x: Plane, y: Plane, inverse: Plane, *, angle: float) -> Plane:
    """Return each pixel's vote for a direction, from its gradient and the inverse of that one's magnitude."""
    cosine = (x * jnp.float32(math.cos(angle)) + y * jnp.float32(math.sin(angle))) * inverse
    return jnp.square(jnp.square(jnp.square(cosine))) / inverse


def _averaging(width: int, *, cell: int) -> Float[np.ndarray, "W w"]:
    """Return the matrix that takes the sums of a cell's columns to its mean: on a CPU the fast way to add a few."""
    return np.kron(np.eye(width // cell, dtype=np.float32), np.full((cell, 1), 1 / cell**2, np.float32))


def _gradients(frames: UInt8[Array, "B H W 3"]) -> tuple[Plane, Plane]:
    """Return both components of each pixel's largest gradient, pixels scaled to 0..1; borders are repeated."""
    planes = jnp.moveaxis(frames, -1, 0).astype(jnp.float32) * jnp.float32(0.5 / 255)
    planes = jnp.pad(jax.lax.optimization_barrier(planes), ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge")
    x = planes[:, :, 1:-1, 2:] - planes[:, :, 1:-1, :-2]
    y = planes[:, :, 2:, 1:-1] - planes[:, :, :-2, 1:-1]
    size = x * x + y * y
    first, last = size[0] >= size[1], jnp.maximum(size[0], size[1]) >= size[2]
    x, y = (jnp.where(last, jnp.where(first, c[0], c[1]), c[2]) for c in (x, y))
    return x, y
