"""The frames of clips in prepared records, and the pictures of clips that reports show."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...pages.thumbnails import write_strip, write_webp

if TYPE_CHECKING:
    from ...data.batches.records import Records


def clip_frames(records: "Records", *, split: str, index: int) -> tuple[Sequence[bytes], np.ndarray]:
    """Return a record's frames as JPEG files and their times, float32 [frames], seconds from the clip's start.

    Of records with frames in H.264, each file is made when it is taken out.
    """
    from ...data.batches.records import Record
    from ...data.transforms.h264 import as_jpegs

    record = Record(records.read(split, [index])[0])
    times = record.timestamps_s
    row = records.rows(split)[index]
    frames = record.frames(range(len(times)))
    return as_jpegs(frames, height=row["height"], width=row["width"]), times


def write_thumbnails(folder: Path, *, records: "Records", split: str, clips: Mapping[str, int]) -> dict[str, str]:
    """Write one animated thumbnail per clip; those of an earlier report are removed.

    Args:
      folder: made if absent; lies next to the page.
      records: the data set.
      split: of the clips.
      clips: clip_id -> record; clips without frames are left out.

    Returns:
      clip_id -> path of the picture, relative to the page.
    """

    def write(path: Path, jpegs: Sequence[bytes], times: np.ndarray) -> bool:
        if jpegs:
            write_webp(path, jpegs=jpegs, timestamps_s=times)
        return bool(jpegs)

    return _write(folder, records=records, split=split, clips=clips, write=write)


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

    def write(path: Path, jpegs: Sequence[bytes], times: np.ndarray) -> bool:
        del times
        if jpegs:
            write_strip(path, jpegs=jpegs, count=count, side=80)
        return bool(jpegs)

    return _write(folder, records=records, split=split, clips=clips, write=write)


def evenly_spread(order: np.ndarray, *, record: np.ndarray, count: int) -> list[int]:
    """Return `count` examples to show, evenly spread over an order of all, of a clip one at most.

    Args:
      order: int [n], examples from the worst to the best.
      record: int [n], the clip of each example.
      count: how many are wanted.
    """
    order = order[np.sort(np.unique(record[order], return_index=True)[1])]
    return order[np.linspace(0, len(order) - 1, min(count, len(order))).round().astype(int)].tolist()


def _write(
    folder: Path,
    *,
    records: "Records",
    split: str,
    clips: Mapping[str, int],
    write: Callable[[Path, Sequence[bytes], np.ndarray], bool],
) -> dict[str, str]:
    """Write one picture per clip, by a function that tells whether there is one."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.webp"):
        old.unlink()
    made = {}
    for number, (clip_id, index) in enumerate(clips.items()):
        if write(folder / f"{number:02d}.webp", *clip_frames(records, split=split, index=index)):
            made[clip_id] = f"{folder.name}/{number:02d}.webp"
    return made
