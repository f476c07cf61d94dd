"""Charts: matplotlib figures as SVG elements that take their colours and their font from the page."""

import dataclasses
import functools
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

from .drawing import COLOURS, INK, MUTED, WIDE, add_grid, add_legend, chart_style, new_figure, to_svg
from .markup import Html

_HEAT = "#12858c"
MOST_NAMED, _MOST_COUNTED = 60, 25  # classes whose names, or whose counts, a confusion matrix has room for
_PICTURE = {"ink": "#1d2021", "muted": "#1d2021", "rule": "#9a9d9c"}  # colours of a picture outside the page


@dataclasses.dataclass(frozen=True, kw_only=True)
class Line:
    """A curve of a chart.

    Attributes:
      name: in the legend; "" for none.
      x, y: float [n].
      low, high: float [n], bounds of a band around the curve; None for no band.
      colour: one of `COLOURS`, or `MUTED`.
      dotted: a thin dotted line, such as for chance.
      dashed: where more than four curves are to be told apart.
    """

    name: str
    x: Sequence[float] | np.ndarray
    y: Sequence[float] | np.ndarray
    low: np.ndarray | None = None
    high: np.ndarray | None = None
    colour: str = COLOURS[0]
    dotted: bool = False
    dashed: bool = False


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
    lines: Sequence[Line],
    *,
    name: str,
    xlabel: str,
    ylabel: str,
    ticks: Sequence[float],
    top: float | None = None,
    bottom: float | None = 0.0,
    even: bool = False,
) -> Html:
    """Draw curves over a logarithmic axis that begins at 1, or an even one that begins at 0.

    Args:
      lines: the curves.
      name: unique on the page: the ids of the element begin with it.
      xlabel: name of the horizontal axis.
      ylabel: name of the vertical axis.
      ticks: labelled values of the horizontal axis.
      top: of the vertical axis; None: as the values need.
      bottom: likewise.
      even: whether the horizontal axis is even; then every value has a mark.
    """
    with mpl.rc_context(chart_style()):
        figure, axes = new_figure(WIDE)
        for line in lines:
            style: dict[str, Any] = {"linewidth": 1, "linestyle": (0, (2, 2))} if line.dotted else {}
            style |= {"linestyle": (0, (6, 3))} if line.dashed else {}
            style |= {"marker": "o", "markersize": 4, "clip_on": False} if even else {}
            axes.plot(line.x, line.y, color=line.colour, label=line.name, **style)
            if line.low is not None and line.high is not None:
                axes.fill_between(line.x, line.low, line.high, color=line.colour, alpha=0.15, linewidth=0)
        right = max(float(np.max(line.x)) for line in lines)
        axes.set(xscale="linear" if even else "log", ylim=(bottom, top), xlabel=xlabel, ylabel=ylabel)
        axes.set_xlim(0 if even else 1, right if even else max(2.0, right))
        axes.set_xticks(ticks)
        axes.xaxis.set_major_formatter("{x:g}" if even else "{x:.0f}")
        axes.minorticks_off()
        axes.grid(axis="y")
        add_legend(axes)
        return to_svg(figure, name=name)


def rate_chart(lines: Sequence[Line], *, name: str, xlabel: str, ylabel: str, left: float) -> Html:
    """Draw curves of one rate over another, both in percent, the horizontal axis logarithmic up to 100.

    Args:
      lines: the curves, percent.
      name: unique on the page: the ids of the element begin with it.
      xlabel: name of the horizontal axis.
      ylabel: name of the vertical axis.
      left: where the horizontal axis begins, above 0 and below 100.
    """
    with mpl.rc_context(chart_style()):
        figure, axes = new_figure((6.4, 3.0))
        for line in lines:
            style: dict[str, Any] = {"linewidth": 1, "linestyle": (0, (2, 2))} if line.dotted else {}
            shown = np.asarray(line.x) >= left
            axes.plot(np.asarray(line.x)[shown], np.asarray(line.y)[shown], color=line.colour, label=line.name, **style)
        axes.set(xscale="log", xlim=(left, 100), ylim=(0, 102), xlabel=xlabel, ylabel=ylabel)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.minorticks_off()
        axes.grid(axis="both")
        add_legend(axes)
        return to_svg(figure, name=name)


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
    with mpl.rc_context(chart_style()):
        figure, axes = new_figure(WIDE)
        each = 0.76 / len(values)
        for number, (label, shares) in enumerate(values.items()):
            at = np.arange(len(categories)) + each * (number - (len(values) - 1) / 2)
            bars = axes.bar(at, shares, width=0.9 * each, color=COLOURS[number], label=label)
            numbers = [f"{share:.0f}" if share >= 0.5 else "" for share in shares]
            axes.bar_label(bars, labels=numbers, padding=2, color=MUTED, size=8)
        axes.set_xticks(range(len(categories)), categories)
        axes.tick_params(axis="x", length=0)
        axes.set(xlabel=xlabel, ylabel=ylabel)
        add_grid(axes)
        add_legend(axes)
        return to_svg(figure, name=name)


def interval_chart(values: Mapping[str, tuple[float, float, float]], *, name: str, xlabel: str, chance: float) -> Html:
    """Draw shares in percent as points with an interval, one below the other, and chance as a dotted line.

    Args:
      values: name of a row -> its value, and the lower and upper bound.
      name: unique on the page: the ids of the element begin with it.
      xlabel: name of the horizontal axis.
      chance: where the dotted line stands.
    """
    rows = {row: {"": one} for row, one in values.items()}
    left = min(40.0, *(low for _, low, _ in values.values())) - 2
    return dot_chart(rows, name=name, xlabel=xlabel, lines=[(chance, MUTED)], limits=(left, 100.5))


