"""Charts that compare the runs of a sweep: a point for each run and parameter, parallel axes, curves over steps."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .drawing import COLOURS, MUTED, WIDE, add_grid, add_legend, chart_style, new_figure, to_svg
from .markup import Html

_COLUMNS, _MANY = 3, 12


@dataclasses.dataclass(frozen=True, kw_only=True)
class Axis:
    """A parameter of a sweep.

    Attributes:
      name: of the parameter.
      values: of each run: numbers, or anything else as text.
      log: draw numbers on a logarithmic axis.
    """

    name: str
    values: Sequence[Any]
    log: bool = False

    @property
    def numbers(self) -> bool:
        """Whether all values are numbers."""
        return all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in self.values)

    @property
    def levels(self) -> list[str]:
        """The values as text, in the order in which they come."""
        return list(dict.fromkeys(map(str, self.values)))

    def places(self) -> np.ndarray:
        """Return where each value lies between the lowest and the highest, float64 [n] in 0..1."""
        if not self.numbers:
            at = np.array([self.levels.index(str(value)) for value in self.values], np.float64)
        else:
            at = np.asarray(self.values, np.float64)
            at = np.log(at) if self.log else at
        low, high = at.min(), at.max()
        return (at - low) / (high - low) if high > low else np.full(len(at), 0.5)


def scatter_grid(axes: Sequence[Axis], *, values: Sequence[float], best: int, name: str, ylabel: str) -> Html:
    """Draw the value of each run over each parameter, three charts to a line; the best run is in colour.

    Args:
      axes: the parameters.
      values: of the n runs.
      best: number of the best run.
      name: unique on the page: the ids of the element begin with it.
      ylabel: name of the values.
    """
    lines = -(-len(axes) // _COLUMNS)
    with mpl.rc_context(chart_style()):
        figure = Figure(figsize=(10.6, 2.6 * lines), layout="constrained")
        grid = figure.subplots(lines, _COLUMNS, squeeze=False).ravel()
        for place, axis in zip(grid, axes, strict=False):
            at = np.asarray(axis.values, np.float64) if axis.numbers else axis.places()
            others = np.arange(len(at)) != best
            place.scatter(at[others], np.asarray(values)[others], s=22, color=MUTED, alpha=0.7, linewidths=0)
            place.scatter(at[best], values[best], s=42, color=COLOURS[0], linewidths=0)
            place.set(title=axis.name, ylabel=ylabel)
            if axis.numbers and axis.log:
                place.set_xscale("log")
                place.xaxis.set_major_formatter("{x:g}")
                place.minorticks_off()
            if not axis.numbers:
                _name_levels(place, axis)
            place.margins(x=0.12, y=0.12)
            add_grid(place)
        for place in grid[len(axes) :]:
            place.set_axis_off()
        return to_svg(figure, name=name)


def parallel_axes(axes: Sequence[Axis], *, values: Sequence[float], best: int, name: str, ylabel: str) -> Html:
    """Draw each run as a line over one vertical axis for each parameter and, last, one for the value.

    Args:
      axes: the parameters, at least one.
      values: of the n runs.
      best: number of the best run, drawn in colour; of the others better ones are darker, by rank.
      name: unique on the page: the ids of the element begin with it.
      ylabel: name of the values.
    """
    whole = [*axes, Axis(name=ylabel, values=list(values))]
    height = np.stack([axis.places() for axis in whole], axis=1)  # [n,p]
    worse = np.argsort(np.argsort(np.abs(np.asarray(values) - values[best])))
    strength = 0.15 + 0.55 * (1 - worse / max(1, len(values) - 1))
    with mpl.rc_context(chart_style()):
        figure, place = new_figure((10.6, 3.4))
        for number in sorted(range(len(values)), key=lambda one: -worse[one]):
            colour = COLOURS[0] if number == best else MUTED
            alpha = 1.0 if number == best else strength[number]
            width = 2.4 if number == best else 1.2
            place.plot(range(len(whole)), height[number], color=colour, alpha=alpha, linewidth=width)
        for at, axis in enumerate(whole):
            place.axvline(at, color=MUTED, linewidth=0.8)
            for y, text in _ends(axis):
                side: dict[str, Any] = {0.0: {"va": "top"}, 1.0: {"va": "bottom"}}.get(y, {"va": "center"})
                place.annotate(text, (at, y), xytext=(3, 0), textcoords="offset points", color=MUTED, size=8, **side)
        place.set_xticks(range(len(whole)), [axis.name for axis in whole])
        place.tick_params(axis="x", length=0)
        place.set(yticks=[], ylim=(-0.1, 1.1), xlim=(-0.1, len(whole) - 0.6))
        place.spines[:].set_visible(False)
        return to_svg(figure, name=name)


def curves_of_runs(
    curves: Mapping[str, Sequence[tuple[float, float]]], *, best: str, stopped: Sequence[str], name: str, ylabel: str
) -> Html:
    """Draw the curves of runs over their steps; the best in colour, those that were stopped early dotted.

    Args:
      curves: name of a run -> its points, step and value.
      best: name of the best run.
      stopped: names of those that were stopped.
      name: unique on the page: the ids of the element begin with it.
      ylabel: name of the values.
    """
    with mpl.rc_context(chart_style()):
        figure, axes = new_figure((10.6, 3.4))
        for run, points in curves.items():
            steps, values = zip(*points, strict=True)
            style: dict[str, Any] = {"linestyle": (0, (1.5, 1.5))} if run in stopped else {}
            style |= {"color": COLOURS[0], "linewidth": 2.4, "zorder": 3} if run == best else {"color": MUTED}
            few = {"marker": "o", "markersize": 3} if len(points) <= 30 else {}
            axes.plot(steps, values, alpha=1.0 if run == best else 0.55, **few, **style)
            if len(curves) <= _MANY:
                axes.annotate(
                    run,
                    (steps[-1], values[-1]),
                    xytext=(5, 0),
                    textcoords="offset points",
                    va="center",
                    size=8,
                    color=MUTED,
                )
        axes.set(xlabel="step", ylabel=ylabel)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.margins(x=0.05)
        add_grid(axes)
        return to_svg(figure, name=name)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Repeated:
    """A curve of which each point was measured several times.

    Attributes:
      name: in the legend; "" for none.
      x: float [n].
      values: of each point, its measurements.
    """

    name: str
    x: Sequence[float]
    values: Sequence[Sequence[float]]


def repeated_curves(series: Sequence[Repeated], *, name: str, xlabel: str, ylabel: str, log: bool = False) -> Html:
    """Draw means over repeated measurements, with a band of one standard deviation and all measurements as points.

    Args:
      series: at most four curves.
      name: unique on the page: the ids of the element begin with it.
      xlabel: name of the horizontal axis.
      ylabel: name of the vertical axis.
      log: of the horizontal axis.
    """
    with mpl.rc_context(chart_style()):
        figure, axes = new_figure((1.4 * WIDE[0], 1.1 * WIDE[1]))
        for number, one in enumerate(series):
            mean = np.array([np.mean(values) for values in one.values])
            spread = np.array([np.std(values, ddof=1) if len(values) > 1 else 0.0 for values in one.values])
            axes.plot(one.x, mean, marker="o", markersize=4, color=COLOURS[number], label=one.name)
            axes.fill_between(one.x, mean - spread, mean + spread, color=COLOURS[number], alpha=0.15, linewidth=0)
            for x, values in zip(one.x, one.values, strict=True):
                axes.scatter([x] * len(values), values, s=9, color=COLOURS[number], alpha=0.45, linewidths=0)
        axes.set(xlabel=xlabel, ylabel=ylabel)
        if log:
            axes.set_xscale("log")
            axes.minorticks_off()
        ticks = sorted({x for one in series for x in one.x})
        if len(ticks) <= _MANY:
            axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        add_grid(axes)
        if any(one.name for one in series):
            add_legend(axes)
        return to_svg(figure, name=name)


def _name_levels(place: Axes, axis: Axis) -> None:
    levels = axis.levels
    at = np.linspace(0, 1, len(levels)) if len(levels) > 1 else [0.5]
    place.set_xticks(at, [level if len(level) <= 18 else f"{level[:17]}…" for level in levels])


def _ends(axis: Axis) -> list[tuple[float, str]]:
    """Return the labels of a vertical axis and their heights."""
    if axis.numbers:
        low, high = min(axis.values), max(axis.values)
        return [(0.0, f"{low:.3g}"), (1.0, f"{high:.3g}")] if high > low else [(0.5, f"{low:.3g}")]
    levels = axis.levels
    at = np.linspace(0, 1, len(levels)) if len(levels) > 1 else [0.5]
    return [(float(y), level if len(level) <= 18 else f"{level[:17]}…") for y, level in zip(at, levels, strict=True)]
