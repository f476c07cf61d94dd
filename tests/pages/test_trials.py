"""Charts that compare runs: what stands where."""

import numpy as np
import pytest

from twinreel.pages.markup import Html
from twinreel.pages.trials import Axis, Repeated, curves_of_runs, parallel_axes, repeated_curves, scatter_grid

AXES = [
    Axis(name="optimizer.lr", values=[1e-4, 1e-2, 1e-3], log=True),
    Axis(name="task.head", values=["linear", "attentive", "linear"]),
    Axis(name="task.positions", values=[True, True, True]),
    Axis(name="train.steps", values=[10, 10, 10]),
]


@pytest.mark.parametrize(
    ("axis", "places"), [(AXES[0], [0, 1, 0.5]), (AXES[1], [0, 1, 0]), (AXES[2], [0.5] * 3), (AXES[3], [0.5] * 3)]
)
def test_places_of_values(axis, places):
    np.testing.assert_allclose(axis.places(), places, atol=1e-12)


def test_charts_name_parameters_values_and_runs():
    charts = [
        scatter_grid(AXES, values=[0.5, 0.7, 0.6], best=1, name="a", ylabel="val/score"),
        parallel_axes(AXES, values=[0.5, 0.7, 0.6], best=1, name="b", ylabel="val/score"),
        curves_of_runs(
            {"0000": [(10, 0.1), (20, 0.3)], "0001": [(10, 0.05)]}, best="0000", stopped=["0001"], name="c", ylabel="y"
        ),
        repeated_curves(
            [Repeated(name="k-centre", x=[4, 8], values=[[1.0, 2.0], [3.0]]), Repeated(name="", x=[4], values=[[1.0]])],
            name="d",
            xlabel="clips",
            ylabel="%",
            log=True,
        ),
    ]
    words = [
        ("optimizer.lr", "attentive", "val/score"),
        ("task.head", "linear", "0.7"),
        ("0001", "step"),
        ("k-centre",),
    ]
    for chart, own in zip(charts, words, strict=True):
        assert isinstance(chart, Html) and chart.startswith("<svg") and all(word in chart for word in own)
