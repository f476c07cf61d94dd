"""Copy chosen parameters of a checkpoint into a new model, with a table of loaded, resized, new and unused ones."""

import dataclasses
import math
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from rich.table import Table

from ...base.errors import UserError
from ...models.adapters import ADDED, set_magnitudes
from ..step.state import join, split_model
from .fit import table

LOADED, RESIZED, NEW, UNUSED = "loaded", "resized", "new", "unused"
"""In the new model as it stood; interpolated to the new size; freshly initialised; in the checkpoint only."""


Resizer = Callable[[jax.Array], jax.Array | None]
"""Takes positions `[N,D]`, weights over time, or the scores of classes, returns those of another number; None where it
cannot."""


class Shaped(Protocol):
    """Anything with a shape: an array, or what `jax.eval_shape` gives."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its dimensions."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Transfer:
    """The status of each parameter.

    Attributes:
      values: float arrays for the paths of the new model that are loaded or resized.
      status: path -> one of `loaded`, `resized`, `new`, `unused`.
      sizes: path -> (shape in the checkpoint or None, shape in the new model or None).
    """

    values: dict[str, np.ndarray]
    status: dict[str, str]
    sizes: dict[str, tuple[tuple[int, ...] | None, tuple[int, ...] | None]]

    def groups(self) -> list[dict[str, str | int]]:
        """Return one row per parameter group (two levels of the path) and status, with tensors, parameters, note."""
        members: dict[tuple[str, str], list[str]] = defaultdict(list)
        for path, status in self.status.items():
            members[("/".join(path.split("/")[:2]), status)].append(path)
        return [
            {
                "group": group,
                "status": status,
                "tensors": len(paths),
                "parameters": sum(math.prod(self._shape(path)) for path in paths),
                "note": "; ".join(_arrow(self.sizes[path]) for path in paths) if status == RESIZED else "",
            }
            for (group, status), paths in members.items()
        ]

    def table(self) -> Table:
        """Return the groups as a table for the terminal."""
        made = Table(title="parameters: checkpoint and new model", title_justify="left")
        for name in ("group", "status", "tensors", "parameters", "note"):
            made.add_column(name, justify="right" if name in ("tensors", "parameters") else "left")
        for row in self.groups():
            made.add_row(*[f"{value:,}" if isinstance(value, int) else value for value in row.values()])
        return made

    def _shape(self, path: str) -> tuple[int, ...]:
        old, new = self.sizes[path]
        return (new if new is not None else old) or ()


def plan_transfer(
    source: Mapping[str, np.ndarray],
    *,
    target: Mapping[str, Shaped],
    parts: Sequence[str] | None,
    name: str = "checkpoint",
    flag: str = "--init",
    parts_flag: str = "",
    resizers: Mapping[str, Resizer] | None = None,
    adapts: bool = False,
) -> Transfer:
    """Choose from a checkpoint's parameters those that a new model takes over.

    Positions in time and space, and weights over time, are interpolated where their number differs; a classifier whose
    head is taken over may get further classes. Nothing else is resized.

    Args:
      source: parameter path ("/"-joined) -> array, of the checkpoint.
      target: parameter path -> anything with a shape, of the new model.
      parts: regexes over whole paths of the new model: these come from the checkpoint, all others stay new. None = all
        that the checkpoint has.
      name: what to call the checkpoint in messages.
      flag: the flag or field that gives the checkpoint, for messages.
      parts_flag: the flag or field that gives `parts`, for messages; "" if the user cannot set it.
      resizers: path -> how its positions are interpolated, of `position_resizers`.
      adapts: the new model adapts that of the checkpoint (`models.adapters`): what it adds is new, unless the
        checkpoint has it.

    Returns:
      The values to fill in and the status of every parameter of both sides; order of the new model, then the unused.

    Raises:
      UserError: a chosen parameter is missing in the checkpoint or has another shape there, with a table of them; or
        with `parts` None the checkpoint has none of the new model's.
    """
    values: dict[str, np.ndarray] = {}
    status: dict[str, str] = {}
    sizes: dict[str, tuple[tuple[int, ...] | None, tuple[int, ...] | None]] = {}
    misfits: list[tuple[str, str, str]] = []
    for path, wanted in target.items():
        shape = tuple(wanted.shape)
        sizes[path] = (tuple(source[path].shape) if path in source else None, shape)
        added = adapts and path not in source and ADDED.search(path) is not None
        if added or (
            path not in source if parts is None else not any(re.fullmatch(pattern, path) for pattern in parts)
        ):
            status[path] = NEW
            sizes[path] = (None, shape)
        elif path not in source:
            misfits.append((path, "(absent)", _times(shape)))
        elif source[path].shape == shape:
            status[path], values[path] = LOADED, np.asarray(source[path])
        elif (value := _resized(path, np.asarray(source[path]), shape=shape, resizers=resizers or {})) is not None:
            status[path], values[path] = RESIZED, value
        else:
            misfits.append((path, _times(source[path].shape), _times(shape)))
    if misfits:
        raise UserError(_misfit_message(misfits, name=name, flag=flag, parts_flag=parts_flag))
    if parts is None and not values:
        raise UserError(f"{name} has none of the new model's parameters; it is the checkpoint of another kind of model")
    for path, value in source.items():
        if path not in values:
            status.setdefault(path, UNUSED)
            sizes.setdefault(path, (tuple(value.shape), None))
    return Transfer(values=values, status=status, sizes=sizes)


def shapes(model: nnx.Module) -> dict[str, Shaped]:
    """Return {"/"-joined path: array} of all variables of a model, as the target of `plan_transfer`."""
    return dict(split_model(model))


def position_resizers(model: nnx.Module) -> dict[str, Resizer]:
    """Return parameter path -> how it gets another size, as each part of a model says.

    A part says so in a method `position_resizers() -> {path of a parameter within it: function}`; a function takes a
    table of another length, float32 `[N,D]`, and returns that of the model, or None if it cannot.
    """
    found: dict[str, Resizer] = {}
    for path, module in nnx.iter_modules(model):
        own: Callable[[], Mapping[str, Resizer]] = getattr(module, "position_resizers", dict)
        found |= {join((*path, name)): resize for name, resize in own().items()}
    return found


def fill(model: nnx.Module, *, values: Mapping[str, np.ndarray]) -> None:
    """Set variables of `model` in place; each keeps its dtype and its placement on the devices."""
    flat = {join(key): (key, variable) for key, variable in nnx.to_flat_state(nnx.state(model))}
    for path, value in values.items():
        _, variable = flat[path]
        old = variable.get_value()
        variable.set_value(jax.device_put(np.asarray(value, old.dtype), old.sharding))
    nnx.update(model, nnx.from_flat_state({flat[path][0]: flat[path][1] for path in values}))


def fill_planned(model: nnx.Module, *, plan: Transfer) -> None:
    """Set what a plan takes over, in place, and what follows from it in a model that adapts the checkpoint's."""
    fill(model, values=plan.values)
    set_magnitudes(model, chosen=lambda path: plan.status[path] == NEW)


def _resized(
    path: str, value: np.ndarray, *, shape: tuple[int, ...], resizers: Mapping[str, Resizer]
) -> np.ndarray | None:
    """Return a parameter of another size, such as positions; None where nothing resizes it to `shape`."""
    if path not in resizers or value.ndim != len(shape):
        return None
    found = resizers[path](jnp.asarray(value))
    return None if found is None or found.shape != shape else np.asarray(found)


def _misfit_message(misfits: list[tuple[str, str, str]], *, name: str, flag: str, parts_flag: str) -> str:
    choice = f", or leave these out of {parts_flag}, so that they are new" if parts_flag else ""
    return (
        f"{len(misfits)} parameters of {name} do not fit the new model:\n{table(misfits)}\n"
        "Set config.model and config.data.num_frames as the checkpoint has them, or give "
        f"{flag} the checkpoint of such a model{choice}"
    )


def _times(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape)) or "scalar"


def _arrow(sizes: tuple[tuple[int, ...] | None, tuple[int, ...] | None]) -> str:
    old, new = sizes
    return f"{_times(old or ())} -> {_times(new or ())}"
