"""Anomaly detection against Sultani's script and RTFM (tests/golden/evaluate/anomaly.json)."""

import numpy as np
import pytest
from evaluate_golden import arrays, figures

from twinreel.base.errors import UserError
from twinreel.evaluate.measures.anomaly import (
    frame_figures,
    frames_of_clips,
    frames_of_events,
    frames_of_segments,
    mean_pool,
)

GOLDEN = figures("anomaly")
VIDEOS = GOLDEN["videos"]


def test_sultani():
    scores = [frames_of_segments(v["scores_of_32_segments"], clips=v["clips"], frames=v["frames"]) for v in VIDEOS]
    truth = [frames_of_events(v["events_from_1_inclusive"], frames=v["frames"]) for v in VIDEOS]
    for own, abnormal, told in zip(
        scores, truth, GOLDEN["sultani"]["per_video (order of the file names)"], strict=True
    ):
        assert len(own) - 1 - np.flatnonzero(own)[-1] >= told["frames_scored_0_at_the_end"] > 0
        assert abnormal.sum() == told["abnormal_frames"]
        starts = [0, *(np.flatnonzero(np.diff(own)) + 1)]
        assert [(int(at), own[at]) for at in starts] == [(at, pytest.approx(v)) for at, v in told["frame_score_runs"]]
    scores, truth = np.concatenate(scores), np.concatenate(truth)
    np.testing.assert_allclose(scores, arrays("anomaly")["sultani/frame_scores"], atol=1e-6)
    assert (truth == arrays("anomaly")["sultani/frame_truth"]).all()
    found, want = frame_figures(scores, abnormal=truth), GOLDEN["sultani"]
    assert found["frames"] == want["frames"]
    assert found["auc"] == pytest.approx(want["roc_auc_score of the same frame scores"])
    key = "AUC1 as the script computes it (sort, no grouping of ties, trapz)"
    assert found["auc_ungrouped"] == pytest.approx(want[key])


def test_rtfm():
    found, want = arrays("anomaly"), GOLDEN["rtfm"]
    scores = np.concatenate([frames_of_clips(found[f"{v['name']}/crop_scores"]) for v in VIDEOS])
    truth = [frames_of_events(v["events_from_1_inclusive"], frames=16 * v["clips"], first=0) for v in VIDEOS]
    assert [int(one.sum()) for one in truth] == want["abnormal frames per video"]
    assert (np.concatenate(truth) == found["rtfm/frame_truth"]).all()
    got = frame_figures(scores, abnormal=np.concatenate(truth))
    # The mean over crops in float32 depends on the order of the sum, and with it which frames tie.
    assert got["auc"] == pytest.approx(want["AUC"], abs=1e-4)
    assert got["pr_auc"] == pytest.approx(want["PR AUC by auc(recall, precision)"], abs=2e-4)
    assert got["ap"] == pytest.approx(want["average_precision_score of the same"], abs=2e-4)
    assert got["frames"] == want["frames"]


@pytest.mark.parametrize("clips", ["5", "20", "32", "33", "75", "100"])
def test_segments_for_training_are_rtfm_s(clips):
    want = GOLDEN["rtfm process_feat: mean clip index of each of 32 segments"][clips]
    assert mean_pool(np.arange(float(clips))).tolist() == want


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: frames_of_segments(np.ones(32), clips=0, frames=10), "clips is 0"),
        (lambda: frames_of_segments(np.ones(32), clips=5, frames=10), "frames is 10"),
        (lambda: frames_of_clips(np.array([np.nan])), "'scores' of 0 is nan"),
        (lambda: frames_of_events([(5, 2)], frames=10), "event (5, 2) is none"),
        (lambda: frames_of_events([(0, 2)], frames=10), "counted from 1"),
        (lambda: frame_figures(np.ones(3), abnormal=np.zeros(3)), "0 of 3 frames are abnormal"),
        (lambda: frame_figures(np.ones(3), abnormal=np.zeros(2)), "'abnormal' has 2 entries and 'scores' has 3"),
        (lambda: mean_pool(np.ones((0, 4))), "'features' has no clip"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(UserError) as caught:
        call()
    assert message in str(caught.value)
