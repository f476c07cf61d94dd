"""Charts: matplotlib figures as SVG elements that take their colours and their font from the page."""

import dataclasses
import functools
import io
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .markup import Html

# Stand-ins that no chart uses otherwise; each becomes a variable of the style sheet, so charts follow light and dark.
INK, MUTED, RULE = "#010101", "#020202", "#030303"
COLOURS = ("#040404", "#050505", "#060606", "#070707")
"""Colours of up to four things that a chart compares: `--first` to `--fourth` of the style sheet."""

_NAMES = ("--ink", "--muted", "--rule", "--first", "--second", "--third", "--fourth")
_VARIABLES = dict(zip((INK, MUTED, RULE, *COLOURS), _NAMES, strict=True))
_HEAT = "#12858c"
MOST_NAMED, _MOST_COUNTED = 60, 25  # classes whose names, or whose counts, a confusion matrix has room for
_PICTURE = {"ink": "#1d2021", "muted": "#1d2021", "rule": "#9a9d9c"}  # colours of a picture outside the page
_WIDE = (5.2, 3.1)  # inches


@dataclasses.dataclass(frozen=True, kw_only=True)
class Line:
    """A curve of a chart.

    Attributes:
      name: in the legend; "" for none.
      x, y: float [n].
      low, high: float [n], bounds of a band around the curve; None for no band.
      colour: one of `COLOURS`, or `MUTED`.
      dotted: a thin dotted line, such as for chance.
    """

    name: str
    x: Sequence[float] | np.ndarray
    y: Sequence[float] | np.ndarray
    low: np.ndarray | None = None
    high: np.ndarray | None = None
    colour: str = COLOURS[0]
    dotted: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Counts:
    """A histogram.

    Attributes:
      name: in the legend.
      counts: of the n bins.
      edges: float [n+1].
      colour: one of `COLOURS`, or `MUTED`.
    """

    name: str
    counts: Sequence[float] | np.ndarray
    edges: Sequence[float] | np.ndarray
    colour: str = COLOURS[0]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Panel:
    """One of several small charts of a curve over the steps of a run: its title, points and colour."""

    title: str
    points: Mapping[int, float]
    colour: str = COLOURS[0]


def line_chart(
    lines: Sequence[Line], *, name: str, xlabel: str, ylabel: str, ticks: Sequence[int], top: float | None = None
) -> Html:
    """Draw curves over a logarithmic axis that begins at 1.

    Args:
      lines: the curves.
      name: unique on the page: the ids of the element begin with it.
      xlabel: name of the horizontal axis.
      ylabel: name of the vertical axis.
      ticks: labelled values of the horizontal axis.
      top: of the vertical axis; None: as the values need.
    """
    with mpl.rc_context(_style()):
        figure, axes = _figure(_WIDE)
        for line in lines:
            style: dict[str, Any] = {"linewidth": 1, "linestyle": (0, (2, 2))} if line.dotted else {}
            axes.plot(line.x, line.y, color=line.colour, label=line.name, **style)
            if line.low is not None and line.high is not None:
                axes.fill_between(line.x, line.low, line.high, color=line.colour, alpha=0.15, linewidth=0)
        right = max(2.0, *(float(np.max(line.x)) for line in lines))
        axes.set(xscale="log", ylim=(0, top), xlim=(1, right), xlabel=xlabel, ylabel=ylabel)
        axes.set_xticks(ticks)
        axes.xaxis.set_major_formatter("{x:.0f}")
        axes.minorticks_off()
        axes.grid(axis="y")
        _legend(axes)
        return _svg(figure, name=name)


def bar_chart(
    values: Mapping[str, Sequence[float]], *, categories: Sequence[str], name: str, xlabel: str, ylabel: str
) -> Html:
    """Draw bars in percent, those of one category side by side.

    Args:
      values: name in the legend -> a value for each category; at most four names.
      categories: names below the bars.
      name: unique on the page: the ids of the element begin with it.
      xlabel: name of the horizontal axis.
      ylabel: name of the vertical axis.
    """
    with mpl.rc_context(_style()):
        figure, axes = _figure(_WIDE)
        each = 0.76 / len(values)
        for number, (label, shares) in enumerate(values.items()):
            at = np.arange(len(categories)) + each * (number - (len(values) - 1) / 2)
            bars = axes.bar(at, shares, width=0.9 * each, color=COLOURS[number], label=label)
            numbers = [f"{share:.0f}" if share >= 0.5 else "" for share in shares]
            axes.bar_label(bars, labels=numbers, padding=2, color=MUTED, size=8)
        axes.set_xticks(range(len(categories)), categories)
        axes.tick_params(axis="x", length=0)
        axes.set(xlabel=xlabel, ylabel=ylabel)
        _grid(axes)
        _legend(axes)
        return _svg(figure, name=name)


