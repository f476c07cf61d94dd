"""YouTube-8M: frame-level features of videos, at one per second, with several labels each. There are no pictures."""

from pathlib import Path
from typing import Any

from ...base.errors import UserError
from .files import Folder, read_table, whole
from .source import Annotations, Source
from .tfrecords import contexts

_SPLITS = {"train": "train", "validate": "val", "test": "test"}  # by the beginning of the file's name
_LISTS = ("rgb", "audio")
# The owners' Dequantize: bytes stand for 256 steps of [-2, 2], each for the middle of its step.
_SCALE, _OFFSET = 4 / 255, 4 / 512 - 2
_NO_LABEL = "records without any label left out (the owners keep the labels of the test files)"


def read_youtube8m(folder: Path) -> Annotations:
    """Read the frame-level TFRecord files of YouTube-8M: a clip per record, with labels and the places of its features.

    Args:
      folder: that has the .tfrecord files and vocabulary.csv, in subfolders or not.

    Raises:
      UserError: files that are missing or at fault.
    """
    files, found = Folder(folder), Annotations()
    names = _vocabulary(files.require("vocabulary.csv"))
    shards = files.ending(".tfrecord")
    if not shards:
        files.lacks("train0000.tfrecord, validate0000.tfrecord, ...")
    for path in shards:
        split = next((split for start, split in _SPLITS.items() if path.name.lower().startswith(start)), None)
        if split is None:
            raise UserError(
                f"{path}: its name tells no split; wanted train..., validate... or test....tfrecord, as at its owners"
            )
        inner = path.relative_to(files.path).as_posix()
        for offset, context in contexts(path):
            where = f"{path}, byte {offset:,}"
            fields = _fields(context, names, where=where)
            if not fields["labels"]:
                found.notes[_NO_LABEL] += 1
                continue
            features = {name: f"{inner}::{offset}::{name}" for name in _LISTS}
            found.add(fields | {"path": "", "split": split, "features": features}, where=where)
    if not found.clips:
        raise UserError(f"{files.path}: no record of the {len(shards)} .tfrecord files has a label; add train files")
    return found


def _vocabulary(path: Path) -> dict[int, str]:
    """The name of each label number; a number whose name is empty goes by its knowledge-graph id."""
    names: dict[int, str] = {}
    for where, row in read_table(path, columns=["index", "name"]):
        number = whole(row["index"], what="Index", where=where)
        if number in names:
            raise UserError(f"{where}: Index {number} stands there twice; fetch the file again")
        names[number] = row["name"].strip() or row.get("knowledgegraphid", "").strip() or str(number)
    return names


def _fields(context: dict[str, list[Any]], names: dict[int, str], *, where: str) -> dict[str, Any]:
    """The fields of `Clip` that a record's context gives."""
    key = next((key for key in ("id", "video_id") if context.get(key)), None)
    if key is None or not isinstance(context[key][0], bytes):
        raise UserError(
            f"{where}: has no 'id' (found: {', '.join(sorted(context)) or 'nothing'}); fetch the file again"
        )
    numbers = context.get("labels", [])
    for number in numbers:
        if number not in names:
            raise UserError(f"{where}: label {number!r} is not in vocabulary.csv; are both of one release?")
    scale = {name: [_SCALE, _OFFSET] for name in _LISTS}
    return {
        "clip_id": context[key][0].decode("utf-8", "backslashreplace"),
        "labels": [names[number] for number in numbers],
        "meta": {"features_scale": scale, "label_numbers": list(numbers)},
    }


SOURCES = (
    Source(
        name="youtube8m",
        title="YouTube-8M: features of 6 million videos, one per second, 3,862 labels",
        layout="""\
vocabulary.csv                        Index,TrainVideoCount,KnowledgeGraphId,Name,...
train*.tfrecord, validate*.tfrecord   frame-level SequenceExamples: id, labels; per second rgb (1024 bytes), audio (128)
test*.tfrecord                        have no labels and are left out""",
        published_at="https://research.google.com/youtube8m/",
        licence="CC BY 4.0 (the features and labels)",
        notes=(
            "Give the same folder as --annotations and as --videos. Clips have no pictures, only the features `rgb` "
            "and `audio` (config.data.features); records keep them in 8 bits, and value = byte * 4/255 - 2 + 4/512. A "
            "clip has several labels, and its first label as caption."
        ),
        read=read_youtube8m,
    ),
)
