"""HowTo100M: narrated videos; around each piece of recognised speech a clip, with the nearest pieces as candidates."""

import bisect
import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...base.errors import UserError
from .files import Folder, expect, member, read_ids, read_json, seconds
from .source import Annotations, Option, Source
from .windows import mended

_FILES = ("raw_caption.json", "caption.json")


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Speech:
    start_s: float
    end_s: float
    text: str


def read_howto100m(folder: Path, *, candidates: int = 5, min_seconds: float = 5.0) -> Annotations:
    """Read recognised speech in the form of HowTo100M: a clip around each piece of it.

    Args:
      folder: that has the files which `--list howto100m` names.
      candidates: captions of a clip: its own piece of speech first, then its neighbours in order of nearness in time.
        Sets of several candidates are what MIL-NCE (Miech et al., 2020) chooses from.
      min_seconds: a shorter clip is widened to this length around its middle, in seconds.

    Raises:
      UserError: files that are missing or at fault.
    """
    if candidates < 1 or min_seconds <= 0:
        raise UserError(f"--candidates is {candidates}, --min_seconds {min_seconds:g}; wanted 1 or more, and above 0")
    files, found = Folder(folder), Annotations()
    path = files.require(*_FILES)
    videos = read_json(path, kind=dict)
    listed = files.find("video_ids.txt")
    chosen = read_ids(listed) if listed else list(videos)
    for video in chosen:
        where = f"{path}, key {video!r}"
        if video not in videos:
            found.notes[f"videos of {listed.name if listed else path.name} without speech in {path.name}"] += 1
            continue
        speech = _speech(videos[video], found, where=where)
        starts = [piece.start_s for piece in speech]
        reach = list(itertools.accumulate((piece.end_s for piece in speech), max))
        for index, piece in enumerate(speech):
            start, end = _window(piece, min_seconds=min_seconds)
            # What is said within the window lies between these two: both lists are in order of time.
            near = speech[bisect.bisect_right(reach, start) : bisect.bisect_left(starts, end)]
            order = nearest_in_time(speech, index=index, count=candidates)
            fields = {
                "clip_id": f"{video}#{index}",
                "path": video,
                "captions": [speech[other].text for other in order],
                "split": "train",
                "start_s": start,
                "end_s": end,
                "sentences": [dataclasses.asdict(other) for other in near if other.end_s > start],
                "meta": {"video": video},
            }
            found.add(fields, where=where)
    return found


def _speech(record: Any, found: Annotations, *, where: str) -> list[_Speech]:
    """The pieces of speech of a video, in order of time; those without length or text are left out and counted."""
    record = expect(record, dict, what="the video", where=where)
    starts, ends, texts = (member(record, key, list, where=where) for key in ("start", "end", "text"))
    if not len(starts) == len(ends) == len(texts):
        raise UserError(
            f"{where}: has {len(starts)} start, {len(ends)} end and {len(texts)} text entries; wanted one each"
        )
    made = []
    for start, end, text in zip(starts, ends, texts, strict=True):
        start_s, end_s = (seconds(time, what="a time", where=where) for time in (start, end))
        window = mended(start_s, end_s, duration_s=None, found=found)
        text = str(text) if isinstance(text, float) else text  # some exports spell an empty text as NaN
        if not expect(text, str, what="a text", where=where).strip() or text == "nan":
            found.notes["pieces of speech without text left out"] += 1
        elif window is not None:
            made.append(_Speech(start_s=window[0], end_s=window[1], text=text))
    return sorted(made, key=lambda piece: piece.start_s)


def _window(piece: _Speech, *, min_seconds: float) -> tuple[float, float]:
    """The clip around a piece of speech: its own time, widened around its middle if that is too short."""
    if piece.end_s - piece.start_s >= min_seconds:
        return piece.start_s, piece.end_s
    start = max(0.0, (piece.start_s + piece.end_s - min_seconds) / 2)
    return round(start, 3), round(start + min_seconds, 3)


def nearest_in_time(speech: Sequence[Any], *, index: int, count: int) -> list[int]:
    """Return a piece of speech and its neighbours in order of nearness.

    As in the loader of MIL-NCE, the group grows on the side where its whole span in time stays the shorter; at the
    first or last piece it grows on the other side.

    Args:
      speech: pieces with `start_s` and `end_s`, in order of time.
      index: the piece to begin with.
      count: how many to return; fewer where the video has fewer.

    Returns:
      Positions in `speech`, the nearest first.
    """
    first = last = index
    order = [index]
    while len(order) < min(count, len(speech)):
        back = speech[last].end_s - speech[first - 1].start_s if first > 0 else None
        ahead = speech[last + 1].end_s - speech[first].start_s if last + 1 < len(speech) else None
        if ahead is None or (back is not None and back < ahead):
            first -= 1
            order.append(first)
        else:
            last += 1
            order.append(last)
    return order


SOURCES = (
    Source(
        name="howto100m",
        title="HowTo100M: narrated how-to videos, or any videos with recognised speech in that form",
        layout="""\
raw_caption.json   {video_id: {start: [...], end: [...], text: [...]}} in seconds; or caption.json (stop words removed)
video_ids.txt      optional: the videos to use, one id per line""",
        videos="video_id.mp4; the clips are cut from the whole videos",
        published_at="https://www.di.ens.fr/willow/research/howto100m/",
        licence="research use; the videos belong to their uploaders",
        notes=(
            "A clip per piece of speech, at least --min_seconds long. Its captions are candidates, the nearest in time "
            "first, for the MIL-NCE loss; `sentences` holds what is said within the clip. All clips are of split "
            "train. The whole file is held in memory: cut it into parts with video_ids.txt."
        ),
        options=(
            Option(name="candidates", default=5, help="captions of a clip: its own speech and the nearest around it"),
            Option(name="min_seconds", default=5.0, help="shortest clip; shorter speech is widened around its middle"),
        ),
        read=read_howto100m,
    ),
)
