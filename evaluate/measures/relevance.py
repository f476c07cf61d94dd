"""Figures that look at all right candidates of a query: mAP and nDCG, with ties resolved in expectation.

A query's candidates of equal score form a level. With A candidates above the level, R of them right, and n candidates
in it, r of them right, place t of the level (t = 1 … n) holds a right candidate with probability r / n, and then
R + 1 + (t - 1) (r - 1) / (n - 1) right ones are among the first A + t in expectation (McSherry and Najork 2008). The
optimistic values put the right candidates of each level first, the pessimistic ones last.

Only counts per right candidate are needed, so a scorer that works in blocks can fill `RightCounts` itself.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...base.errors import UserError, unknown
from .checks import check_scores

ORDERS = ("expected", "optimistic", "pessimistic")


@dataclass(frozen=True, kw_only=True)
class RightCounts:
    """Where each right candidate of each query stands; one entry per pair of a query and a right candidate, [p].

    Attributes:
      query: int, the query of the pair, from 0 without gaps.
      above: wrong candidates of the query with a higher score.
      equal: wrong candidates with the same score.
      right_above: right candidates with a higher score.
      right_equal: right candidates with the same score, itself included.
    """

    query: np.ndarray
    above: np.ndarray
    equal: np.ndarray
    right_above: np.ndarray
    right_equal: np.ndarray

    @property
    def per_query(self) -> np.ndarray:
        """The number of right candidates of each query, int64 [n]."""
        return np.bincount(self.query)


def right_counts(
    scores: np.ndarray,
    *,
    relevant: np.ndarray,
    queries: Sequence[str] | None = None,
    candidates: Sequence[str] | None = None,
) -> RightCounts:
    """Count, for each right candidate, the candidates above it and equal to it.

    Args:
      scores: float [n,m], queries by candidates.
      relevant: bool [n,m], True where candidate j is right for query i, at least one in each row.
      queries: the id of each query, for messages; None: its row.
      candidates: the id of each candidate, for messages; None: its column.

    Raises:
      UserError: a score that is not finite, or a query without a right candidate.

    >>> counts = right_counts(np.array([[0.9, 0.5, 0.5]]), relevant=np.array([[False, True, False]]))
    >>> counts.above.tolist(), counts.equal.tolist(), counts.right_equal.tolist()
    ([1], [1], [1])
    """
    scores = check_scores(scores, rows=queries, columns=candidates)
    relevant = np.asarray(relevant)
    if relevant.dtype != bool or relevant.shape != scores.shape:
        raise UserError(
            f"'relevant' is {relevant.dtype} of shape {relevant.shape}; wanted bool of the scores' shape {scores.shape}"
        )
    without = np.flatnonzero(~relevant.any(axis=1))
    if len(without):
        name = without[0] if queries is None else repr(queries[without[0]])
        raise UserError(f"'relevant' of query {name} has no right candidate; leave the query out")
    wrong, right = [], []
    for row, own in zip(scores, relevant, strict=True):
        wrong.append(_above_and_equal(row[own], others=row[~own]))
        right.append(_above_and_equal(row[own], others=row[own]))
    (above, equal), (right_above, right_equal) = np.concatenate(wrong, axis=1), np.concatenate(right, axis=1)
    query = np.nonzero(relevant)[0]
    return RightCounts(query=query, above=above, equal=equal, right_above=right_above, right_equal=right_equal)


def _above_and_equal(values: np.ndarray, *, others: np.ndarray) -> np.ndarray:
    """How many of `others` are above, and how many equal to, each value: int64 [2, len(values)]."""
    rising = np.sort(others)
    left, right = np.searchsorted(rising, values, side="left"), np.searchsorted(rising, values, side="right")
    return np.stack([len(others) - right, right - left])


def average_precision(counts: RightCounts, *, k: int | None = None, order: str = "expected") -> np.ndarray:
    """Return the average precision of each query, float64 [n]: the mean over its right candidates of their precision.

    Args:
      counts: of the queries.
      k: look at the first k places only; the divisor is then min(k, right candidates). None: at all places.
      order: of the tied, one of "expected", "optimistic", "pessimistic".

    Right candidates at places 1 and 3 give (1/1 + 2/3) / 2:

    >>> scores, relevant = np.array([[0.9, 0.8, 0.7]]), np.array([[True, False, True]])
    >>> average_precision(right_counts(scores, relevant=relevant)).round(4).tolist()
    [0.8333]

    One right candidate that ties with one other is first or second, (1 + 1/2) / 2:

    >>> average_precision(right_counts(np.array([[0.5, 0.5]]), relevant=np.array([[True, False]]))).tolist()
    [0.75]
    """
    found = _expect(counts, k=k, order=order, gain=lambda place, hits: hits / place)
    return found / np.minimum(counts.per_query, np.inf if k is None else k)


def ndcg(counts: RightCounts, *, k: int = 10, order: str = "expected") -> np.ndarray:
    """Return nDCG at k of each query with binary relevance, float64 [n]: discounts 1 / log2(1 + place).

    Arguments as in `average_precision`.

    >>> scores, relevant = np.array([[0.9, 0.8, 0.7]]), np.array([[False, True, False]])
    >>> ndcg(right_counts(scores, relevant=relevant)).round(4).tolist()  # 1 / log2(3)
    [0.6309]
    """
    found = _expect(counts, k=k, order=order, gain=lambda place, hits: 1 / np.log2(1 + place))
    ideal = np.cumsum(1 / np.log2(2 + np.arange(k)))
    return found / ideal[np.minimum(counts.per_query, k) - 1]


def relevance_summary(counts: RightCounts) -> dict[str, Any]:
    """Return mAP (all places) and nDCG@10 in percent, each with its two bounds, and `n`, the number of queries.

    >>> block = relevance_summary(right_counts(np.array([[0.5, 0.5]]), relevant=np.array([[True, False]])))
    >>> block["mAP"], block["optimistic"]["mAP"], block["pessimistic"]["mAP"], block["n"]
    (75.0, 100.0, 50.0, 1)
    """
    expected, *bounds = (
        {
            "mAP": 100 * float(average_precision(counts, order=order).mean()),
            "nDCG@10": 100 * float(ndcg(counts, k=10, order=order).mean()),
        }
        for order in ORDERS
    )
    return expected | dict(zip(ORDERS[1:], bounds, strict=True)) | {"n": len(counts.per_query)}


def _expect(
    counts: RightCounts, *, k: int | None, order: str, gain: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> np.ndarray:
    """Sum `gain(place, right candidates up to it)` over the places that hold right ones, per query: float64 [n]."""
    if order not in ORDERS:
        raise unknown("order", order, ORDERS)
    total = np.zeros(len(counts.per_query))
    columns = (counts.query, counts.above, counts.equal, counts.right_above, counts.right_equal)
    levels = np.unique(np.stack(columns, axis=1), axis=0)  # a level once, though it may hold several right candidates
    for query, above, wrong, right_above, right in levels.tolist():
        start, size = above + right_above, right + wrong
        if order == "expected":
            t = np.arange(1, size + 1)
            hits, weight = right_above + 1 + (t - 1) * (right - 1) / max(1, size - 1), right / size
        else:
            t, hits, weight = 1 + np.arange(right), right_above + 1 + np.arange(right), 1.0
            t = t if order == "optimistic" else t + wrong
        seen = slice(None) if k is None else start + t <= k
        total[query] += weight * gain((start + t)[seen], hits[seen]).sum()
    return total
