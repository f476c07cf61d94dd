"""How arrays are placed on the mesh: one ordered table of (regex over its name, spec), first match wins.

Names are the "/"-joined path of a parameter (`video/space/layers/up/kernel`), `optimizer/<moment>/<path>` for a state
of the optimizer, and `activation/<tower>/<what>` for an activation. The beginning of a rule's regex decides which it is
for: `("^optimizer/mu/", ...)` is for the optimizer, `(".*", ...)` for parameters.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ...base.errors import UserError, unknown
from .layers import is_stacked
from .mesh import BATCH_AXES

Entry = str | tuple[str, ...] | None
Spec = tuple[Entry, ...] | str
Rules = tuple[tuple[str, Spec], ...]

LARGEST = "largest:"
REST = "..."
_FIELD = "config.sharding.rules"

REPLICATED: Rules = ((".*", ()),)
"""Every device holds all parameters."""

WORTH_SPLITTING = 16_384
"""Elements in one layer. Smaller arrays (biases, norms) cost more to gather than they save: 64 KiB in float32."""

FSDP: Rules = (
    ("^activation/", (BATCH_AXES,)),
    (".*", f"largest:fsdp:{WORTH_SPLITTING}"),
)
"""Parameters are split over fsdp along their largest dimension (ZeRO stage 3, Rajbhandari et al. 2020)."""

FSDP_TENSOR: Rules = (
    ("^activation/.*/(qkv|hidden)$", (BATCH_AXES, REST, "tensor")),
    ("^activation/", (BATCH_AXES,)),
    ("/layers/(.*/)?(qkv|query|key|value|up|gate)/kernel$", (REST, "fsdp", "tensor")),
    ("/layers/(.*/)?(qkv|query|key|value|up|gate)/bias$", (REST, "tensor")),
    ("/layers/(.*/)?(out|down)/kernel$", (REST, "tensor", "fsdp")),
    (".*", f"largest:fsdp:{WORTH_SPLITTING}"),
)
"""Matrices of a block are split over tensor (columns, then rows: Megatron-LM, Shoeybi et al. 2019) and over fsdp.

All else (embeddings, projections, heads) is split over fsdp alone.
"""

PRESETS: dict[str, Rules] = {"replicated": REPLICATED, "fsdp": FSDP, "fsdp_tensor": FSDP_TENSOR}


def make_rules(*, rules: str | Sequence[Sequence[Any]] = REPLICATED) -> Rules:
    """Check the table of section `sharding` of a config and return it with tuples throughout.

    Args:
      rules: the name of a preset ("replicated", "fsdp", "fsdp_tensor") or pairs (regex to find in a name, spec). A spec
        has an entry per dimension: a mesh axis, a tuple of axes such as `("replica", "fsdp")`, or None = whole; "..."
        stands for as many whole dimensions as there are. The spec "largest:AXIS" splits the largest dimension that
        divides, never the depth of stacked layers; "largest:AXIS:N" leaves arrays of fewer than N elements in a layer
        whole. For example
        `(("/kernel$", ("...", "fsdp", "tensor")), ("^activation/", (("replica", "fsdp"),)), (".*", ()))`.

    Raises:
      UserError: an unknown preset, a rule that is no such pair, or an invalid regex.
    """
    if isinstance(rules, str):
        if rules not in PRESETS:
            raise unknown(f"preset ({_FIELD})", rules, PRESETS)
        return PRESETS[rules]
    return tuple(_rule(rule) for rule in rules)


def _rule(rule: Sequence[Any]) -> tuple[str, Spec]:
    wanted = UserError(
        f"{_FIELD} holds pairs (regex, (axis, tuple of axes, None or '...', ...)) or (regex, 'largest:AXIS[:N]'), "
        f"got {rule!r}"
    )
    if isinstance(rule, str) or len(rule) != 2 or not isinstance(rule[0], str):
        raise wanted
    pattern, spec = compiled(rule[0], field=_FIELD).pattern, rule[1]
    if isinstance(spec, str):
        if not re.fullmatch(LARGEST + r"[^:]+(:\d+)?", spec):
            raise wanted
        return pattern, spec
    entries = tuple(tuple(entry) if isinstance(entry, list) else entry for entry in spec)
    if entries.count(REST) > 1:
        raise UserError(f"{_FIELD}: {rule!r} has '...' more than once")
    return pattern, entries


def compiled(pattern: str, *, field: str) -> re.Pattern[str]:
    """Compile a user's regex; an invalid one is a UserError that names `field`."""
    try:
        return re.compile(pattern)
    except re.error as error:
        raise UserError(f"{field}: {pattern!r} is not a regular expression: {error}") from error


def kind_of(pattern: str) -> str:
    """Return what a rule is for: "activation", "optimizer" or "parameter"."""
    for kind in ("activation", "optimizer"):
        if pattern.removeprefix("^").startswith(f"{kind}/"):
            return kind
    return "parameter"


def rules_of(rules: Rules, *, kind: str) -> Rules:
    """Return the rules of one kind, in their order."""
    return tuple(rule for rule in rules if kind_of(rule[0]) == kind)


