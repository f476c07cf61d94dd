"""Pictures of several aspect ratios in one batch: a sequence of patches with its grid, as `data` makes them (NaFlex).

A picture is uint8 `[(N + 1) P, P, 3]`: N patches of P x P pixels below each other, row by row of the grid, the missing
ones black. Before them stands a patch that says how many rows and columns are real, in its first two pixels: red is the
number modulo 256, green the number of 256s. Source: Tschannen et al. 2025 (SigLIP 2), section 2.4.
"""

from typing import NamedTuple

import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Bool, Float, Int, UInt8


class PatchSequence(NamedTuple):
    """What a batch of such pictures holds.

    Attributes:
      images: uint8 `[B,N*P,P,3]`, the patches.
      rows: int32 `[B]`, of the grid.
      columns: int32 `[B]`.
      mask: bool `[B,N]`, True = a real patch.
    """

    images: UInt8[Array, "B L P 3"]
    rows: Int[Array, "B"]
    columns: Int[Array, "B"]
    mask: Bool[Array, "B N"]


def read_sequences(images: UInt8[Array, "B H P 3"], *, patch: int) -> PatchSequence:
    """Take a batch apart.

    Args:
      images: pictures as the head of this file has them.
      patch: P.
    """
    head = images[:, 0, :2].astype(jnp.int32)  # [B,2,3]
    rows, columns = head[:, 0, 0] + 256 * head[:, 0, 1], head[:, 1, 0] + 256 * head[:, 1, 1]
    places = jnp.arange(images.shape[1] // patch - 1)
    mask = places[None] < (rows * columns)[:, None]
    return PatchSequence(images=images[:, patch:], rows=rows, columns=columns, mask=mask)


def sequence_positions(
    table: Float[Array, "M D"], *, side: int, rows: Int[Array, "B"], columns: Int[Array, "B"], count: int
) -> Float[Array, "B N D"]:
    """Interpolate positions of a square grid for the grid of each picture: bilinear, antialiased where it shrinks.

    The weights are those of `layers.positions.resize_positions`, for sizes that are known at run time only.

    Args:
      table: float32, row-major.
      side: rows and columns of the table.
      rows: of each picture's grid.
      columns: likewise.
      count: N; places after the real ones get those of some real place.
    """
    columns = jnp.maximum(columns, 1)
    place = jnp.arange(count)[None]  # [1,N]
    row, column = place // columns[:, None], place % columns[:, None]
    down = _weights(jnp.minimum(row, rows[:, None] - 1), new=rows, old=side)  # [B,N,side]
    across = _weights(column, new=columns, old=side)
    weights = rearrange(down[..., None] * across[..., None, :], "b n s t -> b n (s t)")
    return jnp.einsum("bnm,md->bnd", weights, table, precision="highest")


def _weights(place: Int[Array, "B N"], *, new: Int[Array, "B"], old: int) -> Float[Array, "B N old"]:
    scale = (old / jnp.maximum(new, 1).astype(jnp.float32))[:, None]  # [B,1]
    centre = (place.astype(jnp.float32) + 0.5) * scale - 0.5
    distance = jnp.abs(centre[..., None] - jnp.arange(old, dtype=jnp.float32)[None, None])
    weights = jnp.maximum(0.0, 1.0 - distance / jnp.maximum(scale, 1.0)[..., None])
    return weights / jnp.maximum(jnp.sum(weights, axis=-1, keepdims=True), 1e-12)