def interval_chart(values: Mapping[str, tuple[float, float, float]], *, name: str, xlabel: str, chance: float) -> Html:
    """Draw shares in percent as points with an interval, one below the other, and chance as a dotted line.

    Args:
      values: name of a row -> its value, and the lower and upper bound.
      name: unique on the page: the ids of the element begin with it.
      xlabel: name of the horizontal axis.
      chance: where the dotted line stands.
    """
    with mpl.rc_context(_style()):
        figure, axes = _figure((_WIDE[0], 0.9 + 0.32 * len(values)))
        at = np.arange(len(values))[::-1]
        middle, low, high = np.array(list(values.values()), float).T
        spread = np.maximum([middle - low, high - middle], 0.0)
        axes.errorbar(middle, at, xerr=spread, fmt="o", markersize=5, capsize=3, color=COLOURS[0], linewidth=1.2)
        for place, value in zip(at, middle, strict=True):
            axes.text(102, place, f"{value:.0f}", va="center", color=MUTED, size=8)
        axes.axvline(chance, color=MUTED, linewidth=1, linestyle=(0, (2, 2)))
        axes.set_yticks(at, list(values))
        axes.tick_params(axis="y", length=0)
        axes.set(xlabel=xlabel, xlim=(min(40.0, float(low.min())) - 2, 100.5), ylim=(-0.6, len(values) - 0.4))
        axes.grid(axis="x")
        axes.set_axisbelow(True)
        return _svg(figure, name=name)


def histogram(
    series: Sequence[Counts],
    *,
    name: str,
    title: str = "",
    xlabel: str = "",
    ylabel: str = "",
    limit: float | None = None,
    size: tuple[float, float] = (4.2, 2.3),
) -> Html:
    """Draw histograms over each other, each as shares of its own sum in percent.

    Args:
      series: at least one.
      name: unique on the page: the ids of the element begin with it.
      title: stands above the chart.
      xlabel: name of the horizontal axis.
      ylabel: name of the vertical axis.
      limit: where to draw a dotted line; left out if it lies far beyond all values.
      size: width and height, inches.
    """
    with mpl.rc_context(_style()):
        figure, axes = _figure(size)
        for one in series:
            share = 100 * np.asarray(one.counts) / max(1, np.sum(one.counts))
            axes.stairs(share, one.edges, color=one.colour, alpha=0.25, fill=True)
            axes.stairs(share, one.edges, color=one.colour, linewidth=1.2, label=one.name)
        if limit is not None and limit <= 3 * max(one.edges[-1] for one in series):
            axes.axvline(limit, color=MUTED, linewidth=1, linestyle=(0, (1, 2)))
        axes.set(title=title, xlabel=xlabel, ylabel=ylabel, ylim=(0, None))
        whole = all(edge % 1 == 0.5 for one in series for edge in one.edges)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=whole))
        axes.yaxis.set_major_locator(MaxNLocator(4))
        _grid(axes)
        if len(series) > 1:
            _legend(axes, right=bool(title))
        return _svg(figure, name=name)


def heat_map(values: np.ndarray, *, name: str, xlabel: str, ylabel: str, key: str) -> Html:
    """Draw values [n,m] as the opacity of one hue, with a scale; the lowest percent of them is transparent.

    Args:
      values: float [n,m].
      name: unique on the page: the ids of the element begin with it.
      xlabel: name of the columns.
      ylabel: name of the rows.
      key: name of the scale.
    """
    low = float(np.percentile(values, 1))
    high = max(float(values.max()), low + 1e-6)
    with mpl.rc_context(_style()):
        figure, axes = _figure((5.2, 4.4))
        axes.imshow(_tint(np.clip((values - low) / (high - low), 0, 1)), interpolation="none")
        axes.set(xlabel=xlabel, ylabel=ylabel)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(4, integer=True))
        _key(axes, low=low, high=high, label=key, tint=_tint)
        return _svg(figure, name=name)


