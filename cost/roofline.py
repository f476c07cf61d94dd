"""How long a step may take on chips that are not here: a roofline with stated assumptions."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Self

import jax
import numpy as np

from ..base.errors import UserError
from .chips import Chip
from .collectives import Traffic
from .gpus import Gpu
from .rates import matmul_rate
from .tpus import Tpu


@dataclasses.dataclass(frozen=True, kw_only=True)
class Assumptions:
    """What the estimate takes for granted; all are shares (0 to 1).

    Attributes:
      matmul: of the peak that the matrix units reach on whole tiles; None = that of the chip, from `rates.RATES`.
      hbm: of the memory's bandwidth.
      links: of the bandwidth of the links between chips (ICI, NVLink).
      network: of the bandwidth of the hosts' network (DCN).
      overlap: of the time of sending that is hidden behind computing.
    """

    matmul: float | None = None
    hbm: float = 0.8
    links: float = 0.8
    network: float = 0.6
    overlap: float = 0.5

    def __post_init__(self):
        for name in (field.name for field in dataclasses.fields(Assumptions)):
            share = getattr(self, name)
            if share is not None and not (0 <= share <= 1 and (share or name == "overlap")):
                raise UserError(f"--{name}={share} must be a share above 0 and up to 1 (--overlap may be 0)")

    def on(self, chip: Chip | None) -> Self:
        """Return the same with the chip's own share for `matmul`, unless it is given; None = no chip, no change."""
        if chip is None or self.matmul is not None:
            return self
        return dataclasses.replace(self, matmul=matmul_rate(chip).share)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Estimate:
    """Seconds of a step on one chip.

    Attributes:
      compute_s: its matrix products, recomputed ones and padding of tiles included.
      hbm_s: its traffic with memory.
      links_s: what it sends over the links between chips.
      network_s: what it sends over the hosts' network.
      step_s: max(compute, hbm) + (1 - overlap) * (links + network), but no less than `least_s`.
      least_s: the largest of the four: all overlap. The step cannot be faster if the assumed shares hold.
      mfu: model FLOPs / (step_s * peak); what is recomputed does not count.
      bound: which of the four is the largest.
    """

    compute_s: float
    hbm_s: float
    links_s: float
    network_s: float
    step_s: float
    least_s: float
    mfu: float
    bound: str


def estimate_step(
    *,
    chip: Chip,
    mesh: jax.sharding.Mesh,
    wraps: Callable[[int], bool],
    model_flops: float,
    hardware_flops: float,
    hbm_bytes: float,
    traffic: Sequence[Traffic],
    assumptions: Assumptions,
) -> Estimate:
    """Estimate the time of a step.

    Args:
      chip: data sheet.
      mesh: of devices with coordinates.
      wraps: dimension of the torus -> whether its chips form a ring.
      model_flops: per chip, without recomputation.
      hardware_flops: per chip, with it and with what is computed on padding of the matrix units' tiles.
      hbm_bytes: per chip.
      traffic: of `count_collectives`.
      assumptions: shares of what the data sheet says.
    """
    matmul = assumptions.on(chip).matmul
    assert matmul is not None
    compute = hardware_flops / (matmul * chip.peak_flops)
    memory = hbm_bytes / (assumptions.hbm * chip.hbm_bandwidth)
    links = network = 0.0
    for one in traffic:
        if one.over_network:
            # A ring through several hosts enters and leaves each of them once: its members there share that traffic.
            network += one.sent / (assumptions.network * one.host_members * network_speed(chip))
        else:
            links += one.sent / (assumptions.links * _speed(one, chip=chip, mesh=mesh, wraps=wraps))
    parts = {"compute": compute, "memory": memory, "links": links, "network": network}
    least = max(parts.values())
    step = max(least, max(compute, memory) + (1 - assumptions.overlap) * (links + network))
    return Estimate(
        compute_s=compute,
        hbm_s=memory,
        links_s=links,
        network_s=network,
        step_s=step,
        least_s=least,
        mfu=model_flops / (step * chip.peak_flops),
        bound=max(parts, key=lambda name: parts[name]),
    )


def network_speed(chip: Chip) -> float:
    """Return the share in bytes/s that a device has of its host's network, each way."""
    return chip.dcn_host / (chip.host_chips * chip.devices)


def _speed(traffic: Traffic, *, chip: Chip, mesh: jax.sharding.Mesh, wraps: Callable[[int], bool]) -> float:
    """Return at how many bytes/s a chip sends in a collective over the links between chips."""
    if isinstance(chip, Gpu):
        return chip.nvlink  # a switch: whatever the group
    assert isinstance(chip, Tpu)
    if traffic.kind == "collective-permute":  # no ring that splits its data both ways: to one other chip, by one link
        return chip.ici_link
    return link_speed(traffic.axes, chip=chip, mesh=mesh, wraps=wraps)


def link_speed(axes: Sequence[str], *, chip: Tpu, mesh: jax.sharding.Mesh, wraps: Callable[[int], bool]) -> float:
    """Return at how many bytes/s a chip sends in a collective over some mesh axes.

    A ring along each dimension of the torus in which the group's chips differ: both ways where it closes, one way where
    the group has only a part of the dimension or its ends are not joined.
    """
    index = tuple(slice(None) if axis in axes else 0 for axis in mesh.axis_names)
    group = np.array([device.coords for device in np.ravel(mesh.devices[index])])
    everyone = np.array([device.coords for device in mesh.devices.flat])
    directions = 0
    for d in range(group.shape[1]):
        mine, there = len(set(group[:, d])), len(set(everyone[:, d]))
        if mine > 1:
            directions += 2 if mine == there and wraps(d) else 1
    return chip.ici_link * max(1, directions)
