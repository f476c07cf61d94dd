"""Frozen in Time (github.com/m-bain/frozen-in-time, commit e1f13e1): `model/metric.py`."""

import numpy as np

from ..ranks import geometric_mean
from .reading import Reading, check_input, own_captions


def frozen(scores: np.ndarray, *, video_of_text: np.ndarray, allow_nan: bool = False) -> Reading:
    """Frozen in Time: ties take the best place (text-to-video) or the mean place (video-to-text, among captions).

    Text-to-video takes the best place of a tie. Video-to-text is among captions and takes the mean place of a tie,
    the query's own captions of that score included; a NaN at the only own caption makes its rank infinite.

    Args:
      scores: float [n,m], texts by videos.
      video_of_text: int [n].
      allow_nan: read NaN as that code does: text-to-video raises there, so that it is left out here.

    Returns:
      `t2v` and `v2t`, each `R1, R5, R10, R50, MedR, MeanR, geometric_mean_R1-R5-R10`.

    >>> found = frozen(np.ones((8, 8)), video_of_text=np.arange(8)).figures
    >>> found["t2v"]["R1"], found["v2t"]["R1"], found["v2t"]["MedR"]
    (100.0, 0.0, 4.5)
    """
    scores, index = check_input(scores, video_of_text=video_of_text, allow_nan=allow_nan)
    found = {"v2t": best_caption(scores, video_of_text=index)}
    if not np.isnan(scores).any():
        own = scores[np.arange(len(scores)), index][:, None]
        found = {"t2v": cols_to_metrics(np.count_nonzero(scores > own, axis=1))} | found
    return Reading.settled(found)


def best_caption(scores: np.ndarray, *, video_of_text: np.ndarray) -> dict[str, float]:
    """Return the figures of `v2t_metrics`: the best own caption's mean place among all captions."""
    captioned, right = own_captions(video_of_text)
    by_video = scores.T[captioned]
    best = np.where(right & ~np.isnan(by_video), by_video, -np.inf).max(axis=1, keepdims=True)
    tied = np.count_nonzero(by_video == best, axis=1)
    place = np.count_nonzero(by_video > best, axis=1) + (tied - 1) / 2
    return cols_to_metrics(np.where(np.isfinite(best[:, 0]), place, np.inf))


def cols_to_metrics(place: np.ndarray) -> dict[str, float]:
    """Return the figures of `cols2metrics` from places that start at 0, float [n]; R1 counts places equal to 0."""
    hits = {"R1": place == 0, "R5": place < 5, "R10": place < 10, "R50": place < 50}
    recalls = {name: 100 * int(np.count_nonzero(hit)) / len(place) for name, hit in hits.items()}
    mean = geometric_mean([recalls[key] for key in ("R1", "R5", "R10")])
    middle = {"MedR": float(np.median(place) + 1), "MeanR": float(place.mean() + 1)}
    return recalls | middle | {"geometric_mean_R1-R5-R10": mean}
