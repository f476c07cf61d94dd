"""Sections of the page for re-ranked scores and for what other projects' code prints."""

from collections.abc import Iterator
from typing import Any

from ...pages.markup import Html
from ...pages.page import details, paragraph, section
from ...pages.tables import Row, table
from ..protocols.marks import mark_of
from ..protocols.scored import READ_AS
from .main_tables import HEAD, RECALLS, compared_rows, reranked_rows


def reranked_section(results: dict[str, Any]) -> Html:
    """Return the figures of re-ranked scores, each method under its name and parameters; "" if there are none."""
    rows = reranked_rows(results)
    if not rows:
        return Html()
    said = "Other scores of the same embeddings: another protocol than plain retrieval, not to be compared with it."
    return section("Re-ranked", table(HEAD, rows=rows), paragraph(said, class_="aside"))


def comparison_section(results: dict[str, Any]) -> Html:
    """Return the differences of recalls from other models'; "" if there are none."""
    rows = compared_rows(results)
    if not rows:
        return Html()
    said = (
        "Differences in percentage points with 95 % bootstrap intervals over clips; p of a permutation test that "
        "exchanges the two models clip by clip."
    )
    return section("Compared with other models", table(RECALLS, rows=rows), paragraph(said, class_="aside"))


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
