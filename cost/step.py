"""What a step costs on each device: FLOPs, memory, and which share of the device's peak a measured time amounts to."""

import dataclasses
from typing import Any

import jax

from .chips import peak_flops
from .flops import count_flops

_FULL = ("float32", "highest", "F32_F32_F32")  # values of jax_default_matmul_precision


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepCost:
    """What one call of a compiled step costs on each device.

    Attributes:
      flops: of the matrix products that the model needs, forward and backward; loops are multiplied.
      recomputed_flops: what is computed a second time, on top of that.
      open_loops: loops of which the trace does not say how often they run; above 0 `flops` is a lower bound.
      bytes_accessed: bytes moved to and from memory per device, as XLA counts them (a loop's body once), or None.
      peak_bytes: arguments + results + temporaries - what results share with donated arguments, per device.
      argument_bytes: of that, arguments (state and batch).
      temporary_bytes: of that, temporaries (activations).
    """

    flops: float
    recomputed_flops: float
    open_loops: int
    bytes_accessed: float | None
    peak_bytes: int | None
    argument_bytes: int | None
    temporary_bytes: int | None


def step_cost(jaxpr: Any, *, compiled: jax.stages.Compiled, devices: int) -> StepCost:
    """Measure a step over `devices` devices from its trace and its compiled program.

    Args:
      jaxpr: of the whole step, `engine.step.step.trace_step(...).jaxpr`.
      compiled: the same step, compiled.
      devices: over how many devices it runs; all are taken to compute equal parts.
    """
    found = count_flops(jaxpr)
    memory = compiled.memory_analysis()
    sizes: dict[str, int | None] = dict.fromkeys(("peak", "argument", "temporary"))
    if memory is not None:
        sizes["argument"], sizes["temporary"] = memory.argument_size_in_bytes, memory.temp_size_in_bytes
        sizes["peak"] = (
            memory.argument_size_in_bytes
            + memory.output_size_in_bytes
            + memory.temp_size_in_bytes
            - memory.alias_size_in_bytes
        )
    return StepCost(
        flops=found.model / devices,
        recomputed_flops=found.recomputed / devices,
        open_loops=found.open_loops,
        bytes_accessed=_analysis(compiled).get("bytes accessed"),
        peak_bytes=sizes["peak"],
        argument_bytes=sizes["argument"],
        temporary_bytes=sizes["temporary"],
    )


def mfu(cost: StepCost, *, seconds: float, device_kind: str, dtype: str = "bfloat16") -> float | None:
    """Return model FLOPs utilisation of a step of `seconds`: the share (0 to 1) of the device's peak.

    None where the peak is not known. What rematerialisation recomputes is not counted (PaLM, Chowdhery et al. 2022).
    """
    peak = peak_flops(device_kind, dtype=dtype)
    return None if peak is None or not cost.flops else cost.flops / (seconds * peak)


def matmul_dtype(dtype: str, *, device_kind: str) -> str:
    """Return in what matrix products of float32 or bfloat16 models run: a dtype of `chips.DTYPES`.

    On GPUs from Ampere on jax multiplies float32 in tensorfloat32, unless `jax_default_matmul_precision` asks for more.

    >>> matmul_dtype("float32", device_kind="NVIDIA A100-SXM4-80GB"), matmul_dtype("float32", device_kind="Tesla T4")
    ('tensorfloat32', 'float32')
    """
    precision = jax.config.jax_default_matmul_precision  # pyright: ignore[reportAttributeAccessIssue]
    if dtype != "float32" or precision in _FULL or peak_flops(device_kind, dtype="tensorfloat32") is None:
        return dtype
    return "tensorfloat32"


def _analysis(stage: Any) -> dict[str, float]:
    """The compiler's cost analysis as a dict; {} where the backend has none."""
    try:
        found = stage.cost_analysis()
    except NotImplementedError:
        return {}
    return dict(found or {})
