"""Names of accelerator topologies, and their devices as the TPU compiler describes them; no TPU is needed."""

import contextlib
import dataclasses
import importlib.util
import math
import os
import re
from collections.abc import Sequence
from typing import Any

from ..base.errors import UserError, unknown
from ..cost.chips import CHIPS, Chip

# Without these, libtpu queries the metadata server of a cloud, and refuses to load in a second process.
_OFFLINE = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_MIN_LOG_LEVEL": "3",
    "TPU_STDERR_LOG_LEVEL": "3",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Topology:
    """Chips to plan for.

    Attributes:
      name: as given by the user.
      chip: figures of its data sheet; None for fake CPU devices.
      shape: chips along each axis of a slice.
      slices: number of slices, joined by the hosts' network (DCN).
    """

    name: str
    chip: Chip | None
    shape: tuple[int, ...]
    slices: int = 1

    @property
    def chips(self) -> int:
        """Number of chips (or fake devices)."""
        return self.slices * math.prod(self.shape)

    @property
    def hosts(self) -> int:
        """Number of hosts; fake devices have one."""
        if self.chip is None:
            return 1
        return self.slices * self.chip.hosts(self.shape)

    def wraps(self, axis: int) -> bool:
        """Return whether the chips along an axis of the slice form a ring: 16 of a 2-D torus, multiples of 4 in 3-D."""
        size = self.shape[axis]
        return size == 16 if self.chip is None or self.chip.ici_dims == 2 else size % 4 == 0

    def __str__(self) -> str:
        if self.chip is None:
            return f"{self.chips} fake CPU devices"
        slices = f"{self.slices} slices of " if self.slices > 1 else ""
        chips = f"{self.chips} chips" if self.chips > 1 else "1 chip"
        return f"{self.chip.kind}, {chips} ({slices}{'x'.join(map(str, self.shape))})"


def parse_topology(name: str, *, slices: int = 1) -> Topology:
    """Read the name of a topology.

    Args:
      name: "v5e-256" or "v6e-64" (chips), "v4-128" or "v5p-256" (TensorCores, two to a chip, as Google Cloud counts
        them: v5p-256 is 128 chips), "v5p:8x8x8" (chips along each axis), "cpu-8" or "fake-8" (fake devices). Of v5e and
        v6e a multiple of 256 is that many full slices.
      slices: number of such slices, joined by the hosts' network.

    Raises:
      UserError: no such generation, or no such size or shape of it.
    """
    match = re.fullmatch(r"(\w+)(?:-(\d+)|:(\d+(?:x\d+)*))", name)
    if not match:
        raise UserError(f"--topology={name!r} must have a form such as v5e-256, v5p:8x8x8 or cpu-8")
    generation, number, grid = match.groups()
    if slices < 1:
        raise UserError(f"--slices={slices} must be at least 1")
    if generation in ("cpu", "fake"):
        if not number or slices > 1 or int(number) < 1:
            raise UserError(f"--topology={name!r}: fake devices have no shape and no slices; write cpu-8")
        return Topology(name=name, chip=None, shape=(int(number),))
    if generation not in CHIPS:
        raise unknown("generation of --topology", generation, [*CHIPS, "cpu", "fake"])
    chip = CHIPS[generation]
    if grid:
        shape = tuple(int(size) for size in grid.split("x"))
    else:
        shape, slices = _offered(chip, name=name, number=int(number), slices=slices)
    chip.check_slice(shape, flag=f"--topology={name!r}")
    return Topology(name=name, chip=chip, shape=shape, slices=slices)


def _offered(chip: Chip, *, name: str, number: int, slices: int) -> tuple[tuple[int, ...], int]:
    """Return (shape, slices) of the size that a name gives."""
    named, cores = chip.named_slices(), chip.cores
    chips = number // cores
    if chip.ici_dims == 2 and chips > chip.pod_chips and chips % chip.pod_chips == 0:
        return named[chip.pod_chips], slices * (chips // chip.pod_chips)
    if number % cores or chips not in named:
        counted = "TensorCores, two to a chip" if cores > 1 else "chips"
        sizes = ", ".join(f"{chip.name}-{size * cores}" for size in named)
        raise UserError(f"--topology={name!r} is no size of {chip.name} (the number counts {counted}): {sizes}; "
                        f"or give a shape, such as {chip.name}:{'x'.join(map(str, named[64]))}")  # fmt: skip
    return named[chips], slices


def topology_devices(topology: Topology) -> Sequence[Any]:
    """Return the devices of a topology: descriptions that the TPU compiler takes, or fake CPU devices.

    Raises:
      UserError: libtpu is not installed; the shape is not one that it knows; or jax has started with fewer CPU devices.
    """
    import jax

    if topology.chip is None:
        return _fake_devices(topology.chips)
    if importlib.util.find_spec("libtpu") is None:
        raise UserError(
            f"--topology={topology.name} needs the TPU compiler: pip install 'twinreel[plan]' (no TPU is needed), "
            f"or plan for fake devices with --topology=cpu-8"
        )
    for key, value in _OFFLINE.items():
        os.environ.setdefault(key, value)
    with contextlib.suppress(RuntimeError):  # jax has started: then it runs on what it has
        jax.config.update("jax_platforms", "cpu")
    from jax.experimental import topologies

    bounds = (2, 2, 1) if math.prod(topology.shape) >= 4 else (1, 1, 1)
    try:
        return topologies.get_topology_desc(
            platform="tpu",
            topology_name=f"{topology.chip.name}:{'x'.join(map(str, topology.shape))}",
            chip_config_name="megacore" if topology.chip.cores > 1 else "default",
            chips_per_host_bounds=bounds,
            num_slices=topology.slices,
        ).devices
    except jax.errors.JaxRuntimeError as error:
        raise UserError(f"--topology={topology.name}: the TPU compiler rejects it: {error}") from error


def _fake_devices(wanted: int) -> Sequence[Any]:
    """Return `wanted` CPU devices; asks jax for them if it has not started yet."""
    import jax

    with contextlib.suppress(RuntimeError):  # jax has started
        jax.config.update("jax_platforms", "cpu")
    if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        with contextlib.suppress(RuntimeError):  # jax has started
            jax.config.update("jax_num_cpu_devices", wanted)
    devices = jax.devices("cpu")
    if len(devices) < wanted:
        raise UserError(
            f"--topology=cpu-{wanted}: jax has started with {len(devices)} CPU devices; run it in a fresh process, "
            f"or set XLA_FLAGS=--xla_force_host_platform_device_count={wanted}"
        )
    return devices[:wanted]
