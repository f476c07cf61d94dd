"""What the readings share: the result with its bounds, the check of the input, and places of right candidates."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ....base.errors import UserError
from ..checks import check_index, check_numbers, check_scores


@dataclass(frozen=True, kw_only=True)
class Reading:
    """The figures that another project's code prints, under its own names.

    Attributes:
      optimistic: the figures where every tie that its sorting routine decides is won.
      pessimistic: the same where every such tie is lost.

    >>> Reading(optimistic={"R1": 50.0, "R5": 75.0}, pessimistic={"R1": 25.0, "R5": 75.0}).figures
    {'R1': [25.0, 50.0], 'R5': 75.0}
    """

    optimistic: dict[str, Any]
    pessimistic: dict[str, Any]

    @property
    def exact(self) -> bool:
        """Whether the code prints these figures on every machine: no tie changes them, or the code settles ties."""
        return self.optimistic == self.pessimistic

    @property
    def figures(self) -> dict[str, Any]:
        """The figures; [pessimistic, optimistic] where they depend on the order of ties."""
        return _merge(self.optimistic, self.pessimistic)

    @classmethod
    def settled(cls, figures: dict[str, Any]) -> "Reading":
        """Return the reading of a code that settles ties by a rule of its own."""
        return cls(optimistic=figures, pessimistic=figures)

    @classmethod
    def of(cls, figures: Callable[[bool], dict[str, Any]]) -> "Reading":
        """Return the reading from a function of "ties are won"."""
        return cls(optimistic=figures(True), pessimistic=figures(False))


def _merge(high: dict[str, Any], low: dict[str, Any]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for key, value in high.items():
        other = low[key]
        merged[key] = _merge(value, other) if isinstance(value, dict) else value if value == other else [other, value]
    return merged


def check_input(scores: Any, *, video_of_text: Any, allow_nan: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Return scores float64 [texts, videos] and each text's video int64; refuse NaN unless it is allowed.

    Raises:
      UserError: arrays that do not fit together, or a score that is not finite (its row and column are named).
    """
    scores = check_numbers(scores, name="scores", dimensions=2) if allow_nan else check_scores(scores)
    return scores, check_index(video_of_text, name="video_of_text", length=len(scores), limit=scores.shape[1])


def one_to_one(scores: np.ndarray, *, video_of_text: np.ndarray) -> np.ndarray | None:
    """Return the square matrix whose diagonal holds the pairs, or None where a video has no text or several."""
    if len(set(video_of_text.tolist())) < len(scores) or len(scores) != scores.shape[1]:
        return None
    return scores[np.argsort(video_of_text)]


def need_one_to_one(scores: np.ndarray, *, video_of_text: np.ndarray, code: str) -> np.ndarray:
    """Return the square matrix whose diagonal holds the pairs, or raise a UserError."""
    square = one_to_one(scores, video_of_text=video_of_text)
    if square is None:
        raise UserError(
            f"'{code}' needs exactly one text per video; there are {len(scores)} texts, {scores.shape[1]} videos and "
            f"{len(np.unique(video_of_text))} videos with a text: choose another reading, or one caption per video"
        )
    return square


def own_captions(video_of_text: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the videos with captions int [v] and bool [v, texts], True where a text is one of the video's."""
    captioned = np.unique(video_of_text)
    return captioned, captioned[:, None] == video_of_text


def places(scores: np.ndarray, *, right: np.ndarray, won: bool) -> np.ndarray:
    """Return the place from 0 of each query's first right candidate, int64 [n], with every tie won or lost.

    >>> s, right = np.array([[0.5, 0.5, 0.1]]), np.array([[True, False, False]])
    >>> places(s, right=right, won=True).tolist(), places(s, right=right, won=False).tolist()
    ([0], [1])
    """
    best = np.where(right, scores, -np.inf).max(axis=1, keepdims=True)
    ahead = scores > best if won else scores >= best
    return np.count_nonzero(ahead & ~right, axis=1)


def ranked_relevance(scores: np.ndarray, *, right: np.ndarray, first: np.ndarray, k: int) -> np.ndarray:
    """Return bool [n,k], whether a right candidate stands at each of the first k places; k is cut to the candidates.

    Args:
      scores: float [n,m].
      right: bool [n,m].
      first: [n,m] or [m]; of equal scores the candidate with the larger value stands first.
      k: the number of places.

    >>> ranked_relevance(np.array([[1.0, 2.0]]), right=np.array([[True, False]]), first=np.zeros(2), k=2).tolist()
    [[False, True]]
    """
    order = np.lexsort((-np.broadcast_to(first, scores.shape).astype(np.float64), -scores), axis=1)[:, :k]
    return np.take_along_axis(right, order, axis=1)
