"""What Google's data sheets say of TPUs, and the slices that Google Cloud offers."""

import dataclasses
import math
from collections.abc import Sequence

from ..base.errors import UserError
from .chips import Chip


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tpu(Chip):
    """One TPU chip as jax sees it, and the torus of links (ICI) that joins it to the others of a slice.

    A chip of TPU7x is two jax devices: memory, bandwidth, peak and links are those of one of them.

    Attributes:
      ici_link: bytes/s of one inter-chip link, each way.
      ici_dims: dimensions of the torus; a chip has two links in each.
      pod_chips: the most chips that one slice holds.
      cores: how many a chip counts for in names such as "v5p-256"; 2 = Google Cloud counts its TensorCores.
      accelerator: what GKE's node label cloud.google.com/gke-tpu-accelerator says.
    """

    ici_link: float
    ici_dims: int
    pod_chips: int
    cores: int
    accelerator: str

    @property
    def usable_bytes(self) -> int:
        """Bytes of the memory that a program may use: the compiler reports 15.75 of the 16 GiB of v5e."""
        return int(self.hbm_bytes * 63 / 64)

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

# Sources: docs.cloud.google.com/tpu/docs, pages v4, v5e, v5p, v6e and tpu7x; GKE's tables of machine types. Links: the
# bandwidth of a chip, both ways (v5e 400, v5p 1200, v6e 800 GB/s), divided by its ports (two per dimension) and
# directions; v4: Jouppi et al. 2023, 50 GB/s. HBM sizes are published as GiB; how much of it a program may use is for
# the compiler to say. A host is what one process drives, four chips; its network is half of that of a machine of eight
# chips for v5e (2 x 100 Gbit/s) and v6e (4 x 200 Gbit/s), 50 Gbit/s a chip for v5p, 100 for tpu7x; for v4 nothing is
# published, 100 Gbit/s is taken.
TPUS: dict[str, Tpu] = {
    chip.name: chip
    for chip in (
        Tpu(name="v4", kind="TPU v4", hbm_bytes=32 * 2**30, hbm_bandwidth=1228e9, peak_flops=275e12,
             ici_link=50e9, ici_dims=3, pod_chips=4096, host_chips=4, dcn_host=12.5e9,
             cores=2, accelerator="tpu-v4-podslice"),
        Tpu(name="v5e", kind="TPU v5 lite", hbm_bytes=16 * 2**30, hbm_bandwidth=819e9, peak_flops=197e12,
             ici_link=50e9, ici_dims=2, pod_chips=256, host_chips=4, dcn_host=12.5e9,
             cores=1, accelerator="tpu-v5-lite-podslice"),
        Tpu(name="v5p", kind="TPU v5", hbm_bytes=95 * 2**30, hbm_bandwidth=2765e9, peak_flops=459e12,
             ici_link=100e9, ici_dims=3, pod_chips=8960, host_chips=4, dcn_host=25e9,
             cores=2, accelerator="tpu-v5p-slice"),
        Tpu(name="v6e", kind="TPU v6 lite", hbm_bytes=32 * 2**30, hbm_bandwidth=1640e9, peak_flops=918e12,
             ici_link=100e9, ici_dims=2, pod_chips=256, host_chips=4, dcn_host=50e9,
             cores=1, accelerator="tpu-v6e-slice"),
        Tpu(name="tpu7x", kind="TPU7x", hbm_bytes=96 * 2**30, hbm_bandwidth=3690e9, peak_flops=1153.5e12,
             ici_link=50e9, ici_dims=3, pod_chips=9216, host_chips=4, dcn_host=50e9,
             cores=2, accelerator="tpu7x", devices=2),
    )
}  # fmt: skip
