"""Ranks of the right candidates, and the figures of retrieval. Ties are resolved in expectation, not by sorting.

A query has `g` wrong candidates strictly above its best right one; at the score of that one stand `e` wrong candidates
and `p` right ones. Over a uniformly random order of these tied candidates, the first right one is at rank
`1 + g + e / (p + 1)` in expectation. With one right candidate (p = 1) recall at K is `clip((K - g) / (e + 1), 0, 1)`.
Optimistic values assume that every tie is won, pessimistic ones that every tie is lost.

All figures need only these counts, so a scorer that works in blocks can fill `Ranks` itself. Figures that look at all
right candidates of a query (mAP, nDCG) are in `relevance`.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...base.errors import UserError
from .checks import check_index, check_scores

RECALL_AT = (1, 5, 10)  # the recalls that tables show
RECALLS = (*RECALL_AT, 50)  # the recalls that `summary` returns
TIE_RULE = (
    "expectation over a uniformly random order of the tied: with g others strictly above and e others equal, "
    "R@K counts clip((K - g) / (e + 1), 0, 1) and the rank is 1 + g + e/2; optimistic: every tie is won, "
    "pessimistic: every tie is lost"
)


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


def ranks(
    similarity: np.ndarray,
    *,
    positives: np.ndarray,
    queries: Sequence[str] | None = None,
    candidates: Sequence[str] | None = None,
) -> Ranks:
    """Rank the best right candidate of each query.

    Args:
      similarity: float [n,m], the score of query i with candidate j.
      positives: int [n], the right candidate of each query, in [0, m); or bool [n,m], True where candidate j is right
        for query i, at least one in each row.
      queries: the id of each query, for messages; None: its row.
      candidates: the id of each candidate, for messages; None: its column.

    Raises:
      UserError: a score that is not finite (its row and column are named), a positive out of range, or a query
        without any.

    The second query ties with two others; the third has one above and one equal:

    >>> s = np.array([[0.9, 0.1, 0.2], [0.5, 0.5, 0.5], [0.7, 0.3, 0.3]])
    >>> r = ranks(s, positives=np.array([0, 1, 2]))
    >>> r.above.tolist(), r.equal.tolist(), r.expected.tolist()
    ([0, 0, 1], [0, 2, 1], [1.0, 2.0, 2.5])
    """
    similarity = check_scores(similarity, name="similarity", rows=queries, columns=candidates)
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


def among_videos(scores: np.ndarray, *, video_of_text: np.ndarray) -> Ranks:
    """Rank each captioned video among the captioned videos: a video's score with another is its best caption's.

    This is video-to-text retrieval as CLIP4Clip and InternVideo1 report it. `among_captions` is the other reading; the
    two differ as soon as a video has several captions.

    Args:
      scores: float [n,m], texts by videos.
      video_of_text: int [n], the video of each text, in [0, m).

    Returns:
      Ranks of the videos that have captions, in the order of their index.

    Video 0 prefers its second caption; video 1 scores higher with a caption of video 0 than with its own:

    >>> s = np.array([[0.1, 0.7], [0.9, 0.2], [0.3, 0.6]])
    >>> among_videos(s, video_of_text=np.array([0, 0, 1])).expected.tolist()
    [1.0, 2.0]
    """
    scores = check_scores(scores)
    index = check_index(video_of_text, name="video_of_text", length=len(scores), limit=scores.shape[1])
    by_video = np.argsort(index, kind="stable")
    captioned, starts = np.unique(index[by_video], return_index=True)
    best = np.maximum.reduceat(scores[by_video], starts, axis=0)  # [captioned, videos]
    return ranks(best[:, captioned].T, positives=np.arange(len(captioned)))


def among_captions(scores: np.ndarray, *, video_of_text: np.ndarray) -> Ranks:
    """Rank each captioned video's best own caption among the captions of other videos.

    This is video-to-text retrieval as Frozen in Time, collaborative-experts, InternVideo2, PE, CLIP_benchmark and MTEB
    report it. The query's other captions are taken out, so they neither help nor stand in the way.

    Args:
      scores: float [n,m], texts by videos.
      video_of_text: int [n], the video of each text, in [0, m).

    Returns:
      Ranks of the videos that have captions, in the order of their index.

    Both captions of video 0 score higher with video 1 than its own caption does:

    >>> s = np.array([[0.1, 0.8], [0.9, 0.7], [0.3, 0.6]])
    >>> among_captions(s, video_of_text=np.array([0, 0, 1])).expected.tolist()
    [1.0, 3.0]
    """
    scores = check_scores(scores)
    index = check_index(video_of_text, name="video_of_text", length=len(scores), limit=scores.shape[1])
    captioned = np.unique(index)
    own = index == captioned[:, None]  # [captioned, texts]
    found = _several_right(scores.T[captioned], right=own)
    return Ranks(above=found.above, equal=found.equal)


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
    return 100 * float(hits(ranks, k=k).mean())


def hits(ranks: Ranks, *, k: int) -> np.ndarray:
    """Return the chance of each query that a right candidate is among the first K, float64 [n] in [0, 1].

    >>> hits(Ranks(above=np.array([0, 0]), equal=np.array([0, 1])), k=1).tolist()
    [1.0, 0.5]
    """
    left = k - ranks.above  # places among the first K for the tied
    hit = np.clip(left / (ranks.equal + 1), 0, 1)
    several = np.broadcast_to(ranks.right, hit.shape)
    for query in np.flatnonzero((several > 1) & (left > 0) & (left <= ranks.equal)):
        places, wrong, right = int(left[query]), int(ranks.equal[query]), int(several[query])
        hit[query] = 1 - math.comb(wrong, places) / math.comb(wrong + right, places)
    return hit


def summary(ranks: Ranks, *, at: Sequence[int] = RECALLS) -> dict[str, Any]:
    """Return the block of one direction: recalls in percent, median and mean rank, each with its two bounds.

    Args:
      ranks: of the queries, at least one.
      at: each K of the recalls.

    Returns:
      `R@K` for each K of `at`, `MdR`, `MnR`, `geometric_mean` (of R@1, R@5 and R@10); the same under `optimistic` and
      under `pessimistic`; `tied_queries`, and `n`, the number of queries.

    >>> block = summary(Ranks(above=np.array([0, 0, 4, 20]), equal=np.array([0, 1, 0, 0])))
    >>> block["R@1"], block["R@5"], block["R@10"], block["R@50"], block["MdR"], block["MnR"], block["n"]
    (37.5, 75.0, 75.0, 100.0, 3.25, 7.125, 4)
    >>> block["optimistic"]["R@1"], block["pessimistic"]["R@1"], block["tied_queries"]
    (50.0, 25.0, 1)
    """
    if not len(ranks.above):
        raise UserError("there is no query to rank: the set of captions (or of videos with captions) is empty")
    return {
        **_figures(lambda k: recall_at(ranks, k=k), rank=ranks.expected, at=at),
        "optimistic": _without_ties(ranks.optimistic, at=at),
        "pessimistic": _without_ties(ranks.pessimistic, at=at),
        "tied_queries": int(np.count_nonzero(ranks.equal)),
        "n": len(ranks.above),
    }


def geometric_mean(values: Sequence[float]) -> float:
    """Return the geometric mean of figures that are not negative; 0 where one of them is 0.

    >>> geometric_mean([20.0, 50.0, 64.0])
    40.0
    >>> geometric_mean([0.0, 50.0])
    0.0
    """
    return round(math.prod(values) ** (1 / len(values)), 12)


def _without_ties(rank: np.ndarray, *, at: Sequence[int]) -> dict[str, float]:
    """The figures of ranks [n] without ties."""
    return _figures(lambda k: 100 * int(np.count_nonzero(rank <= k)) / len(rank), rank=rank, at=at)


def _figures(recall: Callable[[int], float], *, rank: np.ndarray, at: Sequence[int]) -> dict[str, float]:
    return {
        **{f"R@{k}": recall(k) for k in at},
        "MdR": float(np.median(rank)),
        "MnR": float(rank.mean()),
        "geometric_mean": geometric_mean([recall(k) for k in (1, 5, 10)]),
    }
