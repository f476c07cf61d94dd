"""MMEB-V2 (github.com/TIGER-AI-Lab/VLM2Vec, commit 6e1e1d4)."""

from typing import Any

import numpy as np

from .gains import K, gains
from .reading import Reading, check_input, own_captions, ranked_relevance


def mmeb_v2(scores: np.ndarray, *, video_of_text: np.ndarray) -> Reading:
    """MMEB-V2: recall divides by all right captions, hit is what papers call recall; among captions.

    `hit@k` is what papers call recall; its `recall@k` divides by all right captions, and `map@k` by min(k, captions).
    Video-to-text is among captions; ties are decided by NumPy's default argsort (bounds here).

    Args:
      scores: float [n,m], texts by videos.
      video_of_text: int [n].

    Returns:
      `t2v` and `v2t`, each `hit, ndcg_linear, precision, recall, map, mrr` at 1, 5 and 10, fractions.

    >>> found = mmeb_v2(np.array([[0.9, 0.1], [0.2, 0.1], [0.3, 0.8]]), video_of_text=np.array([0, 0, 1])).figures
    >>> found["v2t"]["hit@1"], found["v2t"]["recall@1"]
    (1.0, 0.75)
    """
    scores, index = check_input(scores, video_of_text=video_of_text)
    captioned, own = own_captions(index)
    directions = {
        "t2v": (scores, index[:, None] == np.arange(scores.shape[1])),
        "v2t": (scores.T[captioned], own),
    }

    def figures(won: bool) -> dict[str, Any]:
        found = {}
        for name, (matrix, right) in directions.items():
            hits = ranked_relevance(matrix, right=right, first=right if won else ~right, k=max(K))
            found[name] = {}
            for k in K:
                at = gains(hits, total=right.sum(axis=1), k=k)
                at |= {"ndcg_linear": at["ndcg"], "map": at["map_cut"]}
                keys = ("hit", "ndcg_linear", "precision", "recall", "map", "mrr")
                found[name] |= {f"{key}@{k}": at[key] for key in keys}
        return found

    return Reading.of(figures)
