"""Video anomaly detection (UCF-Crime): from scores of segments or clips to frames, and the AUC over all frames.

AUC and AP are over the frames of all videos put together, normal ones too; they are no means over videos.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...base.errors import UserError
from .checks import check_numbers, check_vector

CLIP_FRAMES = 16


def frames_of_segments(scores: np.ndarray, *, clips: int, frames: int) -> np.ndarray:
    """Return a score per frame from 32 segments as the code of Sultani et al. (2018) does, float64 [frames].

    Segment i covers the clips from round(linspace(1, clips, 33))[i] to the next bound, less one. The last clip and the
    frames after it keep 0, since that code never reaches its line for the last segment.

    Args:
      scores: float [s], one per segment (32).
      clips: clips of 16 frames in the video.
      frames: of the video.

    >>> frames_of_segments(np.array([0.5, 1.0]), clips=3, frames=50)[[0, 16, 32, 49]].tolist()
    [0.5, 1.0, 0.0, 0.0]
    """
    scores = check_vector(scores, name="scores")
    if clips < 1 or frames < clips * CLIP_FRAMES:
        raise UserError(f"clips is {clips} and frames is {frames}; wanted at least one clip, and 16 frames for each")
    bounds = np.floor(np.linspace(1, clips, len(scores) + 1) + 0.5).astype(int)  # rounds half up
    found = np.zeros(frames)
    for score, first, after in zip(scores, bounds[:-1], bounds[1:], strict=True):
        last = max(first, after - 1)
        found[(first - 1) * CLIP_FRAMES : last * CLIP_FRAMES] = score
    return found


def frames_of_clips(scores: np.ndarray) -> np.ndarray:
    """Return a score per frame from clips of 16 frames, float64 [16 · clips]; crops are averaged first (RTFM).

    Frames after the last full clip have no score.

    Args:
      scores: float [clips], or [crops,clips].

    >>> frames_of_clips(np.array([[0.0, 1.0], [1.0, 1.0]]))[[0, 16]].tolist()
    [0.5, 1.0]
    """
    scores = np.asarray(scores)
    if scores.ndim == 2:
        check_numbers(scores, name="scores", dimensions=2)
        scores = scores.mean(axis=0)  # in the scores' own precision, which decides what is equal
    return np.repeat(check_vector(scores, name="scores"), CLIP_FRAMES)


def frames_of_events(events: Sequence[tuple[int, int]], *, frames: int, first: int = 1) -> np.ndarray:
    """Return which frames are abnormal, bool [frames].

    Args:
      events: first and last frame of each event, both inclusive.
      frames: of the video; an event that ends later is cut.
      first: the number of the first frame: 1 in the annotation (Sultani), read from 0 by RTFM.

    >>> frames_of_events([(2, 3)], frames=4).tolist()
    [False, True, True, False]
    """
    found = np.zeros(frames, dtype=bool)
    for start, end in events:
        if not first <= start <= end:
            raise UserError(f"event {(start, end)} is none; wanted first and last frame, counted from {first}")
        found[start - first : end - first + 1] = True
    return found


def mean_pool(features: np.ndarray, *, segments: int = 32) -> np.ndarray:
    """Return features [segments, …] of clips [n, …] as RTFM does in training: means over equal shares of the clips.

    >>> mean_pool(np.array([0.0, 1.0, 2.0, 3.0]), segments=2).tolist()
    [0.5, 2.5]
    """
    features = np.asarray(features, dtype=np.float64)
    if not len(features):
        raise UserError("'features' has no clip")
    bounds = np.linspace(0, len(features), segments + 1, dtype=int)
    return np.stack([features[a : max(b, a + 1)].mean(axis=0) for a, b in itertools.pairwise(bounds)])


def frame_figures(scores: np.ndarray, *, abnormal: np.ndarray) -> dict[str, Any]:
    """Return the figures over the frames of all videos put together, fractions.

    Args:
      scores: float [frames].
      abnormal: bool [frames].

    Returns:
      `auc`, equal scores grouped (scikit-learn); `auc_ungrouped`, equal scores in the order of the frames (Sultani's
      script); `ap`, average precision; `pr_auc`, the trapezoid under precision over recall (RTFM), which is another
      figure; `frames` and `abnormal`, their numbers.

    >>> found = frame_figures(np.array([0.1, 0.9, 0.8]), abnormal=np.array([False, True, False]))
    >>> found["auc"], found["ap"]
    (1.0, 1.0)
    """
    from sklearn.metrics import auc, average_precision_score, precision_recall_curve, roc_auc_score

    scores = check_vector(scores, name="scores")
    abnormal = check_vector(abnormal, name="abnormal", length=len(scores), of="scores") > 0
    if abnormal.all() or not abnormal.any():
        raise UserError(f"{int(abnormal.sum())} of {len(abnormal)} frames are abnormal; AUC needs frames of both kinds")
    order = np.argsort(-scores, kind="stable")
    hits, misses = np.cumsum(abnormal[order]) / abnormal.sum(), np.cumsum(~abnormal[order]) / (~abnormal).sum()
    precision, recall, _ = precision_recall_curve(abnormal, scores)
    return {
        "auc": float(roc_auc_score(abnormal, scores)),
        "auc_ungrouped": float(np.trapezoid(hits, misses)),
        "ap": float(average_precision_score(abnormal, scores)),
        "pr_auc": float(auc(recall, precision)),
        "frames": len(scores),
        "abnormal": int(abnormal.sum()),
    }
