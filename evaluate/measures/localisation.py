"""Temporal action localisation (mAP over overlaps) and proposals (AR@AN): ActivityNet and mmaction2."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...base.errors import UserError, unknown
from .spans import THRESHOLDS, check_spans, interpolated_precision, match, overlaps

TIES = ("last_first", "first_first")


def localisation(
    predictions: Mapping[str, Sequence[tuple[str, float, float, float]]],
    *,
    truth: Mapping[str, Sequence[tuple[str, float, float]]],
    thresholds: Sequence[float] = THRESHOLDS,
    ties: str = "last_first",
    single_precision: bool = False,
) -> dict[str, Any]:
    """Return the mean over classes of the average precision of labelled spans.

    Predictions of a class, of all videos together, are taken by falling score; each takes the free true span of its
    video and class with the largest overlap, if that is at least the threshold. AP is VOC-interpolated.

    Args:
      predictions: video -> (label, start_s, end_s, score) of each span; a class that the truth lacks is not looked at.
      truth: video -> (label, start_s, end_s) of each span.
      thresholds: of the overlap; THUMOS uses 0.3 to 0.7.
      ties: which of equal scores stands first: the "last_first" listed (a stable argsort, turned round) or the
        "first_first". The code in use relies on a sort that is not stable.
      single_precision: hold overlaps in float32, as mmaction2 does, which loses those that are exactly 0.65, 0.7, 0.9
        and 0.95.

    Returns:
      `mAP@m` for each threshold, `average` and `per_class` (label -> list over thresholds), fractions; `absent`, the
      labels that are predicted and never occur.

    >>> truth = {"v": [("run", 0.0, 10.0)]}
    >>> found = localisation({"v": [("run", 0.0, 8.0, 0.9)]}, truth=truth, thresholds=[0.5, 0.9])
    >>> found["mAP@0.5"], found["mAP@0.9"], found["average"]
    (1.0, 0.0, 0.5)
    """
    if ties not in TIES:
        raise unknown("order of ties", ties, TIES)
    wanted = _by_label(truth, name="truth", scored=False)
    if not wanted:
        raise UserError("the truth has no span; mAP is not defined")
    given = _by_label(predictions, name="predictions", scored=True)
    if missing := [video for video in predictions if video not in truth]:
        raise UserError(f"video {missing[0]!r} is in the predictions and not in the truth; both must be of one split")
    type_ = np.float32 if single_precision else np.float64
    per_class = {
        label: _precisions(given.get(label, {}), truth=videos, thresholds=thresholds, ties=ties, type_=type_)
        for label, videos in wanted.items()
    }
    mean = np.mean(list(per_class.values()), axis=0)
    return {
        **{f"mAP@{threshold:g}": float(value) for threshold, value in zip(thresholds, mean, strict=True)},
        "average": float(mean.mean()),
        "per_class": per_class,
        "absent": sorted(given.keys() - wanted.keys()),
    }


def _precisions(
    given: dict[str, np.ndarray],
    *,
    truth: dict[str, np.ndarray],
    thresholds: Sequence[float],
    ties: str,
    type_: type[np.floating],
) -> list[float]:
    """The average precision of one class at each threshold, from its spans by video."""
    positives = sum(len(spans) for spans in truth.values())
    scores, hits = [], []
    for video, spans in given.items():
        order = _falling(spans[:, 2], ties=ties)
        found = np.zeros((len(thresholds), len(spans)), dtype=bool)
        if video in truth:
            overlap = overlaps(spans[order, :2].astype(type_), second=truth[video].astype(type_))
            found[:, order] = match(overlap.astype(np.float64), thresholds=thresholds)
        scores.append(spans[:, 2])
        hits.append(found)
    if not scores:
        return [0.0] * len(thresholds)
    order = _falling(np.concatenate(scores), ties=ties)
    return [interpolated_precision(row[order], positives=positives) for row in np.concatenate(hits, axis=1)]


def _falling(scores: np.ndarray, *, ties: str) -> np.ndarray:
    return np.argsort(scores, kind="stable")[::-1] if ties == "last_first" else np.argsort(-scores, kind="stable")


def proposals(
    predictions: Mapping[str, Sequence[Any]], *, truth: Mapping[str, Sequence[Any]], most: float = 100
) -> dict[str, Any]:
    """Return the average recall over the average number of proposals (AR@AN) at overlaps 0.5 … 0.95.

    A hundredth, two hundredths … of `most` proposals per video are looked at, on average; of each video the same share
    of its own proposals, rounded down, so that a video with few may have none at AN = 1. Overlaps are in float32.

    Args:
      predictions: video -> [[start_s, end_s, score], …].
      truth: video -> [[start_s, end_s], …].
      most: the largest average number of proposals per video.

    Returns:
      `AUC` in percent of the largest one; `AR`, a list of 100 fractions; `AN`, the 100 average numbers.

    >>> found = proposals({"v": [[0, 10, 0.9]]}, truth={"v": [[0, 10]]}, most=1)
    >>> found["AR"][98], found["AR"][99]
    (0.0, 1.0)
    """
    if not truth or not sum(len(spans) for spans in truth.values()):
        raise UserError("the truth has no span; recall is not defined")
    total = sum(len(spans) for spans in predictions.values())
    if not total or not most > 0:
        raise UserError(f"there are {total} proposals and most is {most}; wanted at least one proposal and most > 0")
    ratio, kept, tables = most * len(truth) / total, 0, []
    for video, spans in truth.items():
        wanted = check_spans(spans, name=f"truth of video {video!r}").astype(np.float32)
        given = check_spans(predictions.get(video, []), name=f"proposals of video {video!r}", scored=True)
        if not len(given):
            tables.append(np.zeros((len(wanted), 1), np.float32))
            continue
        order = np.argsort(given[:, 2], kind="stable")[::-1][: min(int(len(given) * ratio), len(given))]
        kept += len(order)
        tables.append(overlaps(given[order, :2].astype(np.float32), second=wanted).T)
    if not kept:
        raise UserError(f"most is {most}, so that no video keeps a proposal; raise it")
    share = np.arange(1, 101) / 100 * (most * len(truth) / kept)
    positives, recall = sum(len(table) for table in tables), np.zeros((len(THRESHOLDS), 100))
    for table in tables:
        looked_at = np.minimum((table.shape[1] * share).astype(int), table.shape[1])
        for row, threshold in enumerate(np.linspace(0.5, 0.95, 10)):
            found = np.concatenate(
                [np.zeros((len(table), 1)), np.maximum.accumulate(table >= threshold, axis=1)], axis=1
            )
            recall[row] += found[:, looked_at].sum(axis=0)
    average, numbers = (recall / positives).mean(axis=0), share * kept / len(truth)
    return {
        "AUC": 100 * float(np.trapezoid(average, numbers)) / float(numbers[-1]),
        "AR": average.tolist(),
        "AN": numbers.tolist(),
    }


def _by_label(spans: Mapping[str, Sequence[Any]], *, name: str, scored: bool) -> dict[str, dict[str, np.ndarray]]:
    """label -> video -> spans, in the order listed."""
    lists: dict[str, dict[str, list]] = defaultdict(lambda: defaultdict(list))
    for video, rows in spans.items():
        for label, *numbers in rows:
            lists[label][video].append(numbers)
    return {
        label: {
            video: check_spans(rows, name=f"{name} of video {video!r}, label {label!r}", scored=scored)
            for video, rows in videos.items()
        }
        for label, videos in lists.items()
    }
