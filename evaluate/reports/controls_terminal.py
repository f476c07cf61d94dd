"""What the model uses, and its pairs of modalities, as tables on standard output."""

from collections.abc import Iterator
from typing import Any

from rich.table import Table

from ..protocols import control_rows, pair_rows
from ..protocols.controls import CONTROLS
from ..protocols.marks import mark_of
from ..protocols.repeated import ROWS
from ..protocols.retrieval import DIRECTIONS
from .controls import control_name, directions, drop_text, pairs_line

_UNCHANGED = {
    "frames": "all frames of each clip are alike",
    "sound": "no clip has another's sound",
    "words": "no text has such words, or any other",
}
_KEYS = ("R@1", "R@5", "R@10", "MdR", "MnR")


def further_tables(results: dict[str, Any]) -> Iterator[Table | str]:
    """Yield the tables of the blocks `controls` and `pairs`, each with the remarks that belong to it."""
    if block := results.get(control_rows.BLOCK):
        for direction in DIRECTIONS if block["rows"] else ():
            yield _controls(results, direction)
        for name, reason in block["protocol"]["not_applicable"].items():
            yield f"control {control_name(name)} is not measured: {reason}"
        for name, row in block["rows"].items():
            if row["changed"] == 0:
                yield f"control {control_name(name)} changes nothing: {_UNCHANGED[CONTROLS[name].changes]}"
    if block := results.get(pair_rows.BLOCK):
        yield _pairs(results)
        yield pairs_line(results)
        for name, reason in block["protocol"]["not_applicable"].items():
            yield f"pair {name} is not measured: {reason}"


def _controls(results: dict[str, Any], direction: str) -> Table:
    sign = mark_of(results)
    table = _table(f"{ROWS[direction]}, under controls", ("R@1", "drop of R@1 (95 %)", "R@5", "R@10", "MdR"))

    def cells(figures: dict[str, Any]) -> list[str]:
        return [f"{figures[key]:.1f}{sign}" for key in ("R@1", "R@5", "R@10", "MdR")]

    first, *rest = cells(results[direction])
    table.add_row("as it is", first, "", *rest)
    for name, row in results[control_rows.BLOCK]["rows"].items():
        first, *rest = cells(row[direction])
        table.add_row(control_name(name), first, drop_text(row[control_rows.DROP][direction]["R@1"]), *rest)
    return table


def _pairs(results: dict[str, Any]) -> Table:
    sign = mark_of(results)
    table = _table("pairs of modalities", _KEYS)
    for pair in results[pair_rows.BLOCK]["rows"].values():
        for name, figures in directions(pair):
            table.add_row(name, *(f"{figures[key]:.1f}{sign}" for key in _KEYS))
    return table


def _table(title: str, columns: list[str] | tuple[str, ...]) -> Table:
    table = Table(title=title, title_justify="left")
    for name in ("", *columns):
        table.add_column(name, justify="right" if name else "left", no_wrap=True)
    return table