def first_match(name: str, *, rules: Rules) -> tuple[str, Spec] | None:
    """Return the first rule whose regex is found in `name`."""
    return next((rule for rule in rules if re.search(rule[0], name)), None)


def param_shardings(
    params: Mapping[str, jax.ShapeDtypeStruct], *, mesh: Mesh, rules: Rules = REPLICATED
) -> dict[str, NamedSharding]:
    """Place every parameter by the first rule whose regex is found in its path.

    Args:
      params: parameter path ("/"-joined) -> anything with a shape.
      mesh: the device mesh.
      rules: the table; a spec shorter than the parameter's rank leaves the last dimensions whole.

    Raises:
      UserError: a rule of the user's own table that matches no path, a path without a rule, an unknown mesh axis, or
        a dimension that does not divide by its axis.
    """
    own = rules_of(rules, kind="parameter")
    placed = {}
    for path, param in params.items():
        rule = first_match(path, rules=own)
        if rule is None:
            raise UserError(f"no sharding rule matches parameter {path!r}; end {_FIELD} with ('.*', ())")
        placed[path] = NamedSharding(mesh, resolved(rule, path=path, shape=tuple(param.shape), mesh=mesh))
    if rules not in PRESETS.values():  # a preset has rules for layers that not every model has
        check_used(own, names=params)
    return placed


def check_used(rules: Rules, *, names: Mapping[str, Any] | Sequence[str], what: str = "parameter") -> None:
    """Raise UserError if a rule's regex is found in none of the names; it lists these."""
    for pattern, _ in rules:
        if not any(re.search(pattern, name) for name in names):
            raise no_match(pattern, names, what="sharding rule", field=_FIELD, of=what)


def no_match(
    pattern: str, paths: Mapping[str, Any] | Sequence[str], *, what: str, field: str, of: str = "parameter"
) -> UserError:
    """Build the error for a regex that matches no parameter; it lists the parameter paths."""
    listed = "\n  ".join(sorted(paths)) or "(none)"
    return UserError(f"{what} {pattern!r} matches no {of}; correct {field}. The {of}s are:\n  {listed}")


def resolved(rule: tuple[str, Spec], *, path: str, shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
    """Return the spec of one array, checked against its shape and the mesh.

    Raises:
      UserError: an unknown mesh axis, one that is named twice, more entries than dimensions, or a dimension that does
        not divide by its axes.
    """
    pattern, spec = rule
    shown = f"sharding rule ({pattern!r}, {spec!r})"
    if isinstance(spec, str):
        axis, _, least = spec.removeprefix(LARGEST).partition(":")
        _check_axis(axis, mesh=mesh, rule=shown)
        first = 1 if is_stacked(path) else 0
        if math.prod(shape[first:]) < int(least or 0):
            return PartitionSpec()
        return _largest(shape, axis=axis, ways=mesh.shape[axis], first=first)
    entries = _spread(spec, rank=len(shape))
    if len(entries) > len(shape):
        raise UserError(f"{shown} names {len(entries)} dimensions, but {path!r} has shape {shape}")
    axes = [axis for entry in entries for axis in axes_of(entry)]
    for axis in axes:
        _check_axis(axis, mesh=mesh, rule=shown)
    if len(set(axes)) < len(axes):
        raise UserError(f"{shown} names a mesh axis twice; each may split one dimension")
    for size, entry in zip(shape, entries, strict=False):
        ways = math.prod(mesh.shape[axis] for axis in axes_of(entry))
        if size % ways:
            names = " x ".join(repr(axis) for axis in axes_of(entry))
            raise UserError(
                f"{shown}: {path!r} has shape {shape}, whose {size} does not divide by the {ways} devices of mesh axis "
                f"{names}"
            )
    return PartitionSpec(*entries)


def axes_of(entry: Entry) -> tuple[str, ...]:
    """Return the mesh axes of one entry of a spec."""
    return () if entry is None else (entry,) if isinstance(entry, str) else tuple(entry)


def _spread(spec: tuple[Entry, ...], *, rank: int) -> tuple[Entry, ...]:
    """Put as many whole dimensions in the place of "..." as the rank asks for."""
    if REST not in spec:
        return spec
    at = spec.index(REST)
    return (*spec[:at], *(None,) * max(0, rank - len(spec) + 1), *spec[at + 1 :])


def _largest(shape: tuple[int, ...], *, axis: str, ways: int, first: int) -> PartitionSpec:
    """Split the largest dimension from `first` on that divides; of equal ones the last."""
    fits = [(shape[i], i) for i in range(first, len(shape)) if shape[i] % ways == 0 and shape[i] >= ways]
    if not fits:
        return PartitionSpec()
    return PartitionSpec(*(None,) * max(fits)[1], axis)


def _check_axis(axis: Any, *, mesh: Mesh, rule: str) -> None:
    if axis not in mesh.shape:
        raise unknown(f"mesh axis in {rule}:", str(axis), mesh.shape)
