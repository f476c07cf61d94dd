"""Re-ranking of retrieval scores by other queries, and hubness, which it counteracts.

Both methods look at more than one query at a time, so a figure that uses them is another protocol than plain retrieval:
report it as a row of its own with its parameters.
"""

from dataclasses import dataclass

import numpy as np

from ...base.errors import UserError
from .checks import check_scores


def dual_softmax(scores: np.ndarray, *, scale: float, direction: str) -> np.ndarray:
    """Return S · softmax(scale · S) over the queries of a direction (DSL; Cheng et al. 2021, arXiv:2109.04290).

    Args:
      scores: float [n,m], texts by videos.
      scale: what multiplies the scores before the softmax. On cosines, 1 is almost flat; CLIP's temperature is 100.
      direction: "t2v", softmax over the texts of each video; "v2t", over the videos of each text.

    Returns:
      The re-weighted scores [n,m], texts by videos.

    >>> s = np.array([[1.0, 0.9], [0.0, 0.8]])
    >>> dual_softmax(s, scale=10.0, direction="t2v").round(3).tolist()
    [[1.0, 0.658], [0.0, 0.215]]
    """
    scores = check_scores(scores)
    if not (np.isfinite(scale) and scale > 0):
        raise UserError(f"the scale of the dual softmax is {scale}; wanted a positive number, such as 1 or 100")
    if direction not in ("t2v", "v2t"):
        raise UserError(f"direction is {direction!r}; wanted 't2v' or 'v2t'")
    if direction == "t2v":
        return times_softmax(scores, scale=scale)
    return times_softmax(scores.T, scale=scale).T


def times_softmax(scores: np.ndarray, *, scale: float) -> np.ndarray:
    """Return S · softmax(scale · S) over the queries (rows): the dual softmax of one direction.

    >>> times_softmax(np.array([[1.0, 0.0], [1.0, 0.0]]), scale=1.0).tolist()
    [[0.5, 0.0], [0.5, 0.0]]
    """
    weights = np.exp(scale * (scores - scores.max(axis=0, keepdims=True)))
    return scores * (weights / weights.sum(axis=0, keepdims=True))


@dataclass(frozen=True, kw_only=True)
class QueryBank:
    """Scores normalised by a query bank.

    Attributes:
      scores: float64 [n,m]; normalised rows are in (0, ∞), the others keep their raw scores. Rows are not comparable
        with each other: read text-to-video figures only.
      activated: int [a], the videos that are among the first k of a query of the bank.
      normalised: bool [n], the queries that were normalised.
    """

    scores: np.ndarray
    activated: np.ndarray
    normalised: np.ndarray


def qb_norm(scores: np.ndarray, *, bank: np.ndarray, beta: float = 20.0, k: int = 1) -> QueryBank:
    """Normalise scores by a bank of training queries (QB-norm; Bogolin et al. 2022, arXiv:2112.12777).

    A video is activated if it is among the first k of any query of the bank. A query whose first video is activated
    gets exp(beta · s) / Σ exp(beta · s') over the bank; the other queries keep their scores. It needs training
    queries, so it is no zero-shot figure. Of equal scores the lower index stands first.

    Args:
      scores: float [n,m], texts by videos.
      bank: float [b,m], training texts by the same videos.
      beta: the inverse temperature.
      k: how many videos each query of the bank activates.

    Raises:
      UserError: scores that are not finite, a bank of other videos, or beta or k out of range.

    Video 0 is a hub, the first of each query of the bank; the normalised query finds video 1:

    >>> found = qb_norm(np.array([[0.6, 0.5]]), bank=np.array([[0.9, 0.1], [0.8, 0.2]]))
    >>> found.activated.tolist(), found.normalised.tolist(), found.scores.argmax(axis=1).tolist()
    ([0], [True], [1])
    """
    scores, bank = check_scores(scores), check_scores(bank, name="bank")
    if bank.shape[1] != scores.shape[1]:
        raise UserError(
            f"'bank' has {bank.shape[1]} videos and 'scores' {scores.shape[1]}; score the bank's queries with the "
            "videos of the test set"
        )
    if not (np.isfinite(beta) and beta > 0) or not 1 <= k <= scores.shape[1]:
        raise UserError(f"beta is {beta} and k is {k}; wanted beta > 0 and 1 <= k <= {scores.shape[1]} videos")
    activated = np.unique(np.argsort(-bank, axis=1, kind="stable")[:, :k])
    normalised = np.isin(scores.argmax(axis=1), activated)
    top = beta * bank.max(axis=0)
    total = top + np.log(np.exp(beta * bank - top).sum(axis=0))  # log-sum-exp over the bank, [m]
    with np.errstate(over="ignore"):
        found = np.where(normalised[:, None], np.exp(np.minimum(beta * scores - total, 700.0)), scores)
    return QueryBank(scores=found, activated=activated, normalised=normalised)


def k_occurrence(scores: np.ndarray, *, k: int = 10) -> np.ndarray:
    """Return how many queries have each candidate among their first k, float64 [m]; ties count their share.

    >>> k_occurrence(np.array([[0.9, 0.1, 0.1], [0.8, 0.3, 0.1]]), k=2).tolist()
    [2.0, 1.5, 0.5]
    """
    scores = check_scores(scores)
    if not 1 <= k <= scores.shape[1]:
        raise UserError(f"k of the k-occurrence is {k}; wanted 1 to {scores.shape[1]}, the number of candidates")
    last = -np.partition(-scores, k - 1, axis=1)[:, k - 1 : k]  # the score at place k
    above, tied = scores > last, scores == last
    share = (k - above.sum(axis=1, keepdims=True)) / tied.sum(axis=1, keepdims=True)
    return (above + tied * share).sum(axis=0)


def hubness(scores: np.ndarray, *, k: int = 10) -> dict[str, float]:
    """Return hubness figures: the skewness of the k-occurrence (Radovanović et al. 2010), and its extremes.

    Args:
      scores: float [n,m], queries by candidates; transpose for the other direction.
      k: the number of places.

    Returns:
      `skewness` (0 where all candidates occur alike; large where a few are hubs), `largest` (the share of queries that
      have the worst hub among their first k) and `antihubs` (the share of candidates that no query has there).

    >>> found = hubness(np.array([[0.9, 0.1, 0.2], [0.9, 0.1, 0.2], [0.7, 0.8, 0.1], [0.9, 0.1, 0.2]]), k=1)
    >>> round(found["skewness"], 3), found["largest"], round(found["antihubs"], 3)
    (0.382, 0.75, 0.333)
    """
    counts = k_occurrence(scores, k=k)
    away, spread = counts - counts.mean(), counts.std()
    return {
        "skewness": float((away**3).mean() / spread**3) if spread > 0 else 0.0,
        "largest": float(counts.max() / len(scores)),
        "antihubs": float((counts == 0).mean()),
    }
