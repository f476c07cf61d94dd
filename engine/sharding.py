"""Where each parameter lives: one ordered table of (regex over the parameter path, spec), first match wins."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ..configs.errors import UserError, unknown

Spec = tuple[str | None, ...]
Rules = tuple[tuple[str, Spec], ...]

REPLICATED: Rules = ((".*", ()),)


def make_rules(*, rules: Sequence[Sequence[Any]] = REPLICATED) -> Rules:
    """Check the table of section `sharding` of a config and return it with tuples throughout.

    Args:
      rules: pairs (regex to find in a parameter path, mesh axis or None per dimension of the parameter); for example
        `(("/kernel$", (None, "fsdp")), (".*", ()))`.
    """
    checked = []
    for rule in rules:
        if len(rule) != 2 or not isinstance(rule[0], str) or isinstance(rule[1], str):
            raise UserError(f"config.sharding.rules holds pairs (regex, (axis or None, ...)), got {rule!r}")
        checked.append((compiled(rule[0], field="config.sharding.rules").pattern, tuple(rule[1])))
    return tuple(checked)


def compiled(pattern: str, *, field: str) -> re.Pattern[str]:
    """Compile a user's regex; an invalid one is a UserError that names `field`."""
    try:
        return re.compile(pattern)
    except re.error as error:
        raise UserError(f"{field}: {pattern!r} is not a regular expression: {error}") from error


def param_shardings(
    params: Mapping[str, jax.ShapeDtypeStruct], *, mesh: Mesh, rules: Rules = REPLICATED
) -> dict[str, NamedSharding]:
    """Place every parameter by the first rule whose regex is found in its path.

    Args:
      params: parameter path ("/"-joined) -> anything with a shape.
      mesh: the device mesh.
      rules: the table; a spec shorter than the parameter's rank leaves the last dimensions whole.

    Raises:
      UserError: a rule that matches no path, a path without a rule, an unknown mesh axis, or a dimension that does
        not divide by its axis.
    """
    used = [False] * len(rules)
    placed = {}
    for path, param in params.items():
        matches = [i for i, (pattern, _) in enumerate(rules) if re.search(pattern, path)]
        if not matches:
            raise UserError(f"no sharding rule matches parameter {path!r}; end config.sharding.rules with ('.*', ())")
        for i in matches:
            used[i] = True
        pattern, spec = rules[matches[0]]
        _check(path, tuple(param.shape), pattern=pattern, spec=spec, mesh=mesh)
        placed[path] = NamedSharding(mesh, PartitionSpec(*spec))
    for (pattern, _), was_used in zip(rules, used, strict=True):
        if not was_used:
            raise no_match(pattern, params, what="sharding rule", field="config.sharding.rules")
    return placed


def no_match(pattern: str, paths: Mapping[str, Any] | Sequence[str], *, what: str, field: str) -> UserError:
    """Build the error for a regex that matches no parameter; it lists the parameter paths."""
    listed = "\n  ".join(sorted(paths))
    return UserError(f"{what} {pattern!r} matches no parameter; mend {field}. The parameters are:\n  {listed}")


def _check(path: str, shape: tuple[int, ...], *, pattern: str, spec: Spec, mesh: Mesh) -> None:
    rule = f"sharding rule ({pattern!r}, {spec!r})"
    if len(spec) > len(shape):
        raise UserError(f"{rule} names {len(spec)} dimensions, but parameter {path!r} has shape {shape}")
    for size, axis in zip(shape, spec, strict=False):
        if axis is None:
            continue
        if axis not in mesh.shape:
            raise unknown(f"mesh axis in {rule}:", axis, mesh.shape)
        if size % mesh.shape[axis]:
            raise UserError(
                f"{rule}: parameter {path!r} has shape {shape}, whose {size} does not divide by the "
                f"{mesh.shape[axis]} devices of mesh axis {axis!r}; put a rule for this parameter before it"
            )
