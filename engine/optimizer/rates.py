"""The factor on each parameter's learning rate: per tower, falling from layer to layer; and the step that opens it."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
from flax import nnx

from ...base.errors import UserError
from ..sharding.layers import is_stacked
from ..sharding.rules import compiled, no_match

Table = tuple[tuple[re.Pattern[str], float], ...]

Openings = tuple[tuple[re.Pattern[str], int, int], ...]
"""(regex, step, steps from one layer to the next) of parameters that are trained from a step on."""

Distances = Mapping[str, np.ndarray]
"""Parameter path -> float32 [] or, for stacked layers, [depth]: how many layers below the output it lies."""


@runtime_checkable
class Layered(Protocol):
    """A module that declares the order of its layers, which layer-wise rates follow."""

    def layer_order(self) -> tuple[str, ...]:
        """Return beginnings of the parameter paths below this module, from input to output.

        An entry such as "space/layers" that names stacked layers counts once for each of them.
        """
        ...


def make_table(rows: Sequence[Any], *, field: str) -> Table:
    """Check an ordered table of (regex, factor) and compile it.

    Raises:
      UserError: a row that is no such pair, an invalid regex, or a negative factor.
    """
    table = []
    for row in rows:
        pair = isinstance(row, (tuple, list)) and len(row) == 2 and isinstance(row[0], str)
        if not pair or isinstance(row[1], bool) or not isinstance(row[1], (int, float)) or row[1] < 0:
            raise UserError(f"{field} holds pairs (regex, factor of at least 0), got {row!r}")
        table.append((compiled(row[0], field=field), float(row[1])))
    return tuple(table)


def make_openings(rows: Sequence[Any], *, steps: int, field: str) -> Openings:
    """Check an ordered table of (regex, step) or (regex, step, steps between two layers) and compile it.

    Raises:
      UserError: a row of another form, an invalid regex, or a step that the run does not reach.
    """
    table = []
    for row in rows:
        fits = isinstance(row, (tuple, list)) and len(row) in (2, 3) and isinstance(row[0], str)
        if not fits or any(isinstance(x, bool) or not isinstance(x, int) or x < 0 for x in row[1:]):
            raise UserError(
                f"{field} holds rows (regex, step) or (regex, step, steps from layer to layer), got {row!r}"
            )
        if row[1] >= steps:
            raise UserError(f"{field}: {row[0]!r} would open at step {row[1]} of {steps}; set it below")
        table.append((compiled(row[0], field=field), row[1], row[2] if len(row) == 3 else 0))
    return tuple(table)


def opening_steps(params: Mapping[str, Any], *, table: Openings, distances: Distances) -> dict[str, np.ndarray]:
    """Return from which step on each parameter is trained: gradual unfreezing (Howard & Ruder 2018, section 3.3).

    Args:
      params: parameter path -> anything with ndim, of the trained ones.
      table: ordered; the first regex found in a path opens it at its step and, with steps from layer to layer, so many
        times that later as it has layers of its tower behind it. Parameters that none means are open from the start.
      distances: of the whole model, see `layer_distances`.

    Returns:
      path -> int32 scalar, or `[depth,1,...]` for stacked layers that open one after another.

    Raises:
      UserError: a regex that matches no trained parameter, or nothing is open at step 0.
    """
    field = "config.optimizer.unfreeze"
    for regex, _, _ in table:
        if not any(regex.search(path) for path in params):
            raise no_match(regex.pattern, params, what="regex", field=field, of="trained parameter")
    found = {}
    for path, value in params.items():
        _, step, every = next((row for row in table if row[0].search(path)), (None, 0, 0))
        behind = np.maximum(np.floor(distances.get(path, np.float32(0))) - 1, 0) if every else np.float32(0)
        opens = np.asarray(step + every * behind, np.int32)
        found[path] = opens.reshape(-1, *(1,) * (value.ndim - 1)) if opens.ndim else opens
    if table and not any((opens == 0).any() for opens in found.values()):
        raise UserError(f"{field} opens no parameter at step 0, so that nothing would be trained at first; name fewer")
    return found


def layer_distances(model: nnx.Module) -> dict[str, np.ndarray]:
    """Return how far below the output each parameter of the model's towers lies, in layers.

    In a tower (any `Layered` module) of N stacked layers, layer l lies N + 1 - l below the output, l from 1. What comes
    before the first layer lies N + 1 below, what comes after the last one 0. What stands between two stacks (the norm
    after one, pooling, the positions of the next) lies halfway between the layers on either side.

    Args:
      model: of arrays or of shapes.

    Returns:
      The distances of the parameters inside of towers; those of all others are 0.
    """
    shapes = {_join(path): value.get_value().shape for path, value in nnx.to_flat_state(nnx.state(model, nnx.Param))}
    found: dict[str, np.ndarray] = {}
    for path, module in nnx.iter_modules(model):  # a module comes after those that it contains
        if isinstance(module, Layered):
            inside = "".join(f"{part}/" for part in path)
            below = {name.removeprefix(inside): shape for name, shape in shapes.items() if name.startswith(inside)}
            for name, distance in _distances(module.layer_order(), shapes=below, tower=inside).items():
                found.setdefault(inside + name, distance)
    return found


def _distances(order: Sequence[str], *, shapes: Mapping[str, tuple[int, ...]], tower: str) -> dict[str, np.ndarray]:
    parts = _with_prompts(order)
    members = {part: [name for name in shapes if name == part or name.startswith(f"{part}/")] for part in parts}
    missing = shapes.keys() - {name for names in members.values() for name in names}
    assert not missing, f"layer_order() of {tower} leaves out {sorted(missing)}"
    depths = [shapes[names[0]][0] if names and is_stacked(names[0]) else 0 for names in members.values()]
    total, before = sum(depths), np.cumsum([0, *depths])
    distances = {}
    for names, depth, done in zip(members.values(), depths, before, strict=False):
        if depth:
            distance = total - done - np.arange(depth)
        else:
            distance = np.asarray(0 if done == total else total + 1 if done == 0 else total + 0.5 - done)
        distances |= dict.fromkeys(names, distance.astype(np.float32))
    return distances


def _with_prompts(order: Sequence[str]) -> list[str]:
    """Put the prompts of a stack (`models.adapters`) before its layers."""
    found = []
    for part in order:
        stack = part.removesuffix("/layers")
        found += [part] if stack == part else [f"{stack}/prompts", part]
    return found


def rate_factors(
    params: Mapping[str, Any], *, lr_scale: Table, layer_decay: float, distances: Distances
) -> dict[str, np.ndarray]:
    """Return the factor on the learning rate of every parameter.

    Args:
      params: parameter path -> anything with ndim and shape.
      lr_scale: ordered table; the first regex found in a path gives its factor, 1 where there is none.
      layer_decay: d of layer-wise decay (Bao et al. 2022, BEiT, appendix): a parameter that lies k layers below the
        output gets d ** k. 1 = off.
      distances: of the whole model, see `layer_distances`.

    Returns:
      path -> float32 scalar, or `[depth,1,...]` for stacked layers under layer-wise decay.

    Raises:
      UserError: a regex that matches no parameter, or layer-wise decay with no parameter below the output.
    """
    for regex, _ in lr_scale:
        if not any(regex.search(path) for path in params):
            raise no_match(
                regex.pattern, params, what="regex", field="config.optimizer.lr_scale", of="trained parameter"
            )
    if layer_decay != 1 and not any(np.any(distances.get(path, 0)) for path in params):
        raise UserError(
            f"config.optimizer.layer_decay={layer_decay} needs parameters of a tower's layers, but none is trained; "
            "set it to 1.0"
        )
    factors = {}
    for path, value in params.items():
        factor = np.float32(next((factor for regex, factor in lr_scale if regex.search(path)), 1.0))
        if layer_decay != 1:
            distance = distances.get(path, np.float32(0))
            decay = np.float32(layer_decay) ** distance
            factor = factor * decay.reshape(-1, *(1,) * (value.ndim - 1)) if np.ndim(distance) else factor * decay
        factors[path] = np.asarray(factor, np.float32)
    return factors


def scaled(updates: Mapping[str, jax.Array], *, factors: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
    """Multiply each update by its factor, in the dtype of the update."""
    return {path: value * factors[path].astype(value.dtype) for path, value in updates.items()}


def _join(path: tuple) -> str:
    return "/".join(map(str, path))
