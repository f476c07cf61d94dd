"""Classification against other projects' figures (tests/golden/evaluate/classify.json) and scikit-learn."""

import numpy as np
import pytest
from evaluate_golden import arrays, figures

from twinreel.base.errors import UserError
from twinreel.evaluate.measures.classes import calibration, mean_class_accuracy, most_confused, per_class, top_k
from twinreel.evaluate.measures.multilabel import (
    f1_figures,
    gap,
    hit_at_one,
    kept_average_precision,
    mean_average_precision,
    perr,
    pooled_average_precision,
    sample_average_precision,
)

MULTILABEL = ("plain", "tied")


def labelled():
    found = arrays("classify")
    return found["pe_logits"], found["labels"]


def test_top_k_is_pe_s():
    scores, labels = labelled()
    found, want = top_k(scores, labels=labels), figures("classify")["perception_models"]
    assert (found["top1"], found["top5"]) == pytest.approx((100 * want["acc1"], 100 * want["acc5"]))
    assert (found["classes"], found["n"]) == (12, 90)


def test_constant_scores_are_at_chance():
    found = top_k(np.ones((12, 12)), labels=np.arange(12))
    for want in figures("classify")["ties_constant_scores_12x12_labels_0_to_11"].values():  # of three projects
        assert [found["top1"] / 100, found["top5"] / 100] == pytest.approx(want)
    assert (found["optimistic"]["top1"], found["pessimistic"]["top5"]) == (100, 0)
    assert "top5" not in top_k(np.ones((3, 3)), labels=np.arange(3))


def test_both_readings_of_mean_class_accuracy():
    scores, labels = labelled()
    found, want = (
        mean_class_accuracy(scores.argmax(axis=1), labels=labels, classes=12),
        figures("classify")["mean_class"],
    )
    assert found["over_truth"] / 100 == pytest.approx(want["sklearn balanced_accuracy (classes seen in truth)"])
    key = "mmaction2 (classes seen in truth or prediction; 0 where truth has none)"
    assert found["over_truth_or_predicted"] / 100 == pytest.approx(want[key])
    assert found["absent"] == 1
    assert np.mean(scores.argmax(axis=1) == labels) == pytest.approx(want["top1"])
    assert np.sum(~np.isin(scores.argmax(axis=1), labels)) == want["predicted_as_unseen_class"]


def test_the_table_of_classes_adds_up():
    scores, labels = labelled()
    rows = per_class(scores, labels=labels, names=[f"c{i}" for i in range(12)])
    assert rows[11] == {"name": "c11", "n": 0, "top1": None}
    assert sum(row["n"] * row["top1"] for row in rows[:11]) / 90 == pytest.approx(top_k(scores, labels=labels)["top1"])
    predicted = scores.argmax(axis=1)
    pairs = most_confused(predicted, labels=labels, names=[row["name"] for row in rows], top=200)
    assert sum(pair["count"] for pair in pairs) == (predicted != labels).sum()
    assert [pair["count"] for pair in pairs] == sorted((pair["count"] for pair in pairs), reverse=True)


def test_calibration_is_a_loop():
    rng = np.random.default_rng(0)
    probabilities, labels = rng.dirichlet(np.ones(4), size=300), rng.integers(0, 4, 300)
    found = calibration(probabilities, labels=labels, bins=10)
    error, total = 0.0, 0
    for row in found["bins"]:
        inside = [
            (max(p), p.argmax() == y)
            for p, y in zip(probabilities, labels, strict=True)
            if row["low"] < max(p) <= row["high"]
        ]
        assert len(inside) == row["n"]
        total += len(inside)
        if inside:
            error += len(inside) / 300 * abs(np.mean([c for c, _ in inside]) - np.mean([r for _, r in inside]))
    assert total == 300
    assert found["ece"] == pytest.approx(100 * error)


def multilabel(case):
    found = arrays("classify")
    return found["multilabel_scores" + ("_tied" if case == "tied" else "")], found["multilabel_targets"]


