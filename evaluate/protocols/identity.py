"""What computed a report's figures: the weights by their SHA-256, and the devices."""

from typing import Any

import jax
import numpy as np
from flax import nnx

from ...engine.step.state import split_model
from ...zoo.digest import params_sha256


def identity(model: nnx.Module) -> dict[str, Any]:
    """Return the keys of a protocol that name the weights and the machine.

    Args:
      model: whose parameters are hashed.

    Returns:
      `weights_sha256`, see `zoo.digest.params_sha256`; None where parameters are sharded over processes, none of
      which holds them all. `environment`: versions, kind of device and numbers of devices and processes.
    """
    params = split_model(model)
    whole = all(value.is_fully_addressable or value.is_fully_replicated for value in params.values())
    return {"weights_sha256": params_sha256(params) if whole else None, "environment": environment()}


def environment() -> dict[str, Any]:
    """Return the versions of JAX and NumPy, the kind of the devices, and the numbers of devices and processes."""
    return {
        "jax": jax.__version__,
        "numpy": np.__version__,
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "processes": jax.process_count(),
    }
