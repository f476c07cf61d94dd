"""Sections of the page for re-ranked scores and for what other projects' code prints."""

from collections.abc import Iterator, Mapping
from typing import Any

from ...pages.markup import Html
from ...pages.page import details, paragraph, section
from ...pages.tables import Row, table
from ..protocols.comparison import COMPARED
from ..protocols.marks import mark_of
from ..protocols.repeated import ROWS
from ..protocols.scored import READ_AS, RERANKED

_KEYS = ("R@1", "R@5", "R@10", "MdR", "MnR")


def reranked_section(results: dict[str, Any]) -> Html:
    """Return the figures of re-ranked scores, each method under its name and parameters; "" if there are none."""
    mark = mark_of(results)
    rows = [
        Row(name=f"{row_name(key)}, {method}", cells=[f"{block[key][k]:.2f}{mark}" for k in _KEYS], mark="main")
        for method, block in results.get(RERANKED, {}).items()
        for key in ("text_to_video", "video_to_text")
        if key in block
    ]
    if not rows:
        return Html()
    said = "Scores re-ranked by other queries: another protocol than plain retrieval, not to be compared with it."
    head = ("R@1, %", "R@5, %", "R@10, %", "median rank", "mean rank")
    return section("Re-ranked", table(head, rows=rows), paragraph(said, class_="aside"))


def comparison_section(results: dict[str, Any]) -> Html:
    """Return the differences of recalls from other models'; "" if there are none."""
    rows = [
        Row(name=f"{row_name(key)}, less {name}", cells=cells, mark="main")
        for name, block in results.get(COMPARED, {}).items()
        for key, figures in block.items()
        for cells in [[difference(one) for one in figures.values()]]
    ]
    if not rows:
        return Html()
    said = (
        "Differences in percentage points with 95 % bootstrap intervals over clips; p of a permutation test that "
        "exchanges the two models clip by clip."
    )
    head = ("R@1", "R@5", "R@10")
    return section("Compared with other models", table(head, rows=rows), paragraph(said, class_="aside"))


def difference(one: Mapping[str, float]) -> str:
    """Return a difference with its interval and p.

    >>> difference({"difference": 1.25, "low": -0.5, "high": 3.0, "p": 0.0421})
    '+1.2 (-0.5 to 3.0, p 0.042)'
    """
    return f"{one['difference']:+.1f} ({one['low']:.1f} to {one['high']:.1f}, p {one['p']:.2g})"


def readings_section(results: dict[str, Any]) -> Html:
    """Return what other projects' code prints for the same scores, a table to unfold for each; "" if there are none."""
    parts = []
    for name, block in results.get(READ_AS, {}).items():
        rows = [Row(name=key, cells=[shown(value, mark=mark_of(results))]) for key, value in flat(block["figures"])]
        parts.append(details(f"{name}: {block['about']}", table(("value",), rows=rows)))
    if not parts:
        return Html()
    said = (
        "The figures that these projects' code prints for the same scores, under its own names. Where the order of "
        "equal scores decides, the range is given."
    )
    return section("As other code prints it", paragraph(said), *parts)


def row_name(key: str) -> str:
    """Return what a block of `retrieval.json` measures, as the page calls it.

    >>> row_name("text_to_video_any_match")
    'Text → video, any match'
    """
    return ROWS[key].capitalize().replace(" to ", " → ")


def flat(figures: dict[str, Any], *, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the figures of nested blocks under names joined by "/", without `marked`.

    >>> list(flat({"t2v": {"R1": 1.0}, "n": 2}))
    [('t2v/R1', 1.0), ('n', 2)]
    """
    for key, value in figures.items():
        if isinstance(value, dict):
            yield from flat(value, prefix=f"{prefix}{key}/")
        elif key != "marked":
            yield f"{prefix}{key}", value


def shown(value: Any, *, mark: str = "") -> str:
    """Return a figure as text with the mark behind it; a pair of bounds as a range.

    >>> shown(50.0), shown([25.0, 50.0])
    ('50', '25 to 50')
    """
    return " to ".join(f"{end:.6g}{mark}" for end in (value if isinstance(value, list) else [value]))
