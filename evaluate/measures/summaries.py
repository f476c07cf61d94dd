"""Video summaries in the form of TVSum and SumMe: from scores of picked frames to segments, F-score and correlations.

Scores spread from one pick to the next and are averaged over each segment; a 0/1 knapsack chooses the segments. It adds
mean scores without weighing them by length, so it prefers many short segments.
"""

from typing import Any

import numpy as np

from ...base.errors import UserError, unknown
from ...encode.films.shots import knapsack
from .checks import check_index, check_numbers, check_vector

RULES = ("vsumm", "ca-sum")
METHODS = ("knapsack", "rank")


def spread(scores: np.ndarray, *, picks: np.ndarray, n_frames: int) -> np.ndarray:
    """Return a score per frame, float64 [n_frames]: that of the last pick at or before it, 0 before the first.

    >>> spread(np.array([0.5, 0.9]), picks=np.array([0, 2]), n_frames=4).tolist()
    [0.5, 0.5, 0.9, 0.9]
    """
    scores = check_vector(scores, name="scores")
    picks = check_index(picks, name="picks", length=len(scores), limit=n_frames)
    if (np.diff(picks) <= 0).any():
        raise UserError("'picks' do not rise; wanted the frame of each score in order, each once")
    return np.concatenate([np.zeros(picks[0]), np.repeat(scores, np.diff(np.append(picks, n_frames)))])


def summarise(
    scores: np.ndarray,
    *,
    picks: np.ndarray,
    change_points: np.ndarray,
    n_frames: int,
    rule: str = "vsumm",
    method: str = "knapsack",
    share: float = 0.15,
) -> tuple[np.ndarray, list[int]]:
    """Choose the segments of a summary.

    Args:
      scores: float [p], one per pick.
      picks: int [p], the frame of each score.
      change_points: int [s,2], first and last frame (inclusive) of each segment, in order.
      n_frames: of the video.
      rule: how long a summary may be: "vsumm", a share of the video's frames (pytorch-vsumm-reinforce); "ca-sum", a
        share of the frames up to the last change point (CA-SUM).
      method: "knapsack", or "rank": by falling score while the summary stays below the limit (equal scores from the
        last segment).
      share: of the frames.

    Returns:
      bool [frames up to the last change point], True in the summary; and the chosen segments, in order.

    >>> points = np.array([[0, 9], [10, 19]])
    >>> summary, chosen = summarise(
    ...     np.array([0.1, 0.9]), picks=np.array([0, 10]), change_points=points, n_frames=20, share=0.5
    ... )
    >>> chosen, int(summary.sum())
    ([1], 10)
    """
    if rule not in RULES:
        raise unknown("rule of the summary's length", rule, RULES)
    if method not in METHODS:
        raise unknown("method of the summary", method, METHODS)
    points = _check_segments(change_points, n_frames=n_frames)
    frames = spread(scores, picks=picks, n_frames=n_frames)
    lengths = points[:, 1] - points[:, 0] + 1
    means = np.array([frames[first : last + 1].mean() for first, last in points])
    limit = int((n_frames if rule == "vsumm" else points[-1, 1] + 1) * share)
    if method == "knapsack":
        chosen = knapsack(means, weights=lengths, capacity=limit)
    else:
        chosen, total = [], 0
        for number in np.argsort(means, kind="stable")[::-1].tolist():
            if total + lengths[number] < limit:
                chosen.append(number)
                total += int(lengths[number])
        chosen.sort()
    summary = np.zeros(int(points[-1, 1]) + 1, dtype=bool)
    for number in chosen:
        summary[points[number, 0] : points[number, 1] + 1] = True
    return summary, chosen


def summary_f(summary: np.ndarray, *, users: np.ndarray) -> dict[str, Any]:
    """Return F, precision and recall of a summary against those of users, in percent.

    Args:
      summary: bool [f]; cut, or padded with False, to the users' frames.
      users: bool or 0/1 [u,frames], a summary of each user.

    Returns:
      `mean` over the users (TVSum) and `best`, the user with the largest F (SumMe), each `F`, `precision`, `recall`;
      `empty`, True where the summary holds no frame: the figures are then 0 (CA-SUM prints NaN).

    >>> found = summary_f(np.array([1, 1, 0, 0]), users=np.array([[1, 0, 0, 0], [0, 0, 1, 1]]))
    >>> round(found["best"]["F"], 2), round(found["mean"]["F"], 2)
    (66.67, 33.33)
    """
    users = check_numbers(users, name="users", dimensions=2) > 0
    machine = np.zeros(users.shape[1], dtype=bool)
    given = np.asarray(summary).astype(bool)[: users.shape[1]]
    machine[: len(given)] = given
    both = (users & machine).sum(axis=1)
    precision, recall = both / max(1, int(machine.sum())), both / np.maximum(1, users.sum(axis=1))
    f = np.divide(2 * precision * recall, precision + recall, out=np.zeros(len(users)), where=both > 0)
    columns = {"F": 100 * f, "precision": 100 * precision, "recall": 100 * recall}
    return {
        "mean": {name: float(values.mean()) for name, values in columns.items()},
        "best": {name: float(values[f.argmax()]) for name, values in columns.items()},
        "empty": not machine.any(),
    }


def correlations(scores: np.ndarray, *, users: np.ndarray) -> dict[str, float]:
    """Return the mean over annotators of the rank correlations of predicted scores with theirs (Otani et al. 2019).

    Args:
      scores: float [p], one per pick.
      users: float [u,p], each annotator's scores of the same frames.

    Returns:
      `spearman` and `kendall` (tau-b); an annotator whose scores are all alike is left out (`constant` counts these).

    >>> correlations(np.array([0.1, 0.2, 0.3]), users=np.array([[1, 2, 3], [2, 2, 2]]))
    {'spearman': 1.0, 'kendall': 1.0, 'constant': 1}
    """
    from scipy.stats import kendalltau, spearmanr

    scores, users = check_vector(scores, name="scores"), check_numbers(users, name="users", dimensions=2)
    if users.shape[1] != len(scores):
        raise UserError(f"'users' has {users.shape[1]} frames and 'scores' {len(scores)}; take the same frames of both")
    varied = users[(users != users[:, :1]).any(axis=1)]
    if not len(varied) or (scores == scores[0]).all():
        raise UserError("the scores are all alike, predicted or of every annotator; no correlation is defined")
    measures: dict[str, Any] = {"spearman": spearmanr, "kendall": kendalltau}
    found = {name: float(np.mean([one(scores, row).statistic for row in varied])) for name, one in measures.items()}
    return found | {"constant": len(users) - len(varied)}


def _check_segments(change_points: Any, *, n_frames: int) -> np.ndarray:
    points = check_numbers(change_points, name="change_points", dimensions=2).astype(np.int64)
    broken = points.shape[1] != 2 or points.min() < 0 or points.max() >= n_frames
    if broken or (points[:, 1] < points[:, 0]).any() or (points[1:, 0] <= points[:-1, 1]).any():
        raise UserError(
            f"'change_points' of shape {points.shape} are no segments of {n_frames} frames; wanted [first, last] "
            "frame, in order, without overlap"
        )
    return points
