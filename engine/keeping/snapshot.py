"""An asynchronous copy of a state in host memory; the device continues with the next steps meanwhile."""

import functools
import math
from typing import Any

import jax
from jax.sharding import NamedSharding, PartitionSpec

_HOST = "pinned_host"


def to_host(tree: Any, *, spread: bool | None = None) -> Any:
    """Order a copy of all arrays (with NamedShardings) into host memory; returns at once.

    The copies are queued on the device after the step that makes the arrays, so the arrays may be donated to the
    next step as soon as this returns: the runtime keeps it from overwriting them before they are copied.

    Args:
      tree: arrays.
      spread: copy what several devices hold alike in parts, each device its own (where an axis divides), so that a host
        neither receives nor keeps a parameter once for every device. None = yes, but not on CPU, where handing over
        even that small program waits for the step before it.
    """
    leaves, structure = jax.tree.flatten(tree)
    if spread if spread is not None else leaves[0].sharding.mesh.devices.flat[0].platform != "cpu":
        places = tuple(spread_sharding(x.shape, sharding=x.sharding) for x in leaves)
        if any(place is not x.sharding for place, x in zip(places, leaves, strict=True)):
            leaves = _divide(places)(leaves)
    return jax.tree.unflatten(structure, jax.device_put(leaves, [_on_host(x.sharding) for x in leaves]))


@functools.lru_cache(maxsize=8)
def _divide(places: tuple[NamedSharding, ...]) -> Any:
    """Return the program that moves nothing between devices and keeps of each array what `places` say."""
    return jax.jit(lambda leaves: leaves, out_shardings=list(places))


def spread_sharding(shape: tuple[int, ...], *, sharding: NamedSharding) -> NamedSharding:
    """Return `sharding` with one axis split further, over the mesh axes that it does not use; as it is if none fits.

    >>> mesh = jax.sharding.AbstractMesh((2, 4), ("a", "b"))
    >>> spread_sharding((6, 16), sharding=NamedSharding(mesh, PartitionSpec(None, "b"))).spec
    P('a', 'b')
    """
    mesh, spec = sharding.mesh, [_names(entry) for entry in sharding.spec]
    spec += [()] * (len(shape) - len(spec))
    used = {name for names in spec for name in names}
    idle = tuple(name for name in mesh.axis_names if name not in used and mesh.shape[name] > 1)
    for axis, names in enumerate(spec) if idle else ():
        if shape[axis] % math.prod(mesh.shape[name] for name in (*names, *idle)) == 0:
            spec[axis] = (*names, *idle)
            entries = [names[0] if len(names) == 1 else names or None for names in spec]
            return NamedSharding(mesh, PartitionSpec(*entries))
    return sharding


def _names(entry: Any) -> tuple[str, ...]:
    return () if entry is None else (entry,) if isinstance(entry, str) else tuple(entry)


def _on_host(sharding: NamedSharding) -> NamedSharding:
    """The same placement in pinned host memory; every platform of jax has it (on CPU it is a copy as well)."""
    return sharding.with_memory_kind(_HOST)
