"""TPU slices as GKE and Cloud TPU name them.

Source: Google's tables of TPU versions, topologies and machine types for GKE and Cloud TPU.
"""

import dataclasses
import math

from ...configs.errors import UserError, unknown


@dataclasses.dataclass(frozen=True, kw_only=True)
class Slice:
    """A TPU slice.

    Attributes:
      accelerator: what GKE's node label cloud.google.com/gke-tpu-accelerator says.
      topology: its chips, as "16x16" or "4x4x8".
      hosts: virtual machines, which is processes.
      chips_per_host: chips of each.
    """

    accelerator: str
    topology: str
    hosts: int
    chips_per_host: int

    @property
    def chips(self) -> int:
        """Chips of the slice."""
        return self.hosts * self.chips_per_host


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Generation:
    accelerator: str
    dimensions: int
    most_chips: int
    single_host: dict[str, int]  # topologies of one machine that does not have the usual four chips


_GENERATIONS = {
    "v4": _Generation(accelerator="tpu-v4-podslice", dimensions=3, most_chips=4096, single_host={}),
    "v5e": _Generation(accelerator="tpu-v5-lite-podslice", dimensions=2, most_chips=256, single_host={"1x1": 1}),
    "v5p": _Generation(accelerator="tpu-v5p-slice", dimensions=3, most_chips=8960, single_host={}),
    "v6e": _Generation(accelerator="tpu-v6e-slice", dimensions=2, most_chips=256, single_host={"1x1": 1}),
}
_FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")


def tpu_slice(*, tpu: str, topology: str) -> Slice:
    """Return the slice of a TPU version ("v4", "v5e", "v5p", "v6e") and a topology ("16x16", "4x4x8").

    Raises:
      UserError: no such version or topology.
    """
    if tpu not in _GENERATIONS:
        raise unknown("--tpu", tpu, _GENERATIONS)
    made = _GENERATIONS[tpu]
    sides = topology.split("x")
    if len(sides) != made.dimensions or not all(side.isdecimal() and int(side) for side in sides):
        example = "16x16" if made.dimensions == 2 else "4x4x8"
        raise UserError(f"--topology of {tpu} has {made.dimensions} sides, as {example}; got {topology!r}")
    if made.dimensions == 2 and topology not in _FLAT:
        raise unknown(f"--topology of {tpu}", topology, _FLAT)
    chips = math.prod(map(int, sides))
    cube = made.dimensions == 3 and not _is_whole(tuple(map(int, sides)))
    if cube or chips > made.most_chips:
        raise UserError(
            f"--topology {topology} is no slice of {tpu}: sides are 2x2x1, 2x2x2, 2x2x4, 2x4x4 or multiples of 4 that "
            f"do not fall, at most {made.most_chips} chips"
        )
    per_host = made.single_host.get(topology, 4)
    return Slice(accelerator=made.accelerator, topology=topology, hosts=chips // per_host, chips_per_host=per_host)


def _is_whole(sides: tuple[int, ...]) -> bool:
    small = {(2, 2, 1), (2, 2, 2), (2, 2, 4), (2, 4, 4)}
    return sides in small or (all(side % 4 == 0 for side in sides) and list(sides) == sorted(sides))
