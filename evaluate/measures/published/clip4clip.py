"""CLIP4Clip (github.com/ArrowLuo/CLIP4Clip, commit 508ffa3): `metrics.py` and the end of `eval_epoch`."""

from typing import Any

import numpy as np

from ..ranks import among_videos
from .reading import Reading, check_input, one_to_one, places


def clip4clip(scores: np.ndarray, *, video_of_text: np.ndarray, allow_nan: bool = False) -> Reading:
    """CLIP4Clip: every place of a tie is an entry of its own; video-to-text is among videos.

    One text per video: every place at which an equal score stands becomes an entry of its own, so that a query tied m
    ways counts m times (`entries`) and a query whose own score is NaN does not count at all. Several texts per video:
    text-to-video ties are decided by torch's argsort (bounds here) and the median is the lower of the two middle ranks;
    video-to-text is among videos.

    Args:
      scores: float [n,m], texts by videos.
      video_of_text: int [n].
      allow_nan: read NaN as that code does; otherwise NaN is an error.

    Returns:
      `t2v` and `v2t`, each `R1, R5, R10, MedianR, MeanR` and `entries` or, with several texts, `Std_Rank`.

    All eight pairs tie; each query counts eight times:

    >>> clip4clip(np.ones((8, 8)), video_of_text=np.arange(8)).figures["t2v"]
    {'R1': 12.5, 'R5': 62.5, 'R10': 100.0, 'MedianR': 4.5, 'MeanR': 4.5, 'entries': 64}
    """
    scores, index = check_input(scores, video_of_text=video_of_text, allow_nan=allow_nan)
    square = one_to_one(scores, video_of_text=index)
    if square is not None:
        return Reading.settled({"t2v": every_tied_place(square), "v2t": every_tied_place(square.T)})
    scores, index = check_input(scores, video_of_text=video_of_text)
    return several_texts(scores, video_of_text=index, v2t_scores=scores)


def several_texts(scores: np.ndarray, *, video_of_text: np.ndarray, v2t_scores: np.ndarray) -> Reading:
    """Read text-to-video from `scores` and video-to-text, among videos, from `v2t_scores`, both texts by videos."""
    found = among_videos(v2t_scores, video_of_text=video_of_text)
    v2t = _figures(_all_places(above=found.above, tied=found.equal + 1))
    right = video_of_text[:, None] == np.arange(scores.shape[1])

    def figures(won: bool) -> dict[str, Any]:
        place = places(scores, right=right, won=won)
        median = float(np.sort(place)[(len(place) - 1) // 2] + 1)
        t2v = _recalls(place) | {"MedianR": median, "MeanR": float(place.mean() + 1), "Std_Rank": float(place.std())}
        return {"t2v": t2v, "v2t": v2t}

    return Reading.of(figures)


def every_tied_place(square: np.ndarray) -> dict[str, float]:
    """Return the figures of `compute_metrics`; the pairs are on the diagonal of `square` [n,n]."""
    own = np.diag(square)[:, None]
    above = np.count_nonzero(square > own, axis=1)
    tied = np.count_nonzero(square == own, axis=1)  # 0 where the own score is NaN
    return _figures(_all_places(above=above, tied=tied))


def _all_places(*, above: np.ndarray, tied: np.ndarray) -> np.ndarray:
    within = np.arange(tied.sum()) - np.repeat(np.cumsum(tied) - tied, tied)
    return np.repeat(above, tied) + within


def _figures(place: np.ndarray) -> dict[str, float]:
    middle = {"MedianR": float(np.median(place) + 1), "MeanR": float(place.mean() + 1)}
    return _recalls(place) | middle | {"entries": len(place)}


def _recalls(place: np.ndarray) -> dict[str, float]:
    return {f"R{k}": 100 * int(np.count_nonzero(place < k)) / len(place) for k in (1, 5, 10)}
