"""The clips of the contact sheet: drawn at random, each with its middle frame and its first caption."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...pages.thumbnails import SheetClip
from .verify import read_frames


def sheet_clips(
    folder: Path, *, shards: Sequence[dict[str, Any]], rows: dict[str, list[dict[str, Any]]], count: int, seed: int
) -> list[SheetClip]:
    """Read up to `count` clips drawn at random, an equal share of each split that has as many.

    Args:
      folder: the prepared folder.
      shards: its record files, from prepare.json.
      rows: lines of clips.jsonl by split.
      count: clips on the sheet.
      seed: of their choice.
    """
    chosen = draw({split: len(members) for split, members in rows.items()}, count=count, seed=seed)
    return [
        SheetClip(jpeg=jpeg, group=split, caption=next(iter(rows[split][index]["captions"]), ""))
        for split, indices in chosen.items()
        for index, jpeg in zip(indices, read_frames(folder, shards=shards, split=split, indices=indices), strict=True)
    ]


def draw(sizes: dict[str, int], *, count: int, seed: int) -> dict[str, list[int]]:
    """Draw indices of clips by split, in order; splits share `count` as evenly as their sizes allow.

    >>> {split: len(indices) for split, indices in draw({"train": 100, "val": 2, "test": 9}, count=12, seed=0).items()}
    {'train': 5, 'val': 2, 'test': 5}
    """
    given = dict.fromkeys(sizes, 0)
    while sum(given.values()) < min(count, sum(sizes.values())):
        open_ = [split for split in sizes if given[split] < sizes[split]]
        given[min(open_, key=lambda split: given[split])] += 1
    rng = np.random.default_rng(seed)
    return {split: sorted(rng.permutation(sizes[split])[: given[split]].tolist()) for split in sizes}
