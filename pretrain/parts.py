"""A batch encoded in parts, one after another, with the gradient of the whole."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from ..configs.errors import UserError

_ROWS = ("replica", "fsdp")  # the mesh axes over which rows of a batch lie


def in_parts(encode: Callable[[Any, Any, Any], Any], params: Any, rows: Any, keys: Any, *, parts: int) -> Any:
    """Return `encode(params, rows, keys)`, computed in `parts` parts of the rows.

    Only the results are kept of each part; the backward pass encodes it again (GradCache, Gao et al. 2021,
    arXiv:2101.06983). So any loss of all results has exactly the gradient that it has when all rows are encoded at
    once, as long as `encode` treats each row by itself and draws from the row's own key.

    Args:
      encode: works row by row.
      params: the parameters, any tree.
      rows: a tree of arrays with B rows.
      keys: row keys `[B]`, or None.
      parts: how many; each takes an equal share of the rows of every device, so that no row moves.

    Raises:
      UserError: the rows of a device do not divide by `parts`.
    """
    if parts == 1:
        return encode(params, rows, keys)
    size = jax.tree.leaves(rows)[0].shape[0]
    devices = _devices()
    if size % (devices * parts):
        raise UserError(
            f"config.loss.microbatch={parts} must divide the {size // devices} rows that each of {devices} devices has "
            f"of config.data.batch_size={size}"
        )
    split = jax.tree.map(lambda x: _split(x, devices=devices, parts=parts), (rows, keys))
    again = jax.checkpoint(lambda params, part: encode(params, *part), prevent_cse=False)
    results = jax.lax.map(lambda part: again(params, part), split)
    return jax.tree.map(lambda x: _join(x, devices=devices), results)


def _devices() -> int:
    """Over how many devices the rows lie, by the mesh of the context."""
    shape = jax.sharding.get_abstract_mesh().shape
    return math.prod(shape.get(axis, 1) for axis in _ROWS)


def _split(x: jax.Array, *, devices: int, parts: int) -> jax.Array:
    """`[B, ...] -> [parts, B / parts, ...]`, each part with rows of every device."""
    y = x.reshape(devices, parts, -1, *x.shape[1:])  # [devices,parts,rows of a device's part,...]
    return _placed(jnp.swapaxes(y, 0, 1).reshape(parts, -1, *x.shape[1:]))


def _join(x: jax.Array, *, devices: int) -> jax.Array:
    """The inverse of `_split`."""
    parts = x.shape[0]
    y = jnp.swapaxes(x.reshape(parts, devices, -1, *x.shape[2:]), 0, 1)
    return y.reshape(-1, *x.shape[2:])


def _placed(x: jax.Array) -> jax.Array:
    """Keep the rows of each part where they are: axis 1 over the devices of the batch."""
    if _devices() == 1:
        return x
    axes = tuple(axis for axis in _ROWS if axis in jax.sharding.get_abstract_mesh().shape)
    return jax.lax.with_sharding_constraint(x, PartitionSpec(None, axes))
