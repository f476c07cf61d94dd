"""Sentiment against MMSA (tests/golden/evaluate/sentiment.json), four decimals."""

import numpy as np
import pytest
from evaluate_golden import figures
from sklearn.metrics import f1_score

from twinreel.base.errors import UserError
from twinreel.evaluate.measures.sentiment import intensity, polarity, sims_intensity, weighted_f1

GOLDEN = figures("sentiment")


def test_intensity_is_mmsa_s():
    found = intensity(np.array(GOLDEN["predicted"]), truth=np.array(GOLDEN["truth"]))
    names = {"Has0_acc_2": "acc2_has0", "Has0_F1_score": "f1_has0", "Non0_acc_2": "acc2_non0"}
    names |= {"Non0_F1_score": "f1_non0", "Mult_acc_5": "acc5", "Mult_acc_7": "acc7", "MAE": "mae", "Corr": "corr"}
    for data in ("MOSI", "MOSEI"):
        want = GOLDEN[f"MMSA regression {data}"]
        assert {key: found[name] for key, name in names.items()} == pytest.approx(want, abs=5.1e-5)


def test_sims_is_mmsa_s():
    found = sims_intensity(np.array(GOLDEN["predicted"]), truth=np.array(GOLDEN["truth"]))
    names = {"Mult_acc_2": "acc2", "Mult_acc_3": "acc3", "Mult_acc_5": "acc5", "F1_score": "f1", "MAE": "mae"}
    want = GOLDEN["MMSA regression SIMS"]
    assert {key: found[name] for key, name in (names | {"Corr": "corr"}).items()} == pytest.approx(want, abs=5.1e-5)


def test_polarity_is_mmsa_s_but_for_its_slip():
    scores, truth = np.array(GOLDEN["class_logits"]), np.array(GOLDEN["class_truth"])
    found, want = polarity(scores, truth=truth), GOLDEN["MMSA classification (0 negative, 1 neutral, 2 positive)"]
    names = {"Has0_acc_2": "acc2_has0", "Has0_F1_score": "f1_has0", "Acc_3": "acc3", "F1_score_3": "f1_3"}
    assert {key: found[name] for key, name in names.items()} == pytest.approx({k: want[k] for k in names}, abs=5.1e-5)
    other = truth != 1
    right = (scores[other][:, [0, 2]].argmax(axis=1) == 1) == (truth[other] == 2)
    assert found["acc2_non0"] == pytest.approx(right.mean())
    assert found["acc2_non0"] > want["Non0_acc_2"]


def test_weighted_f1_is_scikit_learn_s():
    rng = np.random.default_rng(0)
    predicted, truth = rng.integers(0, 4, 50), rng.integers(0, 4, 50)
    assert weighted_f1(predicted, truth=truth) == pytest.approx(f1_score(truth, predicted, average="weighted"))


def test_bad_input_is_refused_and_what_is_undefined_is_nan():
    found = intensity(np.array([1.0, 1.0]), truth=np.array([0.0, 0.0]))
    assert np.isnan(found["acc2_non0"]) and np.isnan(found["corr"])
    with pytest.raises(UserError, match="'truth' has 1 entries and 'predicted' has 2"):
        intensity(np.ones(2), truth=np.ones(1))
    with pytest.raises(UserError, match="'predicted' of 1 is nan"):
        intensity(np.array([1, np.nan]), truth=np.ones(2))
    with pytest.raises(UserError, match=r"'truth'\[0\] is 3"):
        polarity(np.ones((1, 3)), truth=np.array([3]))
