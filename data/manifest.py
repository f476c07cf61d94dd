"""The manifest: one JSONL line per clip, the only description of a data set that the rest of twinreel reads."""

import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

from ..base.errors import UserError, nearest
from .paths import PathLike, exists, open_binary


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sentence:
    """What is said, or happens, in a stretch of time.

    Attributes:
      start_s: seconds from the first picture of the file (in a record: from the clip's start).
      end_s: the same, exclusive.
      text: unchanged as given.
    """

    start_s: float
    end_s: float
    text: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Clip:
    """One clip: a media file or a window of it, with its texts.

    Attributes:
      clip_id: unique name of the clip within its manifest.
      path: the media file, relative to the manifest's folder, with forward slashes; `ARCHIVE.tar::MEMBER` names a
        member of a tar archive; "" for a clip that has precomputed features only.
      captions: texts of the clip, unchanged as given (UTF-8, any length).
      split: `train`, `val`, `test`, … (lower case letters, digits, `_`); "" where the source names none.
      start_s: start of the window in seconds from the first picture of the file; None = from the first picture.
      end_s: end of the window in seconds (exclusive); None = to the last picture.
      labels: class names, the first one is the main one.
      transcript: what is said in the clip, "" where unknown.
      sentences: the same with times, in order of `start_s`; those outside the window are left out of the record.
      features: precomputed features by modality (`rgb`, `audio`, ...): a `.npy` file each, [n,D] in order of time,
        relative to the manifest; as `path`, it may be a member of a tar archive.
      meta: anything else (JSON values); `meta["group"]` names clips that belong together, such as order twins;
        `meta["refused"]` says why a clip that its source lists cannot be used: it is rejected for that reason.
    """

    clip_id: str
    path: str
    captions: tuple[str, ...] = ()
    split: str = ""
    start_s: float | None = None
    end_s: float | None = None
    labels: tuple[str, ...] = ()
    transcript: str = ""
    sentences: tuple[Sentence, ...] = ()
    features: dict[str, str] = dataclasses.field(default_factory=dict)
    meta: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def group(self) -> str:
        """The name of the group of clips to which this one belongs, "" if it stands alone."""
        return self.meta.get("group") or ""


NOT_FETCHED = "no media in the archive"  # the reason that is counted, but is no fault of what is there
REFUSED = "refused"  # key in `Clip.meta`: why a clip that a source has found must not be used
FIELDS = tuple(field.name for field in dataclasses.fields(Clip))
_LONGEST_S = 1e9  # thirty years: no file is longer
_SPLIT = re.compile(r"[a-z][a-z0-9_]*")


class _Problem(Exception):
    """What is wrong with one field: (field, value, what is wanted)."""


def read_manifest(path: PathLike) -> list[Clip]:
    """Read a manifest, in the order of its lines; blank lines are skipped.

    Args:
      path: a JSONL file (UTF-8), one clip per line with `clip_id`, `path` and, where known, the other fields of `Clip`.

    Returns:
      The clips; `split` is "" where a line names none.

    Raises:
      UserError: no such file, no clip in it, a line that is not a clip, or a clip_id that comes twice. The message
        names file, line, field, value and remedy.
    """
    path = os.fspath(path)
    if not exists(path):
        raise UserError(f"manifest {path!r} does not exist; give the path of a .jsonl file")
    clips: list[Clip] = []
    line_of: dict[str, int] = {}
    with open_binary(path) as lines:
        for number, raw in enumerate(lines, start=1):
            line = _text(raw.removeprefix(b"\xef\xbb\xbf"), path=path, number=number)
            if not line.strip():
                continue
            clip = _clip(line, path=path, number=number)
            if clip.clip_id in line_of:
                raise UserError(
                    f"{path}, line {number}: clip_id {clip.clip_id!r} stands on line {line_of[clip.clip_id]} already; "
                    "give each clip its own clip_id (several captions of one clip go into its `captions` list)"
                )
            line_of[clip.clip_id] = number
            clips.append(clip)
    if not clips:
        raise UserError(f"manifest {path!r} has no clip; write one JSON object per line")
    return clips


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
        "transcript": clip.transcript,
        "sentences": [dataclasses.asdict(sentence) for sentence in clip.sentences],
        "features": clip.features,
        "meta": clip.meta,
    }
    always = {"clip_id", "path", "captions"}
    return {key: value for key, value in line.items() if key in always or value not in ("", [], {}, None)}


def ids_sha256(clip_ids: Iterable[str]) -> str:
    """Return the SHA-256 (hex) of clip ids, sorted by code point, one per line: `LC_ALL=C sort | sha256sum`."""
    return hashlib.sha256("".join(f"{name}\n" for name in sorted(clip_ids)).encode()).hexdigest()


def _text(raw: bytes, *, path: str, number: int) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}, line {number}: is not UTF-8 ({error.reason}); save the file as UTF-8") from error


