"""YouCook2: steps of cooking videos, each a window with a sentence."""

import collections
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .files import Folder, read_table, seconds
from .source import Annotations, Option, Source
from .windows import mended

_FILES = {"train": "train_youcook.csv", "val": "validation_youcook.csv"}


def read_youcook2(folder: Path, *, text: str = "sentence") -> Annotations:
    """Read YouCook2 in the form in which MIL-NCE published it.

    Args:
      folder: that has the files which `--list youcook2` names.
      text: "sentence", one clip per step, which is the window of that step; or "paragraph", one clip per video whose
        caption is all steps joined with a blank, in order of time, and whose spans are the steps.

    Raises:
      UserError: files that are missing or at fault.
    """
    files, found = Folder(folder), Annotations()
    if text == "sentence":
        found.expected = {"val clips": 3350, "val captions": 3350}
    for split, name in _FILES.items():
        path = files.find(name)
        if path is not None:
            add = _add_steps if text == "sentence" else _add_videos
            add(found, path, split=split)
    if not found.clips:
        files.lacks(*_FILES.values())
    return found


def _rows(path: Path) -> Iterator[tuple[str, str, float, float, dict[str, str]]]:
    """Place, video, start, end and all fields of each row."""
    for where, row in read_table(path, columns=["end", "start", "task", "text", "video_id"]):
        start, end = (seconds(row[key], what=key, where=where) for key in ("start", "end"))
        yield where, row["video_id"].strip(), start, end, row


def _add_steps(found: Annotations, path: Path, *, split: str) -> None:
    seen: collections.Counter[str] = collections.Counter()
    for where, video, start, end, row in _rows(path):
        clip_id = f"{video}_{start:g}_{end:g}"
        seen[clip_id] += 1
        if seen[clip_id] > 1:  # one window has two sentences in the published file
            clip_id = f"{clip_id}#{seen[clip_id]}"
            found.notes["windows that come twice, with a sentence each, kept as two clips"] += 1
        fields = {"clip_id": clip_id, "path": video, "captions": [row["text"]], "split": split}
        step = {"start_s": start, "end_s": end}
        spans = [step | {"text": row["text"]}] if 0 <= start < end and row["text"].strip() else []
        meta = {"video": video, "task": row["task"].strip()}
        found.add(fields | step | {"spans": spans, "meta": meta}, where=where)


def _add_videos(found: Annotations, path: Path, *, split: str) -> None:
    videos: dict[str, dict[str, Any]] = {}
    for where, video, start, end, row in _rows(path):
        fields = videos.setdefault(video, {"where": where, "task": row["task"].strip(), "spans": []})
        window = mended(start, end, duration_s=None, found=found)
        if window is not None and row["text"].strip():
            fields["spans"].append({"start_s": window[0], "end_s": window[1], "text": row["text"]})
    for video, fields in videos.items():
        spans = sorted(fields["spans"], key=lambda span: span["start_s"])
        made = {"clip_id": video, "path": video, "captions": [" ".join(span["text"] for span in spans)], "split": split}
        found.add(made | {"spans": spans, "meta": {"video": video, "task": fields["task"]}}, where=fields["where"])


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
        options=(
            Option(
                name="text",
                default="sentence",
                choices=("paragraph", "sentence"),
                help="one clip per step, or one per video with all steps joined and the steps as spans",
            ),
        ),
        read=read_youcook2,
    ),
)
