"""Charts: well-formed SVG in the colours and the font of the page, with any label."""

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from PIL import Image

from twinreel.pages import bars, charts
from twinreel.pages.charts import Counts, Line, Panel

LABELS = ("打架", "costs $5 or $6", "a < b & c", r"$\notmath$")


def counts(name, values):
    return Counts(name=name, counts=values, edges=np.arange(len(values) + 1))


CHARTS = {
    "lines": lambda: charts.line_chart(
        [
            Line(name=LABELS[1], x=[1, 2, 9], y=[0, 50, 100], low=np.zeros(3), high=np.full(3, 100.0)),
            Line(name="chance", x=[1, 9], y=[1, 9], colour=charts.MUTED, dotted=True),
        ],
        name="lines",
        xlabel="K",
        ylabel=LABELS[2],
        ticks=[1, 5],
    ),
    "bars": lambda: charts.bar_chart(
        {"a": [20, 80, 0, 0], LABELS[0]: [0, 0, 50, 50]}, categories=LABELS, name="bars", xlabel="x", ylabel="y"
    ),
    "drops": lambda: bars.interval_bars(
        {
            LABELS[2]: {"a": (3.0, -1.0, 7.0), LABELS[0]: (-2.0, None, None)},
            "b": {"a": (0, 0, 0), LABELS[0]: (5, 4, 6)},
        },
        name="drops",
        xlabel="points",
    ),
    "histogram": lambda: charts.histogram(
        [counts(LABELS[3], [3, 1]), counts("none", [0, 0])], name="histogram", title=LABELS[2], limit=2
    ),
    "heat": lambda: charts.heat_map(np.eye(4), name="heat", xlabel="x", ylabel="y", key="k"),
    "flat": lambda: charts.heat_map(np.full((4, 4), 0.5), name="flat", xlabel="x", ylabel="y", key="k"),
    "confusion": lambda: charts.confusion_matrix(np.diag([3, 2, 0, 1]), labels=LABELS),
    "large": lambda: charts.confusion_matrix(np.eye(70, dtype=int), labels=[f"c{i}" for i in range(70)], name="large"),
    "curves": lambda: charts.curves([Panel(title=LABELS[1], points={1: 2.0, 5: 0.0})], name="curves"),
}


@pytest.mark.parametrize("name", CHARTS)
def test_charts_follow_the_page(name):
    svg = CHARTS[name]()
    root = ET.fromstring(svg)
    assert "width" not in root.attrib and root.attrib["viewBox"]
    assert "var(--muted)" in svg and "DejaVu" not in svg and "http" not in svg
    assert not re.search(r"#0[1-7]0[1-7]0[1-7]", svg)
    ids = re.findall(r'\bid="([^"]*)"', svg)
    assert len(set(ids)) == len(ids) and all(one.startswith(f"{name}-") for one in ids)
    assert svg == CHARTS[name]()


def test_labels_are_shown_as_they_are():
    drawn = " ".join(ET.fromstring(CHARTS["bars"]()).itertext())
    assert all(label in drawn for label in LABELS)
    assert "c69" not in " ".join(ET.fromstring(CHARTS["large"]()).itertext())


def test_a_confusion_matrix_is_a_picture_too(tmp_path):
    charts.write_confusion_matrix(tmp_path / "c.png", counts=np.diag([3, 2, 0, 1]), labels=LABELS)
    with Image.open(tmp_path / "c.png") as picture:
        assert picture.width > 300
        assert picture.convert("RGB").getpixel((2, 2)) == (255, 255, 255)
        assert len(picture.convert("L").getcolors(256)) > 20


def test_bars_stand_for_their_values():
    one = {"a": (100.0, 50.0, 150.0)}
    svg = bars.interval_bars({"x": one, "y": {"a": (-50.0, None, None)}}, name="bars", xlabel="points")
    paths = [[float(n) for n in re.findall(r"[-\d.]+", d)] for d in re.findall(r'<path d="(M[^"]*z)', svg)]
    widths = sorted(max(path[::2]) - min(path[::2]) for path in paths if len(path) == 8)[-4:]
    assert any(abs(widths[i] * 2 - widths[j]) < 0.01 for i in range(len(widths)) for j in range(len(widths)))


def test_histograms_are_shares():
    svg = charts.histogram([counts("a", [1, 3])], name="shares")
    assert ">60</text>" in svg.replace("\n", "")  # the axis goes up to 75 %