def _clip(line: str, *, path: str, number: int) -> Clip:
    where = f"{path}, line {number}"
    try:
        fields = json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(
            f"{where}: is not JSON ({error.msg} at column {error.colno}): {_short(line.strip())}; "
            'write one JSON object per line, as {"clip_id": "a", "path": "a.mp4", "captions": ["..."]}'
        ) from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, brackets within brackets
        raise UserError(f"{where}: cannot be read as JSON ({error}): {_short(line.strip())}") from error
    if not isinstance(fields, dict):
        raise UserError(f"{where}: is {_short(fields)}, wanted a JSON object with clip_id, path, captions, split")
    for name in fields:
        if name not in FIELDS:
            hint = nearest(name, FIELDS)
            remedy = f"did you mean {hint!r}?" if hint else "put what twinreel does not know under `meta`"
            raise UserError(f"{where}: unknown field {name!r}; {remedy} (known: {', '.join(FIELDS)})")
    return make_clip(fields, where=where)


def make_clip(fields: dict[str, Any], *, where: str) -> Clip:
    """Check the fields of one clip and make it.

    Args:
      fields: JSON values by field name of `Clip`; None or absent = unknown.
      where: names the place of the fields in error messages (`file.csv, line 3`).

    Raises:
      UserError: a field of the wrong kind; names place, field, value and what is wanted.
    """
    try:
        return _checked(fields)
    except _Problem as problem:
        field, value, wanted = problem.args
        raise UserError(f"{where}: field {field!r} is {_short(value)}, wanted {wanted}") from None


def _checked(fields: dict[str, Any]) -> Clip:
    start, end = _seconds(fields, "start_s"), _seconds(fields, "end_s")
    if end is not None and end <= (start or 0.0):
        _problem("end_s", end, f"a time after start_s={start or 0.0:g}")
    split = _string(fields, "split")
    if split and (not _SPLIT.fullmatch(split) or split == "all"):
        _problem("split", split, "a name such as train, val or test: lower case letters, digits and _, not 'all'")
    meta = {} if fields.get("meta") is None else fields["meta"]
    if not isinstance(meta, dict):
        _problem("meta", meta, "a JSON object")
    try:
        json.dumps(meta, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError):
        _problem("meta", meta, "values that JSON and UTF-8 hold: no NaN, no half of a surrogate pair")
    if not isinstance(meta.get("group") or "", str):
        _problem("meta.group", meta["group"], "a string: the name of the group of clips")
    features = _features(fields)
    wanted = "" if features else "the media file, relative to the manifest"
    return Clip(
        clip_id=_string(fields, "clip_id", required="a unique name of the clip"),
        path=_string(fields, "path", required=wanted),
        captions=_strings(fields, "captions"),
        split=split,
        start_s=start,
        end_s=end,
        labels=_strings(fields, "labels"),
        transcript=_string(fields, "transcript"),
        sentences=_sentences(fields),
        features=features,
        meta=meta,
    )


def _problem(field: str, value: object, wanted: str) -> NoReturn:
    raise _Problem(field, value, wanted)


def _string(fields: dict[str, Any], name: str, *, required: str = "") -> str:
    value = fields.get(name)
    if required and not value:
        _problem(name, "missing" if name not in fields else value, required)
    if value is None:
        return ""
    if not isinstance(value, str):
        _problem(name, value, required or "a string")
    return _encodable(name, value)


def _strings(fields: dict[str, Any], name: str) -> tuple[str, ...]:
    value = fields.get(name)
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        _problem(name, value, f'a list of strings, as "{name}": ["..."]')
    return tuple(_encodable(name, item) for item in value)


def _sentences(fields: dict[str, Any]) -> tuple[Sentence, ...]:
    value = fields.get("sentences")
    if value is None:
        return ()
    wanted = 'a list of objects, as "sentences": [{"start_s": 0.5, "end_s": 2.0, "text": "..."}]'
    if not isinstance(value, list):
        _problem("sentences", value, wanted)
    made = []
    for item in value:
        if not isinstance(item, dict) or set(item) != {"start_s", "end_s", "text"}:
            _problem("sentences", item, wanted)
        start, end = _seconds(item, "start_s"), _seconds(item, "end_s")
        if start is None or end is None or end <= start:
            _problem("sentences", item, "a start_s, and an end_s after it")
        made.append(Sentence(start_s=start, end_s=end, text=_string(item, "text", required="what is said")))
    return tuple(sorted(made, key=lambda sentence: sentence.start_s))


def _features(fields: dict[str, Any]) -> dict[str, str]:
    value = {} if fields.get("features") is None else fields["features"]
    if not isinstance(value, dict):
        _problem("features", value, 'an object from modality to .npy file, as "features": {"rgb": "a.npy"}')
    for name, path in value.items():
        if not _SPLIT.fullmatch(name) or not isinstance(path, str) or not path:
            _problem("features", value, "a name of lower case letters, digits and _ and a path for each modality")
    return {name: _encodable("features", path) for name, path in value.items()}


def _encodable(name: str, value: str) -> str:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:  # JSON may spell half of a surrogate pair, which no UTF-8 text holds
        _problem(name, value, "text that UTF-8 can hold (it has half of a surrogate pair)")
    return value


def _seconds(fields: dict[str, Any], name: str) -> float | None:
    value = fields.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= _LONGEST_S:  # nor NaN
        _problem(name, value, "seconds from the start of the file, 0 or more")
    return float(value)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
