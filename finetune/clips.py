"""Which clips take part in a task, what their classes are, and which are held out, by source file."""

import dataclasses
import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ..base.errors import UserError, unknown

Row = dict[str, Any]
"""A line of `clips.jsonl`."""
_DROPPED = {"text", "text_mask", "caption_index", "audio", "audio_mask", "audio_lengths"}
_DROPPED |= {"foil", "foil_mask", "foil_valid"}


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

    def attach(self, batches: Iterator[dict[str, np.ndarray]]) -> Iterator[dict[str, np.ndarray]]:
        """Yield batches without caption and sound, with `label int32 [b]`.

        Rows of clips that do not take part are not valid; their label is -1.
        """
        for batch in batches:
            label = np.where(batch["valid"], self.label[batch["clip_index"]], -1).astype(np.int32)
            kept = {key: value for key, value in batch.items() if key not in _DROPPED}
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


def labelled_clips(rows: Sequence[Row], *, split: str, labels: Sequence[str]) -> LabelledClips:
    """Return the clips of a split whose first label is one of `labels`."""
    index = {label: i for i, label in enumerate(labels)}
    found = [index.get(label, -1) if (label := first_label(row)) is not None else -1 for row in rows]
    return LabelledClips(split=split, labels=tuple(labels), label=np.array(found, np.int32))


def source_file(row: Row) -> str:
    """Return the media file from which a clip was cut, or the clip's id if it has none (precomputed features).

    Raises:
      UserError: the data set was prepared by a version that did not record it.
    """
    if "file" not in row:
        raise UserError(
            "this data set does not record the source file of each clip, which a hold-out needs: prepare it again, or "
            "give it a validation split (config.data.eval_split)"
        )
    return row["file"] or row["clip_id"]


def hold_out(whole: LabelledClips, *, rows: Sequence[Row], share: float) -> tuple[LabelledClips, LabelledClips]:
    """Divide a split into a part to train on and a part to validate on.

    Clips of one source file stay on one side, and so do clips of one group. Of each class about `share` of the clips
    are held out: at least one where its clips come from several files, and never all. Which ones is a function of the
    files' names alone.

    Args:
      whole: the clips that take part.
      rows: lines of `clips.jsonl` of that split.
      share: how much to hold out, 0..1.

    Returns:
      The part to train on and the held-out part, which is empty if no class has clips of two separate files.
    """
    units = _units(whole, rows=rows)
    classes = len(whole.labels)
    counts = np.array([np.bincount(whole.label[unit], minlength=classes) for unit in units]).reshape(-1, classes)
    total = counts.sum(axis=0)
    wanted = np.where((counts > 0).sum(axis=0) > 1, np.maximum(share * total, 1.0), 0.0)
    weight = 1.0 / np.maximum(total, 1)
    held, chosen = np.zeros(classes, np.int64), np.zeros(len(units), bool)

    def take(unit: int) -> None:
        held[:] += counts[unit]
        chosen[unit] = True

    def leaves_some(unit: int) -> bool:
        return bool(np.all((held + counts[unit] < total) | (counts[unit] == 0)))

    for unit in range(len(units)):
        before, after = np.abs(held - wanted), np.abs(held + counts[unit] - wanted)
        if (after * weight).sum() < (before * weight).sum() and leaves_some(unit):
            take(unit)
    for label in np.argsort(total, kind="stable").tolist():  # rare classes first: they have the least choice
        members = [u for u in np.flatnonzero(counts[:, label]).tolist() if wanted[label] and leaves_some(u)]
        if members and not held[label]:
            take(min(members, key=lambda u: int(counts[u].sum())))
    out = np.zeros(len(whole.label), bool)
    for unit in np.flatnonzero(chosen):
        out[units[unit]] = True
    return (
        dataclasses.replace(whole, label=np.where(out, -1, whole.label).astype(np.int32)),
        dataclasses.replace(whole, label=np.where(out, whole.label, -1).astype(np.int32)),
    )


def shared_files(
    clips: LabelledClips, *, rows: Sequence[Row], trained: LabelledClips, train_rows: Sequence[Row]
) -> int:
    """Return how many of the clips come from files of which others are trained on."""
    known = {file for i in trained.indices.tolist() if (file := train_rows[i].get("file"))}
    return sum(rows[i].get("file") in known for i in clips.indices.tolist())


def _units(whole: LabelledClips, *, rows: Sequence[Row]) -> list[np.ndarray]:
    """Return the records that stay together, as arrays of indices, in a random order that their names determine."""
    parent: dict[tuple[str, str], tuple[str, str]] = {}

    def root(name: tuple[str, str]) -> tuple[str, str]:
        while parent.setdefault(name, name) != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    files: dict[int, tuple[str, str]] = {}
    for i in whole.indices.tolist():
        row = rows[i]
        files[i] = ("file", source_file(row))
        if row.get("group"):
            parent[root(files[i])] = root(("group", row["group"]))
    members: dict[tuple[str, str], list[int]] = defaultdict(list)
    for i, name in files.items():
        members[root(name)].append(i)
    named = sorted((_digest(min(files[i][1] for i in unit)), unit) for unit in members.values())
    return [np.array(unit) for _, unit in named]


def _digest(name: str) -> bytes:
    return hashlib.sha256(name.encode(errors="surrogateescape")).digest()
