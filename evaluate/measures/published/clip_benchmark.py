"""CLIP_benchmark (github.com/LAION-AI/CLIP_benchmark, commit 48de38c): `metrics/zeroshot_retrieval.py`."""

import numpy as np

from .reading import Reading, check_input, places

K = (1, 5, 10)


def clip_benchmark(scores: np.ndarray, *, video_of_text: np.ndarray) -> Reading:
    """CLIP_benchmark: fractions, a hit where one right candidate is in torch.topk; among captions.

    `text_retrieval_*` is among captions. Ties are bounded. torch.topk raises where K is larger than the number of
    candidates; that K is left out here.

    Args:
      scores: float [n,m], texts by videos.
      video_of_text: int [n].

    Returns:
      `image_retrieval_recall@K` (text to video) and `text_retrieval_recall@K` (video to text).

    >>> clip_benchmark(np.eye(2), video_of_text=np.arange(2)).figures
    {'image_retrieval_recall@1': 1.0, 'text_retrieval_recall@1': 1.0}
    """
    scores, index = check_input(scores, video_of_text=video_of_text)
    right = index[:, None] == np.arange(scores.shape[1])
    return recalls(scores, v2t=scores.T, right=right, name="image")


def recalls(t2v: np.ndarray, *, v2t: np.ndarray, right: np.ndarray, name: str) -> Reading:
    """Return hits among the first K of both directions; `right` is bool [texts, videos].

    A video without captions has no hit in that code: it stays in the denominator.
    """

    def figures(won: bool) -> dict[str, float]:
        found = {}
        places_of = {name: places(t2v, right=right, won=won), "text": places(v2t, right=right.T, won=won)}
        places_of["text"] = np.where(right.any(axis=0), places_of["text"], max(t2v.shape))
        for k in K:
            for key, matrix in ((name, t2v), ("text", v2t)):
                if k <= matrix.shape[1]:
                    found[f"{key}_retrieval_recall@{k}"] = float((places_of[key] < k).mean())
        return found

    return Reading.of(figures)
