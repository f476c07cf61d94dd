"""Which classes a classifier knows, and which clips of a split it is trained or measured on."""

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ..base.errors import UserError, unknown

Row = dict[str, Any]
"""A line of `clips.jsonl`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Subset:
    """The clips of a split that take part.

    Attributes:
      split: its name.
      label: int32, one per record of the split: index of the class, -1 = the clip takes no part.
    """

    split: str
    label: np.ndarray

    @property
    def indices(self) -> np.ndarray:
        """The record indices that take part, in record order."""
        return np.flatnonzero(self.label >= 0)

    def __len__(self) -> int:
        return int((self.label >= 0).sum())

    def attach(self, batches: Iterator[dict[str, np.ndarray]]) -> Iterator[dict[str, np.ndarray]]:
        """Give each batch its `label int32 [b]`; rows that take no part become invalid; texts are dropped."""
        for batch in batches:
            label = np.where(batch["valid"], self.label[batch["clip_index"]], -1).astype(np.int32)
            kept = {key: value for key, value in batch.items() if key in ("video", "clip_index")}
            yield {**kept, "label": label, "valid": label >= 0}


def first_label(row: Row) -> str | None:
    """Return the class of a clip: its first label, None if it has none."""
    return row["labels"][0] if row["labels"] else None


def label_set(rows: Sequence[Row], *, labels: Sequence[str] = (), min_count: int = 1) -> tuple[str, ...]:
    """Choose the classes.

    Args:
      rows: lines of `clips.jsonl` of the train split.
      labels: the classes, in this order; () for all that occur often enough, sorted.
      min_count: how many clips a class needs when `labels` is ().

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
    if len(chosen) < 2:
        shown = ", ".join(f"{label} ({count})" for label, count in counts.most_common(20)) or "none"
        raise UserError(
            f"a classifier needs two classes or more, got {len(chosen)} with at least {min_count} clips; set "
            f"config.task.labels or config.task.min_count (labels of the train split and their clips: {shown})"
        )
    return chosen


def subset(rows: Sequence[Row], *, split: str, labels: Sequence[str]) -> Subset:
    """Return the clips of a split whose first label is one of `labels`."""
    index = {label: i for i, label in enumerate(labels)}
    found = [index.get(label, -1) if (label := first_label(row)) is not None else -1 for row in rows]
    return Subset(split=split, label=np.array(found, np.int32))


def hold_out(whole: Subset, *, rows: Sequence[Row], share: float) -> tuple[Subset, Subset]:
    """Divide a split into a part to train on and a part to validate on.

    A clip's side depends on its own id alone (or its group's: clips of one group stay together), so adding clips
    moves no other clip. A class that would have no held-out clip gives the one whose hash is lowest, if it has two.

    Args:
      whole: the clips that take part.
      rows: lines of `clips.jsonl` of that split.
      share: how much to hold out, 0..1.

    Returns:
      The part to train on and the held-out part.
    """
    place = np.array([_hash01(row.get("group") or row["clip_id"]) for row in rows])
    held = (place < share) & (whole.label >= 0)
    for label in set(whole.label[whole.label >= 0].tolist()):
        members = np.flatnonzero(whole.label == label)
        if len(members) >= 2 and not held[members].any():
            held[members[place[members].argmin()]] = True
        elif len(members) >= 2 and held[members].all():
            held[members[place[members].argmax()]] = False
    return (
        Subset(split=whole.split, label=np.where(held, -1, whole.label).astype(np.int32)),
        Subset(split=whole.split, label=np.where(held, whole.label, -1).astype(np.int32)),
    )


def _hash01(name: str) -> float:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64
