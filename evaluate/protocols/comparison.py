"""Two models on the same clips: differences of recalls with intervals and a paired test."""

from typing import Any

import numpy as np

from ...base.errors import UserError
from ..embed import Embeddings
from ..measures.intervals import paired_test
from ..measures.ranks import RECALL_AT, hits
from .retrieval import DIRECTIONS, retrieval_ranks

COMPARED = "compared"


def compare(embeddings: Embeddings, *, other: Embeddings, name: str = "the other file") -> dict[str, Any]:
    """Compare the recalls of two models query by query; clips are drawn, so captions of one stay together.

    Args:
      embeddings: of one model.
      other: of another model, for the same captions and clips in the same order.
      name: what to call `other` in messages.

    Returns:
      `text_to_video` and `video_to_text`, each `R@K` -> `difference` in percentage points (`embeddings` less `other`),
      `low` and `high` of its 95 % bootstrap interval, and `p` of a permutation test.

    Raises:
      UserError: they were not measured on the same captions and clips, or there are fewer than two clips.
    """
    check_same(embeddings, other, name=name)
    index = np.asarray(embeddings.video_of_text)
    own, others = (retrieval_ranks(text=one.text, video=one.video, video_of_text=index) for one in (embeddings, other))
    made: dict[str, Any] = {}
    for direction, mine, theirs, clusters in zip(DIRECTIONS, own, others, (index, None), strict=True):
        made[direction] = {
            f"R@{k}": paired_test(100 * hits(mine, k=k), second=100 * hits(theirs, k=k), clusters=clusters)
            for k in RECALL_AT
        }
    return made


def check_same(one: Embeddings, other: Embeddings, *, name: str) -> None:
    """Raise UserError unless both are of the same captions and clips, as far as that is known; `name` is `other`'s."""
    if not np.array_equal(one.video_of_text, other.video_of_text) or len(one.video) != len(other.video):
        raise UserError(
            f"{name} has {len(other.text)} texts and {len(other.video)} videos, the model {len(one.text)} and "
            f"{len(one.video)}, or in another order; compare models on the same split with the same captions"
        )
    ids = [[row["clip_id"] for row in embeddings.rows] for embeddings in (one, other)]
    for what, (mine, theirs) in {"clip": ids, "text": (one.captions, other.captions)}.items():
        if mine and theirs:
            different = [place for place, (a, b) in enumerate(zip(mine, theirs, strict=True)) if a != b]
            if different:
                place = different[0]
                raise UserError(
                    f"{what} {place} of {name} is {theirs[place]!r}, that of the model {mine[place]!r}; compare models "
                    "on the same split with the same captions"
                )
