"""What can be taken away of a clip: cells of a grid in each time step, and what stands in their place."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, UInt8

from ..base.errors import unknown

BASELINES = ("mean_colour", "mean_frame", "neighbours", "black")
"""What stands where something is taken away:

  mean_colour   the mean colour of the clip
  mean_frame    the mean of all frames of the clip: movement goes, what stands still remains
  neighbours    the mean of the time steps before and after
  black         black pixels
"""


def baseline_of(video: UInt8[np.ndarray, "T H W 3"], *, name: str, steps: int) -> UInt8[np.ndarray, "T H W 3"]:
    """Return the clip in which everything is taken away.

    Args:
      video: the clip.
      name: one of `BASELINES`.
      steps: time steps, equally many frames each.

    Raises:
      UserError: an unknown name.
    """
    if name not in BASELINES:
        raise unknown("--baseline", name, BASELINES)
    if name == "black":
        return np.zeros_like(video)
    if name == "mean_colour":
        value = video.mean(axis=(0, 1, 2), keepdims=True)
    elif name == "mean_frame":
        value = video.mean(axis=0, keepdims=True)
    else:
        means = video.reshape(steps, -1, *video.shape[1:]).mean(axis=1)  # [steps,H,W,3]
        before, after = np.maximum(np.arange(steps) - 1, 0), np.minimum(np.arange(steps) + 1, steps - 1)
        before[0], after[-1] = after[0], before[-1]  # the ends have one neighbour
        value = np.repeat((means[before] + means[after]) / 2, len(video) // steps, axis=0)
    return np.broadcast_to(np.round(value), video.shape).astype(np.uint8)


def cell_of(size: int, *, cells: int) -> np.ndarray:
    """Return the cell of each pixel (or frame) along an axis, int32 [size]; cells differ by at most one pixel."""
    return (np.arange(size) * cells // size).astype(np.int32)


def spread(keep: Bool[Array, "b t G G"], *, shape: tuple[int, ...]) -> Bool[Array, "b T H W 1"]:
    """Spread values of cells over the pixels of a clip of shape `[T,H,W,3]`."""
    times, rows, columns = (cell_of(shape[axis], cells=keep.shape[axis + 1]) for axis in range(3))
    keep = jnp.take(jnp.take(jnp.take(keep, times, axis=1), rows, axis=2), columns, axis=3)
    return keep[..., None]


def sums(values: Float[Array, "b T H W 3"], *, steps: int, grid: int) -> Float[Array, "b t G G"]:
    """Sum over the pixels and colours of each cell."""
    per_pixel = jnp.sum(values, axis=-1)
    for axis, cells in ((1, steps), (2, grid), (3, grid)):
        belongs = cell_of(per_pixel.shape[axis], cells=cells)[:, None] == np.arange(cells)[None]
        per_pixel = jnp.moveaxis(jnp.tensordot(per_pixel, jnp.asarray(belongs, jnp.float32), axes=(axis, 0)), -1, axis)
    return per_pixel


def onto_grid(values: Float[np.ndarray, "t h w"], *, grid: int) -> Float[np.ndarray, "t G G"]:
    """Share the values of patches out to the cells that they cover, by area; the sum stays the same."""
    rows, columns = (_overlaps(size, cells=grid) for size in values.shape[1:])
    return np.einsum("gh,thw,kw->tgk", rows, values, columns)


def _overlaps(size: int, *, cells: int) -> np.ndarray:
    """Return the share of each of `size` equal parts that lies in each of `cells` equal parts, float64 [cells,size]."""
    low, high = np.arange(size) / size, (np.arange(size) + 1) / size
    start, end = np.arange(cells)[:, None] / cells, (np.arange(cells)[:, None] + 1) / cells
    return np.clip(np.minimum(high, end) - np.maximum(low, start), 0, None) * size
