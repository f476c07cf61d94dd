"""What all charts share: matplotlib's style, and its SVG turned into an element of the page."""

import io
import re
import warnings
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .markup import Html

# Stand-ins that no chart uses otherwise; each becomes a variable of the style sheet, so charts follow light and dark.
INK, MUTED, RULE = "#010101", "#020202", "#030303"
COLOURS = ("#040404", "#050505", "#060606", "#070707")
"""Colours of up to four things that a chart compares: `--first` to `--fourth` of the style sheet."""

_NAMES = ("--ink", "--muted", "--rule", "--first", "--second", "--third", "--fourth")
_VARIABLES = dict(zip((INK, MUTED, RULE, *COLOURS), _NAMES, strict=True))
WIDE = (5.2, 3.1)  # inches


def chart_style(*, ink: str = INK, muted: str = MUTED, rule: str = RULE) -> dict[Any, Any]:
    """Return matplotlib's settings for a chart: colours that `to_svg` turns into those of the page, sizes, frames."""
    return {
        "axes.edgecolor": rule,
        "axes.labelcolor": muted,
        "axes.labelsize": 9,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.titlecolor": ink,
        "axes.titlelocation": "left",
        "axes.titlesize": 10,
        "font.size": 9,
        "grid.color": rule,
        "grid.linewidth": 0.6,
        "legend.frameon": False,
        "legend.labelcolor": muted,
        "lines.linewidth": 1.8,
        "svg.fonttype": "none",
        "text.color": ink,
        "text.parse_math": False,  # "$" in a label is a dollar
        "xtick.color": rule,
        "xtick.labelcolor": muted,
        "ytick.color": rule,
        "ytick.labelcolor": muted,
    }


def new_figure(size: tuple[float, float]) -> tuple[Figure, Axes]:
    """Return an empty chart of a width and a height in inches, and its axes."""
    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.add_subplot()


def add_grid(axes: Axes) -> None:
    """Draw horizontal lines behind what the axes show."""
    axes.grid(axis="y")
    axes.set_axisbelow(True)


def add_legend(axes: Axes, *, right: bool = False) -> None:
    """Name the curves above the plot, where nothing is drawn; at the right of a title."""
    place: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (-0.02, 1.0)}
    if right:
        place = {"loc": "lower right", "bbox_to_anchor": (1.0, 1.0)}
    axes.legend(**place, ncols=4, borderpad=0, handlelength=1.4)


def to_svg(figure: Figure, *, name: str, **options: Any) -> Html:
    """Return an `<svg>` element to stand in a page: no fixed size, ids of its own, the page's colours and font.

    Args:
      figure: the chart.
      name: the ids begin with it.
      **options: of `Figure.savefig`.
    """
    out = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": name}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # the browser has a font for it
        metadata = {"Date": None, "Creator": None}
        figure.savefig(out, format="svg", transparent=True, metadata=metadata, **options)
    text = out.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    head, rest = text.split(">", 1)
    text = re.sub(r' (?:width|height)="[^"]*"', "", head) + ">" + rest
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", text)
    text = re.sub(r' xmlns(?::xlink)?="[^"]*"', "", text).replace("xlink:href", "href")
    # matplotlib names its font as `font: 9px ...` or as `font-family: ...`: either way the page's font takes over.
    text = re.sub(r"font: ([\d.]+px) [^;\"]+", r"font-size: \1", re.sub(r" font-family: [^;\"]+;", "", text))
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, f"var({variable})")
    return Html(text)
