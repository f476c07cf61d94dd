"""collaborative-experts (github.com/albanie/collaborative-experts, commit 7eb3b9d): `model/metric.py`."""

import numpy as np

from .frozen import best_caption, cols_to_metrics
from .reading import Reading, check_input


def collaborative_experts(scores: np.ndarray, *, video_of_text: np.ndarray, allow_nan: bool = False) -> Reading:
    """collaborative-experts: a tie takes its mean place, then the thresholds; video-to-text is among captions.

    A two-way tie at the top has place 0.5 and counts 0 at K = 1; this is not the expectation. Video-to-text is among
    captions. Arguments and results as in `frozen`.

    >>> found = collaborative_experts(np.ones((8, 8)), video_of_text=np.arange(8)).figures["t2v"]
    >>> found["R1"], found["R5"]  # in expectation 12.5 and 62.5
    (0.0, 100.0)
    """
    scores, index = check_input(scores, video_of_text=video_of_text, allow_nan=allow_nan)
    found = {"v2t": best_caption(scores, video_of_text=index)}
    if not np.isnan(scores).any():
        own = scores[np.arange(len(scores)), index][:, None]
        tied = np.count_nonzero(scores == own, axis=1)
        found = {"t2v": cols_to_metrics(np.count_nonzero(scores > own, axis=1) + (tied - 1) / 2)} | found
    return Reading.settled(found)
