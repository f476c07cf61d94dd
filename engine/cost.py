"""What a step costs: FLOPs, memory, and which share of the device's peak a measured time amounts to."""

import dataclasses
import re
from typing import Any

import jax

from ..configs.errors import unknown

# Dense peaks in TFLOP/s per jax device, from the makers' data sheets: (regex over device_kind, bf16, tf32, f32).
# bf16 is the matrix unit with float32 accumulation (fp16 on T4 and V100, which have no bf16); f32 is the plain float32
# unit. On Ampere and later, jax runs float32 matrix products in tf32 unless jax_default_matmul_precision says
# otherwise. TPUs run them in bfloat16 passes, so there is no separate figure. A TPU v2, v3 or 7x chip is two devices.
_PEAKS: tuple[tuple[str, float, float | None, float | None], ...] = (
    (r"TPU v2", 22.5, None, None),
    (r"TPU v3", 61.5, None, None),
    (r"TPU v4 lite|TPU v4i", 138.0, None, None),
    (r"TPU v4", 275.0, None, None),
    (r"TPU v5 ?(lite|e)", 197.0, None, None),
    (r"TPU v5", 459.0, None, None),
    (r"TPU v6", 918.0, None, None),
    (r"TPU ?7x", 1153.5, None, None),
    (r"GB200|B200", 2250.0, 1125.0, 75.0),
    (r"H100 PCIe", 756.0, 378.0, 51.0),
    (r"H100 NVL", 835.0, 417.5, 60.0),
    (r"H100|H200|GH200|H800", 989.0, 494.5, 67.0),
    (r"A100|A800", 312.0, 156.0, 19.5),
    (r"L40S", 362.0, 183.0, 91.6),
    (r"L40", 181.0, 90.5, 90.5),
    (r"\bL4\b", 121.0, 60.0, 30.3),
    (r"A10G", 70.0, 35.0, 35.0),
    (r"A40", 149.7, 74.8, 37.4),
    (r"RTX 4090", 165.2, 82.6, 82.6),
    (r"RTX 3090", 71.0, 35.6, 35.6),
    (r"V100", 125.0, None, 15.7),
    (r"\bT4\b", 65.0, None, 8.1),
)
DTYPES = ("bfloat16", "tensorfloat32", "float32")


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepCost:
    """What one call of a compiled step costs on each device.

    Attributes:
      flops: floating-point operations per device, or None where the compiler does not say.
      flops_of: "compiled" (XLA's count of the optimised program) or "lowered" (its count before optimisation, divided
        by the devices: where the compiled program hides its matrix products in library calls, as on GPUs).
      loops: the program has loops; XLA counts a loop's body once, so `flops` is a lower bound then.
      bytes_accessed: bytes moved to and from memory per device, or None.
      peak_bytes: arguments + results + temporaries - what results share with donated arguments, per device.
      argument_bytes: of that, arguments (state and batch).
      temporary_bytes: of that, temporaries (activations).
    """

    flops: float | None
    flops_of: str
    loops: bool
    bytes_accessed: float | None
    peak_bytes: int | None
    argument_bytes: int | None
    temporary_bytes: int | None


def step_cost(lowered: jax.stages.Lowered, *, compiled: jax.stages.Compiled, devices: int) -> StepCost:
    """Ask the compiler for the cost of a step (see `engine.step.lower_step`) over `devices` devices."""
    after, before = _analysis(compiled), _analysis(lowered)
    flops, whole = after.get("flops"), before.get("flops")
    source = "compiled"
    if whole and (not flops or flops < 0.5 * whole / devices):
        flops, source = whole / devices, "lowered"
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
        flops=flops or None,
        flops_of=source,
        loops=re.search(r"\bwhile\(", compiled.as_text() or "") is not None,
        bytes_accessed=after.get("bytes accessed"),
        peak_bytes=sizes["peak"],
        argument_bytes=sizes["argument"],
        temporary_bytes=sizes["temporary"],
    )


def peak_flops(device_kind: str, *, dtype: str = "bfloat16") -> float | None:
    """Return a device's dense peak in FLOP/s, or None if it is not known.

    Args:
      device_kind: `jax.Device.device_kind`.
      dtype: "bfloat16", "tensorfloat32" or "float32", of the matrix products.

    >>> peak_flops("TPU v5 lite"), peak_flops("NVIDIA H200", dtype="float32"), peak_flops("cpu")
    (197000000000000.0, 67000000000000.0, None)
    """
    if dtype not in DTYPES:
        raise unknown("dtype of matrix products", dtype, DTYPES)
    for pattern, *peaks in _PEAKS:
        if re.search(pattern, device_kind, re.IGNORECASE):
            peak = peaks[DTYPES.index(dtype)]
            return None if peak is None else peak * 1e12
    return None


def mfu(cost: StepCost, *, seconds: float, device_kind: str, dtype: str = "bfloat16") -> float | None:
    """Return the share (0 to 1) of the device's peak that a step of `seconds` reaches; None where either is unknown."""
    peak = peak_flops(device_kind, dtype=dtype)
    return None if peak is None or not cost.flops else cost.flops / (seconds * peak)


def _analysis(stage: Any) -> dict[str, float]:
    """The compiler's cost analysis as a dict; {} where the backend has none."""
    try:
        found = stage.cost_analysis()
    except NotImplementedError:
        return {}
    if isinstance(found, (list, tuple)):  # jax before 0.5 gave one dict per computation
        found = found[0] if found else {}
    return dict(found or {})
