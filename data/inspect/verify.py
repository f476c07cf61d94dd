"""The records of a prepared folder read one by one, without the training's reader: to check them, to show some."""

import contextlib
import hashlib
import io
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
from array_record.python.array_record_module import ArrayRecordReader

from ..layout import home_of
from ..tf_cpu import tf
from ..transforms.h264 import as_jpegs, decode_units
from ..transforms.units import drawable, is_unit

_READER = "readahead_buffer_size:0,max_parallelism:0"
_SHOWN = 20  # faults that are kept; the rest is counted


def check_records(
    folder: Path,
    *,
    shards: Sequence[dict[str, Any]],
    rows: dict[str, list[dict[str, Any]]],
    advance: Callable[[], None],
) -> dict[str, Any]:
    """Read all records and compare them with what the folder says of them; decode every frame.

    Args:
      folder: the prepared folder.
      shards: `name`, `split`, `records`, `bytes`, `sha256` of each record file, from prepare.json.
      rows: lines of clips.jsonl by split.
      advance: called after each record.

    Returns:
      `records` read, number of `faults`, and the first of them in words, each with shard and record.
    """
    faults: list[str] = []
    read = 0
    begin = dict.fromkeys(rows, 0)
    for shard in shards:
        split = shard["split"]
        expected = rows[split][begin[split] : begin[split] + shard["records"]]
        begin[split] += shard["records"]
        path = folder / home_of(shard["name"]) / shard["name"]
        faults += [f"{shard['name']}: {fault}" for fault in _file_faults(path, shard)]
        there = path.is_file()
        for number, (row, fault) in enumerate(_record_faults(path, expected)):
            advance()
            read += there
            if fault:
                faults.append(f"{shard['name']}, record {number} (clip {row['clip_id']!r}): {fault}")
    for split, count in begin.items():
        if count != len(rows[split]):
            faults.append(f"clips.jsonl lists {len(rows[split])} clips of {split}, prepare.json {count} records")
    return {"records": read, "faults": len(faults), "first_faults": faults[:_SHOWN]}


def read_frames(
    folder: Path, *, shards: Sequence[dict[str, Any]], split: str, indices: Sequence[int]
) -> Iterator[bytes]:
    """Yield the middle frame, as a JPEG file, of records of a split; b"" for a clip without frames."""
    members = [shard for shard in shards if shard["split"] == split]
    ends = np.cumsum([shard["records"] for shard in members])
    for index in indices:
        place = int(np.searchsorted(ends, index, side="right"))
        name = members[place]["name"]
        reader = ArrayRecordReader(str(folder / home_of(name) / name), options=_READER)
        try:
            first = int(ends[place]) - members[place]["records"]
            feature = _features(reader.read([index - first])[0])
            frames = feature["frames"].bytes_list.value
            middle = [drawable(frames, len(frames) // 2)] if frames else [b""]
            size = {name: feature[name].int64_list.value[0] for name in ("height", "width")}
            yield as_jpegs(middle, **size)[0]
        finally:
            reader.close()


def _file_faults(path: Path, shard: dict[str, Any]) -> Iterator[str]:
    if not path.is_file():
        yield "the file is missing"
        return
    if path.stat().st_size != shard["bytes"]:
        yield f"has {path.stat().st_size} bytes, prepare.json says {shard['bytes']}"
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != shard["sha256"]:
            yield "its SHA-256 is not that of prepare.json"


def _record_faults(path: Path, rows: Sequence[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield each row with what is wrong with its record, "" if nothing is."""
    if not path.is_file():  # said already
        yield from ((row, "") for row in rows)
        return
    reader = ArrayRecordReader(str(path), options=_READER)
    try:
        for index, row in enumerate(rows):
            try:
                yield row, _fault(reader.read([index])[0], row)
            except Exception as error:  # damaged bytes may upset ArrayRecord, protobuf or libjpeg, each in its way
                yield row, f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    finally:
        with contextlib.suppress(RuntimeError):  # it would say once more what was wrong with the file
            reader.close()


def _fault(record: bytes, row: dict[str, Any]) -> str:
    feature = _features(record)
    found = feature["clip_id"].bytes_list.value[0].decode()
    if found != row["clip_id"]:
        return f"is of clip {found!r}"
    frames, times = feature["frames"].bytes_list.value, np.array(feature["timestamps_s"].float_list.value)
    if not len(frames) == len(times) == row["num_frames"]:
        return f"has {len(frames)} frames and {len(times)} times, clips.jsonl says {row['num_frames']}"
    if (np.diff(times) <= 0).any():
        return "its times do not increase"
    if fault := _frame_fault(frames, row):
        return fault
    sound = len(feature["audio"].bytes_list.value[0])
    if bool(sound) != row["has_audio"] or sound % 2:
        return f"has {sound} bytes of sound, clips.jsonl says has_audio={row['has_audio']}"
    captions = [caption.decode() for caption in feature["captions"].bytes_list.value]
    if captions != row["captions"]:
        return "its captions are not those of clips.jsonl"
    names = feature["feature_names"].bytes_list.value
    arrays = [np.load(io.BytesIO(data), allow_pickle=False) for data in feature["feature_data"].bytes_list.value]
    shapes = {name.decode(): list(array.shape) for name, array in zip(names, arrays, strict=True)}
    if shapes != {name: list(shape) for name, shape in row["features"].items()}:
        return f"has features of shapes {json.dumps(shapes)}, clips.jsonl says {json.dumps(row['features'])}"
    return ""


def _frame_fault(frames: Sequence[bytes], row: dict[str, Any]) -> str:
    """Decode all frames; return what is wrong with one of them, "" if nothing is, or raise an error."""
    if len(frames) and is_unit(frames[0]):
        values = [drawable(frames, number) for number in range(len(frames))]
        for _ in decode_units(values, height=row["height"], width=row["width"]):
            pass  # one of another size is an error
        return ""
    for number, jpeg in enumerate(frames):
        shape = simplejpeg.decode_jpeg(jpeg, strict=True).shape
        if shape != (row["height"], row["width"], 3):
            return f"frame {number} is {shape[1]}x{shape[0]}, clips.jsonl says {row['width']}x{row['height']}"
    return ""


def _features(record: bytes) -> Any:
    return tf.train.Example.FromString(record).features.feature
