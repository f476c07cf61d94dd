"""What the makers' data sheets say of all chips: the peaks of their matrix units, and what a plan needs to know."""

import dataclasses
import re

from ..base.errors import unknown

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
# Rows and columns of a matrix unit, over device_kind: what a product does not fill is computed on zeros. Sources:
# Google's pages of TPU generations (128 up to v5, 256 from v6e on). Tensor cores of GPUs are so small that padding does
# not count.
_TILES = ((r"TPU (v6|7)|TPU7", 256), (r"TPU", 128))
DTYPES = ("bfloat16", "tensorfloat32", "float32")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chip:
    """One accelerator, and its host; `tpus.Tpu` and `gpus.Gpu` add how it is joined to others.

    Attributes:
      name: as in a topology's name ("v5e", "h100").
      kind: `jax.Device.device_kind`.
      hbm_bytes: memory.
      hbm_bandwidth: bytes/s to and from memory.
      peak_flops: bfloat16 FLOP/s of the matrix units, with float32 accumulation.
      host_chips: chips of one host (of its slices with more than one host).
      dcn_host: bytes/s of a host's network, each way.
      devices: jax devices of a chip; then memory, bandwidth and peak are those of one of them.
    """

    name: str
    kind: str
    hbm_bytes: float
    hbm_bandwidth: float
    peak_flops: float
    host_chips: int
    dcn_host: float
    devices: int = 1

    @property
    def usable_bytes(self) -> int:
        """Bytes of the memory that a program may use."""
        raise NotImplementedError


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


def matrix_tile(device_kind: str) -> int:
    """Return how many rows and columns the matrix units of a device have, 1 where that does not matter.

    >>> matrix_tile("TPU v5 lite"), matrix_tile("TPU v6 lite"), matrix_tile("NVIDIA H200")
    (128, 256, 1)
    """
    return next((size for pattern, size in _TILES if re.search(pattern, device_kind)), 1)
