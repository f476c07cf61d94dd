"""open_clip (github.com/mlfoundations/open_clip, commit 89fb801): the retrieval metrics of its training."""

import numpy as np

from ....base.errors import unknown
from .reading import Reading, check_input, need_one_to_one, places

VERSIONS = ("now", "until_2026")


def open_clip(
    scores: np.ndarray, *, video_of_text: np.ndarray, version: str = "now", allow_nan: bool = False
) -> Reading:
    """open_clip: one text per video; the lower index wins a tie; the median rank is rounded down.

    Args:
      scores: float [n,n], texts by videos.
      video_of_text: int [n], each video once.
      version: "now", the chunked code, where the lower index of a tie stands first; "until_2026", the argsort before
        it, where ties are bounded.
      allow_nan: read NaN as that code does; otherwise NaN is an error.

    Returns:
      `image_to_text_*` (video to text) and `text_to_image_*`: `mean_rank, median_rank, R@1, R@5, R@10`, fractions.

    >>> found = open_clip(np.ones((8, 8)), video_of_text=np.arange(8)).figures
    >>> found["image_to_text_median_rank"], found["image_to_text_R@1"]
    (4.0, 0.125)
    """
    if version not in VERSIONS:
        raise unknown("version", version, VERSIONS)
    scores, index = check_input(scores, video_of_text=video_of_text, allow_nan=allow_nan)
    square = need_one_to_one(scores, video_of_text=index, code="open_clip")
    directions = {"image_to_text": square.T, "text_to_image": square}
    if version == "now":
        return Reading.settled(_figures({name: _lower_first(matrix) for name, matrix in directions.items()}))
    own = np.eye(len(square), dtype=bool)
    first = {name: np.where(np.isnan(matrix), np.inf, matrix) for name, matrix in directions.items()}
    return Reading.of(
        lambda won: _figures({name: places(matrix, right=own, won=won) for name, matrix in first.items()})
    )


def _lower_first(square: np.ndarray) -> np.ndarray:
    own = np.diag(square)[:, None]
    return np.count_nonzero((square > own) | np.tril(square == own, -1), axis=1)


def _figures(places_of: dict[str, np.ndarray]) -> dict[str, float]:
    found = {}
    for name, place in places_of.items():
        found[f"{name}_mean_rank"] = float(place.mean() + 1)
        found[f"{name}_median_rank"] = float(np.floor(np.median(place)) + 1)
        found |= {f"{name}_R@{k}": float((place < k).mean()) for k in (1, 5, 10)}
    return found
