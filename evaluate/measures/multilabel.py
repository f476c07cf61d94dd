"""Classification with several right classes per clip: mAP, GAP, Hit@1, PERR."""

from typing import Any

import numpy as np

from ...base.errors import UserError, unknown
from .checks import check_scores
from .ranks import ranks, recall_at
from .relevance import ORDERS, average_precision, right_counts

ABSENT = ("skip", "zero")


def class_average_precision(scores: np.ndarray, *, targets: np.ndarray, ties: str = "grouped") -> np.ndarray:
    """Return the average precision of each class over the clips, float64 [c]; NaN for a class without positives.

    Args:
      scores: float [n,c].
      targets: 0 or 1, or bool, [n,c].
      ties: "grouped", equal scores are one threshold (scikit-learn, mmaction2, SlowFast); or the order of equal
        scores, "expected", "optimistic" or "pessimistic" (code that sorts, such as CLIP_benchmark, is between).

    >>> class_average_precision(np.array([[0.9, 0.2], [0.8, 0.1]]), targets=np.array([[0, 0], [1, 0]])).tolist()
    [0.5, nan]
    """
    scores, targets = _check(scores, targets=targets)
    if ties not in ("grouped", *ORDERS):
        raise unknown("ties", ties, ("grouped", *ORDERS))
    found = np.full(scores.shape[1], np.nan)
    for column in np.flatnonzero(targets.any(axis=0)):
        counts = right_counts(scores[None, :, column], relevant=targets[None, :, column])
        if ties == "grouped":
            hits = counts.right_above + counts.right_equal
            found[column] = np.mean(hits / (hits + counts.above + counts.equal))
        else:
            found[column] = average_precision(counts, order=ties)[0]
    return found


def mean_average_precision(
    scores: np.ndarray, *, targets: np.ndarray, absent: str = "skip", ties: str = "grouped"
) -> dict[str, Any]:
    """Return the mean over classes of their average precision, in percent.

    Args:
      scores: float [n,c].
      targets: 0 or 1, or bool, [n,c].
      absent: what a class without positives counts: "skip", nothing (mmaction2, SlowFast, YouTube-8M); "zero", 0
        (CLIP_benchmark, scikit-learn's macro average).
      ties: as in `class_average_precision`.

    Returns:
      `mAP`, `classes` (in the mean) and `absent`, the numbers of the classes without positives.

    >>> mean_average_precision(np.array([[0.9, 0.2], [0.8, 0.1]]), targets=np.array([[0, 0], [1, 0]]))
    {'mAP': 50.0, 'classes': 1, 'absent': [1]}
    """
    if absent not in ABSENT:
        raise unknown("rule for classes without positives", absent, ABSENT)
    found = class_average_precision(scores, targets=targets, ties=ties)
    without = np.flatnonzero(np.isnan(found)).tolist()
    if len(without) == len(found):
        raise UserError("'targets' has no positive at all; mAP is not defined")
    counted = np.nan_to_num(found) if absent == "zero" else found[~np.isnan(found)]
    return {"mAP": 100 * float(counted.mean()), "classes": len(counted), "absent": without}


def pooled_average_precision(scores: np.ndarray, *, targets: np.ndarray) -> dict[str, float]:
    """Return average precision pooled over classes, in percent; ties are grouped.

    Returns:
      `micro`, of all pairs of a clip and a class in one list; `weighted`, the mean over classes weighted by positives.

    >>> pooled_average_precision(np.array([[0.9, 0.2], [0.8, 0.1]]), targets=np.array([[0, 0], [1, 0]]))
    {'micro': 50.0, 'weighted': 50.0}
    """
    scores, targets = _check(scores, targets=targets)
    if not targets.any():
        raise UserError("'targets' has no positive at all; average precision is not defined")
    of_class, weights = class_average_precision(scores, targets=targets), targets.sum(axis=0)
    micro = class_average_precision(scores.reshape(-1, 1), targets=targets.reshape(-1, 1))[0]
    return {"micro": 100 * float(micro), "weighted": 100 * float(np.nansum(of_class * weights) / weights.sum())}


def f1_figures(scores: np.ndarray, *, targets: np.ndarray, threshold: float = 0.5) -> dict[str, float]:
    """Return F1 of the classes with a score of at least the threshold, in percent.

    Returns:
      `micro`, over all pairs of a clip and a class; `macro`, the mean over classes; `samples`, the mean over clips. A
      class, or a clip, with neither a prediction nor a positive counts 0, as in scikit-learn.

    >>> f1_figures(np.array([[0.9, 0.2], [0.8, 0.7]]), targets=np.array([[1, 0], [0, 1]]))["micro"]
    80.0
    """
    scores, targets = _check(scores, targets=targets)
    predicted = scores >= threshold

    def f1(axis: int | None) -> float:
        both, either = (predicted & targets).sum(axis=axis), predicted.sum(axis=axis) + targets.sum(axis=axis)
        return 100 * float(np.mean(2 * both / np.maximum(1, either)))

    return {"micro": f1(None), "macro": f1(0), "samples": f1(1)}


def sample_average_precision(scores: np.ndarray, *, targets: np.ndarray) -> float:
    """Return the mean over clips of the average precision over classes, in percent; ties are grouped.

    mmaction2's `mmit_mean_average_precision`, scikit-learn's label ranking average precision.

    >>> sample_average_precision(np.array([[0.9, 0.2]]), targets=np.array([[0, 1]]))
    50.0
    """
    return 100 * float(class_average_precision(np.asarray(scores).T, targets=_with_labels(targets).T).mean())


