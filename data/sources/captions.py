"""The captions of the clips of a source before they are stored: what is not a text is dropped and counted."""

import collections
import dataclasses
from collections.abc import Iterable

from ..manifest import REFUSED, Clip
from ..text.clean import is_visible
from .notes import Notes


@dataclasses.dataclass(frozen=True, kw_only=True)
class CaptionCounts:
    """What was done to the captions.

    Attributes:
      empty_dropped: captions without a visible character.
      from_labels: clips whose caption was made from their label.
    """

    empty_dropped: int
    from_labels: int


def clean_captions(clips: Iterable[Clip], *, notes: Notes | None = None) -> tuple[list[Clip], CaptionCounts]:
    """Drop captions that are blank or invisible; give a clip that has labels but no caption its first label as caption.

    Args:
      clips: as their source gives them.
      notes: where captions of invisible characters are counted, with the ids of their clips.

    Returns:
      The clips and the counts. A clip without caption and label keeps none. Captions that stay are unchanged.
    """
    cleaned = []
    counts: collections.Counter[str] = collections.Counter()
    for clip in clips:
        captions = tuple(caption for caption in clip.captions if is_visible(caption))
        counts["dropped"] += len(clip.captions) - len(captions)
        invisible = [caption for caption in clip.captions if caption.strip() and not is_visible(caption)]
        if invisible and notes is not None:
            notes.add("captions of invisible characters dropped", name=clip.clip_id, count=len(invisible))
        label = next(filter(is_visible, clip.labels), "")
        meta = clip.meta
        if not captions and label:
            captions = (label_caption(label),)
            counts["labels"] += 1
        elif not captions and invisible and REFUSED not in meta:
            meta = {**meta, REFUSED: f"no caption: {invisible[0][:20]!a} has no visible character"}
        same = captions == clip.captions and meta is clip.meta  # of most clips: a copy of each would take memory
        cleaned.append(clip if same else dataclasses.replace(clip, captions=captions, meta=meta))
    return cleaned, CaptionCounts(empty_dropped=counts["dropped"], from_labels=counts["labels"])


def label_caption(label: str) -> str:
    """Return the caption that a label makes where a clip has no other: the label with blanks for underscores."""
    return label.replace("_", " ")
