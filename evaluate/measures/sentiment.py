"""Sentiment: the figures of MOSI, MOSEI and CH-SIMS, as MMSA computes them, in fractions."""

from typing import Any

import numpy as np

from .checks import check_index, check_scores, check_vector

_SIMS_BOUNDS = {2: (0.0,), 3: (-0.1, 0.1), 5: (-0.7, -0.1, 0.1, 0.7)}


def intensity(predicted: np.ndarray, *, truth: np.ndarray) -> dict[str, float]:
    """Return the figures of sentiment from −3 to 3 (MOSI, MOSEI).

    Args:
      predicted: float [n].
      truth: float [n].

    Returns:
      `acc2_has0` and `f1_has0`, ≥ 0 against < 0 over all; `acc2_non0` and `f1_non0`, > 0 against ≤ 0 over the clips
      whose truth is not 0; `acc7` and `acc5`, clipped to ±3 and ±2 and rounded (half to even); `mae`, `corr`
      (Pearson), `n`. F1 is weighted by class. A figure that is not defined is NaN: no truth other than 0, or values
      that are all alike.

    >>> found = intensity(np.array([1.2, -0.4, 0.1]), truth=np.array([1.0, -1.0, 0.0]))
    >>> found["acc2_has0"], found["acc7"]
    (1.0, 0.6666666666666666)
    """
    predicted, truth = _check(predicted, truth=truth)
    other = truth != 0
    return {
        **_two(predicted >= 0, truth=truth >= 0, name="has0"),
        **_two(predicted[other] > 0, truth=truth[other] > 0, name="non0"),
        "acc7": _agree(np.round(np.clip(predicted, -3, 3)), np.round(np.clip(truth, -3, 3))),
        "acc5": _agree(np.round(np.clip(predicted, -2, 2)), np.round(np.clip(truth, -2, 2))),
        "mae": float(np.abs(predicted - truth).mean()),
        "corr": _pearson(predicted, truth),
        "n": len(truth),
    }


def sims_intensity(predicted: np.ndarray, *, truth: np.ndarray) -> dict[str, float]:
    """Return the figures of sentiment from −1 to 1 (CH-SIMS); both sides are clipped to ±1 first.

    Returns:
      `acc2`, `acc3` and `acc5` over intervals with bounds (0), (±0.1) and (±0.1, ±0.7), an upper bound belonging to its
      interval; `f1` of `acc2`, weighted by class; `mae`, `corr`, `n`.

    >>> sims_intensity(np.array([0.05, 0.9]), truth=np.array([0.0, 0.8]))["acc3"]
    1.0
    """
    predicted, truth = (np.clip(values, -1, 1) for values in _check(predicted, truth=truth))
    bins = {
        count: [np.searchsorted(bounds, values, side="left") for values in (predicted, truth)]
        for count, bounds in _SIMS_BOUNDS.items()
    }
    return {
        **{f"acc{count}": _agree(*both) for count, both in bins.items()},
        "f1": weighted_f1(bins[2][0], truth=bins[2][1]),
        "mae": float(np.abs(predicted - truth).mean()),
        "corr": _pearson(predicted, truth),
        "n": len(truth),
    }


def polarity(scores: np.ndarray, *, truth: np.ndarray) -> dict[str, float]:
    """Return the figures of three classes: 0 negative, 1 neutral, 2 positive.

    Args:
      scores: float [n,3].
      truth: int [n].

    Returns:
      `acc3`, `f1_3`; `acc2_has0`, `f1_has0`: positive against the rest over all, chosen between the scores of negative
      and positive; `acc2_non0`, `f1_non0`: the same choice over the clips that are not neutral (MMSA compares 0 and 1
      with 0 and 2 there, so that no positive is ever right; this is not copied); `n`.

    >>> polarity(np.array([[0.1, 0.2, 0.9], [0.8, 0.1, 0.3]]), truth=np.array([2, 0]))["acc2_non0"]
    1.0
    """
    scores = check_scores(scores)
    truth = check_index(truth, name="truth", length=len(scores), limit=scores.shape[1])
    chosen, positive, other = scores.argmax(axis=1), scores[:, 2] > scores[:, 0], truth != 1
    return {
        "acc3": _agree(chosen, truth),
        "f1_3": weighted_f1(chosen, truth=truth),
        **_two(positive, truth=truth == 2, name="has0"),
        **_two(positive[other], truth=truth[other] == 2, name="non0"),
        "n": len(truth),
    }


def weighted_f1(predicted: np.ndarray, *, truth: np.ndarray) -> float:
    """Return the mean over classes of F1, weighted by how often a class occurs.

    >>> weighted_f1(np.array([0, 1, 1]), truth=np.array([0, 1, 0])).__round__(4)
    0.6667
    """
    total = 0.0
    for label in np.unique(truth):
        hits = np.count_nonzero((predicted == label) & (truth == label))
        size = np.count_nonzero(truth == label)
        total += size * 2 * hits / (size + np.count_nonzero(predicted == label))
    return float(total / len(truth)) if len(truth) else float("nan")


def _two(predicted: np.ndarray, *, truth: np.ndarray, name: str) -> dict[str, float]:
    return {f"acc2_{name}": _agree(predicted, truth), f"f1_{name}": weighted_f1(predicted, truth=truth)}


def _agree(predicted: np.ndarray, truth: np.ndarray) -> float:
    return float((predicted == truth).mean()) if len(truth) else float("nan")


def _pearson(first: np.ndarray, second: np.ndarray) -> float:
    a, b = first - first.mean(), second - second.mean()
    below = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum() / below) if below > 0 else float("nan")


def _check(predicted: Any, *, truth: Any) -> tuple[np.ndarray, np.ndarray]:
    predicted = check_vector(predicted, name="predicted")
    return predicted, check_vector(truth, name="truth", length=len(predicted), of="predicted")
