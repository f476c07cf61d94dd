"""Histograms of several splits in one chart: matplotlib as SVG that takes its colours and font from the page."""

import io
import re
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

# Stand-ins that no chart uses otherwise; each becomes a variable of the page's style, so charts follow light and dark.
_INK, _MUTED, _RULE = "#010101", "#020202", "#030303"
COLOURS = ("#040404", "#050505", "#060606", "#070707")  # one per split
_VARIABLES = dict(
    zip(
        (_INK, _MUTED, _RULE, *COLOURS),
        ("--ink", "--muted", "--rule", "--first", "--second", "--third", "--fourth"),
        strict=True,
    )
)
_STYLE: dict[Any, Any] = {
    "axes.edgecolor": _RULE,
    "axes.labelcolor": _MUTED,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": _INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "font.size": 9,
    "grid.color": _RULE,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.labelcolor": _MUTED,
    "svg.fonttype": "none",
    "text.color": _INK,
    "xtick.color": _RULE,
    "xtick.labelcolor": _MUTED,
    "ytick.color": _RULE,
    "ytick.labelcolor": _MUTED,
}


def histogram(spreads: dict[str, dict[str, Any]], *, title: str, name: str, limit: float | None = None) -> str:
    """Draw the histograms of `measure.spread` by split, as shares in %; returns an `<svg>` element.

    Args:
      spreads: at least one, with counts.
      title: stands above the chart.
      name: unique within the page: the element's ids begin with it.
      limit: where to draw a dotted line; left out if it lies far beyond all values.
    """
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(4.2, 2.3), layout="constrained")
        axes = figure.add_subplot()
        for number, (split, spread) in enumerate(spreads.items()):
            colour = COLOURS[number % len(COLOURS)]
            share = 100 * np.array(spread["counts"]) / sum(spread["counts"])
            axes.stairs(share, spread["edges"], color=colour, alpha=0.25, fill=True)
            axes.stairs(share, spread["edges"], color=colour, linewidth=1.2, label=split)
        most = max(spread["edges"][-1] for spread in spreads.values())
        if limit is not None and limit <= 3 * most:
            axes.axvline(limit, color=_MUTED, linewidth=1, linestyle=(0, (1, 2)))
        axes.set(title=title, ylim=(0, None))
        whole = all(edge % 1 == 0.5 for spread in spreads.values() for edge in spread["edges"])
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=whole))
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.grid(axis="y")
        axes.set_axisbelow(True)
        if len(spreads) > 1:
            axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=4, borderpad=0, handlelength=1.2)
        return _svg(figure, name=name)


def _svg(figure: Figure, *, name: str) -> str:
    """Return the figure as an element to stand inside a page: no fixed size, ids of its own, the page's colours."""
    out = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": name}):
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    head, rest = text.split(">", 1)
    text = re.sub(r' (?:width|height)="[^"]*"', "", head) + ">" + rest
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", text)
    text = re.sub(r' xmlns(?::xlink)?="[^"]*"', "", text).replace("xlink:href", "href")
    text = re.sub(r"font: ([\d.]+px) [^;\"]+", r"font-size: \1", re.sub(r" font-family: [^;\"]+;", "", text))
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, f"var({variable})")
    return text
