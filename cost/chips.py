"""What the makers' data sheets say of the chips: peaks, memory, links. A table, and look-ups in it."""

import dataclasses
import math
import re
from collections.abc import Sequence

from ..base.errors import UserError, unknown

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
class Chip:
    """One TPU chip and how it is joined to others.

    Attributes:
      name: as in a topology's name ("v5e").
      kind: `jax.Device.device_kind`.
      hbm_bytes: memory.
      hbm_bandwidth: bytes/s to and from memory.
      peak_flops: bfloat16 FLOP/s of the matrix units.
      ici_link: bytes/s of one inter-chip link, each way.
      ici_dims: dimensions of the torus; a chip has two links in each.
      pod_chips: the most chips that one slice holds.
      host_chips: chips of one host (of its slices with more than one host).
      dcn_host: bytes/s of a host's network, each way.
      cores: how many a chip counts for in names such as "v5p-256"; 2 = Google Cloud counts its TensorCores.
      accelerator: what GKE's node label cloud.google.com/gke-tpu-accelerator says.
    """

    name: str
    kind: str
    hbm_bytes: float
    hbm_bandwidth: float
    peak_flops: float
    ici_link: float
    ici_dims: int
    pod_chips: int
    host_chips: int
    dcn_host: float
    cores: int
    accelerator: str

    def hosts(self, shape: Sequence[int]) -> int:
        """Return how many hosts a slice has; a single chip has a host of its own."""
        return max(1, math.prod(shape) // self.host_chips)

    def named_slices(self) -> dict[int, tuple[int, ...]]:
        """Return {chips: shape} of the slices that a number of chips names."""
        shapes = _FLAT if self.ici_dims == 2 else _CUBES
        return {math.prod(shape): shape for shape in shapes if math.prod(shape) <= self.pod_chips}

    def check_slice(self, shape: Sequence[int], *, flag: str) -> None:
        """Raise UserError, which begins with `flag`, if Google Cloud offers no slice of this shape."""
        got = "x".join(map(str, shape))
        if len(shape) != self.ici_dims or math.prod(shape) > self.pod_chips:
            raise UserError(
                f"{flag}: a slice of {self.name} has {self.ici_dims} axes and at most {self.pod_chips} chips, got "
                f"{got}; for more chips give --slices"
            )
        if self.ici_dims == 2 and tuple(shape) not in _FLAT:
            listed = ", ".join("x".join(map(str, flat)) for flat in _FLAT)
            raise UserError(f"{flag}: {got} is no slice of {self.name}, which are {listed}")
        whole = all(side >= 4 and side % 4 == 0 for side in shape) and list(shape) == sorted(shape)
        if self.ici_dims == 3 and tuple(shape) not in _CUBES and not whole:
            raise UserError(
                f"{flag}: {got} is no slice of {self.name}, whose sides are 2x2x1, 2x2x2, 2x2x4, 2x4x4 or multiples of "
                "4 that do not fall, as 4x4x8"
            )


# The slices that Google Cloud offers, by their chips; three sides may also be any multiples of 4 that do not fall.
_FLAT = ((1, 1), (2, 2), (2, 4), (4, 4), (4, 8), (8, 8), (8, 16), (16, 16))
_CUBES = ((2, 2, 1), (2, 2, 2), (2, 2, 4), (2, 4, 4), (4, 4, 4), (4, 4, 8), (4, 8, 8), (8, 8, 8), (8, 8, 16),
          (8, 16, 16), (16, 16, 16))  # fmt: skip

# Sources: docs.cloud.google.com/tpu/docs, pages v4, v5e, v5p and v6e; GKE's tables of machine types. Links: the
# bandwidth of a chip, both ways (v5e 400, v5p 1200, v6e 800 GB/s), divided by its ports (two per dimension) and
# directions; v4: Jouppi et al. 2023, 50 GB/s. HBM sizes are published as GiB; how much of it a program may use is for
# the compiler to say. A host is what one process drives, four chips; its network is half of that of a machine of eight
# chips for v5e (2 x 100 Gbit/s) and v6e (4 x 200 Gbit/s), 50 Gbit/s a chip for v5p; for v4 nothing is published, 100
# Gbit/s is taken.
CHIPS: dict[str, Chip] = {
    chip.name: chip
    for chip in (
        Chip(name="v4", kind="TPU v4", hbm_bytes=32 * 2**30, hbm_bandwidth=1228e9, peak_flops=275e12,
             ici_link=50e9, ici_dims=3, pod_chips=4096, host_chips=4, dcn_host=12.5e9,
             cores=2, accelerator="tpu-v4-podslice"),
        Chip(name="v5e", kind="TPU v5 lite", hbm_bytes=16 * 2**30, hbm_bandwidth=819e9, peak_flops=197e12,
             ici_link=50e9, ici_dims=2, pod_chips=256, host_chips=4, dcn_host=12.5e9,
             cores=1, accelerator="tpu-v5-lite-podslice"),
        Chip(name="v5p", kind="TPU v5", hbm_bytes=95 * 2**30, hbm_bandwidth=2765e9, peak_flops=459e12,
             ici_link=100e9, ici_dims=3, pod_chips=8960, host_chips=4, dcn_host=25e9,
             cores=2, accelerator="tpu-v5p-slice"),
        Chip(name="v6e", kind="TPU v6 lite", hbm_bytes=32 * 2**30, hbm_bandwidth=1640e9, peak_flops=918e12,
             ici_link=100e9, ici_dims=2, pod_chips=256, host_chips=4, dcn_host=50e9,
             cores=1, accelerator="tpu-v6e-slice"),
    )
}  # fmt: skip


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
