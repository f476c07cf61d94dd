"""For which devices is the program that is being traced? Layers that suit themselves to a device ask here."""

import jax

FLASH_CAPABILITY = 8.0
"""CUDA compute capability from which cuDNN has a flash attention kernel (Ampere)."""


def on_one_cpu() -> bool:
    """Say whether what is traced now is meant for one CPU.

    On several devices the answer is no: the partitioner knows nothing of a layout constraint, and would gather what it
    constrains onto every device.
    """
    mesh = jax.sharding.get_abstract_mesh()
    return _platform() == "cpu" and (mesh.empty or mesh.size == 1)


def on_gpu() -> bool:
    """Say whether what is traced now is meant for GPUs, one or many."""
    return _platform() == "gpu"


def has_flash_kernel() -> bool:
    """Say whether what is traced now is meant for GPUs of this machine that cuDNN's flash attention runs on."""
    if not on_gpu() or jax.default_backend() != "gpu":
        return False
    version = getattr(jax.local_devices()[0], "compute_capability", "")  # "9.0"; ROCm has names such as "gfx942"
    return version.replace(".", "").isdigit() and float(version) >= FLASH_CAPABILITY


def _platform() -> str:
    """Name the platform by the mesh that is set (its devices need not be here), otherwise by the default backend."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    name = jax.default_backend() if device is None else device.platform
    return "gpu" if name in ("cuda", "rocm") else name
