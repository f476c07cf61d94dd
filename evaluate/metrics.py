"""Retrieval metrics in NumPy. Ties are resolved in expectation, not by a sorting routine.

A query has `g` wrong candidates strictly above its best right one; at the score of that one stand `e` wrong candidates
and `p` right ones. Over a uniformly random order of these tied candidates, the first right one is at rank
`1 + g + e / (p + 1)` in expectation. With one right candidate (p = 1) recall at K is `clip((K - g) / (e + 1), 0, 1)`.
Optimistic values assume that every tie is won, pessimistic ones that every tie is lost.

Scores are cosines in float64. Two measures keep ties from depending on the order in which a BLAS adds its products:
equal rows of the gallery are scored once, and scores are rounded to multiples of 2^-40 (about 1e-12).
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..base.errors import UserError

RECALL_AT = (1, 5, 10)
TIE_RULE = (
    "expectation over a uniformly random order of the tied: with g others strictly above and e others equal, "
    "R@K counts clip((K - g) / (e + 1), 0, 1) and the rank is 1 + g + e/2; optimistic: every tie is won, "
    "pessimistic: every tie is lost"
)
SCORE = "cosine of L2-normalised rows in float64, rounded to multiples of 2^-40"

_GRID = 2.0**40


class RowError(UserError):
    """A row of embeddings that cannot be scored.

    Attributes:
      array: name of the array.
      row: index of the row.
    """

    def __init__(self, message: str, *, array: str, row: int):
        super().__init__(message)
        self.array, self.row = array, row


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """Where each query's best right candidate stands; all fields int64 [n].

    Attributes:
      above: wrong candidates with a higher score (g).
      equal: wrong candidates with the same score (e).
      right: right candidates with that score, itself included (p); 1 unless several candidates are right.

    >>> one = Ranks(above=np.array([2, 2]), equal=np.array([1, 2]), right=np.array([1, 3]))
    >>> one.optimistic.tolist(), one.expected.tolist(), one.pessimistic.tolist()
    ([3, 3], [3.5, 3.5], [4, 5])
    """

    above: np.ndarray
    equal: np.ndarray
    right: np.ndarray | int = 1

    @property
    def expected(self) -> np.ndarray:
        """Ranks from 1 in expectation over the order of the tied, float64 [n]."""
        return 1 + self.above + self.equal / (self.right + 1)

    @property
    def optimistic(self) -> np.ndarray:
        """Ranks from 1 where every tie is won, int64 [n]."""
        return 1 + self.above

    @property
    def pessimistic(self) -> np.ndarray:
        """Ranks from 1 where every tie is lost, int64 [n]."""
        return 1 + self.above + self.equal


def ranks(similarity: np.ndarray, *, positives: np.ndarray) -> Ranks:
    """Rank the best right candidate of each query.

    Args:
      similarity: float [n,m], the score of query i with candidate j.
      positives: int [n], the right candidate of each query, in [0, m); or bool [n,m], True where candidate j is right
        for query i, at least one in each row.

    Raises:
      UserError: a score that is not finite (its row and column are named), a positive out of range, or a query
        without any.

    The second query ties with two others; the third has one above and one equal:

    >>> s = np.array([[0.9, 0.1, 0.2], [0.5, 0.5, 0.5], [0.7, 0.3, 0.3]])
    >>> r = ranks(s, positives=np.array([0, 1, 2]))
    >>> r.above.tolist(), r.equal.tolist(), r.expected.tolist()
    ([0, 0, 1], [0, 2, 1], [1.0, 2.0, 2.5])
    """
    similarity = np.asarray(similarity)
    if similarity.ndim != 2 or 0 in similarity.shape:
        raise UserError(f"similarity has shape {similarity.shape}; wanted [queries, candidates], neither of them 0")
    finite = np.isfinite(similarity)
    if not finite.all():
        row, column = np.argwhere(~finite)[0]
        raise UserError(
            f"similarity of query row {row} with candidate {column} is {similarity[row, column]}; wanted a finite "
            "score: look for NaN or inf in that row's embedding"
        )
    positives = np.asarray(positives)
    if positives.dtype == bool:
        return _several_right(similarity, right=positives)
    positives = check_index(positives, name="positives", length=len(similarity), limit=similarity.shape[1])
    best = np.take_along_axis(similarity, positives[:, None], axis=1)  # [n,1]
    above = np.count_nonzero(similarity > best, axis=1)
    equal = np.count_nonzero(similarity == best, axis=1) - 1
    return Ranks(above=above.astype(np.int64), equal=equal.astype(np.int64))


def _several_right(similarity: np.ndarray, *, right: np.ndarray) -> Ranks:
    if right.shape != similarity.shape or not right.any(axis=1).all():
        raise UserError(
            f"'positives' is bool of shape {right.shape}; wanted that of the scores, {similarity.shape}, and a right "
            "candidate in each row"
        )
    best = np.where(right, similarity, -np.inf).max(axis=1, keepdims=True)  # [n,1]
    tied = similarity == best
    return Ranks(
        above=np.count_nonzero(similarity > best, axis=1),
        equal=np.count_nonzero(tied & ~right, axis=1),
        right=np.count_nonzero(tied & right, axis=1),
    )


def recall_at(ranks: Ranks, *, k: int) -> float:
    """Return R@K in percent: how often a right candidate is among the first K, in expectation over the order of ties.

    Two queries: one is right alone at the top, one shares the top with one other, so it counts half at K = 1:

    >>> recall_at(Ranks(above=np.array([0, 0]), equal=np.array([0, 1])), k=1)
    75.0

    Four queries whose four candidates all tie are at chance, 1/4:

    >>> recall_at(Ranks(above=np.zeros(4), equal=np.full(4, 3)), k=1)
    25.0

    Three right and two wrong candidates tie: the first two places hold two wrong ones in 1 of 10 orders.

    >>> round(recall_at(Ranks(above=np.zeros(1), equal=np.array([2]), right=np.array([3])), k=2), 9)
    90.0
    """
    left = k - ranks.above  # places among the first K for the tied
    hit = np.clip(left / (ranks.equal + 1), 0, 1)
    several = np.broadcast_to(ranks.right, hit.shape)
    for query in np.flatnonzero((several > 1) & (left > 0) & (left <= ranks.equal)):
        places, wrong, right = int(left[query]), int(ranks.equal[query]), int(several[query])
        hit[query] = 1 - math.comb(wrong, places) / math.comb(wrong + right, places)
    return 100 * float(hit.mean())


def summary(ranks: Ranks) -> dict[str, Any]:
    """Return the block of one direction: recalls in percent, median and mean rank, each with its two bounds.

    Keys: `R@1, R@5, R@10, MdR, MnR`, the same five under `optimistic` and under `pessimistic`, and `n` (queries).

    >>> block = summary(Ranks(above=np.array([0, 0, 4, 20]), equal=np.array([0, 1, 0, 0])))
    >>> block["R@1"], block["R@5"], block["R@10"], block["MdR"], block["MnR"], block["n"]
    (37.5, 75.0, 75.0, 3.25, 7.125, 4)
    >>> block["optimistic"]["R@1"], block["pessimistic"]["R@1"]
    (50.0, 25.0)
    """
    if not len(ranks.above):
        raise UserError("there is no query to rank: the set of captions (or of videos with captions) is empty")
    expected = {f"R@{k}": recall_at(ranks, k=k) for k in RECALL_AT} | _middle(ranks.expected)
    return {
        **expected,
        "optimistic": _without_ties(ranks.optimistic),
        "pessimistic": _without_ties(ranks.pessimistic),
        "n": len(ranks.above),
    }


def _without_ties(rank: np.ndarray) -> dict[str, float]:
    """The five figures of ranks [n] without ties."""
    return {f"R@{k}": 100 * float((rank <= k).mean()) for k in RECALL_AT} | _middle(rank)


def _middle(rank: np.ndarray) -> dict[str, float]:
    return {"MdR": float(np.median(rank)), "MnR": float(rank.mean())}


def cosine(queries: np.ndarray, *, gallery: np.ndarray) -> np.ndarray:
    """Return the scores float64 [n,m] of unit rows [n,E] with unit rows [m,E], rounded to multiples of 2^-40.

    >>> cosine(np.array([[0.6, 0.8]]), gallery=np.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])).round(6).tolist()
    [[0.6, 0.8, 1.0]]
    """
    scores = queries @ gallery.T
    scores *= _GRID
    np.rint(scores, out=scores)
    scores /= _GRID
    return scores


def paired_cosine(first: np.ndarray, *, second: np.ndarray) -> np.ndarray:
    """Return the scores float64 [n] of unit rows [n,E] with the unit rows [n,E] at the same place, rounded alike.

    >>> paired_cosine(np.array([[0.6, 0.8], [1.0, 0.0]]), second=np.array([[1.0, 0.0], [1.0, 0.0]])).round(6).tolist()
    [0.6, 1.0]
    """
    return np.rint((first * second).sum(axis=1) * _GRID) / _GRID


def distinct_rows(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the distinct rows in order of first appearance, and for each row its place among them.

    >>> rows, place = distinct_rows(np.array([[1.0, 2.0], [0.0, 3.0], [1.0, 2.0]]))
    >>> rows.tolist(), place.tolist()
    ([[1.0, 2.0], [0.0, 3.0]], [0, 1, 0])
    """
    place: dict[bytes, int] = {}
    # Adding 0.0 turns -0.0 into 0.0: the two are equal numbers with different bytes.
    copy_of = np.array([place.setdefault(row.tobytes(), len(place)) for row in rows + 0.0])
    first = np.unique(copy_of, return_index=True)[1]
    return rows[first], copy_of


