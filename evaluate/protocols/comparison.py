"""Two models on the same clips: differences of recalls with intervals and a paired test."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ...base.errors import UserError
from ..embedding.embeddings import Embeddings
from ..measures.intervals import paired_test
from ..measures.ranks import RECALL_AT, Ranks, hits
from .directions import DIRECTIONS, all_ranks

COMPARED = "compared"


def compare(
    embeddings: Embeddings,
    *,
    other: Embeddings,
    ranks: Mapping[str, Ranks] | None = None,
    name: str = "the other file",
) -> dict[str, Any]:
    """Compare the recalls of two models query by query; clips are drawn, so captions of one stay together.

    Args:
      embeddings: of one model.
      other: of another model, for the same captions and clips in the same order.
      ranks: `directions.all_ranks` of `embeddings`; None: they are counted here.
      name: what to call `other` in messages.

    Returns:
      `text_to_video` and `video_to_text`, each `R@K` -> `difference` in percentage points (`embeddings` less `other`),
      `low` and `high` of its 95 % bootstrap interval, and `p` of a permutation test.

    Raises:
      UserError: they were not measured on the same captions and clips, or there are fewer than two clips.
    """
    check_same(embeddings, other, name=name)
    index = np.asarray(embeddings.video_of_text)
    own = ranks or all_ranks(text=embeddings.text, video=embeddings.video, video_of_text=index)
    others = all_ranks(text=other.text, video=other.video, video_of_text=index)
    return recall_differences(own, others=others, video_of_text=index)


def recall_differences(
    own: Mapping[str, Ranks], *, others: Mapping[str, Ranks], video_of_text: np.ndarray
) -> dict[str, Any]:
    """Compare the recalls of the same queries, measured twice.

    Args:
      own: `directions.all_ranks(...)` of one measurement.
      others: of the other.
      video_of_text: int [n], each caption's video.

    Returns:
      As `compare`.

    Raises:
      UserError: fewer than two clips.
    """
    made: dict[str, Any] = {}
    for direction, clusters in zip(DIRECTIONS, (video_of_text, None), strict=True):
        mine, theirs = own[direction], others[direction]
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
