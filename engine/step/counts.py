"""How many parameters of each part of a model are trained, frozen, and added by an adaptation."""

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from ...models.adapters import ADDED


@dataclasses.dataclass(frozen=True, kw_only=True)
class Count:
    """The parameters of one part.

    Attributes:
      part: first component of their paths, such as "video"; "total" for all.
      trained: how many are trained.
      frozen: how many are not.
      added: how many of both an adaptation has added (`models.adapters`).
    """

    part: str
    trained: int
    frozen: int
    added: int


def count_parameters(shapes: Mapping[str, Any], *, trained: Sequence[str]) -> list[Count]:
    """Count parameters by the first component of their paths, in the order of the model, and in total.

    Args:
      shapes: "/"-joined path -> anything with a shape, of all parameters.
      trained: paths of those that are trained.
    """
    chosen, parts = set(trained), dict.fromkeys(path.split("/")[0] for path in shapes)

    def counted(part: str, paths: list[str]) -> Count:
        sizes = {path: math.prod(shapes[path].shape) for path in paths}
        learned = sum(size for path, size in sizes.items() if path in chosen)
        added = sum(size for path, size in sizes.items() if ADDED.search(path))
        return Count(part=part, trained=learned, frozen=sum(sizes.values()) - learned, added=added)

    rows = [counted(part, [path for path in shapes if path.split("/")[0] == part]) for part in parts]
    return [*rows, counted("total", list(shapes))]


def count_openings(shapes: Mapping[str, Any], *, opens: Mapping[str, Any]) -> dict[tuple[int, str], int]:
    """Return (step, part) -> how many parameters of the part are trained from that step on, in this order.

    Args:
      shapes: path -> anything with a shape, of the trained parameters.
      opens: path -> of `engine.optimizer.rates.opening_steps`.
    """
    found: Counter[tuple[int, str]] = Counter()
    for path, value in shapes.items():
        steps = opens[path].ravel().tolist()
        for step in steps:
            found[step, path.split("/")[0]] += math.prod(value.shape) // len(steps)
    return dict(sorted(found.items()))


def openings_text(counts: Mapping[tuple[int, str], int]) -> str:
    """Return the counts of `count_openings` as a table of plain lines."""
    table = Table(title="parameters by the step from which on they are trained", title_justify="left")
    for name in ("step", "part", "opened", "trained in all"):
        table.add_column(name, justify="left" if name == "part" else "right")
    total = 0
    for (step, part), count in counts.items():
        total += count
        table.add_row(f"{step:,}", part, f"{count:,}", f"{total:,}")
    return _text(table)


def counts_text(rows: Sequence[Count]) -> str:
    """Return the rows of `count_parameters` as a table of plain lines."""
    table = Table(title="parameters that are trained and frozen", title_justify="left")
    table.add_column("part")
    for name in ("trained", "frozen", "added", "trained, %"):
        table.add_column(name, justify="right")
    for row in rows:
        if row.part == "total":
            table.add_section()
        share = 100 * row.trained / max(row.trained + row.frozen, 1)
        table.add_row(row.part, *(f"{n:,}" for n in (row.trained, row.frozen, row.added)), f"{share:.3g}")
    return _text(table)


def _text(table: Table) -> str:
    console = Console(width=100, color_system=None, force_terminal=False)
    with console.capture() as capture:
        console.print(table)
    return capture.get().rstrip()