def unit_rows(rows: np.ndarray, *, name: str) -> np.ndarray:
    """Return `rows` [n,E] divided by their L2 norms, float64.

    Raises:
      UserError: not a [n,E] array of numbers.
      RowError: a row is zero or not finite (the first such row is named).

    >>> unit_rows(np.array([[3.0, 4.0]]), name="video").tolist()
    [[0.6, 0.8]]
    """
    rows = np.asarray(rows)
    if rows.ndim != 2 or 0 in rows.shape or rows.dtype.kind not in "fiu":
        raise UserError(f"{name!r} is {rows.dtype} of shape {rows.shape}; wanted numbers [rows, E], neither of them 0")
    # A contiguous float64 copy: each row's norm is then summed alike wherever it stands, so equal rows stay equal.
    rows = np.ascontiguousarray(rows, dtype=np.float64)
    finite, nonzero = np.asarray(np.isfinite(rows).all(axis=1)), rows.any(axis=1)
    bad = np.flatnonzero(~(finite & nonzero))
    if len(bad):
        reason = "not finite (NaN or inf)" if not finite[bad[0]] else "all zero"
        raise RowError(
            f"row {bad[0]} of {name!r} is {reason} ({len(bad)} of {len(rows)} rows are zero or not finite); "
            "an embedding must have a direction: encode that row again or leave it out",
            array=name,
            row=int(bad[0]),
        )
    # Scaling by a power of two is exact; without it the squares of 1e-200 or 1e200 are 0 or inf.
    rows = np.ldexp(rows, -np.frexp(np.abs(rows).max(axis=1, keepdims=True))[1])
    return rows / np.sqrt((rows * rows).sum(axis=1, keepdims=True))


