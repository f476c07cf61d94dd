"""Verification against insightface, voxceleb_trainer and facenet (tests/golden/evaluate/identity.json)."""

import numpy as np
import pytest
from evaluate_golden import arrays, figures
from sklearn.metrics import roc_curve

from twinreel.base.errors import UserError
from twinreel.evaluate.measures.identity import far_table, roc, ten_folds, verification


def pairs(case):
    found = arrays("identity")
    scores = (found["a"].astype(np.float64) * found["b"]).sum(axis=1)
    return (np.round(scores, 1) if "0.1" in case else scores), found["same"]


@pytest.mark.parametrize("case", ["scores (cosine)", "scores rounded to 0.1 (ties)"])
def test_figures_of_three_projects(case):
    scores, same = pairs(case)
    found, want = verification(scores, same=same), figures("identity")[case]
    assert found["auc"] == pytest.approx(want["ROC AUC"])
    key = "voxceleb_trainer EER percent (max of FPR, FNR at the nearest point)"
    assert 100 * found["eer_nearest"] == pytest.approx(want[key])
    assert found["eer"] == pytest.approx(want["facenet EER (brentq on the interpolated ROC)"], abs=1e-9)
    assert found["min_dcf"] == pytest.approx(want["voxceleb_trainer minDCF p=0.05"])
    key = "insightface IJB-C table TPR percent at FPR 1e-6..1e-1 (nearest FPR, largest TPR)"
    for table in (key, "the same table with drop_intermediate=False"):
        assert [100 * value for value in found["tar_nearest"].values()] == pytest.approx(want[table])
    key = "largest TPR with FPR <= target (1e-3, 1e-2, 1e-1), the strict rule (computed here)"
    assert [found["tar"][rate] for rate in ("0.001", "0.01", "0.1")] == pytest.approx(want[key])


def test_ten_folds_are_insightface_s():
    found = arrays("identity")
    got = ten_folds(found["a"], second=found["b"], same=found["same"])
    want = figures("identity")["insightface LFW protocol"]["accuracy mean, std (10 folds in file order)"]
    assert [got["accuracy"], got["std"]] == pytest.approx(want)


@pytest.mark.parametrize("case", ["scores (cosine)", "scores rounded to 0.1 (ties)"])
def test_the_table_of_voxceleb_trainer(case):
    scores, same = pairs(case)
    want = figures("identity")[case][
        "voxceleb_trainer threshold, FPR, FNR at FAR 1e-1, 1e-2, 1e-3 (nearest, may overshoot)"
    ]
    for got, (threshold, fpr, fnr) in zip(far_table(scores, same=same).values(), want, strict=True):
        assert (got["fpr"], got["fnr"]) == pytest.approx((fpr, fnr))
        assert got["threshold"] is None if threshold == "inf" else got["threshold"] == pytest.approx(threshold)


def test_the_curve_is_scikit_learn_s():
    scores, same = pairs("ties 0.1")
    for ours, theirs in zip(roc(scores, same=same), roc_curve(same, scores, drop_intermediate=False)[:2], strict=True):
        assert ours == pytest.approx(theirs)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: verification(np.ones(3), same=np.ones(3)), "3 of 3 pairs are of one identity"),
        (lambda: verification(np.ones(3), same=np.ones(2)), "'same' has 2 entries and 'scores' has 3"),
        (lambda: verification(np.array([1, np.inf]), same=np.array([1, 0])), "'scores' of 1 is inf"),
        (lambda: ten_folds(np.zeros((4, 2)), second=np.ones((4, 2)), same=np.ones(4), folds=2), "row 0 of 'first'"),
        (lambda: ten_folds(np.ones((4, 2)), second=np.ones((4, 3)), same=np.ones(4), folds=2), "wanted pairs of one"),
        (lambda: ten_folds(np.ones((4, 2)), second=np.ones((4, 2)), same=np.ones(4)), "folds 10"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(UserError) as caught:
        call()
    assert message in str(caught.value)