@pytest.mark.parametrize("case", MULTILABEL)
def test_map_in_both_readings(case):
    scores, targets = multilabel(case)
    want = {key.split(" (")[0]: value for key, value in figures("classify")["multilabel"][case].items()}
    skipped, zero = (mean_average_precision(scores, targets=targets, absent=rule) for rule in ("skip", "zero"))
    assert (skipped["absent"], skipped["classes"], zero["classes"]) == ([6], 7, 8)
    for key in ("mmaction2 mean_average_precision", "slowfast get_map"):
        assert skipped["mAP"] / 100 == pytest.approx(want[key])
    assert zero["mAP"] / 100 == pytest.approx(want["sklearn average_precision_score macro"])
    low, high = (
        mean_average_precision(scores, targets=targets, absent="zero", ties=order)["mAP"] / 100
        for order in ("pessimistic", "optimistic")
    )
    assert low - 1e-6 <= want["clip_benchmark mean_average_precision"] <= high + 1e-6
    for key in ("mmaction2 mmit_mean_average_precision", "sklearn label_ranking_average_precision"):
        assert sample_average_precision(scores, targets=targets) / 100 == pytest.approx(want[key])


@pytest.mark.parametrize("case", MULTILABEL)
def test_pooled_figures_are_scikit_learn_s(case):
    scores, targets = multilabel(case)
    want = figures("classify")["multilabel"][case]
    pooled, f1 = pooled_average_precision(scores, targets=targets), f1_figures(scores, targets=targets)
    for name in ("micro", "weighted"):
        assert pooled[name] / 100 == pytest.approx(want[f"sklearn average_precision_score {name}"])
    for name in ("micro", "macro", "samples"):
        assert f1[name] / 100 == pytest.approx(want[f"sklearn F1 {name} at 0.5"])


@pytest.mark.parametrize("case", MULTILABEL)
def test_youtube_8m_figures_come_out(case):
    scores, targets = multilabel(case)
    want = figures("classify")["multilabel"][case]
    measured = {
        "youtube-8m GAP@3": lambda order: gap(scores, targets=targets, k=3, order=order),
        "youtube-8m GAP@20": lambda order: gap(scores, targets=targets, k=20, order=order),
        "youtube-8m Hit@1": lambda order: hit_at_one(scores, targets=targets, order=order),
        "youtube-8m PERR": lambda order: perr(scores, targets=targets, order=order),
        "youtube-8m mAP (top_k=3 kept per video)": lambda order: kept_average_precision(
            scores, targets=targets, k=3, order=order
        )["mAP"],
    }
    for key, measure in measured.items():
        low, middle, high = (measure(order) / 100 for order in ("pessimistic", "expected", "optimistic"))
        assert low - 1e-9 <= want[key] <= high + 1e-9, key
        assert low <= middle <= high
    assert kept_average_precision(scores, targets=targets, k=3)["classes"] == want["youtube-8m classes in that mean"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: top_k(np.ones((2, 3)), labels=np.array([0, 3])), "'labels'[1] is 3; wanted an index from 0 to 2"),
        (lambda: top_k(np.ones((2, 3)), labels=np.array([0])), "'labels' is int64 of shape (1,)"),
        (lambda: top_k(np.full((2, 3), np.inf), labels=np.array([0, 1])), "row 0 and column 0 is inf"),
        (lambda: mean_class_accuracy(np.array([]), labels=np.array([]), classes=3), "'labels' is empty"),
        (lambda: per_class(np.ones((1, 2)), labels=np.array([0]), names=["a"]), "1 class names and 2 columns"),
        (lambda: calibration(np.ones((1, 2)), labels=np.array([0])), "row 0 add up to 2"),
        (lambda: mean_average_precision(np.ones((2, 2)), targets=np.zeros((2, 2))), "no positive at all"),
        (lambda: mean_average_precision(np.ones((2, 2)), targets=np.full((2, 2), 2)), "wanted 0 or 1"),
        (lambda: mean_average_precision(np.ones((2, 2)), targets=np.eye(2), absent="drop"), "'drop'"),
        (lambda: perr(np.ones((2, 2)), targets=np.array([[1, 0], [0, 0]])), "'targets' of clip 1 has no class"),
        (lambda: hit_at_one(np.ones((2, 2)), targets=np.array([[1, 0], [0, 0]])), "'targets' of clip 1 has no class"),
        (lambda: gap(np.ones((2, 2)), targets=np.zeros((2, 2))), "GAP is not defined"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(UserError) as caught:
        call()
    assert message in str(caught.value)
