"""ActivityNet Captions: videos of some two minutes with timed sentences, for paragraph or sentence retrieval."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ...base.errors import UserError
from ..manifest import Clip
from .files import Folder, expect, member, read_json, seconds
from .source import Annotations, Option, Source
from .windows import cut_from, mended

_COUNTS = {"train": 10009, "val_1": 4917, "val_2": 4885}


def read_activitynet(folder: Path, *, text: str = "paragraph") -> Annotations:
    """Read ActivityNet Captions.

    Args:
      folder: that has the files which `--list activitynet` names; each file is a split of its name.
      text: "paragraph", one clip per video whose caption is all sentences joined with a blank (`spans` and `sentences`
        have the sentences with their times); or "sentence", one clip per sentence, which is the window of that
        sentence.

    Raises:
      UserError: files that are missing or at fault.
    """
    files, found = Folder(folder), Annotations()
    for split, count in _COUNTS.items():
        path = files.find(f"{split}.json")
        if path is None:
            found.notes[f"split {split} left out, because --annotations has no {split}.json"] += 1
            continue
        if text == "paragraph":
            found.expected[f"{split} clips"] = count
        for video, record in read_json(path, kind=dict).items():
            where = f"{path}, key {video!r}"
            duration, sentences = _sentences(record, found, where=where)
            fields = {"path": video, "split": split, "meta": {"video": video, "duration_s": duration}}
            if text == "paragraph":
                _add_paragraph(found, fields, sentences, video=video, where=where)
            else:
                _add_sentences(found, fields, sentences, video=video, where=where)
    if not found.clips:
        files.lacks(*(f"{split}.json" for split in _COUNTS))
    return found


def _sentences(
    record: Any, found: Annotations, *, where: str
) -> tuple[float, list[tuple[tuple[float, float] | None, str]]]:
    """The video's duration in seconds, and each sentence with its window (None where nothing is left of it)."""
    record = expect(record, dict, what="the video", where=where)
    duration = member(record, "duration", float, where=where)
    texts = member(record, "sentences", list, where=where)
    times = member(record, "timestamps", list, where=where)
    if len(texts) != len(times):
        raise UserError(f"{where}: has {len(texts)} sentences but {len(times)} timestamps; wanted one for each")
    made = []
    for time, text in zip(times, texts, strict=True):
        if len(expect(time, list, what="a timestamp", where=where)) != 2:
            raise UserError(f"{where}: timestamp {time!r} has {len(time)} numbers, wanted [start, end]")
        start, end = (seconds(second, what="a timestamp", where=where) for second in time)
        window = mended(start, end, duration_s=duration, found=found)
        made.append((window, expect(text, str, what="a sentence", where=where).strip()))
    return duration, made


def _add_paragraph(found: Annotations, fields: dict[str, Any], sentences: Any, *, video: str, where: str) -> None:
    timed = [{"start_s": window[0], "end_s": window[1], "text": text} for window, text in sentences if window and text]
    paragraph = " ".join(text for _, text in sentences if text)
    found.add(fields | {"clip_id": video, "captions": [paragraph], "sentences": timed, "spans": timed}, where=where)


def _add_sentences(found: Annotations, fields: dict[str, Any], sentences: Any, *, video: str, where: str) -> None:
    for index, (window, text) in enumerate(sentences):
        if window is not None:
            times = {"start_s": window[0], "end_s": window[1]}
            found.add(fields | times | {"clip_id": f"{video}#{index}", "captions": [text]}, where=where)


def _alternatives(clip: Clip) -> Iterable[Clip]:
    if clip.path.startswith("v_"):
        yield cut_from(clip, path=clip.path.removeprefix("v_"))


SOURCES = (
    Source(
        name="activitynet",
        title="ActivityNet Captions: 20,000 YouTube videos of some two minutes with timed sentences",
        layout="""\
train.json, val_1.json, val_2.json   {v_ID: {duration, timestamps: [[start, end], ...], sentences: [...]}}
One of the files is enough; each is a split of its name.""",
        videos="v_ID.mp4, or ID.mp4",
        published_at="https://cs.stanford.edu/people/ranjaykrishna/densevid/",
        licence="research use; the videos belong to their uploaders",
        notes=(
            "Papers measure paragraph retrieval on val_1 (4,917 videos): evaluate --split val_1. The published files "
            "have windows that end after the video or run backwards: these are cut or turned round, and counted."
        ),
        options=(
            Option(
                name="text",
                default="paragraph",
                choices=("paragraph", "sentence"),
                help="one clip per video with all sentences joined, or one per sentence",
            ),
        ),
        read=read_activitynet,
        alternatives=_alternatives,
    ),
)
