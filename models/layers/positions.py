"""Positions: learned and sinusoidal tables, rotary embedding, relative bias, and resizing of learned tables.

Sources: sinusoids, Vaswani et al. 2017, section 3.5, in two dimensions He et al. 2022 (MAE); rotary embedding, Su et
al. 2021 (RoFormer), axial in two dimensions as in EVA-02 (Fang et al. 2023); relative bias, Raffel et al. 2020 (T5).
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from ...base.errors import UserError, unknown


def position_embedding(*axes: int, width: int) -> nnx.Param:
    """Build learned positions that start as `sinusoids`.

    Small random values are lost next to the tokens, and a tower must first learn where and when things are before it
    can learn what moves where. With sinusoids, near positions look alike from the first step.

    Args:
      *axes: length of each axis; the width is shared evenly among them.
      width: D, a multiple of twice the number of axes.

    Returns:
      float32 `[prod(axes), width]`.

    Raises:
      UserError: a width that does not divide.
    """
    return nnx.Param(jnp.asarray(sinusoids(*axes, width=width), jnp.float32))


def sinusoids(
    *axes: int, width: int, period: float = 10_000.0, interleaved: bool = False, endpoint: bool = False
) -> np.ndarray:
    """Compute sinusoids for the places of a grid, row-major; each axis has its share of the width, in order.

    Within a share of h sines and h cosines, the rates are `period ** (-i / h)`, i = 0 ... h - 1.

    Args:
      *axes: length of each axis: 1-D, 2-D, 3-D.
      width: D, a multiple of twice the number of axes.
      period: 2 pi times the longest wavelength, places.
      interleaved: sine and cosine of each rate in turn (Vaswani et al.) instead of all sines, then all cosines.
      endpoint: rates `period ** (-i / (h - 1))`, so that the last one is exactly `1 / period` (tensor2tensor, Praxis).

    Returns:
      float64 `[prod(axes), width]`.

    Raises:
      UserError: a width that does not divide.
    """
    share = width // len(axes)
    if share % 2 or share * len(axes) != width:
        raise UserError(f"width={width} must be a multiple of {2 * len(axes)} for positions along {len(axes)} axes")
    half = share // 2
    rates = period ** (-np.arange(half) / max(half - endpoint, 1))
    grids = np.meshgrid(*[np.arange(n) for n in axes], indexing="ij")
    angles = [grid.reshape(-1, 1) * rates for grid in grids]
    if interleaved:
        return np.concatenate([np.stack([np.sin(a), np.cos(a)], axis=2).reshape(-1, share) for a in angles], axis=1)
    return np.concatenate([wave(angle) for angle in angles for wave in (np.sin, np.cos)], axis=1)


RESIZE_METHODS = ("nearest", "bilinear", "bicubic")
"""Methods of `resize_positions`; along a single axis bilinear is linear and bicubic is cubic."""


def resize_positions(
    table: Float[Array, "N D"],
    *,
    old: Sequence[int],
    new: Sequence[int],
    method: str = "bilinear",
    antialias: bool = False,
    align_corners: bool = False,
    leading: int = 0,
) -> Float[Array, "M D"]:
    """Interpolate learned positions for another length or grid; differentiable in the table.

    The weights are those of `torch.nn.functional.interpolate` with the same options: bicubic has a = -0.75 and repeats
    the border, with `antialias` a = -0.5 and weights renormalised at the border (as Pillow and `jax.image.resize`).

    Args:
      table: float32 `[leading + prod(old), D]`, row-major over the grid.
      old: length of each axis of the table, 1-D to 3-D.
      new: wanted lengths.
      method: one of `RESIZE_METHODS`.
      antialias: widen the kernel where an axis shrinks.
      align_corners: map first to first and last to last place, instead of edge to edge.
      leading: rows in front of the grid (class token, registers), which are kept.

    Returns:
      float32 `[leading + prod(new), D]`; the table itself if no length changes.

    Raises:
      UserError: an unknown method.
      ValueError: sizes that do not fit, or options that exclude each other.
    """
    if method not in RESIZE_METHODS:
        raise unknown("method of resizing positions", method, RESIZE_METHODS)
    if len(old) != len(new) or min(*old, *new) < 1 or table.shape[0] != leading + int(np.prod(old)):
        raise ValueError(f"table of {table.shape[0]} rows, {leading} of them in front; old={old}, new={new}")
    if antialias and (align_corners or method == "nearest"):
        raise ValueError(f"antialias excludes align_corners and method='nearest', got method={method!r}")
    if tuple(old) == tuple(new):
        return table
    grid = table[leading:].reshape(*old, -1)
    for axis, (length, wanted) in enumerate(zip(old, new, strict=True)):
        if length != wanted:
            weights = _weights(length, wanted, method=method, antialias=antialias, align_corners=align_corners)
            grid = jnp.tensordot(jnp.asarray(weights, grid.dtype), grid, axes=(1, axis), precision="highest")
            grid = jnp.moveaxis(grid, 0, axis)
    return jnp.concatenate([table[:leading], grid.reshape(-1, table.shape[1])])


def resize_square(
    table: Float[Array, "N D"], *, side: int, method: str = "bilinear", antialias: bool = False, **options: bool
) -> Float[Array, "M D"] | None:
    """Interpolate learned positions of a square grid for another one; None if `table` is of no square grid.

    Args:
      table: float32, row-major.
      side: wanted rows and columns.
      method: one of `RESIZE_METHODS`.
      antialias: widen the kernel where the grid shrinks.
      **options: further ones of `resize_positions`.
    """
    old = math.isqrt(table.shape[0])
    if old * old != table.shape[0]:
        return None
    return resize_positions(table, old=(old, old), new=(side, side), method=method, antialias=antialias, **options)


def resize_times(table: Float[Array, "T D"], *, times: int) -> Float[Array, "new D"]:
    """Interpolate learned positions in time linearly to another number of frames.

    Both numbers of frames are taken to cut the same clip into equal segments, with each position at the middle of its
    segment; beyond the first and the last middle the end values hold.

    Args:
      table: float32.
      times: wanted number of frames.
    """
    return resize_positions(table, old=(table.shape[0],), new=(times,))


def resize_time_map(kernel: Float[Array, "TD D"], *, times: int) -> Float[Array, "newD D"]:
    """Interpolate a linear map of all time tokens at once, as `resize_times`, to another number of them.

    The weights are scaled by the ratio of the numbers, so that the sum over a clip keeps its size.

    Args:
      kernel: float32, the rows of one time token after those of the one before.
      times: wanted number of time tokens.
    """
    width = kernel.shape[1]
    old = kernel.shape[0] // width
    steps = resize_times(kernel.reshape(old, width * width), times=times)
    return (steps * (old / times)).reshape(times * width, width)


def rotary_angles(
    *coordinates: Float[Array, "*L"] | Int[Array, "*L"] | np.ndarray, width: int, base: float = 10_000.0
) -> Float[Array, "*L half"]:
    """Compute the angles by which `rotate` turns the pairs of channels.

    Args:
      *coordinates: the place along each axis, of any one shape: 1-D, or axial 2-D with an equal share of the pairs for
        each axis, in this order. All 0 turns nothing (class tokens).
      width: channels of a head that turn, a multiple of twice the number of axes; at most the head's width.
      base: the rates of a share of h pairs are `base ** (-i / h)`, i = 0 ... h - 1.

    Returns:
      float32 `[*L, width / 2]`, radians.

    Raises:
      UserError: a width that does not divide.
    """
    pairs = width // (2 * len(coordinates))
    if 2 * pairs * len(coordinates) != width:
        raise UserError(
            f"rotary positions along {len(coordinates)} axes need a head's width to be a multiple of "
            f"{2 * len(coordinates)}, got {width}"
        )
    rates = jnp.asarray(base ** (-np.arange(pairs) / pairs), jnp.float32)
    places = [jnp.asarray(place).astype(jnp.float32)[..., None] for place in coordinates]  # each [*L,1]
    return jnp.concatenate([place * rates.reshape(*(1,) * (place.ndim - 1), -1) for place in places], axis=-1)


def rotate(
    x: Float[Array, "*B d"], *, angles: Float[Array, "*B half"], interleaved: bool = False
) -> Float[Array, "*B d"]:
    """Turn pairs of channels of queries or keys by `angles`, in float32.

    Args:
      x: of any float dtype.
      angles: radians, of the rank of `x`, broadcast over its axes; channels beyond twice its last axis stay.
      interleaved: channels 2i and 2i + 1 form pair i (RoFormer, PE-core); otherwise channels i and i + half
        (GPT-NeoX, Llama in transformers).
    """
    half = angles.shape[-1]
    turned, rest = x[..., : 2 * half].astype(jnp.float32), x[..., 2 * half :]
    if interleaved:
        a, b = turned[..., 0::2], turned[..., 1::2]
    else:
        a, b = turned[..., :half], turned[..., half:]
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    a, b = a * cos - b * sin, b * cos + a * sin
    turned = jnp.stack([a, b], axis=-1) if interleaved else jnp.concatenate([a, b], axis=-1)
    return jnp.concatenate([turned.reshape(*x.shape[:-1], 2 * half).astype(x.dtype), rest], axis=-1)


class RelativeBias(nnx.Module):
    """A learned bias on attention scores for the distance from query to key (T5, Raffel et al. 2020, section 2.1)."""

    def __init__(
        self, heads: int, *, buckets: int = 32, max_distance: int = 128, bidirectional: bool = True, rngs: nnx.Rngs
    ):
        """Build the table.

        Args:
          heads: attention heads K.
          buckets: how many distances are told apart; see `relative_buckets`.
          max_distance: distance from which all share one bucket.
          bidirectional: give keys after the query buckets of their own; False for decoders.
          rngs: source of the initial values.
        """
        self.buckets, self.max_distance, self.bidirectional = buckets, max_distance, bidirectional
        self.table = nnx.Param(0.02 * jax.random.normal(rngs.params(), (buckets, heads), jnp.float32))

    def __call__(self, *, queries: int, keys: int) -> Float[Array, "1 K L M"]:
        """Return the bias of `queries` places on `keys` places, both counted from 0; float32."""
        number = relative_buckets(
            queries=queries,
            keys=keys,
            buckets=self.buckets,
            max_distance=self.max_distance,
            bidirectional=self.bidirectional,
        )
        return jnp.moveaxis(jnp.take(self.table[...], number, axis=0), 2, 0)[None]  # [1,K,L,M]


def relative_buckets(
    *, queries: int, keys: int, buckets: int = 32, max_distance: int = 128, bidirectional: bool = True
) -> np.ndarray:
    """Number the distances from query to key as T5 does: half of the buckets exact, half in logarithmic steps.

    Args:
      queries: places L, from 0.
      keys: places M, from 0.
      buckets: how many; with `bidirectional` half of them are for keys after the query.
      max_distance: distance from which all share the last bucket.
      bidirectional: otherwise all keys after the query share bucket 0.

    Returns:
      int32 `[L,M]`, 0 ... buckets - 1.
    """
    distance = np.arange(keys)[None] - np.arange(queries)[:, None]  # key - query
    first = np.zeros_like(distance)
    if bidirectional:
        buckets //= 2
        first, distance = np.where(distance > 0, buckets, 0), np.abs(distance)
    else:
        distance = np.maximum(-distance, 0)
    exact = buckets // 2
    steps = np.log(np.maximum(distance, 1).astype(np.float32) / exact) / math.log(max_distance / exact)  # float32
    far = np.minimum(exact + (steps * (buckets - exact)).astype(np.int32), buckets - 1)
    return (first + np.where(distance < exact, distance, far)).astype(np.int32)


def _weights(old: int, new: int, *, method: str, antialias: bool, align_corners: bool) -> np.ndarray:
    """Return the float64 matrix `[new, old]` that resizes one axis."""
    scale = (old - 1) / max(new - 1, 1) if align_corners else old / new
    wanted = np.arange(new)
    centre = wanted * scale if align_corners else (wanted + 0.5) * scale - 0.5
    if method == "nearest":
        place = np.minimum(np.floor(wanted * old / new).astype(int), old - 1)
        return np.eye(old)[place]
    if antialias:
        kernel = _linear if method == "bilinear" else lambda distance: _cubic(distance, a=-0.5)
        weights = kernel(np.abs(centre[:, None] - np.arange(old)) / max(scale, 1.0))
        return weights / weights.sum(axis=1, keepdims=True)
    kernel = _linear if method == "bilinear" else lambda distance: _cubic(distance, a=-0.75)
    taps = np.floor(centre).astype(int)[:, None] + np.arange(-1, 3)  # [new,4]
    weights = np.zeros((new, old))
    np.add.at(weights, (wanted[:, None], np.clip(taps, 0, old - 1)), kernel(np.abs(centre[:, None] - taps)))
    return weights


def _linear(distance: np.ndarray) -> np.ndarray:
    return np.maximum(0.0, 1.0 - distance)


def _cubic(distance: np.ndarray, *, a: float) -> np.ndarray:
    """Cubic convolution (Keys 1981)."""
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = a * (((distance - 5) * distance + 8) * distance - 4)
    return np.where(distance <= 1, near, np.where(distance < 2, far, 0.0))
