"""DiDeMo: Flickr videos whose descriptions of 5 s segments are joined into one paragraph for retrieval."""

from collections.abc import Iterable
from pathlib import Path

from ...base.errors import UserError
from ..manifest import Clip
from .files import Folder, expect, member, read_ids, read_json
from .kinds import VIDEO_SUFFIXES
from .source import Annotations, Source
from .windows import cut_from

_COUNTS = {"train": 8395, "val": 1065, "test": 1004}
_LONGEST_S = 30.0  # what was shown to the annotators


def read_didemo(folder: Path) -> Annotations:
    """Read DiDeMo for paragraph-to-video retrieval: the descriptions of a video joined with a blank, in file order.

    Args:
      folder: that has the files which `--list didemo` names.

    Raises:
      UserError: files that are missing or at fault; an id of the test list without a description.
    """
    files, found = Folder(folder), Annotations()
    for split, count in _COUNTS.items():
        path = files.find(f"{split}_data.json")
        if path is None:
            if split == "test":
                files.lacks("test_data.json")
            found.notes[f"split {split} left out, because --annotations has no {split}_data.json"] += 1
            continue
        found.expected[f"{split} clips"] = count
        _read_split(files, path, found, split=split)
    return found


def _read_split(files: Folder, path: Path, found: Annotations, *, split: str) -> None:
    descriptions: dict[str, list[str]] = {}
    for index, record in enumerate(read_json(path, kind=list)):
        where = f"{path}, entry {index}"
        record = expect(record, dict, what="the entry", where=where)
        text = member(record, "description", str, where=where)
        descriptions.setdefault(member(record, "video", str, where=where), []).append(text)
    listed = files.require("test_list.txt") if split == "test" else files.find(f"{split}_list.txt")
    ids = read_ids(listed) if listed else list(descriptions)
    if left := len(descriptions.keys() - set(ids)):
        found.notes[f"videos of {path.name} that {listed.name if listed else 'no list'} does not name, left out"] += (
            left
        )
    for video in ids:
        if video not in descriptions:
            raise UserError(f"{listed}: video {video!r} has no description in {path}; are both of one release?")
        text = " ".join(descriptions[video])
        fields = {"clip_id": video, "path": video, "captions": [text], "split": split, "end_s": _LONGEST_S}
        found.add(fields, where=f"{path}, video {video!r}")


def _alternatives(clip: Clip) -> Iterable[Clip]:
    """`USER_ID_SECRET.mov` may lie there as `.mp4`, and with its old suffix before the new one."""
    stem, dot, suffix = clip.clip_id.rpartition(".")
    if dot and (not suffix or f".{suffix.lower()}" in VIDEO_SUFFIXES):
        yield cut_from(clip, path=stem)


SOURCES = (
    Source(
        name="didemo",
        title="DiDeMo: 10,464 Flickr videos, the first 30 s, descriptions joined to a paragraph",
        layout="""\
train_data.json, val_data.json, test_data.json   [{video, description, times, num_segments, annotation_id}, ...]
test_list.txt                                    the 1,004 test videos that papers use, one per line
train_list.txt, val_list.txt                     optional, likewise
Without the train or val file that split is left out.""",
        videos="as in `video` (10015567@N08_3655084291_d8b58466fa.mov), with any suffix",
        published_at="https://github.com/LisaAnne/LocalizingMoments",
        licence="see the owners' repository; the videos are Flickr users', Creative Commons",
        notes=(
            "The test file has 1,037 videos; the 1,004 of the list of Collaborative Experts are used, as papers do. "
            "All descriptions of a video are joined with a blank in file order; clips end at 30 s."
        ),
        read=read_didemo,
        alternatives=_alternatives,
    ),
)
