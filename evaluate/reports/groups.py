"""The section of the report on groups of queries: where does the model fail, and whom does it serve worse?"""

import re
from typing import Any

from ...pages.charts import Point, dot_chart
from ...pages.drawing import COLOURS
from ...pages.markup import Html, tag
from ...pages.page import details, paragraph, section
from ...pages.tables import Row, table
from ..protocols.groups import GROUPS
from ..protocols.marks import mark_of
from ..protocols.retrieval import DIRECTIONS
from .main_tables import GROUP_HEAD, group_rows, row_name

_FIGURE = "R@1"
_SERIES = {"text_to_video": "text to video", "video_to_text": "video to text"}


def groups_section(results: dict[str, Any]) -> Html:
    """Return a table of gaps, and for each field a picture of its groups and a table to unfold; "" without groups."""
    fields = results.get(GROUPS, {})
    if not fields:
        return Html()
    text = paragraph(
        "R@1 of the captions and clips of each group, with 95 % bootstrap intervals over clips; behind the names stand "
        "the numbers of clips, and dotted lines show R@1 of all. The gap is that between the best and the worst group "
        "of at least five clips. Among many small groups it is always large: p is the share of random assignments to "
        "groups that give a gap as large. It is not corrected for the number of fields."
    )
    rows = [row for name in fields for row in gap_rows(results, name)]
    head = ("worst group", "R@1, %", "best group", "R@1, %", "gap", "95 % interval", "p")
    pictures = [_picture(results, name) for name in fields]
    return section(
        "Groups", text, table(head, rows=rows) if rows else "", tag("div", *pictures, class_="charts groups")
    )


def gap_rows(results: dict[str, Any], name: str) -> list[Row]:
    """Return a row for each direction with the gap of R@1 between the best and the worst group of a field."""
    field, mark, rows = results[GROUPS][name], mark_of(results), []
    for key in DIRECTIONS:
        if gap := field.get(key, {}).get("gap", {}).get(_FIGURE):
            groups = field[key]["groups"]
            worst, best = ((gap[end], f"{groups[gap[end]][_FIGURE]['value']:.1f}{mark}") for end in ("worst", "best"))
            ends = f"{gap['low']:.1f}{mark} to {gap['high']:.1f}{mark}"
            found = [*worst, *best, f"{gap['difference']:.1f}{mark}", ends, f"{gap['p']:.3f}"]
            rows.append(Row(name=f"{field['title'].capitalize()}, {row_name(key).lower()}", cells=found))
    return rows


def _picture(results: dict[str, Any], name: str) -> Html:
    field, rows, lines = results[GROUPS][name], {}, []
    for number, key in enumerate(one for one in DIRECTIONS if one in field):
        lines.append((results[key][_FIGURE], COLOURS[number]))
        for group, one in field[key]["groups"].items():
            point: Point = tuple(one[_FIGURE][end] for end in ("value", "low", "high"))
            rows.setdefault(group, {})[_SERIES[key]] = point
    counts = field[DIRECTIONS[0]]["groups"]
    named = {f"{_short(group)}  ({counts[group]['clips']:,})": row for group, row in rows.items()}
    chart = dot_chart(named, name=f"groups-{_slug(name)}", xlabel="R@1, %", lines=lines)
    note = _note(field)
    caption = tag("figcaption", note) if note else ""
    tables = [row for key in DIRECTIONS if key in field for row in group_rows(results, name, direction=key)]
    return tag(
        "figure",
        tag("h3", field["title"].capitalize()),
        chart,
        caption,
        details("All recalls", table(GROUP_HEAD, rows=tables)),
    )


def _note(field: dict[str, Any]) -> str:
    parts = []
    if field["kind"] == "quantiles":
        parts.append("Numbers are divided at their quartiles.")
    if field["pooled"]:
        parts.append(f"“other” pools {field['pooled']:,} rare value{'s' * (field['pooled'] != 1)}.")
    if field["unknown"]:
        parts.append(f"{field['unknown']:,} {field['of']} without a value are left out.")
    return " ".join(parts)


def _short(name: str, *, most: int = 28) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"


def _slug(name: str) -> str:
    return re.sub("[^A-Za-z0-9]+", "-", name)
