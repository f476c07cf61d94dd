"""Tables, tiles and lists of figures."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .markup import Html, join, tag

MARKS = ("first", "second", "third", "fourth")
"""Classes of the style sheet for things that a page compares, such as splits; charts use the same colours."""

_LONG = 60  # characters; a longer value takes a line of its own


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """A row of a table.

    Attributes:
      name: the first cell.
      cells: the others; escaped unless `Html`.
      mark: class of the row: "main" (bold) or "bound" (small, muted), below a main row.
    """

    name: str
    cells: Sequence[object]
    mark: str = ""


def table(head: Sequence[str], *, rows: Iterable[Row], words: bool = False, narrow: bool = False) -> Html:
    """Return a table whose first column names the rows and whose other columns are numbers.

    Args:
      head: names of the columns after the first.
      rows: one cell for each name in `head`.
      words: the last column holds words, so it is set to the left and may wrap.
      narrow: as wide as its content instead of the page.
    """
    kinds = [""] * len(head)
    if words:
        kinds[-1] = "text"
    top = [tag("th", name, scope="col", class_=kind) for name, kind in zip(head, kinds, strict=True)]
    body = [
        tag(
            "tr",
            tag("th", row.name, scope="row"),
            *(tag("td", cell, class_=kind) for cell, kind in zip(row.cells, kinds, strict=True)),
            class_=row.mark,
        )
        for row in rows
    ]
    whole = tag("table", tag("thead", tag("tr", tag("td"), *top)), tag("tbody", *body), class_="narrow" * narrow)
    return tag("div", whole, class_="wide")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tile:
    """A headline figure.

    Attributes:
      name: stands above the value.
      value: the figure as text.
      unit: stands behind it, small.
      note: stands below it, such as the chance level.
    """

    name: str
    value: str
    unit: str = ""
    note: str = ""


def tiles(shown: Iterable[Tile]) -> Html:
    """Return the headline figures of a report side by side; the first one is in colour."""
    cells = [
        tag(
            "div",
            tag("dt", tile.name),
            tag("dd", tile.value, tag("small", tile.unit) if tile.unit else ""),
            tag("dd", tile.note, class_="note"),
            class_="tile",
        )
        for tile in shown
    ]
    return tag("dl", *cells, class_="tiles")


def protocol_list(protocol: Mapping[str, Any]) -> Html:
    """Return a list of names and values; long values stand last, each on a line of its own.

    None is shown as "unknown", an empty string or list as "none", True and False as "yes" and "no".
    """
    short, long = [], []
    for key, value in protocol.items():
        text = _text(value)
        entry = (tag("dt", key.replace("_", " ")), tag("dd", text))
        if len(text) > _LONG:
            long.append(tag("div", *entry, class_="long"))
        else:
            short.append(tag("div", *entry))
    return tag("dl", *short, *long, class_="protocol")


def _text(value: Any) -> str:
    if value is None:
        return "unknown"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_text(one)}" for key, one in value.items()) or "none"
    if isinstance(value, (list, tuple)):
        return "; ".join(map(str, value)) or "none"
    return str(value) or "none"


def count_lists(counted: Mapping[str, Mapping[str, int]]) -> Html:
    """Return lists of values with their counts side by side, each count with a bar in the colour of its list.

    Args:
      counted: title of the list -> value -> count; a list without values is left out.
    """
    columns = []
    for number, (title, counts) in enumerate(counted.items()):
        if not counts:
            continue
        top = max(counts.values())
        lines = [
            tag(
                "li",
                tag("span", value),
                tag("span", f"{count:,}"),
                class_=MARKS[number % len(MARKS)],
                style=f"--share:{100 * count / top:.1f}%",
            )
            for value, count in counts.items()
        ]
        columns.append(tag("div", tag("h3", title), tag("ul", *lines)))
    return tag("div", join(columns), class_="lists") if columns else Html()