Point = tuple[float, float | None, float | None]
"""A value with the bounds of its interval, None where it has none."""


def dot_chart(
    rows: Mapping[str, Mapping[str, Point]],
    *,
    name: str,
    xlabel: str,
    lines: Sequence[tuple[float, str]] = (),
    limits: tuple[float, float] | None = (-1.5, 100.5),
    signed: bool = False,
) -> Html:
    """Draw points with intervals: a row for each group, in it a point for each series, and the values at the right.

    Args:
      rows: name of a row -> name of a series ("" alone: no legend) -> its point; a series may lack rows.
      name: unique on the page: the ids of the element begin with it.
      xlabel: name of the horizontal axis.
      lines: where dotted vertical lines stand, and their colours.
      limits: of the horizontal axis; None: as the values need.
      signed: write the values with a sign, as differences.
    """
    series = list(dict.fromkeys(one for row in rows.values() for one in row))
    apart = min(0.26, 0.7 / len(series))
    with mpl.rc_context(chart_style()):
        figure, axes = new_figure((WIDE[0], 0.9 + (0.19 + 0.13 * len(series)) * len(rows) + 0.2 * (len(series) > 1)))
        for number, one in enumerate(series):
            shown = [(len(rows) - 1 - place, row[one]) for place, row in enumerate(rows.values()) if one in row]
            at = np.array([place for place, _ in shown]) - apart * (number - (len(series) - 1) / 2)
            _points(axes, [point for _, point in shown], at=at, name=one, number=number)
            for place, (_, point) in zip(at, shown, strict=True):
                text = f"{point[0]:+.1f}" if signed else f"{point[0]:.0f}"
                across = axes.get_yaxis_transform()
                axes.text(1.01, place, text, va="center", color=MUTED, size=8, transform=across)
        for place, colour in lines:
            axes.axvline(place, color=colour, linewidth=1, linestyle=(0, (2, 2)))
        axes.set_yticks(range(len(rows))[::-1], list(rows))
        axes.tick_params(axis="y", length=0)
        axes.set(xlabel=xlabel, ylim=(-0.6, len(rows) - 0.4))
        axes.set_xlim(*limits) if limits else axes.margins(x=0.04)
        axes.grid(axis="x")
        axes.set_axisbelow(True)
        if series != [""]:
            add_legend(axes)
        return to_svg(figure, name=name)


def _points(axes: Axes, points: Sequence[Point], *, at: np.ndarray, name: str, number: int) -> None:
    middle = np.array([value for value, _, _ in points])
    low, high = (np.array([one[end] if one[end] is not None else one[0] for one in points]) for end in (1, 2))
    spread = np.maximum([middle - low, high - middle], 0.0)
    drawn: dict[str, Any] = {"markersize": 5, "capsize": 3, "linewidth": 1.2, "color": COLOURS[number % len(COLOURS)]}
    fill: dict[str, Any] = {"markerfacecolor": "none"} if number >= len(COLOURS) else {}
    axes.errorbar(middle, at, xerr=spread, fmt="o", label=name, **drawn, **fill)


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
    with mpl.rc_context(chart_style()):
        figure, axes = new_figure(size)
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
        add_grid(axes)
        if len(series) > 1:
            add_legend(axes, right=bool(title))
        return to_svg(figure, name=name)


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
    with mpl.rc_context(chart_style()):
        figure, axes = new_figure((5.2, 4.4))
        axes.imshow(_tint(np.clip((values - low) / (high - low), 0, 1)), interpolation="none")
        axes.set(xlabel=xlabel, ylabel=ylabel)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(4, integer=True))
        _key(axes, low=low, high=high, label=key, tint=_tint)
        return to_svg(figure, name=name)


def confusion_matrix(counts: Sequence[Sequence[int]], *, labels: Sequence[str], name: str = "confusion") -> Html:
    """Draw a confusion matrix: opacity is the share of the true class, the numbers are counts.

    Labels are drawn for up to 60 classes (beyond, classes are numbered from 0), counts for up to 25.

    Args:
      counts: rows are true classes, columns predicted ones.
      labels: names of the classes.
      name: unique on the page: the ids of the element begin with it.
    """
    with mpl.rc_context(chart_style()):
        return to_svg(_confusion(counts, labels=labels, ink=INK), name=name, bbox_inches="tight")


def write_confusion_matrix(path: Path, *, counts: Sequence[Sequence[int]], labels: Sequence[str]) -> None:
    """Write the chart of `confusion_matrix` as a PNG picture on white."""
    with mpl.rc_context(chart_style(**_PICTURE)), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # the page and the JSON have the label
        _confusion(counts, labels=labels, ink=_PICTURE["ink"]).savefig(path, dpi=120, bbox_inches="tight")


def curves(panels: Sequence[Panel], *, name: str) -> Html:
    """Draw at least one small chart side by side; the last value stands at the top right of each.

    Args:
      panels: the charts.
      name: unique on the page: the ids of the element begin with it.
    """
    with mpl.rc_context(chart_style()):
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
        return to_svg(figure, name=name)


def _confusion(counts: Sequence[Sequence[int]], *, labels: Sequence[str], ink: str) -> Figure:
    cells = np.asarray(counts, dtype=np.float64)
    share = cells / np.maximum(cells.sum(axis=1, keepdims=True), 1.0)
    side = min(3.0 + 0.5 * len(labels), 15.0)
    figure, axes = new_figure((side + 1.0, side))
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
