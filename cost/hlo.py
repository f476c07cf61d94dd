"""Reads the text of a compiled program (HLO): its computations, their instructions, and how often each runs."""

import dataclasses
import math
import re
from collections.abc import Iterator

_HEAD = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\) -> .*\{\s*$")
_NAME = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = ")
_ARRAY = re.compile(r"\b(pred|token|[a-z]\w*?\d+\w*)\[([\d,]*)\](\{[^}]*\})?")
_REFERENCE = re.compile(r"%([\w.\-]+)")
_CALLED = re.compile(r"\b(?:calls|to_apply|true_computation|false_computation)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_KNOWN_TRIPS = re.compile(r'known_trip_count":\{"n":"(\d+)"')
_BITS = {"pred": 8, "token": 0}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Array:
    """An array type in a program.

    Attributes:
      dtype: as HLO writes it ("bf16").
      shape: of one device's part.
      bytes: without padding.
      in_hbm: False where the compiler keeps it in the chip's on-chip memory.
    """

    dtype: str
    shape: tuple[int, ...]
    bytes: int
    in_hbm: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class Instruction:
    """One instruction: `results` are its arrays (several for a tuple), `operands` the names that it reads."""

    name: str
    opcode: str
    results: tuple[Array, ...]
    operands: tuple[str, ...]
    attributes: str
    root: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class Program:
    """A compiled program.

    Attributes:
      computations: name -> its instructions by name, in their order.
      entry: the name of the computation that runs first.
    """

    computations: dict[str, dict[str, Instruction]]
    entry: str

    def walk(self, *, into_fusions: bool = True) -> Iterator[tuple[Instruction, str, int]]:
        """Yield (instruction, its computation, how often it runs) for all that run; loops are multiplied.

        Of a conditional all branches are counted. A loop whose rounds cannot be told counts once (`open_loops`).

        Args:
          into_fusions: also yield what is inside fusions.
        """
        yield from self._walk(self.entry, times=1, into_fusions=into_fusions)

    def open_loops(self) -> int:
        """Return how many loops there are whose number of rounds the program does not say."""
        return sum(found.opcode == "while" and self.trips(found) is None for found, _, _ in self.walk())

    def trips(self, loop: Instruction) -> int | None:
        """Return the number of rounds of a `while`; None if the program does not say."""
        known = _KNOWN_TRIPS.search(loop.attributes)
        if known:
            return int(known[1])
        condition = self.computations[_attribute(loop, "condition")]
        root = next(found for found in condition.values() if found.root)
        if root.opcode != "compare" or "direction=LT" not in root.attributes:
            return None
        limits = [condition[name] for name in root.operands if condition[name].opcode == "constant"]
        # The counters that jax makes start at 0 and go up by 1.
        value = re.match(r"\((-?\d+)\)", limits[0].attributes) if len(limits) == 1 else None
        return int(value[1]) if value else None

    def _walk(self, name: str, *, times: int, into_fusions: bool) -> Iterator[tuple[Instruction, str, int]]:
        for found in self.computations[name].values():
            yield found, name, times
            if found.opcode == "while":
                body, rounds = _attribute(found, "body"), self.trips(found)
                yield from self._walk(body, times=times * (1 if rounds is None else rounds), into_fusions=into_fusions)
            elif found.opcode in ("call", "conditional", "async-start") or (into_fusions and found.opcode == "fusion"):
                for called in called_by(found):
                    yield from self._walk(called, times=times, into_fusions=into_fusions)


def called_by(instruction: Instruction) -> list[str]:
    """Return the names of the computations that an instruction calls (not those of a loop)."""
    branches = _BRANCHES.search(instruction.attributes)
    found = _CALLED.findall(instruction.attributes)
    return found + ([name.strip().lstrip("%") for name in branches[1].split(",")] if branches else [])


def parse_program(text: str) -> Program:
    """Parse `Compiled.as_text()`."""
    computations: dict[str, dict[str, Instruction]] = {}
    entry, current = "", None
    for line in text.splitlines():
        head = _HEAD.match(line)
        if head:
            current = computations.setdefault(head[2], {})
            entry = head[2] if head[1] else entry
        elif line.startswith("}"):
            current = None
        elif current is not None and (name := _NAME.match(line)):
            found = _instruction(line[name.end() :], name=name[2], root=bool(name[1]))
            current[found.name] = found
    if not entry:
        raise ValueError("the text holds no ENTRY computation: it is not a compiled program")
    return Program(computations=computations, entry=entry)


def _instruction(line: str, *, name: str, root: bool) -> Instruction:
    end = _closing(line, 0) + 1 if line.startswith("(") else line.index(" ")
    opcode, _, rest = line[end:].strip().partition("(")
    close = _closing("(" + rest, 0)
    inside, after = rest[: close - 1], rest[close:]
    if opcode in ("constant", "parameter"):
        after = f"({inside[:40]}){after}"
    return Instruction(
        name=name,
        opcode=opcode,
        results=arrays(line[:end]),
        operands=tuple(_REFERENCE.findall(inside)),
        attributes=after,
        root=root,
    )


def _closing(text: str, start: int) -> int:
    """Return the index of the parenthesis that closes the one at `start`."""
    depth = 0
    for match in re.compile(r"[()]").finditer(text, start):
        depth += 1 if match[0] == "(" else -1
        if not depth:
            return match.start()
    return len(text) - 1


def arrays(text: str) -> tuple[Array, ...]:
    """Return the arrays of a type as HLO writes it.

    >>> arrays("(f32[2,3]{1,0:T(8,128)S(1)}, bf16[4]{0})")[1]
    Array(dtype='bf16', shape=(4,), bytes=8, in_hbm=True)
    """
    return tuple(_array(*match.groups()) for match in _ARRAY.finditer(text))


def _array(dtype: str, dims: str, layout: str | None) -> Array:
    shape = tuple(int(dim) for dim in dims.split(",") if dim)
    space = re.search(r"S\((\d+)\)", layout or "")
    bits = _BITS.get(dtype) if dtype in _BITS else int(re.search(r"\d+", dtype)[0])  # pyright: ignore[reportOptionalSubscript]
    if dtype in ("c64", "c128"):
        bits = int(dtype[1:])
    size = math.ceil(math.prod(shape) * (bits or 0) / 8)
    return Array(dtype=dtype, shape=shape, bytes=size, in_hbm=space is None or space[1] == "0")


def _attribute(instruction: Instruction, key: str) -> str:
    found = re.search(rf"\b{key}=%?([\w.\-]+)", instruction.attributes)
    assert found is not None, f"{instruction.name} has no {key}"
    return found[1]
