"""Recommendation: graded nDCG, MAP, MRR, recall and precision at k over users, ties in expectation."""

from typing import Any

import numpy as np

from ...base.errors import UserError, unknown
from .checks import check_numbers, check_scores
from .relevance import ORDERS, average_precision, ndcg, right_counts

GAINS = ("linear", "exponential", "binary")
EMPTY = ("skip", "zero")


def graded_ndcg(
    scores: np.ndarray, *, relevance: np.ndarray, k: int = 10, gain: str = "linear", order: str = "expected"
) -> np.ndarray:
    """Return nDCG at k of each user, float64 [n]; NaN for a user with nothing relevant.

    Args:
      scores: float [n,m], users by items.
      relevance: ≥ 0, [n,m].
      k: the number of places.
      gain: "linear", the relevance; "exponential", 2^relevance − 1; "binary", 1 where relevant.
      order: of equal scores: "expected" (scikit-learn and torchmetrics average, too), "optimistic", "pessimistic".

    >>> graded_ndcg(np.array([[0.9, 0.8]]), relevance=np.array([[0, 2]]), k=2).round(4).tolist()
    [0.6309]
    """
    scores, relevance = _check(scores, relevance=relevance)
    if gain not in GAINS:
        raise unknown("gain", gain, GAINS)
    if order not in ORDERS:
        raise unknown("order", order, ORDERS)
    gains = {"linear": relevance, "exponential": 2.0**relevance - 1, "binary": (relevance > 0) * 1.0}[gain]
    discount = np.where(np.arange(scores.shape[1]) < k, 1 / np.log2(2 + np.arange(scores.shape[1])), 0.0)
    found = np.full(len(scores), np.nan)
    for row, (mine, worth) in enumerate(zip(scores, gains, strict=True)):
        ideal = np.sort(worth)[::-1] @ discount
        if ideal > 0:
            tie = {"expected": 0, "optimistic": -worth, "pessimistic": worth}[order] * np.ones(len(mine))
            best = np.lexsort((tie, -mine))
            value = worth[best]
            if order == "expected":  # each item of a level has the mean of its level
                level = np.unique(-mine[best], return_inverse=True)[1]
                value = (np.bincount(level, weights=value) / np.bincount(level))[level]
            found[row] = value @ discount / ideal
    return found


def recommendation(scores: np.ndarray, *, relevance: np.ndarray, k: int = 10, empty: str = "skip") -> dict[str, Any]:
    """Return the figures of recommended items, as fractions, each with the bounds of its ties.

    Args:
      scores: float [n,m], users by items.
      relevance: ≥ 0, [n,m]; an item is relevant where it is > 0.
      k: the number of places.
      empty: what a user with nothing relevant counts: "skip", nothing (ranx, trec_eval); "zero", 0 (torchmetrics).

    Returns:
      `nDCG@k` (linear gain), `nDCG_exponential@k`, `nDCG_binary@k`, `MAP` (all places), `MAP@k` (divided by min(k,
      relevant)), `MRR`, `recall@k`, `precision@k`, `R-precision` (the precision at as many places as items are
      relevant), `hit@k`; the same under `optimistic` and `pessimistic`; `users`, the
      users counted, and `empty`, the users with nothing relevant.

    >>> found = recommendation(np.array([[0.9, 0.8, 0.1]]), relevance=np.array([[0, 2, 1]]), k=2)
    >>> found["MRR"], found["recall@2"], found["precision@2"], round(found["MAP"], 4)
    (0.5, 0.5, 0.5, 0.5833)
    """
    scores, relevance = _check(scores, relevance=relevance)
    if empty not in EMPTY:
        raise unknown("rule for users with nothing relevant", empty, EMPTY)
    if k < 1:
        raise UserError(f"k is {k}; wanted at least 1")
    some = (relevance > 0).any(axis=1)
    if not some.any():
        raise UserError("'relevance' is 0 for every user; there is nothing to recommend")
    users = int(some.sum()) if empty == "skip" else len(scores)
    blocks = {}
    for order in ORDERS:
        figures = _figures(scores[some], relevance=relevance[some], k=k, order=order)
        blocks[order] = {name: float(values.sum() / users) for name, values in figures.items()}
    bounds = {order: blocks[order] for order in ORDERS[1:]}
    return blocks["expected"] | bounds | {"users": users, "empty": int((~some).sum())}


