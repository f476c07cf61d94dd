"""Thumbnails of clips for the report of a task."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..data.batches.records import Records


def write_thumbnails(folder: Path, *, records: "Records", split: str, clips: Mapping[str, int]) -> dict[str, str]:
    """Write one animated thumbnail per clip; those of an earlier report are removed.

    Args:
      folder: made if absent; lies next to the page.
      records: the data set.
      split: of the clips.
      clips: clip_id -> record.

    Returns:
      clip_id -> path of the picture, relative to the page.
    """
    from ..evaluate.reports.pictures import clip_frames
    from ..pages.thumbnails import write_webp

    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.webp"):
        old.unlink()
    made = {}
    for number, (clip_id, index) in enumerate(clips.items()):
        jpegs, times = clip_frames(records, split=split, index=index)
        write_webp(folder / f"{number:02d}.webp", jpegs=jpegs, timestamps_s=times)
        made[clip_id] = f"{folder.name}/{number:02d}.webp"
    return made


def write_strips(
    folder: Path, *, records: "Records", split: str, clips: Mapping[str, int], count: int = 8
) -> dict[str, str]:
    """Write `count` frames of each clip side by side, evenly spread; those of an earlier report are removed.

    Args:
      folder: made if absent; lies next to the page.
      records: the data set.
      split: of the clips.
      clips: clip_id -> record; clips without frames are left out.
      count: frames of a strip.

    Returns:
      clip_id -> path of the picture, relative to the page.
    """
    from ..evaluate.reports.pictures import clip_frames
    from ..pages.thumbnails import write_strip

    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.webp"):
        old.unlink()
    made = {}
    for number, (clip_id, index) in enumerate(clips.items()):
        jpegs, _ = clip_frames(records, split=split, index=index)
        if jpegs:
            write_strip(folder / f"{number:02d}.webp", jpegs=jpegs, count=count, side=80)
            made[clip_id] = f"{folder.name}/{number:02d}.webp"
    return made
