"""Statistics of all pairs of a batch that is split over devices: by an all-gather, or by a ring of `ppermute`."""

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import jax
from jax import lax
from jax.sharding import AxisType, PartitionSpec
from jaxtyping import Array

from ..base.errors import UserError, unknown
from .tiles import Side, Statistics, Visit, join, joined, sweep

EXCHANGES = ("gather", "ring")

_SLICES: ContextVar[int] = ContextVar("slices", default=1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
    """Where the rows of a global batch lie, and how they are compared.

    Attributes:
      names: mesh axes, jointly, over which rows are split; () = one device holds all.
      devices: how many devices that makes.
      exchange: "gather" (every device gets all columns at once: one collective, memory of the whole batch's
        embeddings) or "ring" (columns go round, one device's share at a time: memory of two shares, of four over
        several slices).
      block: longest side of a tile of scores.
      slices: groups of consecutive devices between which the network is slow; a divisor of `devices`.
    """

    names: tuple[str, ...]
    devices: int
    exchange: str
    block: int
    slices: int = 1


@contextlib.contextmanager
def over_slices(count: int) -> Iterator[None]:
    """Trace losses for a mesh whose batch lies in `count` slices, one after another along the axes of the batch."""
    token = _SLICES.set(count)
    try:
        yield
    finally:
        _SLICES.reset(token)


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
    slices = _SLICES.get()
    slices = slices if devices % slices == 0 else 1
    return Layout(names=names, devices=devices, exchange=exchange, block=block, slices=slices)


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
    seen["row_offset"] = lax.axis_index(layout.names) * rows["e"].shape[0]
    if layout.exchange == "gather":
        everyone = {key: lax.all_gather(x, layout.names, tiled=True) for key, x in cols.items()}
        of_rows, of_cols = sweep(visit, cols=everyone, col_offset=0, **seen)
        return of_rows, _reduce_scatter(of_cols, layout=layout)
    if layout.slices == 1:
        start = sweep(visit, cols=cols, col_offset=0, none=True, **seen)
        return _ring(visit, cols=cols, lap=0, onto=start, layout=layout, seen=seen)
    return _rings(visit, cols=cols, layout=layout, seen=seen)


def _ring(
    visit: Visit, *, cols: Side, lap: Array | int, onto: tuple[Statistics, Statistics], layout: Layout, seen: Any
) -> tuple[Statistics, Statistics]:
    """Pass columns once round the devices of each slice; return the statistics of the rows and of these columns.

    Args:
      visit: see `tiles.sweep`.
      cols: the columns of the device at this place of the slice that lies `lap` slices before this device's.
      lap: from 0.
      onto: statistics to continue with.
      layout: of all devices.
      seen: further arguments of `tiles.sweep`.
    """
    inner = layout.devices // layout.slices
    me, share = lax.axis_index(layout.names), cols["e"].shape[0]
    first = (me // inner - lap) % layout.slices * inner
    pairs = [(i, i - i % inner + (i + 1) % inner) for i in range(layout.devices)]

    def turn(step: Array, state: Any) -> Any:
        cols, of_rows, of_cols = state
        source = first + (me - step) % inner
        # The next columns do not wait for this turn's scores, so that they can travel meanwhile.
        coming = _pass(cols, pairs, layout=layout)
        of_rows, of_cols = sweep(visit, cols=cols, col_offset=source * share, onto=(of_rows, of_cols), **seen)
        return coming, of_rows, _pass(of_cols, pairs, layout=layout)

    return lax.fori_loop(0, inner, turn, (cols, *onto))[1:]


def _rings(visit: Visit, *, cols: Side, layout: Layout, seen: Any) -> tuple[Statistics, Statistics]:
    """Pass columns round a ring in each slice, then to the next slice, and so on until all have seen all.

    A device's columns cross the network once for each slice, all devices at the same time, where one ring through all
    devices would carry everything over the link between the last device of a slice and the first of the next.
    What crosses is not needed, or comes from what was done, a whole ring earlier: it can travel meanwhile.
    """
    inner = layout.devices // layout.slices
    pairs = [(i, (i + inner) % layout.devices) for i in range(layout.devices)]
    none_of_rows, none_of_cols = sweep(visit, cols=cols, col_offset=0, none=True, **seen)

    def lap(number: Array, state: Any) -> Any:
        cols, of_rows, done = state
        coming, before = _pass(cols, pairs, layout=layout), _pass(done, pairs, layout=layout)
        of_rows, of_cols = _ring(visit, cols=cols, lap=number, onto=(of_rows, none_of_cols), layout=layout, seen=seen)
        return coming, of_rows, join(before, of_cols)

    _, of_rows, done = lax.fori_loop(0, layout.slices, lap, (cols, none_of_rows, none_of_cols))
    return of_rows, _pass(done, pairs, layout=layout)


def _pass(tree: Any, pairs: list[tuple[int, int]], *, layout: Layout) -> Any:
    """Send arrays from device to device, by (source, target)."""
    return jax.tree.map(lambda x: lax.ppermute(x, layout.names, pairs), tree)


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