def _figures(scores: np.ndarray, *, relevance: np.ndarray, k: int, order: str) -> dict[str, np.ndarray]:
    relevant = relevance > 0
    counts = right_counts(scores, relevant=relevant)
    total = counts.per_query
    found = _found_among(scores, relevant=relevant, k=k, order=order)
    return {
        f"nDCG@{k}": graded_ndcg(scores, relevance=relevance, k=k, order=order),
        f"nDCG_exponential@{k}": graded_ndcg(scores, relevance=relevance, k=k, gain="exponential", order=order),
        f"nDCG_binary@{k}": ndcg(counts, k=k, order=order),
        "MAP": average_precision(counts, order=order),
        f"MAP@{k}": average_precision(counts, k=k, order=order),
        "MRR": _reciprocal(scores, relevant=relevant, order=order),
        f"recall@{k}": found / total,
        f"precision@{k}": found / k,
        "R-precision": _found_among(scores, relevant=relevant, k=total, order=order) / total,
        f"hit@{k}": _hit(scores, relevant=relevant, k=k, order=order),
    }


def _found_among(scores: np.ndarray, *, relevant: np.ndarray, k: int | np.ndarray, order: str) -> np.ndarray:
    """How many relevant items are among the first k; of each user, if k is int [n]."""
    places = np.broadcast_to(np.minimum(k, scores.shape[1]), len(scores))
    last = np.take_along_axis(-np.sort(-scores, axis=1), places[:, None] - 1, axis=1)
    above, tied = scores > last, scores == last
    left = places - above.sum(axis=1)
    good, bad = (tied & relevant).sum(axis=1), (tied & ~relevant).sum(axis=1)
    among = {"expected": left * good / (good + bad), "optimistic": np.minimum(left, good)}
    among["pessimistic"] = np.maximum(0, left - bad)
    return (above & relevant).sum(axis=1) + among[order]


def _first(scores: np.ndarray, *, relevant: np.ndarray) -> list[tuple[int, int, int]]:
    """Per user: items above the best relevant one, irrelevant and relevant items at its score."""
    best = np.where(relevant, scores, -np.inf).max(axis=1, keepdims=True)
    tied = scores == best
    columns = (scores > best).sum(axis=1), (tied & ~relevant).sum(axis=1), (tied & relevant).sum(axis=1)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def _chances(wrong: int, right: int) -> np.ndarray:
    """The probability of each place from 0 for the first of `right` among `wrong` others in random order."""
    places = np.arange(wrong + 1)
    none_before = np.concatenate([[1.0], np.cumprod((wrong - places) / (wrong + right - places))[:-1]])
    return none_before * right / (wrong + right - places)


def _reciprocal(scores: np.ndarray, *, relevant: np.ndarray, order: str) -> np.ndarray:
    found = []
    for above, wrong, right in _first(scores, relevant=relevant):
        if order == "expected":
            found.append(float(_chances(wrong, right) @ (1 / (1 + above + np.arange(wrong + 1)))))
        else:
            found.append(1 / (1 + above + (wrong if order == "pessimistic" else 0)))
    return np.array(found)


def _hit(scores: np.ndarray, *, relevant: np.ndarray, k: int, order: str) -> np.ndarray:
    found = []
    for above, wrong, right in _first(scores, relevant=relevant):
        if order == "expected":
            found.append(float(_chances(wrong, right)[: max(0, k - above)].sum()))
        else:
            found.append(float(above + (wrong if order == "pessimistic" else 0) < k))
    return np.array(found)


def _check(scores: Any, *, relevance: Any) -> tuple[np.ndarray, np.ndarray]:
    scores, relevance = check_scores(scores), check_numbers(relevance, name="relevance", dimensions=2)
    if relevance.shape != scores.shape or not (relevance >= 0).all():
        raise UserError(f"'relevance' has shape {relevance.shape}; wanted numbers >= 0 in the scores' {scores.shape}")
    return scores, relevance
