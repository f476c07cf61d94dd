"""YouCook2: steps of cooking videos, each a window with a sentence."""

import collections
from pathlib import Path

from .files import Folder, number, read_table
from .source import Annotations, Source

_FILES = {"train": "train_youcook.csv", "val": "validation_youcook.csv"}


def read_youcook2(folder: Path) -> Annotations:
    """Read YouCook2 in the form in which MIL-NCE published it: a clip per step.

    Args:
      folder: that has the files which `--list youcook2` names.

    Raises:
      UserError: files that are missing or at fault, such as a row that ends before it starts.
    """
    files, found = Folder(folder), Annotations(expected={"val clips": 3350, "val captions": 3350})
    for split, name in _FILES.items():
        path = files.find(name)
        if path is None:
            continue
        seen: collections.Counter[str] = collections.Counter()
        for where, row in read_table(path, columns=["end", "start", "task", "text", "video_id"]):
            video = row["video_id"].strip()
            start, end = (number(row[key], what=key, where=where) for key in ("start", "end"))
            clip_id = f"{video}_{start:g}_{end:g}"
            seen[clip_id] += 1
            if seen[clip_id] > 1:  # one window has two sentences in the published file
                clip_id = f"{clip_id}#{seen[clip_id]}"
                found.notes["windows that come twice, with a sentence each, kept as two clips"] += 1
            fields = {"clip_id": clip_id, "path": video, "captions": [row["text"]], "split": split}
            meta = {"video": video, "task": row["task"].strip()}
            found.add(fields | {"start_s": start, "end_s": end, "meta": meta}, where=where)
    if not found.clips:
        files.lacks(*_FILES.values())
    return found


SOURCES = (
    Source(
        name="youcook2",
        title="YouCook2: 3,350 steps of 436 cooking videos (validation), a sentence each",
        layout="""\
validation_youcook.csv   end,start,task,text,video_id
train_youcook.csv        optional, likewise""",
        videos="video_id.mp4, in a folder per recipe (task) or not; the steps are cut from the whole videos",
        published_at="http://youcook2.eecs.umich.edu/",
        licence="research use; the videos belong to their uploaders",
        notes="The list of MIL-NCE, on which papers measure clip retrieval.",
        read=read_youcook2,
    ),
)
