"""Thumbnails and contact sheets of clips: WebP files from the JPEG frames of the records."""

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from ..data.batches.records import Records

LONGEST_S = 6.0
_MAX_FRAMES = 24
_LAST_FRAME_MS = 700


def clip_frames(records: "Records", *, split: str, index: int) -> tuple[list[bytes], np.ndarray]:
    """Return the JPEG bytes of a record's frames and their times, float32 [frames], seconds from the clip's start."""
    from ..data.batches.records import Record

    record = Record(records.read(split, [index])[0])
    times = record.timestamps_s
    return record.frames(range(len(times))), times


def write_webp(path: Path, *, jpegs: list[bytes], timestamps_s: np.ndarray, side: int = 192) -> None:
    """Write frames as an animated WebP that loops.

    Frames stand for as long as their timestamps say, the last one a little longer; a clip of more than `LONGEST_S`
    seconds is played faster, in that time.

    Args:
      path: the file.
      jpegs: n encoded frames; at most 24 of them, evenly spread, are kept.
      timestamps_s: float [n], seconds, increasing.
      side: longer side of the picture in pixels; smaller frames are not enlarged.
    """
    kept = np.unique(np.linspace(0, len(jpegs) - 1, min(len(jpegs), _MAX_FRAMES)).round().astype(int))
    pictures = [_shrunk(jpegs[i], side=side) for i in kept]
    times = np.asarray(timestamps_s, dtype=np.float64)[kept]
    faster = min(1.0, LONGEST_S / max(times[-1] - times[0], 1e-3))
    durations = [max(20, round(1000 * faster * step)) for step in np.diff(times)] + [_LAST_FRAME_MS]
    # Method 2 of 6: a third of the time of the default for files a few percent larger.
    first, *rest = pictures
    if not rest:
        first.save(path, "WEBP", quality=75)
        return
    first.save(path, "WEBP", save_all=True, append_images=rest, duration=durations, loop=0, quality=70, method=2)


def write_sheet(path: Path, *, jpegs: list[bytes], count: int = 5, side: int = 112) -> None:
    """Write `count` frames, evenly spread from the first to the last, side by side as one WebP picture.

    Args:
      path: the file.
      jpegs: n encoded frames of one size, in order; a clip of fewer than `count` repeats some.
      count: how many frames.
      side: longer side of each in pixels; smaller frames are not enlarged.
    """
    gap = max(1, side // 28)
    pictures = [_shrunk(jpegs[i], side=side) for i in np.linspace(0, len(jpegs) - 1, count).round().astype(int)]
    width, height = pictures[0].size
    sheet = Image.new("RGBA", (count * (width + gap) - gap, height))
    for place, picture in enumerate(pictures):
        sheet.paste(picture, (place * (width + gap), 0))
    sheet.save(path, "WEBP", quality=75)


def _shrunk(jpeg: bytes, *, side: int) -> Image.Image:
    with Image.open(io.BytesIO(jpeg)) as picture:
        picture.draft("RGB", (side, side))  # libjpeg decodes at a half, a quarter or an eighth where that suffices
        picture = picture.convert("RGB")
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    return picture
