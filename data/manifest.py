"""The manifest: one JSONL line per clip, the only description of a data set that the rest of twinreel reads."""

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..base.errors import UserError, nearest
from .clip import FIELDS, NOT_FETCHED, REFUSED, Clip, Question, Sentence, Span, Word
from .clip_fields import make_clip, short
from .faults import Faults
from .paths import PathLike, exists, open_binary
from .strict_json import DuplicateKey, parse

__all__ = [
    "FIELDS",
    "NOT_FETCHED",
    "REFUSED",
    "Clip",
    "Question",
    "Sentence",
    "Span",
    "Word",
    "ids_sha256",
    "make_clip",
    "read_manifest",
    "to_json",
    "write_jsonl",
    "write_manifest",
    "write_whole",
]
_OTHER_NAMES = {  # field -> what other tools call it
    "clip_id": ("id", "key", "video_id"),
    "path": ("file", "file_name", "file_path", "filename", "filepath", "media", "video", "video_path"),
    "captions": ("caption", "description", "query", "sentence", "text", "title"),
    "start_s": ("begin", "start", "start_time"),
    "end_s": ("end", "end_time", "stop"),
    "labels": ("category", "class", "label"),
    "split": ("set", "subset"),
    "spans": ("moments", "segments", "timestamps"),
    "questions": ("qa", "question"),
}


def read_manifest(path: PathLike) -> list[Clip]:
    """Read a manifest, in the order of its lines; blank lines are skipped.

    Args:
      path: a JSONL file (UTF-8), one clip per line with `clip_id`, `path` and, where known, the other fields of `Clip`.

    Returns:
      The clips; `split` is "" where a line names none. A clip whose window is impossible has the reason in
      `meta["refused"]` (see `make_clip`).

    Raises:
      UserError: no such file, no clip in it, lines that are not clips, or a clip_id that comes twice. The message
        names file, line, field, value and remedy of up to 20 faults, and counts the others.
    """
    path = os.fspath(path)
    if not exists(path):
        raise UserError(f"manifest {path!r} does not exist; give the path of a .jsonl file")
    clips: list[Clip] = []
    line_of: dict[str, int] = {}
    faults = Faults(path)
    with open_binary(path) as lines:
        for number, raw in enumerate(lines, start=1):
            try:
                clip = _read_line(raw, path=path, number=number, line_of=line_of)
            except UserError as fault:
                faults.add(fault)
                continue
            if clip is not None:
                line_of[clip.clip_id] = number
                clips.append(clip)
    faults.check()
    if not clips:
        raise UserError(f"manifest {path!r} has no clip; write one JSON object per line")
    return clips


def _read_line(raw: bytes, *, path: str, number: int, line_of: dict[str, int]) -> Clip | None:
    """The clip of a line, None for a blank one; `line_of` are the lines of the clips so far by their id."""
    line = _text(raw.removeprefix(b"\xef\xbb\xbf"), path=path, number=number)
    if not line.strip():
        return None
    clip = _clip(line, path=path, number=number)
    if clip.clip_id in line_of:
        raise UserError(
            f"{path}, line {number}: clip_id {clip.clip_id!r} is that of line {line_of[clip.clip_id]}, too; "
            "give each clip its own clip_id (several captions of one clip go into its `captions` list)"
        )
    return clip


def write_manifest(path: Path, *, clips: Iterable[Clip]) -> None:
    """Write a manifest, one line per clip in the given order; fields that are empty are left out.

    The file appears whole or not at all: it is written beside its final place and renamed.
    """
    write_jsonl(path, lines=map(to_json, clips))


def write_jsonl(path: Path, *, lines: Iterable[dict[str, Any]]) -> None:
    """Write JSON objects one per line, UTF-8, whole or not at all."""
    write_whole(path, parts=(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n" for line in lines))


def write_whole(path: Path, *, parts: Iterable[str]) -> None:
    """Write a UTF-8 text file so that it appears whole or not at all (temporary file beside `path`, then rename)."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(parts)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def to_json(clip: Clip) -> dict[str, Any]:
    """Return the manifest line of a clip as a dict of JSON values, without the fields that are empty."""
    line: dict[str, Any] = {
        "clip_id": clip.clip_id,
        "path": clip.path,
        "captions": list(clip.captions),
        "split": clip.split,
        "start_s": clip.start_s,
        "end_s": clip.end_s,
        "labels": list(clip.labels),
        "spans": [_filled(dataclasses.asdict(span)) for span in clip.spans],
        "questions": [_filled(dataclasses.asdict(question)) for question in clip.questions],
        "transcript": clip.transcript,
        "sentences": [sentence.to_json() for sentence in clip.sentences],
        "features": clip.features,
        "meta": clip.meta,
    }
    return _filled(line, always=("clip_id", "path", "captions"))


def _filled(fields: dict[str, Any], *, always: Iterable[str] = ()) -> dict[str, Any]:
    """The fields that are not empty, and those named; tuples become lists."""
    plain = {key: list(value) if isinstance(value, tuple) else value for key, value in fields.items()}
    return {key: value for key, value in plain.items() if key in always or value not in ("", [], {}, None)}


def ids_sha256(clip_ids: Iterable[str]) -> str:
    """Return the SHA-256 (hex) of clip ids, sorted by code point, one per line: `LC_ALL=C sort | sha256sum`."""
    return hashlib.sha256("".join(f"{name}\n" for name in sorted(clip_ids)).encode()).hexdigest()


def _text(raw: bytes, *, path: str, number: int) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        byte = raw[error.start : error.start + 1]
        raise UserError(
            f"{path}, line {number}: is not UTF-8 ({error.reason}: {byte!r} at byte {error.start} of the line); "
            "save the file as UTF-8"
        ) from error


def _clip(line: str, *, path: str, number: int) -> Clip:
    where = f"{path}, line {number}"
    try:
        fields = parse(line)
    except json.JSONDecodeError as error:
        raise UserError(
            f"{where}: is not JSON ({error.msg} at column {error.colno}): {short(line.strip())}; "
            'write one JSON object per line, as {"clip_id": "a", "path": "a.mp4", "captions": ["..."]}'
        ) from error
    except DuplicateKey as error:
        raise UserError(f"{where}: {error}") from error
    except ValueError as error:
        raise UserError(f"{where}: cannot be read as JSON ({error}): {short(line.strip())}") from error
    if not isinstance(fields, dict):
        raise UserError(f"{where}: is {short(fields)}, wanted a JSON object with clip_id, path, captions, split")
    for name in fields:
        if name not in FIELDS:
            known_as = (field for field, others in _OTHER_NAMES.items() if name.lower() in others)
            hint = next(known_as, None) or nearest(name, FIELDS)
            remedy = f"did you mean {hint!r}?" if hint else "put what twinreel does not know under `meta`"
            raise UserError(f"{where}: unknown field {name!r}; {remedy} (known: {', '.join(FIELDS)})")
    return make_clip(fields, where=where)
