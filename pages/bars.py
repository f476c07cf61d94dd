"""Horizontal bars with intervals."""

from collections.abc import Mapping

import matplotlib as mpl
import numpy as np

from .charts import Point
from .drawing import COLOURS, MUTED, WIDE, add_legend, chart_style, new_figure, to_svg
from .markup import Html


def interval_bars(rows: Mapping[str, Mapping[str, Point]], *, name: str, xlabel: str) -> Html:
    """Draw signed values as horizontal bars from zero with their intervals, one row of bars below the other.

    Args:
      rows: name of a row -> name of a series, at most four -> its point; the same series in all rows.
      name: unique on the page: the ids of the element begin with it.
      xlabel: name of the horizontal axis.
    """
    series = list(next(iter(rows.values())))
    each = 0.76 / len(series)
    places = np.arange(len(rows))[::-1]
    with mpl.rc_context(chart_style()):
        figure, axes = new_figure((WIDE[0], 1.0 + (0.12 + 0.17 * len(series)) * len(rows)))
        for number, one in enumerate(series):
            points = [row[one] for row in rows.values()]
            at = places - each * (number - (len(series) - 1) / 2)
            values = np.array([value for value, _, _ in points])
            axes.barh(at, values, height=0.9 * each, color=COLOURS[number], label=one)
            for place, (_, low, high) in zip(at, points, strict=True):
                if low is not None and high is not None:
                    axes.plot([low, high], [place, place], color=MUTED, linewidth=1, marker="|", markersize=4)
        axes.axvline(0, color=MUTED, linewidth=1)
        axes.set_yticks(places, list(rows))
        axes.tick_params(axis="y", length=0)
        axes.set(xlabel=xlabel, ylim=(-0.6, len(rows) - 0.4))
        axes.grid(axis="x")
        axes.set_axisbelow(True)
        add_legend(axes)
        return to_svg(figure, name=name)
