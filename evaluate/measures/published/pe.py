"""Perception Encoder (github.com/facebookresearch/perception_models, commit 3e352cc): `zeroshot_retrieval.py`."""

from collections.abc import Sequence

import numpy as np

from ..checks import check_same_length
from ..rerank import times_softmax
from .clip_benchmark import recalls
from .reading import Reading, check_input


def pe(
    scores: np.ndarray,
    *,
    video_of_text: np.ndarray,
    texts: Sequence[str] | None = None,
    reweight_scale: float | None = 1.0,
) -> Reading:
    """Perception Encoder: equal captions share their videos, and a dual softmax of scale 1 is the default.

    Texts with equal words share their videos: each of these videos is right for each of them. By default its command
    line re-weights the scores by a dual softmax of scale 1. Video-to-text is among captions; ties are bounded.

    PE leaves the mean of a video's unit frames unnormalised, so that a video of unlike frames is shortened; to
    reconcile text-to-video figures, compute the scores from frame embeddings in that way.

    Args:
      scores: float [n,m], texts by videos.
      video_of_text: int [n].
      texts: the captions [n]; None: no two are equal.
      reweight_scale: of the dual softmax; None: raw scores.

    Returns:
      `video_retrieval_recall@K` (text to video) and `text_retrieval_recall@K` (video to text), fractions.

    Two videos have one caption, and either of them is right for it:

    >>> scores = np.array([[0.1, 0.9], [0.1, 0.9]])
    >>> found = pe(scores, video_of_text=np.arange(2), texts=["a dog", "a dog"], reweight_scale=None)
    >>> found.figures["video_retrieval_recall@1"]
    1.0
    """
    scores, index = check_input(scores, video_of_text=video_of_text)
    right = index[:, None] == np.arange(scores.shape[1])
    if texts is not None:
        check_same_length(scores=scores, texts=texts)
        numbers = np.unique(np.asarray(texts, dtype=str), return_inverse=True)[1]
        videos_of = np.zeros((numbers.max() + 1, scores.shape[1]), dtype=bool)
        videos_of[numbers, index] = True
        right = videos_of[numbers]
    t2v, v2t = scores, scores.T
    if reweight_scale is not None:
        t2v, v2t = (times_softmax(matrix, scale=reweight_scale) for matrix in (t2v, v2t))
    return recalls(t2v, v2t=v2t, right=right, name="video")
