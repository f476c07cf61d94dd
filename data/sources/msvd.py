"""MSVD (the Microsoft Research Video Description Corpus): 1,970 clips of YouTube videos, some 40 captions each."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ...base.errors import UserError
from ..manifest import Clip
from .files import Folder, expect, read_ids, read_json, read_lines, read_table, whole
from .source import Annotations, Source
from .windows import cut_from

_JSON = ("captions_msvd.json", "raw-captions.json")
_CORPUS = ("MSR Video Description Corpus.csv", "video_corpus.csv")
_COUNTS = {"train": (1200, 48774), "val": (100, 4290), "test": (670, 27763)}
# The user runs this on a file that the user trusts; twinreel itself never loads a pickle.
_CONVERT = (
    "python -c \"import json; from pickle import load; c = load(open('raw-captions.pkl', 'rb')); "
    "json.dump({k: [' '.join(t) for t in v] for k, v in c.items()}, open('captions_msvd.json', 'w'))\""
)


def read_msvd(folder: Path) -> Annotations:
    """Read the split lists and one of the caption files of MSVD.

    Args:
      folder: that has the files which `--list msvd` names.

    Raises:
      UserError: files that are missing or at fault; only `raw-captions.pkl` is there (says how to convert it).
    """
    files, found = Folder(folder), Annotations()
    path, captions = _captions(files, found)
    names = _other_names(files)
    for split, (clips, texts) in _COUNTS.items():
        listed = files.require(f"{split}_list.txt")
        found.expected |= {f"{split} clips": clips, f"{split} captions": texts}
        for video in read_ids(listed):
            if video not in captions:
                raise UserError(f"{listed}: clip {video!r} has no caption in {path}; are both of one release?")
            meta = {"other_name": names[video]} if video in names else {}
            fields = {"clip_id": video, "path": video, "captions": captions[video], "split": split, "meta": meta}
            found.add(fields, where=f"{path}, key {video!r}")
    return found


def _captions(files: Folder, found: Annotations) -> tuple[Path, dict[str, list[str]]]:
    path = files.find(*_JSON)
    if path is not None:
        captions = read_json(path, kind=dict)
        for video, texts in captions.items():
            expect(texts, list, what=f"the value of {video!r}", where=str(path))
        return path, {video: [_joined(text) for text in texts] for video, texts in captions.items()}
    path = files.find(*_CORPUS)
    if path is not None:
        return path, _corpus(path, found)
    pickled = files.find("raw-captions.pkl")
    if pickled is not None:
        raise UserError(
            f"{pickled} is a pickle: loading one can run any program, so twinreel loads none. If you trust the file, "
            f"convert it yourself, in its folder:\n  {_CONVERT}"
        )
    files.lacks(*_JSON, *_CORPUS)


def _joined(text: Any) -> Any:
    """A caption given as a list of words is joined; anything else is for the check of the clip."""
    return " ".join(text) if isinstance(text, list) and all(isinstance(word, str) for word in text) else text


def _corpus(path: Path, found: Annotations) -> dict[str, list[str]]:
    """The English descriptions of the owners' CSV, by `VideoID_Start_End`."""
    captions: dict[str, list[str]] = {}
    for where, row in read_table(path, columns=["videoid", "start", "end", "language", "description"]):
        if row["language"].strip().lower() != "english":
            found.notes["descriptions in other languages left out"] += 1
            continue
        start, end = (whole(row[name], what=name, where=where) for name in ("start", "end"))
        if end <= start:
            raise UserError(f"{where}: end is {end}, wanted a time after start={start}; mend the row")
        captions.setdefault(f"{row['videoid'].strip()}_{start}_{end}", []).append(row["description"])
    return captions


def _other_names(files: Folder) -> dict[str, str]:
    """The names `vid1` … under which some keep the videos, by clip."""
    path = files.find("youtube_mapping.txt")
    names = {}
    for where, line in read_lines(path) if path else ():
        parts = line.split()
        if len(parts) != 2:
            raise UserError(f"{where}: has {len(parts)} fields, wanted two: the clip and its other name, as vid1")
        names[parts[0]] = parts[1]
    return names


def _alternatives(clip: Clip) -> Iterable[Clip]:
    if "other_name" in clip.meta:
        yield cut_from(clip, path=clip.meta["other_name"])
    video, *window = clip.clip_id.rsplit("_", 2)
    if len(window) == 2 and all(text.isdecimal() for text in window):
        yield cut_from(clip, path=video, start_s=float(window[0]), end_s=float(window[1]))


SOURCES = (
    Source(
        name="msvd",
        title="MSVD: 1,970 clips of YouTube videos, some 40 English captions each",
        layout="""\
train_list.txt, val_list.txt, test_list.txt   one clip (youtubeid_start_end) per line
captions_msvd.json                 {clip: [caption, ...]}, a caption is a string or a list of words; or
MSR Video Description Corpus.csv   the owners' file: VideoID,Start,End,...,Language,Description; English rows are used
youtube_mapping.txt                optional: `clip vid1` per line, where the videos are named so
A raw-captions.pkl is not read; prepare says how you convert it to JSON.""",
        videos="youtubeid_start_end.avi; or vid1.avi ...; or the whole youtubeid.mp4, from which the window is cut",
        published_at="https://www.cs.utexas.edu/~ml/clamp/videoDescription/",
        licence="research use; the videos belong to their uploaders",
        notes=(
            "Every caption is a query of its own: 27,763 in the test split. The owners' CSV has more rows than "
            "the lists of the papers use, so its caption counts differ from the protocol's."
        ),
        read=read_msvd,
        alternatives=_alternatives,
    ),
)
