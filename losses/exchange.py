"""Statistics of all pairs of a batch that is split over devices: by an all-gather, or by a ring of `ppermute`."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
from jax import lax
from jax.sharding import AxisType, PartitionSpec
from jaxtyping import Array

from ..base.errors import UserError, unknown
from .tiles import Side, Statistics, Visit, joined, sweep

EXCHANGES = ("gather", "ring")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
    """Where the rows of a global batch lie, and how they are compared.

    Attributes:
      names: mesh axes, jointly, over which rows are split; () = one device holds all.
      devices: how many devices that makes.
      exchange: "gather" (every device gets all columns at once: one collective, memory of the whole batch's
        embeddings) or "ring" (columns go round, one device's share at a time: memory of two shares).
      block: longest side of a tile of scores.
    """

    names: tuple[str, ...]
    devices: int
    exchange: str
    block: int


def check_exchange(*, exchange: str, block: int) -> None:
    """Raise UserError, naming the field, for an unknown exchange or a block below 1."""
    if exchange not in EXCHANGES:
        raise unknown("config.loss.exchange", exchange, EXCHANGES)
    if block < 1:
        raise UserError(f"config.loss.block must be at least 1, got {block}")


def lay_out(*, rows: int, exchange: str, block: int, axes: tuple[str, ...]) -> Layout:
    """Find the mesh of the context (`jax.set_mesh`) and check that the batch can be split over it.

    Args:
      rows: global batch size.
      exchange: see `Layout`.
      block: see `Layout`.
      axes: mesh axes over which the batch is split; those that the mesh lacks or that have one device are left out.

    Raises:
      UserError: a batch that does not divide by the devices.
    """
    mesh = jax.sharding.get_abstract_mesh()
    manual = {name for name, kind in zip(mesh.axis_names, mesh.axis_types, strict=True) if kind == AxisType.Manual}
    names = tuple(axis for axis in axes if mesh.shape.get(axis, 1) > 1 and axis not in manual)
    devices = math.prod(mesh.shape[axis] for axis in names)
    if rows % devices:
        raise UserError(
            f"a blockwise loss of {rows} rows must divide by the {devices} devices of mesh axes "
            f"{' x '.join(map(repr, names))}; set config.data.batch_size to a multiple of {devices}"
        )
    return Layout(names=names, devices=devices, exchange=exchange, block=block)


def on_each_device(function: Callable[[Any, Any], tuple[Any, Any]], *, layout: Layout) -> Callable[[Any, Any], Any]:
    """Make `function(split, whole) -> (split, whole)` of global arrays from one of a device's share.

    `split` arrays have the batch as leading axis, divided over the devices; `whole` ones are the same on all.
    """
    if not layout.names:
        return function
    split, whole = PartitionSpec(layout.names), PartitionSpec()
    # The other axes (tensor) are manual too, and repeat the work: a mesh that is manual in part only is not to be had
    # with every collective on every backend.
    return jax.shard_map(function, in_specs=(split, whole), out_specs=(split, whole), check_vma=False)


def total(x: Array, *, layout: Layout) -> Array:
    """Sum over the devices."""
    return lax.psum(x, layout.names) if layout.names else x


def pair_statistics(
    visit: Visit, *, rows: Side, cols: Side, layout: Layout, same: str, per_row: int = 1
) -> tuple[Statistics, Statistics]:
    """Compare local rows with the columns of all devices; return per-row and per-column statistics of this device.

    Args:
      visit: see `tiles.sweep`.
      rows: this device's rows.
      cols: this device's columns.
      layout: where the others' columns are.
      same: see `tiles.relate`.
      per_row: see `tiles.relate`.
    """
    rows, cols = _present(rows), _present(cols)
    seen = {"rows": rows, "block": layout.block, "same": same, "per_row": per_row}
    if not layout.names:
        return sweep(visit, cols=cols, row_offset=0, col_offset=0, **seen)
    me = lax.axis_index(layout.names)
    share, col_share = rows["e"].shape[0], cols["e"].shape[0]
    seen["row_offset"] = me * share
    if layout.exchange == "gather":
        everyone = {key: lax.all_gather(x, layout.names, tiled=True) for key, x in cols.items()}
        of_rows, of_cols = sweep(visit, cols=everyone, col_offset=0, **seen)
        return of_rows, _reduce_scatter(of_cols, layout=layout)
    ring = [(i, (i + 1) % layout.devices) for i in range(layout.devices)]

    def turn(step: Array, state: Any) -> Any:
        cols, of_rows, of_cols = state
        source = (me - step) % layout.devices
        # The next columns do not wait for this turn's scores, so that they can travel meanwhile.
        coming = jax.tree.map(lambda x: lax.ppermute(x, layout.names, ring), cols)
        of_rows, of_cols = sweep(visit, cols=cols, col_offset=source * col_share, onto=(of_rows, of_cols), **seen)
        return coming, of_rows, jax.tree.map(lambda x: lax.ppermute(x, layout.names, ring), of_cols)

    start = sweep(visit, cols=cols, col_offset=me * col_share, none=True, **seen)
    return lax.fori_loop(0, layout.devices, turn, (cols, *start))[1:]


def _present(side: Side) -> Side:
    return {key: x for key, x in side.items() if x is not None}


def _reduce_scatter(stats: Statistics, *, layout: Layout) -> Statistics:
    """Join all devices' statistics of all columns; each device gets those of its own columns."""

    def of_own(kind: str, x: Array) -> Array:
        if kind == "sum":
            return lax.psum_scatter(x, layout.names, tiled=True)
        parts = x.reshape(layout.devices, -1, *x.shape[1:])
        return joined(kind, lax.all_to_all(parts, layout.names, split_axis=0, concat_axis=0))

    return {kind: {name: of_own(kind, x) for name, x in values.items()} for kind, values in stats.items()}
