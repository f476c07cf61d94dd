"""TPU slices as GKE and Cloud TPU name them."""

import dataclasses
import math

from ..base.errors import UserError, unknown
from ..cost.tpus import TPUS


@dataclasses.dataclass(frozen=True, kw_only=True)
class Slice:
    """A TPU slice.

    Attributes:
      accelerator: value of GKE's node label cloud.google.com/gke-tpu-accelerator.
      topology: chips along each axis, such as "16x16" or "4x4x8".
      hosts: number of virtual machines, each with one process.
      chips_per_host: chips of each.
    """

    accelerator: str
    topology: str
    hosts: int
    chips_per_host: int

    @property
    def chips(self) -> int:
        """Number of chips of the slice."""
        return self.hosts * self.chips_per_host


def tpu_slice(*, tpu: str, topology: str) -> Slice:
    """Return the slice of a TPU version ("v4", "v5e", "v5p", "v6e", "tpu7x") and a topology ("16x16", "4x4x8").

    Raises:
      UserError: no such version or topology.
    """
    if tpu not in TPUS:
        raise unknown("--tpu", tpu, TPUS)
    chip, sides = TPUS[tpu], topology.split("x")
    if not all(side.isdecimal() and int(side) for side in sides):
        example = "16x16" if chip.ici_dims == 2 else "4x4x8"
        raise UserError(f"--topology of {tpu} has {chip.ici_dims} sides, such as {example}; got {topology!r}")
    shape = tuple(map(int, sides))
    chip.check_slice(shape, flag=f"--topology={topology}")
    hosts = chip.hosts(shape)
    return Slice(accelerator=chip.accelerator, topology=topology, hosts=hosts, chips_per_host=math.prod(shape) // hosts)
