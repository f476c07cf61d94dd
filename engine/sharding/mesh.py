"""The device mesh, and the batch's place on it."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from ...base.errors import UserError

AXES = ("replica", "fsdp", "tensor")
BATCH_AXES = ("replica", "fsdp")
_WIDE = {"int64": "int32", "uint64": "int32", "float64": "float32"}


def make_mesh(*, replica: int = -1, fsdp: int = 1, tensor: int = 1, devices: Sequence[Any] | None = None) -> Mesh:
    """Arrange the devices in a mesh with axes replica, fsdp and tensor.

    One of the three sizes may be -1: as many as there are devices left for. Where the devices lie in several slices,
    replica is laid across them, so that only the sum of the gradients crosses the slow network between slices; fsdp
    and tensor stay inside one. Without slices the processes follow one another along replica.

    Args:
      replica: data-parallel copies of the parameters.
      fsdp: over how many devices parameters may be split (by rule, see `engine.sharding.rules`); the batch is
        split over replica x fsdp.
      tensor: devices that share one row of the batch; they must belong to one process.
      devices: jax devices, or descriptions of a topology that is not here; default all devices of the run.

    Returns:
      A Mesh whose axes are all of type Auto.

    Raises:
      UserError: the product does not give the number of devices, or an axis would cross processes or slices that it
        must not cross.
    """
    devices = list(jax.devices() if devices is None else devices)
    sizes = _sizes({"replica": replica, "fsdp": fsdp, "tensor": tensor}, count=len(devices))
    per_process = Counter(device.process_index for device in devices)
    if any(count % sizes["tensor"] for count in per_process.values()):
        raise UserError(
            f"config.mesh.tensor={sizes['tensor']} must divide the {min(per_process.values())} devices of a process: "
            "the processes read different rows of the batch"
        )
    arranged = _arranged(devices, sizes=sizes)
    # Auto, on purpose: the compiler propagates shardings from the parameters and the batch. jax.make_mesh defaults
    # to Explicit, under which every reshape in every tower would have to state its sharding.
    return Mesh(arranged, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def _sizes(sizes: dict[str, int], *, count: int) -> dict[str, int]:
    """Fill in the one size that is -1, and check that the product is `count`."""
    for axis, size in sizes.items():
        if size < 1 and size != -1:
            raise UserError(f"config.mesh.{axis} must be at least 1, or -1 for the rest of the devices, got {size}")
    open_axes = [axis for axis, size in sizes.items() if size == -1]
    if len(open_axes) > 1:
        raise UserError(f"only one of config.mesh.{' and config.mesh.'.join(open_axes)} may be -1")
    if open_axes:
        given = math.prod(size for size in sizes.values() if size != -1)
        sizes = sizes | {open_axes[0]: max(1, count // given)}
    if math.prod(sizes.values()) != count:
        raise UserError(
            f"config.mesh: {' x '.join(f'{axis}={size}' for axis, size in sizes.items())} makes "
            f"{math.prod(sizes.values())} devices, but there are {count}; "
            "set config.mesh.replica to -1 and let fsdp x tensor divide the number of devices"
        )
    return sizes


def _arranged(devices: list[Any], *, sizes: dict[str, int]) -> np.ndarray:
    """Lay devices out as [replica, fsdp, tensor]."""
    shape = tuple(sizes[axis] for axis in AXES)
    if devices[0].platform != "tpu":
        # Other platforms number a slice per host, and fsdp may well cross hosts there.
        return np.array(sorted(devices, key=_place)).reshape(shape)
    slices = len({_slice(device) for device in devices})
    if sizes["replica"] % slices:
        raise UserError(
            f"config.mesh.replica={sizes['replica']} must be a multiple of the {slices} slices of the run: "
            "fsdp and tensor stay inside a slice"
        )
    inner = (sizes["replica"] // slices, sizes["fsdp"], sizes["tensor"])
    try:
        arranged = _torus(devices, inner=inner, slices=slices, split=False)
    except NotImplementedError:  # no assignment of whole physical axes to these sizes
        arranged = _torus(devices, inner=inner, slices=slices, split=True)
    groups = arranged.reshape(-1, sizes["tensor"])
    if all(len({device.process_index for device in group}) == 1 for group in groups):
        return arranged
    # The torus order would let tensor cross hosts, which read different rows of the batch.
    return np.array(sorted(devices, key=_place)).reshape(shape)


def _torus(devices: list[Any], *, inner: tuple[int, int, int], slices: int, split: bool) -> np.ndarray:
    if slices == 1:
        return mesh_utils.create_device_mesh(inner, devices, allow_split_physical_axes=split)
    return mesh_utils.create_hybrid_device_mesh(inner, (slices, 1, 1), devices, allow_split_physical_axes=split)


def slices_of(mesh: Mesh) -> int:
    """Return over how many slices the batch is laid, one after another; each host of GPUs is one.

    1 where the devices of the batch axes do not come in equal runs of one slice each.
    """
    along = [_slice(device) for device in mesh.devices[..., 0].flat]
    count = len(set(along))
    size = len(along) // count
    runs = [along[i * size : (i + 1) * size] for i in range(count)]
    return count if size * count == len(along) and all(len(set(run)) == 1 for run in runs) else 1


def _slice(device: Any) -> int:
    return getattr(device, "slice_index", None) or 0


def _place(device: Any) -> tuple[int, int, int]:
    """The order in which the devices of one slice, and in it of one process, follow one another."""
    return _slice(device), device.process_index, device.id


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Return the sharding of every array of a batch: rows over replica x fsdp."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def check_batch_size(batch_size: int, *, mesh: Mesh, field: str = "config.data.batch_size") -> None:
    """Raise UserError unless the global batch size divides by the devices of the batch axes."""
    ways = math.prod(mesh.shape[axis] for axis in BATCH_AXES)
    if batch_size < 1 or batch_size % ways:
        raise UserError(
            f"batch_size={batch_size} must divide by the {ways} devices of mesh axes 'replica' x 'fsdp'; "
            f"set {field} to a multiple of {ways}"
        )


def put_batch(batch: dict[str, np.ndarray], *, mesh: Mesh) -> dict[str, jax.Array]:
    """Put this process's rows of a batch on its devices; returns global arrays with rows over replica x fsdp.

    64-bit integers and floats become 32-bit, as on the devices there are no others.

    Raises:
      UserError: the number of rows does not divide by the devices of the batch axes.
      OverflowError: an integer does not fit in 32 bits.
    """
    rows = len(next(iter(batch.values())))
    check_batch_size(rows * jax.process_count(), mesh=mesh)
    sharding = batch_sharding(mesh)
    return {key: jax.make_array_from_process_local_data(sharding, _narrow(key, value)) for key, value in batch.items()}


def device_dtype(dtype: np.dtype) -> np.dtype:
    """Return the dtype that a batch array has on the devices: of 32 bits where it has 64."""
    return np.dtype(_WIDE.get(np.dtype(dtype).name, dtype))


def _narrow(key: str, value: np.ndarray) -> np.ndarray:
    value = np.asarray(value)
    if value.dtype in (np.int64, np.uint64):
        limit = np.iinfo(np.int32)
        if value.size and (value.max() > limit.max or value.min() < limit.min):
            raise OverflowError(f"batch[{key!r}] holds {value.min()} to {value.max()}, which does not fit in int32")
    return value.astype(device_dtype(value.dtype), copy=False)
