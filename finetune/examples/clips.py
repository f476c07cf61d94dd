"""Which clips take part in a task, what their classes are, and which are held out, by source file."""

import dataclasses
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Self

import numpy as np

from ...base.errors import UserError, unknown
from ...data.holdout import held_out

Row = dict[str, Any]
"""A line of `clips.jsonl`."""
DROPPED = {
    *("text", "text_mask", "caption_index", "audio", "audio_mask", "audio_lengths"),
    *("foil", "foil_mask", "foil_valid"),
}
"""Keys of batches that tasks on labels have no use for."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelledClips:
    """The clips of a split that take part, with their classes.

    Attributes:
      split: its name.
      labels: names of the classes.
      label: int32, one per record of the split: index of the class; -1 = the clip does not take part.
    """

    split: str
    labels: tuple[str, ...]
    label: np.ndarray

    @property
    def indices(self) -> np.ndarray:
        """Indices int64 [m] of the records that take part, ascending."""
        return np.flatnonzero(self.label >= 0)

    def __len__(self) -> int:
        return int((self.label >= 0).sum())

    def only(self, taken: np.ndarray) -> Self:
        """Return the clips of these records, bool [n]."""
        return dataclasses.replace(self, label=np.where(taken, self.label, -1).astype(np.int32))

    def attach(self, batches: Iterator[dict[str, np.ndarray]]) -> Iterator[dict[str, np.ndarray]]:
        """Yield batches without caption and sound, with `label int32 [b]`.

        Rows of clips that do not take part are not valid; their label is -1.
        """
        for batch in batches:
            label = np.where(batch["valid"], self.label[batch["clip_index"]], -1).astype(np.int32)
            kept = {key: value for key, value in batch.items() if key not in DROPPED}
            yield {**kept, "label": label, "valid": label >= 0}


def first_label(row: Row) -> str | None:
    """Return the class of a clip: its first label, None if it has none."""
    return row["labels"][0] if row["labels"] else None


def label_set(
    rows: Sequence[Row], *, labels: Sequence[str] = (), min_count: int = 1, known: Sequence[str] = ()
) -> tuple[str, ...]:
    """Choose the classes.

    Args:
      rows: lines of `clips.jsonl` of the train split.
      labels: the classes, in this order; () for all that occur often enough, sorted.
      min_count: how many clips a class needs when `labels` is ().
      known: classes that come first in any case, with or without clips.

    Raises:
      UserError: a label that no clip has (the nearest is named), one given twice, or fewer than two classes.
    """
    counts = Counter(label for row in rows if (label := first_label(row)) is not None)
    for label in labels:
        if label not in counts:
            raise unknown("label in config.task.labels:", label, counts)
    if len(set(labels)) != len(labels):
        raise UserError(f"config.task.labels names a label twice: {', '.join(labels)}; name each once")
    chosen = tuple(labels) or tuple(sorted(label for label, count in counts.items() if count >= min_count))
    chosen = (*known, *(label for label in chosen if label not in known))
    if len(chosen) < 2:
        shown = ", ".join(f"{label} ({count})" for label, count in counts.most_common(20)) or "none"
        raise UserError(
            f"a classifier needs two classes or more, got {len(chosen)} with at least {min_count} clips; set "
            f"config.task.labels or config.task.min_count (labels of the train split and their clips: {shown})"
        )
    return chosen


def labelled_clips(rows: Sequence[Row], *, split: str, labels: Sequence[str]) -> LabelledClips:
    """Return the clips of a split whose first label is one of `labels`."""
    index = {label: i for i, label in enumerate(labels)}
    found = [index.get(label, -1) if (label := first_label(row)) is not None else -1 for row in rows]
    return LabelledClips(split=split, labels=tuple(labels), label=np.array(found, np.int32))


def hold_out(whole: LabelledClips, *, rows: Sequence[Row], share: float) -> tuple[LabelledClips, LabelledClips]:
    """Divide a split into a part to train on and a part to validate on.

    Clips of one source file stay on one side, see `data.holdout.held_out`.

    Args:
      whole: the clips that take part.
      rows: lines of `clips.jsonl` of that split.
      share: how much to hold out, 0..1.

    Returns:
      The part to train on and the held-out part, which is empty if no class has clips of two separate files.
    """
    own = whole.indices
    classes = np.arange(len(whole.labels))
    targets = whole.label[own][:, None] == classes[None]
    out = np.zeros(len(whole.label), bool)
    out[own] = held_out([rows[i] for i in own.tolist()], targets=targets, share=share)
    return (
        whole.only(~out),
        whole.only(out),
    )


def shared_files(
    clips: LabelledClips, *, rows: Sequence[Row], trained: LabelledClips, train_rows: Sequence[Row]
) -> int:
    """Return how many of the clips come from files of which others are trained on."""
    known = {file for i in trained.indices.tolist() if (file := train_rows[i].get("file"))}
    return sum(rows[i].get("file") in known for i in clips.indices.tolist())