def hit_at_one(scores: np.ndarray, *, targets: np.ndarray, order: str = "expected") -> float:
    """Return how often the class with the highest score is right, in percent.

    Args:
      scores: float [n,c].
      targets: 0 or 1, or bool, [n,c]; each clip has a class.
      order: of equal scores, one of "expected", "optimistic", "pessimistic".

    >>> hit_at_one(np.array([[0.9, 0.2], [0.5, 0.5]]), targets=np.array([[1, 1], [1, 0]]))
    75.0
    """
    scores, targets = _check(scores, targets=_with_labels(targets))
    if order not in ORDERS:
        raise unknown("order", order, ORDERS)
    found = ranks(scores, positives=targets)
    return recall_at(found, k=1) if order == "expected" else 100 * float((getattr(found, order) == 1).mean())


def perr(scores: np.ndarray, *, targets: np.ndarray, order: str = "expected") -> float:
    """Return the precision at equal recall rate, in percent: of a clip with L classes, the share of right ones in its
    first L (YouTube-8M, arXiv:1609.08675).

    >>> perr(np.array([[0.9, 0.8, 0.1]]), targets=np.array([[1, 0, 1]]))
    50.0
    """
    if order not in ORDERS:
        raise unknown("order", order, ORDERS)
    scores, targets = _check(scores, targets=_with_labels(targets))
    shares = []
    for row, right in zip(scores, targets, strict=True):
        length = int(right.sum())
        last = np.sort(row)[::-1][length - 1]
        left, tied = length - int((row > last).sum()), row == last
        good, bad = int((tied & right).sum()), int((tied & ~right).sum())
        among = {"expected": left * good / (good + bad), "optimistic": min(left, good)}
        among["pessimistic"] = max(0, left - bad)
        shares.append((int(((row > last) & right).sum()) + among[order]) / length)
    return 100 * float(np.mean(shares))


def gap(scores: np.ndarray, *, targets: np.ndarray, k: int = 20, order: str = "expected") -> float:
    """Return the global average precision at k, in percent: all clips' first k predictions in one list (YouTube-8M).

    Args:
      scores: float [n,c], comparable between clips (probabilities).
      targets: 0 or 1, or bool, [n,c]; the divisor is all positives, kept or not.
      k: predictions kept per clip.
      order: of equal scores in the list: "expected", "optimistic", "pessimistic". At the cut to k the lower class
        stands first, except that the bounds put right classes first or last.

    >>> gap(np.array([[0.9, 0.1], [0.8, 0.7]]), targets=np.array([[1, 0], [0, 1]]), k=1)
    50.0
    """
    scores, targets = _check(scores, targets=targets)
    if not targets.any():
        raise UserError("'targets' has no positive at all; GAP is not defined")
    kept = kept_predictions(scores, targets=targets, k=k, order=order)
    if not targets[kept].any():
        return 0.0
    found = average_precision(right_counts(scores[kept][None], relevant=targets[kept][None]), order=order)[0]
    return 100 * float(found) * int(targets[kept].sum()) / int(targets.sum())


def kept_average_precision(
    scores: np.ndarray, *, targets: np.ndarray, k: int, order: str = "expected"
) -> dict[str, float]:
    """Return YouTube-8M's mAP: average precision per class over the predictions kept, k per clip, in percent.

    The divisor of a class is all its positives; classes without positives are left out. Arguments as in `gap`.

    Returns:
      `mAP` and `classes`, the number of classes in the mean.

    >>> kept_average_precision(np.array([[0.9, 0.1], [0.8, 0.7]]), targets=np.array([[1, 0], [0, 1]]), k=1)
    {'mAP': 50.0, 'classes': 2}
    """
    scores, targets = _check(scores, targets=targets)
    kept = kept_predictions(scores, targets=targets, k=k, order=order)
    found = []
    for column in np.flatnonzero(targets.any(axis=0)):
        rows = kept[:, column]
        right = targets[rows, column]
        value = 0.0
        if right.any():
            counts = right_counts(scores[rows, column][None], relevant=right[None])
            value = average_precision(counts, order=order)[0] * right.sum() / targets[:, column].sum()
        found.append(value)
    if not found:
        raise UserError("'targets' has no positive at all; mAP is not defined")
    return {"mAP": 100 * float(np.mean(found)), "classes": len(found)}


def kept_predictions(scores: np.ndarray, *, targets: np.ndarray, k: int, order: str) -> np.ndarray:
    """Return bool [n,c], True for the k highest scores of each clip.

    >>> kept_predictions(np.array([[0.5, 0.5]]), targets=np.array([[False, True]]), k=1, order="expected").tolist()
    [[True, False]]
    """
    if order not in ORDERS:
        raise unknown("order", order, ORDERS)
    if k < 1:
        raise UserError(f"k is {k}; wanted at least 1 prediction per clip")
    first = {"expected": np.zeros_like(targets), "optimistic": targets, "pessimistic": ~targets}[order]
    chosen = np.lexsort((~first, -scores), axis=1)[:, :k]
    kept = np.zeros(scores.shape, dtype=bool)
    np.put_along_axis(kept, chosen, True, axis=1)
    return kept


def _check(scores: Any, *, targets: Any) -> tuple[np.ndarray, np.ndarray]:
    scores, targets = check_scores(scores), np.asarray(targets)
    if targets.shape != scores.shape or not np.isin(targets, (0, 1)).all():
        raise UserError(
            f"'targets' is {targets.dtype} of shape {targets.shape}; wanted 0 or 1 in the scores' shape {scores.shape}"
        )
    return scores, targets.astype(bool)


def _with_labels(targets: Any) -> np.ndarray:
    targets = np.asarray(targets)
    if targets.ndim == 2:
        without = np.flatnonzero(~targets.astype(bool).any(axis=1))
        if len(without):
            raise UserError(f"'targets' of clip {without[0]} has no class; leave it out ({len(without)} such clips)")
    return targets