def confusion_matrix(counts: Sequence[Sequence[int]], *, labels: Sequence[str], name: str = "confusion") -> Html:
    """Draw a confusion matrix: opacity is the share of the true class, the numbers are counts.

    Labels are drawn for up to 60 classes (beyond, classes are numbered from 0), counts for up to 25.

    Args:
      counts: rows are true classes, columns predicted ones.
      labels: names of the classes.
      name: unique on the page: the ids of the element begin with it.
    """
    with mpl.rc_context(_style()):
        return _svg(_confusion(counts, labels=labels, ink=INK), name=name, bbox_inches="tight")


def write_confusion_matrix(path: Path, *, counts: Sequence[Sequence[int]], labels: Sequence[str]) -> None:
    """Write the chart of `confusion_matrix` as a PNG picture on white."""
    with mpl.rc_context(_style(**_PICTURE)), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # the page and the JSON have the label
        _confusion(counts, labels=labels, ink=_PICTURE["ink"]).savefig(path, dpi=120, bbox_inches="tight")


def curves(panels: Sequence[Panel], *, name: str) -> Html:
    """Draw at least one small chart side by side; the last value stands at the top right of each.

    Args:
      panels: the charts.
      name: unique on the page: the ids of the element begin with it.
    """
    with mpl.rc_context(_style()):
        figure = Figure(figsize=(10.6, 2.7), layout="constrained")
        for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
            steps, values = list(panel.points), list(panel.points.values())
            few = {"marker": "o", "markersize": 3.5} if len(steps) <= 30 else {}
            axes.plot(steps, values, color=panel.colour, **few)
            top = max(values)  # with room above, or a flat curve lies on the frame
            axes.set(title=panel.title, xlabel="step", ylim=(0, 1.1 * top if top > 0 else None))
            axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
            axes.grid(axis="y")
            axes.set_title(f"{values[-1]:.3g}", loc="right", color=MUTED)
        return _svg(figure, name=name)


def _confusion(counts: Sequence[Sequence[int]], *, labels: Sequence[str], ink: str) -> Figure:
    cells = np.asarray(counts, dtype=np.float64)
    share = cells / np.maximum(cells.sum(axis=1, keepdims=True), 1.0)
    side = min(3.0 + 0.5 * len(labels), 15.0)
    figure, axes = _figure((side + 1.0, side))
    tint = functools.partial(_tint, power=0.7, most=0.65 if len(labels) <= _MOST_COUNTED else 1.0)  # legible numbers
    axes.imshow(tint(share), interpolation="none")
    axes.set(xlabel="predicted class", ylabel="true class")
    if len(labels) <= MOST_NAMED:
        axes.set_xticks(range(len(labels)), labels, rotation=45, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(labels)), labels)
    if len(labels) <= _MOST_COUNTED:
        for (row, column), value in np.ndenumerate(cells):
            axes.text(column, row, f"{value:.0f}" if value else "", ha="center", va="center", color=ink)
    _key(axes, low=0, high=100, label="% of the true class", tint=tint)
    return figure


def _style(*, ink: str = INK, muted: str = MUTED, rule: str = RULE) -> dict[Any, Any]:
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


def _figure(size: tuple[float, float]) -> tuple[Figure, Axes]:
    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.add_subplot()


def _grid(axes: Axes) -> None:
    axes.grid(axis="y")
    axes.set_axisbelow(True)


def _legend(axes: Axes, *, right: bool = False) -> None:
    """Name the curves above the plot, where nothing is drawn; at the right of a title."""
    place: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (-0.02, 1.0)}
    if right:
        place = {"loc": "lower right", "bbox_to_anchor": (1.0, 1.0)}
    axes.legend(**place, ncols=4, borderpad=0, handlelength=1.4)


def _key(axes: Axes, *, low: float, high: float, label: str, tint: Callable[[np.ndarray], np.ndarray]) -> None:
    """Draw the scale of a heat map at its right, and frames around both."""
    key = axes.inset_axes((1.04, 0.0, 0.03, 1.0))
    key.imshow(tint(np.linspace(1, 0, 64)[:, None]), aspect="auto", extent=(0, 1, low, high))
    key.set_xticks([])
    key.yaxis.tick_right()
    key.set_ylabel(label)
    key.yaxis.set_label_position("right")
    for part in (axes, key):
        part.spines[:].set_visible(True)


def _tint(strength: np.ndarray, *, power: float = 1.5, most: float = 1.0) -> np.ndarray:
    """One hue whose opacity grows with the strength in [0, 1]: it reads on a light and on a dark page alike."""
    colour = np.empty((*strength.shape, 4))
    colour[...] = to_rgba(_HEAT)
    colour[..., 3] = most * strength**power
    return colour


def _svg(figure: Figure, *, name: str, **options: Any) -> Html:
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
