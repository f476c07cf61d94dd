"""Retrieval between any two sides of a model: text and sound, video and sound, text and video with sound."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ...base.errors import UserError
from ...zoo.pairs import sides_of
from ..embedding.embeddings import Embeddings
from ..measures.ranks import summary
from ..measures.rows import RowError, unit_rows
from .retrieval import DIRECTIONS, INTERVALS, recall_intervals, retrieval_ranks

BLOCK = "pairs"


def pair_rows(embeddings: Embeddings, *, intervals: bool = True) -> dict[str, Any]:
    """Measure retrieval between the sides of each pair, in both directions.

    Args:
      embeddings: with the `sides` of the pairs.
      intervals: add bootstrap intervals of the recalls.

    Returns:
      `protocol` (`clips`, `texts`, `left_out`: clips without sound, the rule and what does not apply) and `rows`: pair
      -> two directions such as `audio_to_text`, as in `ranks.summary`, and `intervals` of their recalls.

    Raises:
      UserError: a side is missing, or one of its rows is zero or not finite; the clip is named.
    """
    about = embeddings.further[BLOCK]
    pairs = {pair: sides_of(pair, field="the file") for pair in about["pairs"]}
    sides = {side for both in pairs.values() for side in both}
    kept = np.ones(len(embeddings.video), bool)
    if any("audio" in side.split("+") for side in sides):
        if embeddings.has_sound is None:
            raise UserError("no array 'has_sound', which pairs with sound need; embed the split again")
        kept = embeddings.has_sound
    of_kept = kept[embeddings.video_of_text]
    arrays = {side: _side(embeddings, side, kept=of_kept if _has_text(side) else kept) for side in sides}
    index = (np.cumsum(kept) - 1)[embeddings.video_of_text[of_kept]]
    given: dict[str, Any] = {"arrays": arrays, "video_of_text": index, "intervals": intervals}
    rows = {pair: _measure(both, **given) for pair, both in pairs.items()}
    counts = {"clips": int(kept.sum()), "texts": int(of_kept.sum()), "left_out": int((~kept).sum())}
    return {"protocol": counts | {key: value for key, value in about.items() if key != "pairs"}, "rows": rows}


def _has_text(side: str) -> bool:
    return "text" in side.split("+")


def _side(embeddings: Embeddings, side: str, *, kept: np.ndarray) -> np.ndarray:
    """Return the unit rows of a side that are kept, float64."""
    of_clips = embeddings.protocol.get("clip_side") or "video"
    found = {**embeddings.sides, "text": embeddings.text, of_clips: embeddings.video}.get(side)
    if found is None:
        raise UserError(f"no array 'side_{side}', which a pair needs; embed the split again")
    if not kept.any():
        raise UserError(f"no row of {side!r} is left: none of the clips with sound has a text")
    try:
        return unit_rows(found[kept], name=f"side_{side}")
    except RowError as error:
        row = int(np.flatnonzero(kept)[error.row])
        clip = int(embeddings.video_of_text[row]) if _has_text(side) else row
        name = f"clip {embeddings.rows[clip]['clip_id']!r}" if embeddings.rows else f"clip {clip}"
        raise UserError(f"{name}: {error}") from error


def _measure(
    sides: tuple[str, str], *, arrays: Mapping[str, np.ndarray], video_of_text: np.ndarray, intervals: bool
) -> dict[str, Any]:
    """Return both directions of a pair; the side with text has a row per caption, others have one per clip."""
    queries, clips = sides[::-1] if _has_text(sides[1]) else sides
    index = video_of_text if _has_text(queries) else np.arange(len(arrays[queries]))
    ranks = retrieval_ranks(text=arrays[queries], video=arrays[clips], video_of_text=index)
    names = (f"{queries}_to_{clips}", f"{clips}_to_{queries}")
    block: dict[str, Any] = {name: summary(found) for name, found in zip(names, ranks, strict=True)}
    drawn = recall_intervals(ranks, video_of_text=index) if intervals else {}
    if drawn:
        block[INTERVALS] = {name: drawn[direction] for name, direction in zip(names, DIRECTIONS, strict=True)}
    return block
