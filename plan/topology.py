"""Names of accelerator topologies, and their devices as the compiler describes them; no accelerator is needed."""

import contextlib
import dataclasses
import importlib.util
import math
import os
import re
from collections.abc import Sequence
from typing import Any

from ..base.errors import UserError, unknown
from ..cost.chips import Chip
from ..cost.gpus import GPUS, Gpu
from ..cost.tpus import TPUS, Tpu

# Without these, libtpu queries the metadata server of a cloud, and refuses to load in a second process.
_OFFLINE = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_MIN_LOG_LEVEL": "3",
    "TPU_STDERR_LOG_LEVEL": "3",
}

_GPU_COMPILERS = ("jax_cuda12_plugin", "jax_cuda13_plugin")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Topology:
    """Chips to plan for.

    Attributes:
      name: as given by the user.
      chip: figures of its data sheet; None for fake CPU devices.
      shape: chips along each axis of a slice; of GPUs, those of a host.
      slices: number of slices, joined by the hosts' network (DCN); of GPUs, number of hosts.
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
    def devices(self) -> int:
        """Number of jax devices; a chip of TPU7x is two."""
        return self.chips * (self.chip.devices if self.chip is not None else 1)

    @property
    def hosts(self) -> int:
        """Number of hosts; fake devices have one."""
        return self.slices * (self.chip.hosts(self.shape) if isinstance(self.chip, Tpu) else 1)

    @property
    def shards(self) -> int:
        """The most devices over which parameters may be split: a slice of TPUs, all GPUs."""
        return self.devices if isinstance(self.chip, Gpu) else self.devices // self.slices

    def wraps(self, axis: int) -> bool:
        """Return whether the chips along an axis of the slice form a ring: 16 of a 2-D torus, multiples of 4 in 3-D."""
        size = self.shape[axis]
        return size % 4 == 0 if isinstance(self.chip, Tpu) and self.chip.ici_dims == 3 else size == 16

    def __str__(self) -> str:
        if self.chip is None:
            return f"{self.chips} fake CPU devices"
        if isinstance(self.chip, Gpu):
            hosts = f" ({self.hosts} hosts of {self.shape[0]})" if self.hosts > 1 else ""
            return f"{self.chip.kind}, {self.chips} GPU{'s' if self.chips > 1 else ''}{hosts}"
        slices = f"{self.slices} slices of " if self.slices > 1 else ""
        chips = f"{self.chips} chips" if self.chips > 1 else "1 chip"
        devices = f", {self.devices} devices" if self.devices != self.chips else ""
        return f"{self.chip.kind}, {chips} ({slices}{'x'.join(map(str, self.shape))}){devices}"


def parse_topology(name: str, *, slices: int = 1) -> Topology:
    """Read the name of a topology.

    Args:
      name: "v5e-256" or "v6e-64" (chips), "v4-128" or "v5p-256" (TensorCores, two to a chip, as Google Cloud counts
        them: v5p-256 is 128 chips; so tpu7x), "v5p:8x8x8" (chips along each axis), "h100-64" (GPUs, in hosts of eight),
        "cpu-8" or "fake-8" (fake devices). Of v5e and v6e a multiple of 256 is that many full slices.
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
    if generation in GPUS:
        return _gpu_hosts(GPUS[generation], name=name, number=number, slices=slices)
    if generation not in TPUS:
        raise unknown("generation of --topology", generation, [*TPUS, *GPUS, "cpu", "fake"])
    chip = TPUS[generation]
    if grid:
        shape = tuple(int(size) for size in grid.split("x"))
    else:
        shape, slices = _offered(chip, name=name, number=int(number), slices=slices)
    chip.check_slice(shape, flag=f"--topology={name!r}")
    return Topology(name=name, chip=chip, shape=shape, slices=slices)


def _gpu_hosts(gpu: Gpu, *, name: str, number: str | None, slices: int) -> Topology:
    """Return the hosts that hold a number of GPUs: part of one host, or whole hosts."""
    count = int(number or 0)
    if slices > 1 or not number:
        raise UserError(f"--topology={name!r}: write the number of all GPUs, as {gpu.name}-64; they have no slices")
    if count < 1 or (count > gpu.host_chips and count % gpu.host_chips):
        raise UserError(
            f"--topology={name!r}: hosts have {gpu.host_chips} GPUs each: ask for 1 to {gpu.host_chips} of them, or "
            f"for a multiple of {gpu.host_chips}"
        )
    hosts = max(1, count // gpu.host_chips)
    return Topology(name=name, chip=gpu, shape=(count // hosts,), slices=hosts)


def _offered(chip: Tpu, *, name: str, number: int, slices: int) -> tuple[tuple[int, ...], int]:
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
    """Return the devices of a topology: descriptions that its compiler takes, or fake CPU devices.

    Raises:
      UserError: the compiler is not installed; the shape is not one that it knows; or jax has started with fewer CPU
        devices.
    """
    import jax

    if topology.chip is None:
        return _fake_devices(topology.chips)
    describe = _gpus if isinstance(topology.chip, Gpu) else _tpus
    with contextlib.suppress(RuntimeError):  # jax has started: then it runs on what it has
        jax.config.update("jax_platforms", "cpu")
    try:
        return describe(topology)
    except jax.errors.JaxRuntimeError as error:
        raise UserError(f"--topology={topology.name}: the compiler rejects it: {error}") from error


def _tpus(topology: Topology) -> Sequence[Any]:
    """Return TPUs as libtpu describes them."""
    chip = topology.chip
    assert isinstance(chip, Tpu)
    if importlib.util.find_spec("libtpu") is None:
        raise UserError(
            f"--topology={topology.name} needs the TPU compiler: pip install 'twinreel[plan]' (no TPU is needed), "
            f"or plan for fake devices with --topology=cpu-8"
        )
    for key, value in _OFFLINE.items():
        os.environ.setdefault(key, value)
    from jax.experimental import topologies

    return topologies.get_topology_desc(
        platform="tpu",
        topology_name=f"{chip.name}:{'x'.join(map(str, topology.shape))}",
        chip_config_name="megacore" if chip.cores > chip.devices else "default",
        chips_per_host_bounds=(2, 2, 1) if math.prod(topology.shape) >= 4 else (1, 1, 1),
        num_slices=topology.slices,
    ).devices


def _gpus(topology: Topology) -> Sequence[Any]:
    """Return GPUs as XLA's compiler takes them: from the figures of a data sheet."""
    chip = topology.chip
    assert isinstance(chip, Gpu)
    if not any(importlib.util.find_spec(name) for name in _GPU_COMPILERS):
        raise UserError(
            f"--topology={topology.name} needs XLA's GPU compiler: pip install 'twinreel[plan-gpu]' (no GPU, driver or "
            "CUDA toolkit is needed), or plan for fake devices with --topology=cpu-8"
        )
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # or it reports that there is no driver
    from jax.experimental import topologies

    return topologies.get_topology_desc(
        platform="cuda",
        target_config=chip.target(),
        topology=f"1x{topology.hosts}x{topology.shape[0]}",  # partitions x hosts x GPUs of a host
    ).devices


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
