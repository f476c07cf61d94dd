"""Encode a global batch in parts, one after another, so that the activations of one part at a time are in memory.

GradCache (Gao et al. 2021, arXiv:2101.06983): a contrastive loss needs all embeddings at once, but never the
activations of two rows together. The backward pass therefore encodes each part again. Where there is memory for what
the layers' own rematerialisation keeps of all parts (the inputs of layers, say), encoding again is a waste: without it
only what a layer needs while it is computed belongs to one part. Value and gradients are those of the whole batch. Any
objective whose encoder treats each row by itself can use it.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
from einops import rearrange
from jax.sharding import PartitionSpec
from jaxtyping import Array

from ...base.errors import UserError
from ..sharding.mesh import BATCH_AXES

Rows = dict[str, Array]
"""Arrays with one entry per row along their first axis."""


def in_parts(
    encode: Callable[[Rows], Rows],
    *,
    rows: Rows,
    parts: int,
    again: bool = True,
    field: str = "config.loss.microbatch",
) -> Rows:
    """Return `encode(rows)`, computed in `parts` turns that each see an equal share of every device's rows.

    The rows of a part lie on the devices where they lie in the batch (mesh of the context, `jax.set_mesh`): nothing
    moves.

    Args:
      encode: rows -> embeddings; what it gives for a row must depend on that row only.
      rows: arrays [B,...], random keys included.
      parts: k; 1 encodes all at once and keeps the activations.
      again: the backward pass encodes each part again; False = what `encode` itself keeps for it is kept of all parts.
      field: the config field that gives k, for messages.

    Raises:
      UserError: k does not divide the rows of a device.
    """
    if parts == 1:
        return encode(rows)
    devices, total = _devices(), jax.tree.leaves(rows)[0].shape[0]
    if parts < 1 or total % (parts * devices):
        raise UserError(
            f"{field}={parts} must divide the {total // devices} rows that each of {devices} devices "
            f"has of a batch of {total}; set it to a divisor, or change config.data.batch_size"
        )

    def part(rows: Rows) -> Rows:
        return encode(jax.tree.map(_split_first, rows))

    # In a loop the compiler cannot merge the two computations, so there is no need for the barrier against it.
    encoded = jax.lax.map(
        jax.checkpoint(part, prevent_cse=False) if again else part,
        jax.tree.map(lambda x: split(x, parts=parts, devices=devices), rows),
    )
    return jax.tree.map(lambda x: join(x, devices=devices), encoded)


def split(x: Array, *, parts: int, devices: int) -> Array:
    """Divide rows [B,...] into parts [k,B/k,...]; a part takes as many rows of each of the devices, in their order."""
    x = _place(rearrange(x, "(d k r) ... -> d k r ...", d=devices, k=parts), PartitionSpec(BATCH_AXES))
    x = _place(rearrange(x, "d k r ... -> k d r ..."), PartitionSpec(None, BATCH_AXES))
    return _place(rearrange(x, "k d r ... -> k (d r) ..."), PartitionSpec(None, BATCH_AXES))


def join(x: Array, *, devices: int) -> Array:
    """Undo `split`: [k,B/k,...] -> [B,...]."""
    x = _place(rearrange(x, "k (d r) ... -> k d r ...", d=devices), PartitionSpec(None, BATCH_AXES))
    x = _place(rearrange(x, "k d r ... -> d k r ..."), PartitionSpec(BATCH_AXES))
    return _split_first(rearrange(x, "d k r ... -> (d k r) ..."))


def _split_first(x: Array) -> Array:
    return _place(x, PartitionSpec(BATCH_AXES))


def _place(x: Any, spec: PartitionSpec) -> Any:
    names = jax.sharding.get_abstract_mesh().shape
    axes = tuple(axis for axis in BATCH_AXES if axis in names)
    if not axes:
        return x
    return jax.lax.with_sharding_constraint(
        x, PartitionSpec(*(axes if entry == BATCH_AXES else entry for entry in spec))
    )


def _devices() -> int:
    sizes = jax.sharding.get_abstract_mesh().shape
    return math.prod(sizes.get(axis, 1) for axis in BATCH_AXES)
