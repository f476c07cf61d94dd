"""Where the optimizer's state and the activations live: by the same table as the parameters."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ...base.errors import UserError
from .layers import is_stacked
from .rules import PRESETS, Rules, check_used, first_match, resolved, rules_of


def place_optimizer(
    state: Any, *, trained: Mapping[str, jax.ShapeDtypeStruct], mesh: Mesh, rules: Rules
) -> dict[str, NamedSharding]:
    """Place every array of an optimizer's state.

    A moment is placed as its parameter (whose path is part of its own); a vector of Adafactor is
    split as the dimensions that it keeps; all else is held by every device. A rule for `optimizer/...` comes before.

    Args:
      state: the optimizer's state as shapes.
      trained: parameter path -> shape with sharding.
      mesh: the device mesh.
      rules: the whole table.

    Returns:
      `jax.tree_util.keystr` of an array's place in `state` -> sharding.

    Raises:
      UserError: a rule for `optimizer/...` that matches nothing or does not fit.
    """
    own = rules_of(rules, kind="optimizer")
    names, placed = [], {}
    for path, value in jax.tree_util.tree_leaves_with_path(state):
        field, like = _moment_of(path, trained)
        if like is None:
            placed[jax.tree_util.keystr(path)] = NamedSharding(mesh, PartitionSpec())
            continue
        names.append(f"optimizer/{field}/{like}")
        rule = first_match(names[-1], rules=own)
        spec = (
            _beside(value.shape, like=like, field=field, param=trained[like])
            if rule is None
            else resolved(rule, path=like, shape=value.shape, mesh=mesh)
        )
        placed[jax.tree_util.keystr(path)] = NamedSharding(mesh, spec)
    check_used(own, names=names, what="state of the optimizer")
    return placed


def _moment_of(path: tuple, trained: Mapping[str, Any]) -> tuple[str, str | None]:
    """The name of the field that an array of the state belongs to, and the path of its parameter."""
    keys = [key.key for key in path if isinstance(key, jax.tree_util.DictKey)]
    fields = [key.name for key in path if isinstance(key, jax.tree_util.GetAttrKey)]
    like = next((key for key in reversed(keys) if key in trained), None)
    return fields[-1] if fields else "state", like


def _beside(shape: tuple[int, ...], *, like: str, field: str, param: jax.ShapeDtypeStruct) -> PartitionSpec:
    assert isinstance(param.sharding, NamedSharding)
    spec = param.sharding.spec
    if shape == param.shape:
        return spec
    first = int(is_stacked(like))
    if field in ("v_row", "v_col") and len(shape) == len(param.shape) - 1:
        # Adafactor's row means leave out the largest dimension of a layer, its column means the next largest.
        order = np.argsort(param.shape[first:]) + first
        gone = int(order[-1] if field == "v_row" else order[-2])
        entries = (*spec, *(None,) * (len(param.shape) - len(spec)))
        if shape == tuple(size for i, size in enumerate(param.shape) if i != gone):
            return PartitionSpec(*(entry for i, entry in enumerate(entries) if i != gone))
    return PartitionSpec()


class Activations:
    """Places activations by the table while a step is traced, and remembers which rules were used.

    Attributes:
      seen: name -> (shape, dtype name, spec) of every activation that was named while tracing; None = left to the
        compiler.
    """

    def __init__(self, *, mesh: Mesh, rules: Rules):
        self._mesh, self._rules = mesh, rules_of(rules, kind="activation")
        self._preset = rules in PRESETS.values()
        self.seen: dict[str, tuple[tuple[int, ...], str, PartitionSpec | None]] = {}

    def __call__(self, name: str, x: jax.Array) -> jax.Array:
        """Constrain `x` as the first rule that matches its name says; without one the compiler decides.

        Raises:
          UserError: a rule that does not fit the activation. A preset leaves one that does not divide as it is.
        """
        rule = first_match(name, rules=self._rules)
        spec = None if rule is None else self._spec(rule, name=name, shape=x.shape)
        self.seen[name] = (tuple(x.shape), x.dtype.name, spec)
        return x if spec is None else jax.lax.with_sharding_constraint(x, NamedSharding(self._mesh, spec))

    def check(self) -> None:
        """Raise UserError if a rule of the user's own table matched no activation; call it after tracing."""
        if not self._preset:
            check_used(self._rules, names=self.seen, what="activation")

    def _spec(self, rule: tuple[str, Any], *, name: str, shape: tuple[int, ...]) -> PartitionSpec | None:
        try:
            return resolved(rule, path=name, shape=shape, mesh=self._mesh)
        except UserError:
            if self._preset:
                return None
            raise
