"""Figures of the classification report against counting by hand, and its files."""

import json
import math

import numpy as np
import pytest
from html_page import Page
from PIL import Image

from twinreel.base.errors import UserError
from twinreel.finetune.reports.classification import classification_report, wilson_interval, write_report


def probabilities(guesses, classes, sure=0.7):
    rows = np.full((len(guesses), classes), (1 - sure) / (classes - 1))
    rows[np.arange(len(guesses)), guesses] = sure
    return rows


@pytest.fixture
def report():
    label = np.array([0, 0, 0, 1, 1, 2])
    guess = [0, 0, 1, 1, 0, 1]
    names = [f"clip{i}" for i in range(6)]
    return classification_report(
        probabilities(guess, 4), label=label, labels=("a", "b", "c & <d>", "never"), clip_ids=names
    )


def test_figures_by_hand(report):
    assert report["n"] == 6
    assert report["accuracy"] == pytest.approx(50.0)
    assert report["balanced_accuracy"] == pytest.approx(100 * (2 / 3 + 1 / 2 + 0) / 3)
    assert report["chance"] == 25.0 and report["majority"] == 50.0
    a, b, c, never = report["per_class"].values()
    assert (a["precision"], a["recall"], a["support"]) == (pytest.approx(100 * 2 / 3), pytest.approx(100 * 2 / 3), 3)
    assert (b["precision"], b["recall"]) == (pytest.approx(100 / 3), pytest.approx(50.0))
    assert b["f1"] == pytest.approx(100 * 2 * (1 / 3) * 0.5 / (1 / 3 + 0.5))
    assert c == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 1}
    assert never["support"] == 0
    assert report["macro"]["recall"] == pytest.approx(report["balanced_accuracy"])
    assert report["weighted"]["recall"] == pytest.approx(report["accuracy"])
    assert report["confusion"] == [[2, 1, 0, 0], [1, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]]
    assert [clip["clip_id"] for clip in report["mistakes"]] == ["clip2", "clip4", "clip5"]
    assert "top5_accuracy" not in report


def test_top5_is_given_for_many_classes():
    probability = np.tile(np.arange(8, 0, -1) / 36, (2, 1))
    found = classification_report(probability, label=np.array([4, 5]), labels=tuple("abcdefgh"), clip_ids=["x", "y"])
    assert found["top5_accuracy"] == 50.0


@pytest.mark.parametrize(("right", "n"), [(0, 5), (5, 5), (3, 7), (17, 40)])
def test_wilson_interval_solves_its_equation(right, n):
    for bound in wilson_interval(right, n=n):
        p = bound / 100
        if 1e-9 < p < 1 - 1e-9:  # the interval's ends are where the score test just rejects
            assert abs(right / n - p) / math.sqrt(p * (1 - p) / n) == pytest.approx(1.959964, rel=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_score_that_is_not_finite_names_its_clip(value):
    scores = probabilities([0, 1, 1], 2)
    scores[1, 0] = value
    with pytest.raises(UserError, match=r"scores of clip 'y' are not finite .*1 of 3 clips"):
        classification_report(scores, label=np.array([0, 1, 1]), labels=("a", "b"), clip_ids=["x", "y", "z"])


def test_nothing_to_measure():
    with pytest.raises(UserError, match=r"config\.task\.test_split"):
        classification_report(np.zeros((0, 2)), label=np.zeros(0, int), labels=("a", "b"), clip_ids=[])


def test_files(report, tmp_path):
    out = tmp_path / "report"
    page = write_report(
        report,
        out=out,
        title="a <b>",
        protocol={"split": "test", "trained": ["^head/"]},
        pictures={"clip2": "clips/0.webp"},
    )
    whole = json.loads((out / "classification.json").read_text())
    assert whole["protocol"] == {"split": "test", "trained": ["^head/"], "unit": "percent"}
    assert whole["accuracy"] == report["accuracy"] and whole["confusion"] == report["confusion"]
    with Image.open(out / "confusion.png") as picture:
        assert picture.width > 300 and len(picture.convert("L").getcolors(256)) > 20
    text = page.read_text()
    assert "a &lt;b&gt;" in text and "c &amp; &lt;d&gt;" in text
    parsed = Page(text)
    assert {"classification.json", "confusion.png", "clips/0.webp"} == set(parsed.links) - {
        link for link in parsed.links if link.startswith("data:image/png")
    }
    assert parsed.tags.count("svg") == 1 and "http" not in text
    for title in ("Classes", "Confusion matrix", "Mistakes", "Protocol"):
        assert f"<h2>{title}</h2>" in text
    assert "true class: c & <d> (clip5)" not in parsed.text and "true class: a (clip2)" in parsed.text
    assert "^head/" in parsed.text and "macro f1" in parsed.text.lower()


def test_labels_in_chinese_and_many_classes(tmp_path):
    labels = ("打架", *(f"class {i}" for i in range(70)))
    label = np.arange(71)
    found = classification_report(
        probabilities(np.roll(label, 1), 71), label=label, labels=labels, clip_ids=[str(i) for i in label]
    )
    write_report(found, out=tmp_path, title="t", protocol={})
    assert "打架" in (tmp_path / "classification.json").read_text()
    few = classification_report(
        probabilities([0, 1], 2), label=np.array([0, 1]), labels=("打架", "b"), clip_ids=["x", "y"]
    )
    page = write_report(few, out=tmp_path, title="t", protocol={})
    assert "打架" in page.read_text()
