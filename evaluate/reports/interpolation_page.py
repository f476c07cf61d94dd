"""The page of models between two: retrieval on new and on old data along the line of their weights."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...pages.charts import Line, line_chart
from ...pages.drawing import COLOURS
from ...pages.markup import Html, join, tag
from ...pages.page import paragraph, section, write_page
from ...pages.tables import Row, Tile, protocol_list, table, tiles
from ..protocols.retrieval import DIRECTIONS

_TICKS = (0, 0.25, 0.5, 0.75, 1)
_NAMES = {DIRECTIONS[0]: "text → video", DIRECTIONS[1]: "video → text"}


def write_interpolation(out: Path, *, results: dict[str, Any]) -> Path:
    """Write `index.html`.

    Args:
      out: folder of the report, which exists; `interpolation.json` lies in it.
      results: of `evaluate.interpolate.measure_line`, with the names `base` and `tuned`.

    Returns:
      The path of the page.
    """
    protocol = {key: results[key] for key in ("base", "tuned", "split")}
    protocol |= {f"{one['role']} data": f"{name}: {one['captions']} captions of {one['clips']} clips"
                 for name, one in results["sets"].items()}  # fmt: skip
    return write_page(
        out / "index.html",
        kind="interpolation of weights",
        title=" and ".join(results["sets"]),
        subtitle=f"retrieval between {results['base']} (alpha = 0) and {results['tuned']} (alpha = 1)",
        sections=[
            _tiles(results),
            _curves(results),
            section("Figures", _table(results)),
            section("Protocol", protocol_list(protocol)),
        ],
        footer=join(["The same figures are in ", tag("a", "interpolation.json", href="interpolation.json"), "."]),
    )


def recalls(results: dict[str, Any], *, name: str, direction: str) -> list[float]:
    """Return the R@1 of a set at each alpha, in percent."""
    return [point["sets"][name][direction]["R@1"] for point in results["points"]]


def _tiles(results: dict[str, Any]) -> Html:
    alphas = [point["alpha"] for point in results["points"]]
    place = alphas.index(results["chosen"])
    shown = [Tile(name="alpha", value=f"{results['chosen']:g}", note="highest mean of the R@1 below")]
    for name, one in results["sets"].items():
        found = recalls(results, name=name, direction=DIRECTIONS[0])
        note = f"{one['role']} data, text → video R@1; base {found[0]:.1f}, fine-tuned {found[-1]:.1f}"
        shown.append(Tile(name=name, value=f"{found[place]:.1f}", unit="%", note=note))
    return tiles(shown)


def _curves(results: dict[str, Any]) -> Html:
    words = "At alpha = 0 the weights are those of the base model, at 1 those of the fine-tuned one."
    figures = [
        tag("figure", tag("h3", _NAMES[direction]), _chart(results, direction=direction)) for direction in DIRECTIONS
    ]
    return section("Recall between the models", paragraph(words), tag("div", *figures, class_="charts"))


def _chart(results: dict[str, Any], *, direction: str) -> Html:
    lines = [
        Line(
            name=f"{name} ({one['role']})",
            x=[point["alpha"] for point in results["points"]],
            y=recalls(results, name=name, direction=direction),
            colour=COLOURS[number % len(COLOURS)],
            dashed=number >= len(COLOURS),
        )
        for number, (name, one) in enumerate(results["sets"].items())
    ]
    across = "alpha: share of the fine-tuned weights"
    return line_chart(lines, name=direction, xlabel=across, ylabel="R@1 (%)", ticks=_TICKS, even=True)


def _cells(results: dict[str, Any], place: int) -> list[str]:
    both = ((name, direction) for name in results["sets"] for direction in DIRECTIONS)
    return [f"{recalls(results, name=name, direction=direction)[place]:.1f}" for name, direction in both]


def _head(results: dict[str, Any]) -> Sequence[str]:
    return [f"{name} {_NAMES[direction]}" for name in results["sets"] for direction in DIRECTIONS]


def _table(results: dict[str, Any]) -> Html:
    rows = [
        Row(
            name=f"{point['alpha']:g}",
            cells=_cells(results, place),
            mark="main" if point["alpha"] == results["chosen"] else "",
        )
        for place, point in enumerate(results["points"])
    ]
    return table(_head(results), rows=rows)


def print_interpolation(results: dict[str, Any]) -> None:
    """Print the R@1 of all sets at each alpha on standard output; the chosen alpha is marked."""
    from rich.console import Console
    from rich.table import Table

    shown = Table("alpha")
    for name in _head(results):
        shown.add_column(f"{name} R@1", justify="right")
    for place, point in enumerate(results["points"]):
        mark = " *" if point["alpha"] == results["chosen"] else ""
        shown.add_row(f"{point['alpha']:g}{mark}", *_cells(results, place))
    console = Console()
    console.print(shown)
    console.print("* the highest mean of the sets' text → video R@1", highlight=False)
