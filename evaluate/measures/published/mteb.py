"""mteb (github.com/embeddings-benchmark/mteb, version 2.26): the retrieval scores, by trec_eval."""

from collections.abc import Sequence

import numpy as np

from ..checks import check_same_length
from .gains import K, gains
from .reading import Reading, check_input, own_captions, ranked_relevance

_NAMES = {"NDCG": "ndcg", "MAP": "map_all", "Recall": "recall", "P": "precision", "MRR": "mrr", "HitRate": "hit"}


def mteb(
    scores: np.ndarray,
    *,
    video_of_text: np.ndarray,
    text_ids: Sequence[str] | None = None,
    video_ids: Sequence[str] | None = None,
) -> Reading:
    """mteb: Recall divides by all right captions, HitRate is what papers call recall; ids, as text, settle ties.

    `MAP@k` divides by all right captions, too. Video-to-text is among captions. Of equal scores the id that is larger
    as text stands first ("9" before "10"). All figures but `MRR` are rounded to five decimals.

    Args:
      scores: float [n,m], texts by videos.
      video_of_text: int [n].
      text_ids: the id of each text, which decides ties of video-to-text; None: its index.
      video_ids: the id of each video, which decides ties of text-to-video; None: its index.

    Returns:
      `t2v` and `v2t`, each `NDCG, MAP, Recall, P, MRR, HitRate` at 1, 5 and 10, fractions.

    >>> mteb(np.ones((11, 11)), video_of_text=np.arange(11)).figures["t2v"]["MRR@1"]  # video "9" is first for all
    0.09090909090909091
    """
    scores, index = check_input(scores, video_of_text=video_of_text)
    n, m = scores.shape
    text_ids = [str(i) for i in range(n)] if text_ids is None else text_ids
    video_ids = [str(i) for i in range(m)] if video_ids is None else video_ids
    check_same_length(scores=scores, text_ids=text_ids)
    check_same_length(columns_of_scores=range(m), video_ids=video_ids)
    captioned, own = own_captions(index)
    found = {}
    for name, matrix, right, ids in (
        ("t2v", scores, index[:, None] == np.arange(m), video_ids),
        ("v2t", scores.T[captioned], own, text_ids),
    ):
        first = np.unique(np.asarray(ids, dtype=str), return_inverse=True)[1]
        hits = ranked_relevance(matrix, right=right, first=first, k=max(K))
        found[name] = {}
        for k in K:
            at = gains(hits, total=right.sum(axis=1), k=k)
            figures = {f"{theirs}@{k}": at[ours] for theirs, ours in _NAMES.items()}
            found[name] |= {key: value if key.startswith("MRR") else round(value, 5) for key, value in figures.items()}
    return Reading.settled(found)
