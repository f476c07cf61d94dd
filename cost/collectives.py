"""What the chips of a compiled step send to each other: bytes of each kind of collective by mesh axis."""

import dataclasses
import math
import re
from collections import defaultdict
from collections.abc import Mapping

import numpy as np

from .hlo import Instruction, Program

_KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "ragged-all-to-all", "collective-permute",
          "collective-broadcast")  # fmt: skip
_OPCODES = {name + ending: name for name in _KINDS for ending in ("", "-start")}
_IOTA = re.compile(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?")
_MESH = re.compile(r"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\(\[([\d,]+)\](?:T\(([\d,]+)\))?\))? \{([^}]*)\}")
_LISTED = re.compile(r"replica_groups=\{(\{[\d,{} ]*\})?\}")
_PAIRS = re.compile(r"source_target_pairs=\{([\d,{} ]*)\}")
_MEGASCALE = re.compile(r'_xla_megascale_transfer_type="(\w+)"')
# The TPU compiler writes a collective that runs beside others' computations once into the fusion that starts it, once
# into each that computes meanwhile, and once into the one that ends it, all with one chain_id.
_CHAINED = "chain_id="
_CHAIN_START = 'custom_call_target="AsyncCollectiveStart"'
_COMPUTING = ("fusion", "dot", "convolution", "custom-call", "while", "call", "conditional")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Traffic:
    """One kind of collective over one set of mesh axes, summed over a step.

    Attributes:
      kind: "all-gather", "all-reduce" ...
      axes: the mesh axes along which the chips of a group differ.
      over_network: it travels over the hosts' network (DCN), not over the chips' links (ICI, NVLink).
      host_members: of a group that reaches over several hosts, how many lie on one: they share its network adapters.
      calls: how many of them a step runs.
      bytes: of the whole array of a group (an all-gather's result, a reduce-scatter's operand), summed over the calls.
      sent: bytes that each chip sends, by a ring: (n-1)/n of `bytes`, twice that for an all-reduce.
      beside: of `sent`, what is under way while the program's order has the chip compute.
    """

    kind: str
    axes: tuple[str, ...]
    over_network: bool
    calls: int
    bytes: int
    sent: float
    host_members: int = 1
    beside: float = 0.0


def count_collectives(
    program: Program, *, mesh: Mapping[str, int], slices: int = 1, host_devices: int | None = None
) -> list[Traffic]:
    """Sum the collectives of a program by kind and mesh axes, the dearest first.

    Args:
      program: the optimised program of one device (`hlo.parse_program`).
      mesh: axis -> size; device k of the program is the k-th of the mesh in row-major order.
      slices: of TPUs: over how many slices the first axis reaches; a program of several slices numbers the devices of
        one, and sends between slices through the hosts.
      host_devices: of GPUs: devices of a host; a group with devices of several hosts sends over their network. None =
        links join all devices of the program.
    """
    first = next(iter(mesh))
    inner = {axis: size // slices if axis == first else size for axis, size in mesh.items()}
    sums: dict[tuple, list[float]] = defaultdict(lambda: [0, 0, 0.0, 0.0])
    for found, computation, times in program.walk():
        around = program.computations[computation]
        if _CHAINED in found.attributes and not _starts_chain(around):
            continue
        measured = _measure(
            found, computation=computation, inner=inner, slices=slices, first=first, host_devices=host_devices
        )
        if measured is not None:
            key, size, sent = measured
            beside = sent if _computes_beside(found, around=around) else 0.0
            for i, value in enumerate((times, times * size, times * sent, times * beside)):
                sums[key][i] += value
    traffic = [
        Traffic(
            kind=kind,
            axes=axes,
            over_network=members > 0,
            calls=int(calls),
            bytes=int(size),
            sent=sent,
            host_members=max(1, members),
            beside=beside,
        )
        for (kind, axes, members), (calls, size, sent, beside) in sums.items()
    ]
    return sorted(traffic, key=lambda one: -one.sent)


def _starts_chain(around: Mapping[str, Instruction]) -> bool:
    return any(_CHAIN_START in one.attributes for one in around.values())


def _computes_beside(found: Instruction, *, around: Mapping[str, Instruction]) -> bool:
    """Return whether the program computes between the start and the end of a collective."""
    if _CHAINED in found.attributes:
        return True
    ends = found.opcode.removesuffix("-start") + "-done"  # so "send" has "send-done"
    if not found.opcode.endswith("-start") and found.opcode != "send":
        return False
    started = computing = False
    for one in around.values():
        if started and one.opcode == ends and found.name in one.operands:
            return computing
        computing |= started and one.opcode in _COMPUTING
        started |= one.name == found.name
    return False


def _measure(
    found: Instruction,
    *,
    computation: str,
    inner: dict[str, int],
    slices: int,
    first: str,
    host_devices: int | None,
) -> tuple[tuple[str, tuple[str, ...], int], int, float] | None:
    """Return ((kind, axes, members on a host), bytes, bytes sent) of an instruction; None if it is no collective.

    The members on a host are 0 where the group needs no network.
    """
    megascale = _MEGASCALE.search(found.attributes) if found.opcode == "send" else None
    if megascale:
        kind, size = megascale[1].lower().replace("_", "-"), found.results[0].bytes
        kind = "collective-permute" if kind == "one-to-one" else kind
        whole = size * slices if kind == "all-gather" else size
        return (kind, (first,), 1), whole, _sent(kind, whole, members=slices)
    kind = _OPCODES.get(found.opcode)
    if kind is None:
        return None
    groups = device_groups(found.attributes, devices=math.prod(inner.values()))
    axes, members = axes_of(groups, mesh=inner), groups.shape[1]
    if not axes:
        return None
    if kind == "all-reduce" and computation.startswith("all-reduce-scatter"):
        kind = "reduce-scatter"  # so the TPU compiler writes one: an all-reduce of which each chip keeps its part
        size = sum(array.bytes for array in found.results)
    else:
        size = _whole(found, kind=kind, members=members)
    return (kind, axes, _host_members(groups, host_devices=host_devices)), size, _sent(kind, size, members=members)


def _host_members(groups: np.ndarray, *, host_devices: int | None) -> int:
    """Return how many members of a group lie on one of its hosts; 0 if all groups lie on one host each."""
    if host_devices is None:
        return 0
    hosts = groups // host_devices  # [groups, members]
    most = max(len(set(group)) for group in hosts)
    return 0 if most == 1 else groups.shape[1] // most


def _whole(found: Instruction, *, kind: str, members: int) -> int:
    """Bytes of the whole array of a group."""
    sizes = [array.bytes for array in found.results]
    if found.opcode == "all-gather-start":  # (operands ..., results ...)
        return sum(sizes[len(found.operands) : 2 * len(found.operands)])
    if found.opcode == "collective-permute-start":  # (operand, result, two counters)
        return sizes[1]
    return sum(sizes) * (members if kind == "reduce-scatter" else 1)


def _sent(kind: str, size: float, *, members: int) -> float:
    if kind == "collective-permute":
        return float(size)
    return (2.0 if kind == "all-reduce" else 1.0) * size * (members - 1) / members


def device_groups(attributes: str, *, devices: int) -> np.ndarray:
    """Return the groups of devices that a collective joins, int [groups, members].

    HLO writes them as a list, as a permuted iota, or as axes of a mesh of its own making; a permutation's pairs
    (source, target) are returned without those that stay where they are.

    >>> device_groups("replica_groups=[2,2]<=[2,2]T(1,0)", devices=4).tolist()
    [[0, 2], [1, 3]]
    """
    if iota := _IOTA.search(attributes):
        return _iota(iota[2], iota[3]).reshape(_integers(iota[1]))
    if mesh := _MESH.search(attributes):
        return _mesh_groups(mesh[1], ids=mesh[2], order=mesh[3], axes=mesh[4])
    if pairs := _PAIRS.search(attributes):
        moved = [pair for pair in _sets(pairs[1]) if pair[0] != pair[1]]
        return np.array(moved, int).reshape(-1, 2)
    listed = _LISTED.search(attributes)
    if listed is not None and listed[1]:
        return np.array(_sets(listed[1]), int)
    return np.arange(devices).reshape(1, -1)


def axes_of(groups: np.ndarray, *, mesh: Mapping[str, int]) -> tuple[str, ...]:
    """Return the mesh axes along which the devices of a group differ."""
    if not groups.size:
        return ()
    coordinates = np.stack(np.unravel_index(groups, tuple(mesh.values())))  # [axes, groups, members]
    differs = (coordinates != coordinates[:, :, :1]).any(axis=(1, 2))
    return tuple(axis for axis, used in zip(mesh, differs, strict=True) if used)


def _mesh_groups(sizes: str, *, ids: str | None, order: str | None, axes: str) -> np.ndarray:
    """Groups in the notation mesh['a'=2,'b'=4] {'b'}; an axis may be cut: 'b':(2)2 is its part of size 2 after 2."""
    shape = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", sizes)}
    names, parts, chosen = list(shape), [], []
    wanted = {name: (int(before or 1), int(size or 0)) for name, before, size in
              re.findall(r"'([^']+)'(?::\((\d+)\)(\d+))?", axes)}  # fmt: skip
    for name in names:
        before, size = wanted.get(name, (1, 1))
        size = size or shape[name]
        parts += [before, size, shape[name] // (before * size)]
        chosen.append(len(parts) - 2)
    grid = _iota(ids or str(math.prod(shape.values())), order).reshape(parts)
    kept = [axis for axis in range(len(parts)) if axis not in chosen]
    return grid.transpose(kept + chosen).reshape(-1, math.prod(parts[axis] for axis in chosen))


def _iota(dims: str, order: str | None) -> np.ndarray:
    shape = _integers(dims)
    grid = np.arange(math.prod(shape)).reshape(shape)
    return grid.transpose(_integers(order)) if order else grid


def _integers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def _sets(text: str) -> list[tuple[int, ...]]:
    return [_integers(inside) for inside in re.findall(r"\{([\d, ]+)\}", text)]
