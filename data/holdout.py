"""Holding clips out of a split by their source files, so that no file is on both sides."""

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..base.errors import UserError


def source_file(row: Mapping[str, Any]) -> str:
    """Return the media file from which a clip was cut, or the clip's id if it has none (precomputed features).

    Args:
      row: a line of `clips.jsonl`.

    Raises:
      UserError: the data set was prepared by a version that did not record it.
    """
    if "file" not in row:
        raise UserError(
            "this data set does not record the source file of each clip, which a hold-out needs: prepare it again, or "
            "give it a validation split (config.data.eval_split)"
        )
    return row["file"] or row["clip_id"]


def held_out(rows: Sequence[Mapping[str, Any]], *, targets: np.ndarray, share: float) -> np.ndarray:
    """Choose the clips of a split to hold out.

    Clips of one source file stay on one side, and so do clips of one group. Of each class about `share` of the clips
    are held out: at least one where its clips come from several files, and never all. Which ones is a function of the
    files' names alone.

    Args:
      rows: lines of `clips.jsonl`, m clips.
      targets: bool [m,c], the classes of each.
      share: how much to hold out, 0..1.

    Returns:
      bool [m], True = held out; none is if no class has clips of two separate files.

    >>> rows = [{"file": name, "clip_id": name} for name in "aabbcc"]
    >>> found = held_out(rows, targets=np.ones((6, 1), bool), share=0.3)
    >>> int(found.sum()), found[0] == found[1]
    (2, np.True_)
    """
    units = _units(rows)
    targets = np.asarray(targets, bool)
    counts = np.array([targets[unit].sum(axis=0) for unit in units]).reshape(-1, targets.shape[1])
    total = counts.sum(axis=0)
    wanted = np.where((counts > 0).sum(axis=0) > 1, np.maximum(share * total, 1.0), 0.0)
    weight = 1.0 / np.maximum(total, 1)
    held, chosen = np.zeros(targets.shape[1], np.int64), np.zeros(len(units), bool)

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
    out = np.zeros(len(rows), bool)
    for unit in np.flatnonzero(chosen):
        out[units[unit]] = True
    return out


def _units(rows: Sequence[Mapping[str, Any]]) -> list[np.ndarray]:
    """Return the clips that stay together, as arrays of indices, in a random order that their names determine."""
    parent: dict[tuple[str, str], tuple[str, str]] = {}

    def root(name: tuple[str, str]) -> tuple[str, str]:
        while parent.setdefault(name, name) != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    files: dict[int, tuple[str, str]] = {}
    for i, row in enumerate(rows):
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
