"""InternVideo2 (github.com/OpenGVLab/InternVideo, commit 3965eef): `tasks_clip` and `tasks`, `retrieval_utils.py`."""

from typing import Any

import numpy as np

from ..rerank import times_softmax
from .reading import Reading, check_input, own_captions, places


def internvideo2_clip(scores: np.ndarray, *, video_of_text: np.ndarray, allow_nan: bool = False) -> Reading:
    """InternVideo2's `tasks_clip`: `txt_*` is video-to-text among captions; the dual softmax is at scale 1.

    `img_*` is text-to-video. Ties are decided by NumPy's default argsort, whose order depends on the machine
    (bounds here). `dsl` re-weights by a softmax of the cosines at scale 1, which is almost flat. Two decimals.

    Args:
      scores: float [n,m], cosines of texts by videos.
      video_of_text: int [n].
      allow_nan: read NaN as that code does (a NaN sorts first); otherwise NaN is an error.

    Returns:
      `raw` and `dsl`, each `txt_r1, txt_r5, txt_r10, txt_r_mean`, the same with `img`, and `r_mean`.

    >>> found = internvideo2_clip(np.array([[0.2, 0.9], [0.1, 0.8]]), video_of_text=np.array([0, 1])).figures["raw"]
    >>> found["txt_r1"], found["img_r1"]
    (50.0, 50.0)
    """
    return _read(scores, video_of_text=video_of_text, allow_nan=allow_nan, names=("txt", "img"))


def internvideo2(scores: np.ndarray, *, video_of_text: np.ndarray, allow_nan: bool = False) -> Reading:
    """InternVideo2's `tasks`: as `internvideo2_clip`, named `v2t_*` and `t2v_*`.

    >>> internvideo2(np.array([[0.2, 0.9], [0.1, 0.8]]), video_of_text=np.array([0, 1])).figures["raw"]["t2v_r1"]
    50.0
    """
    return _read(scores, video_of_text=video_of_text, allow_nan=allow_nan, names=("v2t", "t2v"))


def _read(scores: np.ndarray, *, video_of_text: np.ndarray, allow_nan: bool, names: tuple[str, str]) -> Reading:
    scores, index = check_input(scores, video_of_text=video_of_text, allow_nan=allow_nan)
    captioned, own = own_captions(index)
    of_texts, of_videos = scores, scores.T[captioned]
    matrices = {
        "raw": (of_videos, of_texts),
        "dsl": (times_softmax(of_videos, scale=1.0), times_softmax(of_texts, scale=1.0)),
    }
    right = (own, index[:, None] == np.arange(scores.shape[1]))

    def figures(won: bool) -> dict[str, Any]:
        found = {}
        for kind, pair in matrices.items():
            block: dict[str, float] = {}
            for name, matrix, positives in zip(names, pair, right, strict=True):
                place = places(np.where(np.isnan(matrix), np.inf, matrix), right=positives, won=won)
                recalls = {f"{name}_r{k}": 100 * int(np.count_nonzero(place < k)) / len(place) for k in (1, 5, 10)}
                block |= recalls | {f"{name}_r_mean": sum(recalls.values()) / 3}
            block["r_mean"] = (block[f"{names[0]}_r_mean"] + block[f"{names[1]}_r_mean"]) / 2
            found[kind] = {key: round(value, 2) for key, value in block.items()}
        return found

    return Reading.of(figures)
