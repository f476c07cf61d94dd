"""How much of the learning rate each parameter gets: per tower, and falling from layer to layer."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax

from ...base.errors import UserError
from ..sharding.layers import is_stacked, stack_of
from ..sharding.rules import compiled, no_match

Table = tuple[tuple[re.Pattern[str], float], ...]

_INPUT = re.compile(r"(?:^|/)(?:\w*embed\w*|\w*position\w*|patch\w*|stem\w*|\w*token\w*)(?:/|$)")
"""Paths of what comes before the first block of a tower."""


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


def rate_factors(params: Mapping[str, Any], *, lr_scale: Table, layer_decay: float) -> dict[str, np.ndarray]:
    """Return the factor on the learning rate of every parameter.

    Args:
      params: parameter path -> anything with ndim and shape.
      lr_scale: ordered table; the first regex found in a path gives its factor, 1 where there is none.
      layer_decay: d of layer-wise decay (Bao et al. 2022, BEiT, appendix): block l of a tower of N blocks gets
        d ** (N + 1 - l), l from 1; embeddings and positions d ** (N + 1); what is no part of a tower, or comes after
        its blocks, 1. Each tower (first component of the path) is counted by itself, its stacks of layers one after
        another in the order of their paths. 1 = off.

    Returns:
      path -> float32 scalar, or `[depth,1,...]` for stacked layers under layer-wise decay.

    Raises:
      UserError: a regex that matches no parameter, or layer-wise decay without stacked layers.
    """
    for regex, _ in lr_scale:
        if not any(regex.search(path) for path in params):
            raise no_match(
                regex.pattern, params, what="regex", field="config.optimizer.lr_scale", of="trained parameter"
            )
    layers = _layer_factors(params, decay=layer_decay) if layer_decay != 1 else {}
    return {
        path: np.float32(next((factor for regex, factor in lr_scale if regex.search(path)), 1.0))
        * layers.get(path, np.ones((), np.float32))
        for path in params
    }


def scale_by_rates(*, lr_scale: Table, layer_decay: float) -> optax.GradientTransformation:
    """Multiply the updates by `rate_factors`."""

    def init(params: Any) -> optax.EmptyState:
        rate_factors(params, lr_scale=lr_scale, layer_decay=layer_decay)  # mistakes are named before any step
        return optax.EmptyState()

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        del params
        factors = rate_factors(updates, lr_scale=lr_scale, layer_decay=layer_decay)
        return {path: value * jnp.asarray(factors[path], value.dtype) for path, value in updates.items()}, state

    return optax.GradientTransformation(init, update)


def _layer_factors(params: Mapping[str, Any], *, decay: float) -> dict[str, np.ndarray]:
    towers: dict[str, dict[str, int]] = {}
    for path in sorted(params):
        if is_stacked(path):
            towers.setdefault(path.split("/")[0], {})[stack_of(path)] = params[path].shape[0]
    if not towers:
        raise UserError(
            f"config.optimizer.layer_decay={decay} needs parameters of stacked layers (a path with '/layers/'), but "
            "none is trained; set it to 1.0"
        )
    factors = {}
    for path, value in params.items():
        stacks = towers.get(path.split("/")[0], {})
        total = sum(stacks.values())
        if is_stacked(path):
            before = sum(depth for stack, depth in stacks.items() if stack < stack_of(path))
            below = total - before - np.arange(value.shape[0])
            factors[path] = (decay**below).astype(np.float32).reshape(-1, *(1,) * (value.ndim - 1))
        elif stacks and _INPUT.search(path):
            factors[path] = np.float32(decay ** (total + 1))
    return factors