def check_pair(
    text: np.ndarray, *, video: np.ndarray, video_of_text: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return text and video as unit rows (float64) and `video_of_text` as int64, or raise a UserError.

    >>> text, video, index = check_pair(np.array([[2.0, 0.0]]), video=np.array([[0.0, 5.0]]), video_of_text=[0])
    >>> text.tolist(), video.tolist(), index.tolist()
    ([[1.0, 0.0]], [[0.0, 1.0]], [0])
    """
    text, video = unit_rows(text, name="text"), unit_rows(video, name="video")
    if text.shape[1] != video.shape[1]:
        raise UserError(
            f"'text' has width {text.shape[1]} and 'video' has width {video.shape[1]}; "
            "both must come from one model's joint space"
        )
    index = check_index(video_of_text, name="video_of_text", length=len(text), limit=len(video))
    return text, video, index


def check_index(index: np.ndarray, *, name: str, length: int, limit: int) -> np.ndarray:
    """Return `index` as int64 [length] with values in [0, limit), or raise a UserError that names the bad entry.

    >>> check_index([1, 0], name="video_of_text", length=2, limit=2).tolist()
    [1, 0]
    """
    index = np.asarray(index)
    if index.shape != (length,) or not np.issubdtype(index.dtype, np.integer):
        raise UserError(f"{name!r} is {index.dtype} of shape {index.shape}; wanted integers of shape ({length},)")
    bad = np.flatnonzero((index < 0) | (index >= limit))
    if len(bad):
        raise UserError(f"{name!r}[{bad[0]}] is {index[bad[0]]}; wanted an index from 0 to {limit - 1}")
    return index.astype(np.int64)
