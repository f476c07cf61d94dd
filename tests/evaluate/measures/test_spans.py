"""Grounding against 2D-TAN and mmaction2 (tests/golden/evaluate/moments.json)."""

import numpy as np
import pytest
from evaluate_golden import figures

from twinreel.base.errors import UserError
from twinreel.evaluate.measures.spans import grounding, interpolated_precision, match, overlaps

CASES = {
    "small12": "grounding_small (first window of small12 queries 1,3,4,5,7,9,10,12)",
    "random60": "grounding_random60 (first window only)",
}


def first_windows(case):
    found = figures("moments")[case]
    truth = {one["qid"]: one["relevant_windows"][0] for one in found["ground_truth"]}
    chosen = [1, 3, 4, 5, 7, 9, 10, 12] if case == "small12" else list(truth)
    by_id = {one["qid"]: sorted(one["pred_relevant_windows"], key=lambda w: -w[2]) for one in found["predictions"]}
    return [by_id[qid] for qid in chosen], [truth[qid] for qid in chosen]


@pytest.mark.parametrize("case", CASES)
def test_figures_of_2d_tan_and_mmaction2(case):
    predicted, truth = first_windows(case)
    want = figures("moments")[CASES[case]]
    for nms in (0.4, 0.5):
        found = grounding(predicted, truth=truth, nms=nms)
        for key, value in want.items():
            if key.startswith(f"2D-TAN nms={nms} R"):
                assert found[key.split(" ")[2]] == pytest.approx(value), key
            elif key.startswith(f"2D-TAN nms={nms} mIoU"):
                assert found["mIoU"] == pytest.approx(value)
    found = grounding(predicted, truth=truth)
    for k in (1, 5):
        for m in (0.3, 0.5, 0.7):
            assert found[f"R@{k},IoU>{m}"] == pytest.approx(want[f"mmaction2 Recall@Top{k}_IoU={m}"])


def test_an_exact_overlap_counts_only_where_thresholds_are_inclusive():
    predicted, truth = [[[0, 5]]], [[0, 10]]
    assert grounding(predicted, truth=truth, thresholds=[0.5])["R@1,IoU>0.5"] == 0
    assert grounding(predicted, truth=truth, thresholds=[0.5], inclusive=True)["R@1,IoU>=0.5"] == 100


def test_overlaps_are_those_of_frames():
    rng = np.random.default_rng(0)
    first, second = (np.sort(rng.integers(0, 40, (8, 2)), axis=1) for _ in range(2))
    for a, row in zip(first, overlaps(first.astype(float), second=second.astype(float)), strict=True):
        for b, got in zip(second, row, strict=True):
            frames = set(range(*a)), set(range(*b))
            union = len(frames[0] | frames[1])
            assert got == pytest.approx(len(frames[0] & frames[1]) / union if union else 0)


def test_a_true_span_is_found_once():
    assert match(np.array([[0.9], [0.95]]), thresholds=[0.5]).tolist() == [[True, False]]
    assert interpolated_precision(np.array([True, False]), positives=1) == 1


@pytest.mark.parametrize(
    ("predicted", "truth", "message"),
    [
        ([], [], "'predicted' has 0 entries"),
        ([[[0, 1]]], [], "'predicted' has 1 entries and 'truth' has 0"),
        ([[[0, 1]]], [[5, 2]], "truth of sentence '0': entry 0 is [5.0, 2.0]"),
        ([[[0, np.nan]]], [[0, 1]], "predicted of sentence '0': entry 0"),
        ([[[0]]], [[0, 1]], "wanted a list of [start_s, end_s]"),
    ],
)
def test_bad_input_is_refused(predicted, truth, message):
    with pytest.raises(UserError) as caught:
        grounding(predicted, truth=truth)
    assert message in str(caught.value)


def test_a_sentence_without_prediction_is_a_miss():
    assert grounding([[]], truth=[[0, 1]])["mIoU"] == 0
