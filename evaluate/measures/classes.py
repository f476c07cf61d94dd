"""Classification with one right class per clip: top-k, mean-class accuracy, confusions, calibration."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...base.errors import UserError
from .checks import check_index, check_scores
from .ranks import ranks, recall_at


def top_k(scores: np.ndarray, *, labels: np.ndarray, k: Sequence[int] = (1, 5)) -> dict[str, Any]:
    """Return the top-k accuracies in percent, in expectation over the order of ties, with their bounds.

    Args:
      scores: float [n,c].
      labels: int [n], the class of each clip.
      k: each k; one larger than the number of classes is left out.

    Returns:
      `top1` …, the same under `optimistic` and `pessimistic`, `chance` (of top-1), `classes`, `n`.

    >>> found = top_k(np.array([[0.5, 0.5], [0.1, 0.9]]), labels=np.array([0, 1]))
    >>> found["top1"], found["optimistic"]["top1"], found["pessimistic"]["top1"]
    (75.0, 100.0, 50.0)
    """
    scores = check_scores(scores)
    found = ranks(scores, positives=check_index(labels, name="labels", length=len(scores), limit=scores.shape[1]))
    shown = [one for one in k if one <= scores.shape[1]]
    bounds = {"optimistic": found.optimistic, "pessimistic": found.pessimistic}
    return {
        **{f"top{one}": recall_at(found, k=one) for one in shown},
        **{name: {f"top{one}": 100 * float((rank <= one).mean()) for one in shown} for name, rank in bounds.items()},
        "chance": 100 / scores.shape[1],
        "classes": scores.shape[1],
        "n": len(scores),
    }


def mean_class_accuracy(predicted: np.ndarray, *, labels: np.ndarray, classes: int) -> dict[str, float]:
    """Return the mean over classes of their accuracy, in percent, in both readings in use.

    Args:
      predicted: int [n], such as `scores.argmax(axis=1)`.
      labels: int [n].
      classes: the number of classes.

    Returns:
      `over_truth`: the mean over the classes that occur (scikit-learn's balanced accuracy); `over_truth_or_predicted`:
      classes that are only predicted count 0 (mmaction2); `absent`: the number of classes that never occur.

    >>> mean_class_accuracy(np.array([0, 0, 2]), labels=np.array([0, 0, 1]), classes=3)["over_truth"]
    50.0
    >>> round(mean_class_accuracy(np.array([0, 0, 2]), labels=np.array([0, 0, 1]), classes=3)["over_truth_or_predicted"], 2)
    33.33
    """  # noqa: E501
    predicted, labels = _check_predictions(predicted, labels=labels, classes=classes)
    total = np.bincount(labels, minlength=classes)
    right = np.bincount(labels[predicted == labels], minlength=classes)
    accuracy = right / np.maximum(total, 1)
    seen = (total > 0) | (np.bincount(predicted, minlength=classes) > 0)
    return {
        "over_truth": 100 * float(accuracy[total > 0].mean()),
        "over_truth_or_predicted": 100 * float(accuracy[seen].mean()),
        "absent": int((total == 0).sum()),
    }


def per_class(scores: np.ndarray, *, labels: np.ndarray, names: Sequence[str]) -> list[dict[str, Any]]:
    """Return a row for each class: `name`, `n`, and `top1` in percent in expectation over ties (None where n is 0).

    >>> per_class(np.array([[0.9, 0.1], [0.5, 0.5]]), labels=np.array([0, 0]), names=["run", "jump"])
    [{'name': 'run', 'n': 2, 'top1': 75.0}, {'name': 'jump', 'n': 0, 'top1': None}]
    """
    scores = check_scores(scores)
    labels = check_index(labels, name="labels", length=len(scores), limit=scores.shape[1])
    if len(names) != scores.shape[1]:
        raise UserError(f"there are {len(names)} class names and {scores.shape[1]} columns of scores; wanted one each")
    found = ranks(scores, positives=labels)
    hit = np.clip((1 - found.above) / (found.equal + 1), 0, 1)
    rows = []
    for number, name in enumerate(names):
        own = hit[labels == number]
        rows.append({"name": name, "n": len(own), "top1": 100 * float(own.mean()) if len(own) else None})
    return rows


def most_confused(
    predicted: np.ndarray, *, labels: np.ndarray, names: Sequence[str], top: int = 10
) -> list[dict[str, Any]]:
    """Return the most frequent confusions: `truth`, `predicted`, `count`, and `share` of the class, in percent.

    >>> most_confused(np.array([1, 1, 1]), labels=np.array([0, 0, 1]), names=["run", "jump"])
    [{'truth': 'run', 'predicted': 'jump', 'count': 2, 'share': 100.0}]
    """
    predicted, labels = _check_predictions(predicted, labels=labels, classes=len(names))
    total = np.bincount(labels, minlength=len(names))
    wrong = predicted != labels
    pairs = Counter(zip(labels[wrong].tolist(), predicted[wrong].tolist(), strict=True))
    return [
        {"truth": names[a], "predicted": names[b], "count": count, "share": 100 * count / int(total[a])}
        for (a, b), count in sorted(pairs.items(), key=lambda item: (-item[1], item[0]))[:top]
    ]


def calibration(probabilities: np.ndarray, *, labels: np.ndarray, bins: int = 15) -> dict[str, Any]:
    """Return the expected calibration error (Guo et al. 2017, arXiv:1706.04599) and the bins behind it.

    Args:
      probabilities: float [n,c], in [0, 1], each row adding up to 1.
      labels: int [n].
      bins: equal widths of confidence in (0, 1]; the upper bound belongs to its bin.

    Returns:
      `ece` in percent; `bins`, a list of `low`, `high`, `n`, `confidence` and `accuracy` (None where n is 0).

    >>> found = calibration(np.array([[0.9, 0.1], [0.9, 0.1]]), labels=np.array([0, 1]))
    >>> round(found["ece"], 6)
    40.0
    """
    probabilities = check_scores(probabilities, name="probabilities")
    labels = check_index(labels, name="labels", length=len(probabilities), limit=probabilities.shape[1])
    bad = np.flatnonzero((probabilities < 0).any(axis=1) | (np.abs(probabilities.sum(axis=1) - 1) > 1e-3))
    if len(bad):
        raise UserError(
            f"'probabilities' of row {bad[0]} add up to {probabilities[bad[0]].sum():.4g} or are negative; wanted a "
            "distribution: apply a softmax to the scores at the model's scale"
        )
    if bins < 1:
        raise UserError(f"the number of bins is {bins}; wanted at least 1")
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    rows, error = [], 0.0
    for number in range(bins):
        here = place == number
        row: dict[str, Any] = {"low": number / bins, "high": (number + 1) / bins, "n": int(here.sum())}
        row |= {"confidence": None, "accuracy": None}
        if here.any():
            row |= {"confidence": float(confidence[here].mean()), "accuracy": float(right[here].mean())}
            error += here.mean() * abs(row["accuracy"] - row["confidence"])
        rows.append(row)
    return {"ece": 100 * float(error), "bins": rows}


def _check_predictions(predicted: Any, *, labels: Any, classes: int) -> tuple[np.ndarray, np.ndarray]:
    labels = np.asarray(labels)
    if not len(labels):
        raise UserError("'labels' is empty; there is no clip to classify")
    labels = check_index(labels, name="labels", length=len(labels), limit=classes)
    return check_index(predicted, name="predicted", length=len(labels), limit=classes), labels
