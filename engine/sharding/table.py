"""The plan of a run's memory as a table: every array of the state, where it lies, and its bytes per device."""

import dataclasses
import math
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding
from rich.console import Console
from rich.table import Table


@dataclasses.dataclass(frozen=True, kw_only=True)
class Placed:
    """One array of the state.

    Attributes:
      kind: "parameter", "frozen" (parameters without gradient, and other variables), "optimizer" or "average".
      name: its path.
      shape: of the whole array.
      dtype: name of the dtype.
      spec: mesh axes per dimension, "whole" where every device holds all.
      bytes_per_device: what one device holds of it.
    """

    kind: str
    name: str
    shape: tuple[int, ...]
    dtype: str
    spec: str
    bytes_per_device: int


def placements(state: Any) -> list[Placed]:
    """List every array of a TrainState but the counters of the loop, in the order of the state.

    Args:
      state: arrays, or shapes with shardings.
    """
    parts = {
        "parameter": state.params,
        "frozen": state.others,
        "optimizer": state.opt_state,
        "average": state.ema,
    }
    return [
        _placed(kind, path, value)
        for kind, part in parts.items()
        for path, value in jax.tree_util.tree_leaves_with_path(part)
    ]


def bytes_by_kind(rows: list[Placed]) -> dict[str, int]:
    """Return bytes per device of each kind that occurs, and of all as "total"."""
    kinds = dict.fromkeys(row.kind for row in rows)
    sums = {kind: sum(row.bytes_per_device for row in rows if row.kind == kind) for kind in kinds}
    return sums | {"total": sum(sums.values())}


def sharding_table(state: Any, *, mesh: Mesh) -> Table:
    """Return parameters (trained and frozen) one by one, and the totals of all kinds, as a table for the terminal.

    Args:
      state: a TrainState as of `placements`.
      mesh: where it lies.
    """
    rows = placements(state)
    axes = " x ".join(f"{axis}={size}" for axis, size in mesh.shape.items())
    made = Table(title=f"parameters on the mesh {axes}", title_justify="left")
    for name in ("parameter", "shape", "dtype", "spec", "bytes per device"):
        made.add_column(name, justify="right" if name == "bytes per device" else "left", overflow="fold")
    for row in rows:
        if row.kind in ("parameter", "frozen"):
            shape = " x ".join(map(str, row.shape)) or "scalar"
            made.add_row(row.name, shape, row.dtype, row.spec, f"{row.bytes_per_device:,}")
    made.add_section()
    for kind, size in bytes_by_kind(rows).items():
        made.add_row(f"{kind}: {_NOTES[kind]}", "", "", "", f"{size:,}")
    return made


def sharding_text(state: Any, *, mesh: Mesh) -> str:
    """Return `sharding_table` as plain lines, for logs."""
    console = Console(width=140, color_system=None, force_terminal=False)
    with console.capture() as capture:
        console.print(sharding_table(state, mesh=mesh))
    return capture.get().rstrip()


def is_split(state: Any) -> bool:
    """Tell whether any array of a TrainState (as of `placements`) is split over devices."""
    return any(not array.sharding.is_fully_replicated for array in jax.tree.leaves(state))


_NOTES = {
    "parameter": "all that are trained",
    "frozen": "parameters without gradient, other variables",
    "optimizer": "state of the optimizer",
    "average": "moving average of the parameters",
    "total": "per device",
}


def _placed(kind: str, path: tuple, value: Any) -> Placed:
    sharding = value.sharding
    assert isinstance(sharding, NamedSharding)
    local = sharding.shard_shape(value.shape)
    axes = [(entry,) if isinstance(entry, str) else entry for entry in sharding.spec]
    spec = ", ".join("*" if entry is None else " x ".join(entry) for entry in axes)
    return Placed(
        kind=kind,
        name="/".join(str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", key)))) for key in path),
        shape=tuple(value.shape),
        dtype=value.dtype.name,
        spec=spec if any(axes) else "whole",
        bytes_per_device=math.prod(local) * value.dtype.itemsize,
    )
