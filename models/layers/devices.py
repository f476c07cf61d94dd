"""Device queries for layers with device-specific implementations: for which devices is the program being traced?"""

import jax

FLASH_CAPABILITY = 8.0
"""CUDA compute capability from which cuDNN has a flash attention kernel (Ampere)."""


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


def has_flash_kernel() -> bool:
    """Tell whether the program being traced is for GPUs of this machine that run cuDNN's flash attention."""
    if not on_gpu() or jax.default_backend() != "gpu":
        return False
    version = getattr(jax.local_devices()[0], "compute_capability", "")  # "9.0"; ROCm has names such as "gfx942"
    return version.replace(".", "").isdigit() and float(version) >= FLASH_CAPABILITY


def _platform() -> str:
    """Return the platform of the current mesh (its devices may be elsewhere), or else of the default backend."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    name = jax.default_backend() if device is None else device.platform
    return "gpu" if name in ("cuda", "rocm") else name
