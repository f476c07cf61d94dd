"""InternVideo1 (github.com/OpenGVLab/InternVideo, commit 3965eef): `Video-Text-Retrieval/inference.py`."""

import numpy as np

from ..rerank import times_softmax
from .clip4clip import every_tied_place, several_texts
from .reading import Reading, check_input, one_to_one


def internvideo1(scores: np.ndarray, *, video_of_text: np.ndarray, logit_scale: float = 100.0) -> Reading:
    """InternVideo1: dual softmax of scaled scores, then the metrics of CLIP4Clip.

    With several texts per video its video-to-text figures come from the matrix re-weighted for text-to-video (the
    softmax is over texts); with one text per video they do not.

    Args:
      scores: float [n,m], cosines of texts by videos.
      video_of_text: int [n].
      logit_scale: the model's temperature; that code multiplies the cosines by it before the softmax.

    Returns:
      `t2v` and `v2t` as in `clip4clip`.

    >>> internvideo1(np.eye(3), video_of_text=np.arange(3), logit_scale=1.0).figures["v2t"]["R1"]
    100.0
    """
    scores, index = check_input(scores, video_of_text=video_of_text)
    scaled = logit_scale * scores
    for_text = times_softmax(scaled, scale=1.0)
    square = one_to_one(scaled, video_of_text=index)
    if square is None:
        return several_texts(for_text, video_of_text=index, v2t_scores=for_text)
    for_videos = times_softmax(square.T, scale=1.0)
    return Reading.settled(
        {"t2v": every_tied_place(times_softmax(square, scale=1.0)), "v2t": every_tied_place(for_videos)}
    )
