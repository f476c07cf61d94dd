"""Bytes that a compiled step moves to and from memory, loops multiplied."""

from typing import Any

from .flops import inner_jaxprs, live_equations, rounds
from .hlo import Array, Instruction, Program, called_by
from .kernels import PRIMITIVE, kernel_traffic

# These move nothing: names for memory that is there, or calls whose insides are counted by themselves.
_FREE = frozenset(
    ("parameter", "constant", "iota", "partition-id", "replica-id", "tuple", "get-tuple-element", "bitcast", "domain",
     "while", "conditional", "call", "async-start", "async-update", "async-done", "copy-start", "opt-barrier",
     "after-all", "send", "send-done", "recv", "recv-done")
)  # fmt: skip
_KERNEL = 'custom_call_target="tpu_custom_call"'


def count_hbm_bytes(program: Program) -> int:
    """Return the bytes that one device reads from and writes to its memory in a step.

    Each instruction reads its operands and writes its results, a fusion as one; of an operand that is only sliced the
    slice counts, of a result that is updated in place the update. What the compiler keeps in on-chip memory counts as
    nothing. Reads of the same array by two instructions count twice, as they do on the chip. Pallas kernels are left to
    `count_kernel_bytes`.
    """
    total = 0
    for found, computation, times in program.walk(into_fusions=False):
        if found.opcode not in _FREE and _KERNEL not in found.attributes:
            total += times * _moved(found, program=program, around=program.computations[computation])
    return total


def count_kernel_bytes(jaxpr: Any) -> int:
    """Return the bytes that the Pallas kernels of a trace read from and write to memory, summed over all devices.

    A scan's body counts once for each of its rounds; of the branches of a conditional the dearest counts.
    """
    total = 0
    for eqn in live_equations(jaxpr):
        if eqn.primitive.name == PRIMITIVE:
            total += kernel_traffic(eqn)
            continue
        inner = [count_kernel_bytes(sub) for sub in inner_jaxprs(eqn)]
        if inner:
            total += max(inner) if eqn.primitive.name == "cond" else rounds(eqn) * sum(inner)
    return total


def _moved(found: Instruction, *, program: Program, around: dict[str, Instruction]) -> int:
    if found.opcode == "fusion":
        inside = program.computations[called_by(found)[0]]
        return _fusion_reads(found, inside=inside, around=around) + _fusion_writes(found, inside=inside)
    if found.opcode == "dynamic-slice":
        return 2 * _hbm(found.results)
    if found.opcode == "dynamic-update-slice":
        return 2 * _hbm(around[found.operands[1]].results)
    if found.opcode == "gather":
        return 2 * _hbm(found.results) + _hbm(around[found.operands[1]].results)
    return _hbm(found.results) + sum(_hbm(around[name].results) for name in found.operands if name in around)


def _fusion_reads(found: Instruction, *, inside: dict[str, Instruction], around: dict[str, Instruction]) -> int:
    """Bytes that a fusion reads: each operand whole, or the slices of it where nothing else of it is used."""
    users: dict[str, list[Instruction]] = {}
    for one in inside.values():
        for name in one.operands:
            users.setdefault(name, []).append(one)
    total = 0
    for parameter in inside.values():
        # Inside a fusion no layout says where a parameter lies; its operand's does.
        if parameter.opcode == "parameter" and _hbm(around[found.operands[_number(parameter)]].results):
            total += _read(parameter, users=users)
    return total


def _number(parameter: Instruction) -> int:
    return int(parameter.attributes[1 : parameter.attributes.index(")")])


def _read(value: Instruction, *, users: dict[str, list[Instruction]]) -> int:
    """Bytes read of a fusion's parameter (or of a bitcast of it)."""
    total, whole = 0, sum(array.bytes for array in value.results)
    for user in users.get(value.name, []):
        if user.opcode == "dynamic-slice" and user.operands[0] == value.name:
            total += sum(array.bytes for array in user.results)
        elif user.opcode == "dynamic-update-slice" and user.operands[0] == value.name:
            continue  # the rest stays in place
        elif user.opcode == "bitcast":
            total += _read(user, users=users)
        else:
            return whole
    return min(total, whole)


def _fusion_writes(found: Instruction, *, inside: dict[str, Instruction]) -> int:
    """Bytes that a fusion writes: its results, or the updates of those that it updates in place."""
    root = next(one for one in inside.values() if one.root)
    ends = [inside[name] for name in root.operands] if root.opcode == "tuple" else [root]
    if len(ends) != len(found.results):
        return _hbm(found.results)
    return sum(_written(end, result=result, inside=inside) for end, result in zip(ends, found.results, strict=True))


def _written(end: Instruction, *, result: Array, inside: dict[str, Instruction]) -> int:
    if not result.in_hbm:
        return 0
    while end.opcode == "bitcast" and end.operands:
        end = inside[end.operands[0]]
    if end.opcode == "dynamic-update-slice":
        return sum(array.bytes for array in inside[end.operands[1]].results)
    return result.bytes


def _hbm(results: tuple[Array, ...]) -> int:
    return sum(array.bytes for array in results if array.in_hbm)
