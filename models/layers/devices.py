"""Device queries for layers with device-specific implementations: for which devices is the program being traced?"""

import math

import jax
from jax.sharding import AxisType

FLASH_CAPABILITY = 8.0
"""CUDA compute capability from which cuDNN has a flash attention kernel (Ampere)."""

HEADS_AXIS = "tensor"
"""Mesh axis whose devices share rows of the batch: they divide the heads of an attention. All others divide rows."""


def on_one_cpu() -> bool:
    """Tell whether the program being traced is for a single CPU device.

    On several devices the answer is no: the partitioner does not understand layout constraints, and would gather the
    constrained arrays onto every device.
    """
    mesh = jax.sharding.get_abstract_mesh()
    return _platform() == "cpu" and (mesh.empty or mesh.size == 1)


def on_gpu() -> bool:
    """Tell whether the program being traced is for one or more GPUs."""
    return _platform() == "gpu"


def on_tpu() -> bool:
    """Tell whether the program being traced is for one or more TPUs."""
    return _platform() == "tpu"


def has_flash_kernel() -> bool:
    """Tell whether the program being traced is for GPUs of this machine that run cuDNN's flash attention."""
    if not on_gpu() or jax.default_backend() != "gpu":
        return False
    version = getattr(jax.local_devices()[0], "compute_capability", "")  # "9.0"; ROCm has names such as "gfx942"
    return version.replace(".", "").isdigit() and float(version) >= FLASH_CAPABILITY


def splits_rows(rows: int) -> bool:
    """Tell whether a batch of `rows` divides by the devices that share it in the program being traced."""
    mesh = jax.sharding.get_abstract_mesh()
    return mesh.empty or rows % math.prod(mesh.shape[axis] for axis in row_axes(mesh)) == 0


def auto_axes(mesh: jax.sharding.AbstractMesh) -> tuple[str, ...]:
    """Return the axes of a mesh that the compiler still divides arrays by."""
    return tuple(name for name, kind in zip(mesh.axis_names, mesh.axis_types, strict=True) if kind != AxisType.Manual)


def row_axes(mesh: jax.sharding.AbstractMesh) -> tuple[str, ...]:
    """Return the axes that split the rows of a batch: all that are left but `tensor`."""
    return tuple(axis for axis in auto_axes(mesh) if axis != HEADS_AXIS)


def _platform() -> str:
    """Return the platform of the current mesh (its devices may be elsewhere), or else of the default backend."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    name = jax.default_backend() if device is None else device.platform
    return "gpu" if name in ("cuda", "rocm") else name
