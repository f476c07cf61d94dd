"""Recurrent layers with masks: LSTM (Hochreiter & Schmidhuber 1997) and GRU (Cho et al. 2014), one way or both ways.

The equations and the order of the gates are those of PyTorch: input, forget, cell, output; reset, update, new. Padding
leaves the state as it is, so a row gives the same with any amount of padding behind it.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from ...base.errors import UserError, unknown
from .dense import linear
from .pooling import masked_mean

CELLS = {"lstm": 4, "gru": 3}
"""Name of a cell -> its gates."""
RECURRENT_POOLS = ("mean", "max", "last")
"""How the outputs become one vector."""


class Recurrent(nnx.Module):
    """One recurrent layer in one direction; it computes in float32."""

    def __init__(self, width_in: int, width: int, *, cell: str, reverse: bool = False, rngs: nnx.Rngs):
        """Build the layer.

        Args:
          width_in: channels of the input.
          width: channels of the state and of the output.
          cell: a name of `CELLS`.
          reverse: go from the end to the beginning.
          rngs: source of the initial values.
        """
        self.cell, self.width, self.reverse = cell, width, reverse
        self.input = linear(width_in, CELLS[cell] * width, dtype=jnp.float32, rngs=rngs)
        self.state = linear(width, CELLS[cell] * width, dtype=jnp.float32, rngs=rngs)

    def __call__(self, x: Float[Array, "B L C"], *, mask: Bool[Array, "B L"]) -> Float[Array, "B L W"]:
        """Return the state after each place, float32; on padding the state of the real place before it."""
        seen = jnp.moveaxis(self.input(x.astype(jnp.float32)), 1, 0)  # [L,B,gates*W]
        real = jnp.moveaxis(mask, 1, 0)[..., None]  # [L,B,1]
        kernel, bias = self.state.weight(), self.state.bias[...]  # pyright: ignore[reportOptionalSubscript]

        def step(carry: tuple[Array, Array], at: tuple[Array, Array]) -> tuple[tuple[Array, Array], Array]:
            (h, c), (seen, real) = carry, at
            own = h @ kernel + bias[None]
            new_h, new_c = _lstm(seen + own, c) if self.cell == "lstm" else (_gru(seen, own, h), c)
            h, c = jnp.where(real, new_h, h), jnp.where(real, new_c, c)
            return (h, c), h

        start = jnp.zeros((x.shape[0], self.width), jnp.float32)
        _, y = jax.lax.scan(step, (start, start), (seen, real), reverse=self.reverse)
        return jnp.moveaxis(y, 0, 1)


class RecurrentStack(nnx.Module):
    """Recurrent layers on top of each other; both directions of a layer are concatenated."""

    def __init__(
        self, width_in: int, width: int, *, cell: str, depth: int, bidirectional: bool, field: str, rngs: nnx.Rngs
    ):
        """Build the layers.

        Args:
          width_in: channels of the input.
          width: channels of the output; each of two directions has half of them.
          cell: a name of `CELLS`.
          depth: layers.
          bidirectional: go in both directions.
          field: section of the config, for errors.
          rngs: source of the initial values.

        Raises:
          UserError: an unknown cell, no layer, or an odd width for two directions.
        """
        if cell not in CELLS:
            raise unknown(f"{field}.cell", cell, CELLS)
        if depth < 1 or (bidirectional and width % 2):
            raise UserError(
                f"{field}: depth={depth} must be at least 1, and width={width} even for two directions "
                "(bidirectional=False: one)"
            )
        sides, each = (False, True) if bidirectional else (False,), width // (1 + bidirectional)
        self.layers = nnx.List(
            [
                nnx.List(
                    [
                        Recurrent(width if number else width_in, each, cell=cell, reverse=side, rngs=rngs)
                        for side in sides
                    ]
                )
                for number in range(depth)
            ]
        )

    def __call__(self, x: Float[Array, "B L C"], *, mask: Bool[Array, "B L"]) -> Float[Array, "B L W"]:
        """Return the outputs of the last layer, float32, zeros on padding."""
        for layer in self.layers:
            x = jnp.concatenate([side(x, mask=mask) for side in layer], axis=-1)
        return jnp.where(mask[..., None], x, jnp.float32(0))


def pool_recurrent(
    x: Float[Array, "B L W"], *, mask: Bool[Array, "B L"], pool: str, bidirectional: bool
) -> Float[Array, "B W"]:
    """Pool outputs over the real places, which come first in each row; float32, zeros for a row without any.

    Args:
      x: of `RecurrentStack`.
      mask: True where a place is real.
      pool: one of `RECURRENT_POOLS`; "last" takes the state of each direction after its last step.
      bidirectional: the second half of the channels went from the end to the beginning.
    """
    if pool == "mean":
        return masked_mean(x, mask=mask)
    if pool == "max":
        return masked_max(x, mask=mask)
    count = jnp.sum(mask, axis=1, dtype=jnp.int32)
    last = jnp.take_along_axis(x, jnp.maximum(count - 1, 0)[:, None, None], axis=1)[:, 0]
    if not bidirectional:
        return last
    half = x.shape[-1] // 2
    return jnp.concatenate([last[:, :half], x[:, 0, half:]], axis=-1)


def masked_max(x: Float[Array, "B L D"], *, mask: Bool[Array, "B L"]) -> Float[Array, "B D"]:
    """Return the largest value of each channel over the real places; float32, zeros for a row without any."""
    largest = jnp.max(jnp.where(mask[..., None], x.astype(jnp.float32), -jnp.inf), axis=1)
    return jnp.where(jnp.any(mask, axis=1)[:, None], largest, jnp.float32(0))


def check_recurrent_pool(name: str, *, field: str) -> None:
    """Raise UserError unless `name` is in `RECURRENT_POOLS`; it names the config field."""
    if name not in RECURRENT_POOLS:
        raise unknown(field, name, RECURRENT_POOLS)


def _lstm(gates: Array, c: Array) -> tuple[Array, Array]:
    i, f, g, o = jnp.split(gates, 4, axis=-1)
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jax.nn.sigmoid(o) * jnp.tanh(c), c


def _gru(seen: Array, own: Array, h: Array) -> Array:
    (r, z, n), (own_r, own_z, own_n) = jnp.split(seen, 3, axis=-1), jnp.split(own, 3, axis=-1)
    r, z = jax.nn.sigmoid(r + own_r), jax.nn.sigmoid(z + own_z)
    return (1 - z) * jnp.tanh(n + r * own_n) + z * h
