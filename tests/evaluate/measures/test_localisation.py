"""Localisation and proposals against ActivityNet's code and mmaction2 (tests/golden/evaluate/moments.json)."""

import numpy as np
import pytest
from evaluate_golden import figures

from twinreel.base.errors import UserError
from twinreel.evaluate.measures.localisation import localisation, proposals

EXACT = "exact_iou (truth [0,100]; predictions [0,50],[0,55]..[0,95])"
THUMOS = (0.3, 0.4, 0.5, 0.6, 0.7)


def spans(case):
    found = figures("moments")
    about = found["tal_random25" if case == "tal_random25_no_ties" else case]["ground_truth"]
    truth = {name: [(one["label"], *one["segment"]) for one in video["annotations"]] for name, video in about.items()}
    results = found[case]["predictions"]["results"]
    given = {
        f"v_{name}": [(one["label"], *one["segment"], one["score"]) for one in rows] for name, rows in results.items()
    }
    return given, truth, found[case]["result"]


def values(found):
    return [value for key, value in found.items() if key.startswith("mAP@")]


@pytest.mark.parametrize("case", ["tal_mmaction2_sample", "tal_random25_no_ties", EXACT])
def test_untied_figures_are_activitynet_s(case):
    given, truth, want = spans(case)
    found = localisation(given, truth=truth)
    assert values(found) == pytest.approx(want["ActivityNet mAP@0.5:0.05:0.95"])
    if "ActivityNet average_mAP" in want:
        assert found["average"] == pytest.approx(want["ActivityNet average_mAP"])
        found = localisation(given, truth=truth, thresholds=THUMOS)
        assert values(found) == pytest.approx(want["ActivityNet mAP@0.3:0.1:0.7 (the THUMOS thresholds)"])


@pytest.mark.parametrize("case", ["tal_mmaction2_sample", "tal_random25_no_ties", EXACT])
def test_untied_figures_in_single_precision_are_mmaction2_s(case):
    given, truth, want = spans(case)
    found = localisation(given, truth=truth, single_precision=True)
    assert values(found) == pytest.approx(want["mmaction2 mAP@0.5:0.05:0.95"])
    if "mmaction2 average_mAP" in want:
        assert found["average"] == pytest.approx(want["mmaction2 average_mAP"])


def test_equal_scores_are_settled_by_a_rule_of_ours():
    given, truth, want = spans("tal_random25")
    both = [localisation(given, truth=truth, ties=ties) for ties in ("last_first", "first_first")]
    assert both[0]["average"] != both[1]["average"]
    for code in ("ActivityNet", "mmaction2"):
        assert min(abs(one["average"] - want[f"{code} average_mAP"]) for one in both) < 2e-3
        for got in map(values, both):
            assert got == pytest.approx(want[f"{code} mAP@0.5:0.05:0.95"], abs=5e-3)
    got = values(localisation(given, truth=truth, thresholds=THUMOS))
    assert got == pytest.approx(want["ActivityNet mAP@0.3:0.1:0.7 (the THUMOS thresholds)"], abs=5e-3)


@pytest.mark.parametrize("case", ["tal_mmaction2_sample", "tal_random25_no_ties", "tal_random25"])
@pytest.mark.parametrize("most", [3, 100])
def test_proposals_are_mmaction2_s(case, most):
    given, truth, want = spans(case)
    found = proposals(
        {name: [row[1:] for row in rows] for name, rows in given.items()},
        truth={name: [row[1:] for row in rows] for name, rows in truth.items()},
        most=most,
    )
    want = want[f"mmaction2 proposals max_avg={most}"]
    of_ties = 0.1 if (case, most) == ("tal_random25", 3) else 0  # percent, by which the order of equal scores counts
    assert found["AUC"] == pytest.approx(want["AUC"], abs=of_ties)
    chosen = [0, 24, 49, 99]
    assert [found["AR"][i] for i in chosen] == pytest.approx(want["AR_first_quarter_half_all"], abs=of_ties / 10)
    assert [found["AN"][i] for i in chosen] == pytest.approx(want["AN"])


def test_classes_that_never_occur_or_are_never_predicted():
    truth = {"v": [("run", 0.0, 1.0), ("jump", 2.0, 3.0)]}
    found = localisation({"v": [("run", 0.0, 1.0, 0.5), ("swim", 0.0, 1.0, 0.5)]}, truth=truth, thresholds=[0.5])
    assert (found["mAP@0.5"], found["absent"]) == (0.5, ["swim"])
    assert found["per_class"]["jump"] == [0.0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: localisation({}, truth={"v": []}), "the truth has no span"),
        (lambda: localisation({"w": []}, truth={"v": [("a", 0, 1)]}), "video 'w' is in the predictions"),
        (lambda: localisation({"v": [("a", 0, 1, np.nan)]}, truth={"v": [("a", 0, 1)]}), "label 'a': entry 0"),
        (lambda: localisation({"v": [("a", 0, 1)]}, truth={"v": [("a", 0, 1)]}), "[start_s, end_s, score]"),
        (lambda: localisation({}, truth={"v": [("a", 0, 1)]}, ties="random"), "'random'"),
        (lambda: proposals({"v": []}, truth={"v": [[0, 1]]}), "there are 0 proposals"),
        (lambda: proposals({"v": [[0, 1, 1]]}, truth={"v": []}), "recall is not defined"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(UserError) as caught:
        call()
    assert message in str(caught.value)
