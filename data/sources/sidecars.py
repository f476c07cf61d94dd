"""The texts of a media file (`KEY.txt`, `.cap`, `.json`, `.cls`, `.srt`, `.vtt`) to the fields of a clip.

The fields of `KEY.json` are those that video2dataset and img2dataset write: `caption`; `clips` (where the file was cut
out of its video); `yt_meta_dict.subtitles`, `clip_subtitles` and `whisper_transcript` (what is said).
"""

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any

from ...data import strict_json, subtitles
from ..timecode import to_seconds
from .notes import Notes

LONGEST_TEXT = 2**20  # bytes of a .txt, .cap or .cls
LONGEST_JSON = 16 * 2**20  # bytes of a .json
_LONGEST_S = 1e9  # as `clip_fields` takes times
_LONGEST_META = 2000  # characters of a string that is kept under `meta`
_HANDLED = frozenset(
    (
        *("caption", "captions", "text", "label", "labels", "clips", "key", "status", "error_message"),
        *("clip_subtitles", "whisper_transcript", "yt_meta_dict", "transcript"),
    )
)
_RESERVED = ("group", "foils", "refused")  # they have a meaning in `meta`


class BadText(Exception):
    """A text that cannot be read; the message says why."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Texts:
    """What the texts of a media file say.

    Attributes:
      fields: those of `Clip` (`captions`, `labels`, `sentences`, `transcript`, `meta`).
      bad_lines: lines of subtitles that are left out because of impossible times.
      left_out: keys of the JSON whose values are not kept.
      video: name of the video that the file was cut from, "" if the JSON does not say it.
    """

    fields: dict[str, Any]
    bad_lines: int
    left_out: list[str]
    video: str


def note_left_out(texts: Texts, *, name: str, notes: Notes) -> None:
    """Count what the texts of a media file have that its clip does not."""
    if texts.bad_lines:
        notes.add("lines of subtitles with impossible times left out", name=name, count=texts.bad_lines)
    for key in texts.left_out:
        notes.add("values of KEY.json left out (meta keeps numbers, truth values and short texts)", name=key)


def longest(suffix: str) -> int:
    """Return how many bytes a text may have, by its suffix."""
    return {".json": LONGEST_JSON, **dict.fromkeys(subtitles.SUFFIXES, subtitles.LONGEST)}.get(suffix, LONGEST_TEXT)


def read_texts(texts: Mapping[str, bytes], *, one_per_line: bool) -> Texts:
    """Read the texts of one media file.

    Args:
      texts: contents by suffix: `.txt` and `.cap` are captions, `.cls` is a label, `.json` an object, `.srt` and `.vtt`
        are subtitles, which count where the `.json` does not say what is said.
      one_per_line: whether each line of the `.txt` is a caption; else all of it is one.

    Raises:
      BadText: one is not UTF-8, or the `.json` is no JSON object.
    """
    plain = {suffix: data for suffix, data in texts.items() if suffix not in subtitles.SUFFIXES}
    decoded = {suffix: text(data, suffix=suffix) for suffix, data in plain.items()}
    fields = json_fields(texts[".json"]) if ".json" in texts else {}
    first = _lines(decoded.get(".txt", "")) if one_per_line else [decoded.get(".txt", "").strip()]
    said, bad_lines = sentences(fields)
    if not said:
        said = [
            line.to_json()
            for suffix in subtitles.SUFFIXES
            for line in subtitles.subtitles_of(texts.get(suffix, b""))
            if line.end_s <= _LONGEST_S
        ]
    spoken = fields.get("transcript")
    kept, left_out = meta(fields)
    made = {
        "captions": captions([*first, decoded.get(".cap", "").strip()], fields),
        "labels": labels(decoded.get(".cls", ""), fields),
        "sentences": said,
        "transcript": spoken if isinstance(spoken, str) and not said else " ".join(line["text"] for line in said),
        "meta": kept,
    }
    return Texts(fields=made, bad_lines=bad_lines, left_out=left_out, video=video_of(fields))


def text(data: bytes, *, suffix: str) -> str:
    """Return the contents of a text file without its byte order mark, with line feeds as line ends.

    Raises:
      BadText: it is not UTF-8.
    """
    try:
        decoded = data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise BadText(f"the {suffix} is not UTF-8 ({error.reason} at byte {error.start})") from error
    return decoded.replace("\r\n", "\n").replace("\r", "\n")


def _lines(content: str) -> list[str]:
    """The lines of a text that are not blank."""
    return [line for line in content.split("\n") if line.strip()]


def json_fields(data: bytes) -> dict[str, Any]:
    """Return the fields of a JSON object; its numbers may be anything that JSON can spell.

    Raises:
      BadText: it is not UTF-8, not JSON, no object, or it has a key twice.
    """
    content = text(data, suffix=".json").strip()
    try:
        fields = strict_json.parse(content)
    except strict_json.DuplicateKey as error:
        raise BadText(f"the .json cannot be used: {error}") from error
    except ValueError as error:
        raise BadText(f"the .json is not JSON ({str(error)[:80]})") from error
    if not isinstance(fields, dict):
        raise BadText(f"the .json is a {type(fields).__name__}, wanted a JSON object")
    return fields


def captions(given: list[str], fields: dict[str, Any]) -> list[str]:
    """Return the captions of a clip: those of the text files, then those of the JSON that are not among them."""
    found = []
    for name in ("caption", "captions", "text"):
        value = fields.get(name)
        found += [value] if isinstance(value, str) else _strings(value)
    made = [caption for caption in given if caption]
    seen = {caption.strip() for caption in made}
    for caption in (item.strip() for item in found):
        if caption and caption not in seen:
            seen.add(caption)
            made.append(caption)
    return made


def labels(category: str, fields: dict[str, Any]) -> list[str]:
    """Return the labels of a clip: that of the `.cls` file, then those of the JSON."""
    found = [category]
    for name in ("label", "labels"):
        value = fields.get(name)
        is_one = isinstance(value, str | int) and not isinstance(value, bool)
        found += [str(value)] if is_one else _strings(value)
    return list(dict.fromkeys(stripped for item in found if (stripped := item.strip())))


def sentences(fields: dict[str, Any]) -> tuple[list[dict[str, Any]], int]:
    """Return what is said, with its times counted from the start of the file, and how many lines had impossible times.

    `whisper_transcript` is timed from the file's start; subtitles from the start of the video of which `clips[0]` says
    the stretch that the file is. Of several languages the first is taken, English before others.
    """
    spoken = fields.get("whisper_transcript")
    lines = _dicts(spoken.get("segments")) if isinstance(spoken, dict) else []
    start, end = 0.0, math.inf
    if not lines:
        start, end = _stretch(fields)
        lines = _dicts(fields.get("clip_subtitles"))
    if not lines and isinstance(video := fields.get("yt_meta_dict"), dict):
        lines = _dicts(_one_language(video.get("subtitles")))
    made, bad = [], 0
    for line in lines:
        begin, until, said = _seconds(line.get("start")), _seconds(line.get("end")), _said(line)
        if begin is None or until is None or until <= begin:
            bad += 1
        elif said and until > start and begin < end:
            begin, until = max(begin - start, 0.0), min(until, end) - start
            made.append({"start_s": round(begin, 4), "end_s": round(until, 4), "text": said})
    kept = [line for line in made if line["end_s"] > line["start_s"]]
    return kept, bad + len(made) - len(kept)


def meta(fields: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return the plain values (text, number, truth) that no other field of a clip holds, and the keys of all others."""
    rest = {key: value for key, value in fields.items() if key not in _HANDLED and value is not None}
    kept = {key: value for key, value in rest.items() if key not in _RESERVED and _is_plain(value)}
    left_out = [key for key, value in rest.items() if key not in kept and value not in ("", [], {})]
    stretch = _stretch(fields)
    if math.isfinite(stretch[1]):
        kept["cut_from_s"] = list(stretch)
    return kept, left_out


def video_of(fields: dict[str, Any]) -> str:
    """Return the name of the video that a file was cut from, "" if the JSON does not say it."""
    found = (fields.get(name) for name in ("videoid", "videoID", "video_id", "url"))
    return next((value for value in found if isinstance(value, str) and value), "")


def without_number(key: str) -> str:
    """Return a key without the number that video2dataset gives to the clips of one video (`KEY_00003`)."""
    return re.sub(r"_\d{5}$", "", key)


def _is_plain(value: object) -> bool:
    if isinstance(value, str):
        return 0 < len(value) <= _LONGEST_META
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, bool) or (isinstance(value, int) and abs(value) < 2**63)


def _stretch(fields: dict[str, Any]) -> tuple[float, float]:
    """Start and end in its video of a file that was cut out; (0, infinity) for a whole one."""
    clips = fields.get("clips")
    if isinstance(clips, list) and len(clips) == 1 and isinstance(clips[0], list):
        clips = clips[0]
    if isinstance(clips, list) and len(clips) == 2:
        start, end = _seconds(clips[0]), _seconds(clips[1])
        if start is not None and end is not None and start < end:
            return start, end
    return 0.0, math.inf


def _seconds(value: Any) -> float | None:
    """A time in seconds; None for anything that is no time in a file."""
    try:
        seconds = to_seconds(value)
    except ValueError:
        return None
    return seconds if 0 <= seconds < 1e9 else None


def _said(line: dict[str, Any]) -> str:
    """The words of a line: `text`, `line`, or `lines` (a list, or one per language)."""
    lines = _one_language(line.get("lines"))
    said = line.get("text") or line.get("line") or (" ".join(_strings(lines)) if isinstance(lines, list) else lines)
    return " ".join(said.split()) if isinstance(said, str) else ""


def _one_language(value: object) -> object:
    if not isinstance(value, dict) or not value:
        return value
    return value.get("en", next(iter(value.values())))


def _strings(value: object) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def _dicts(value: object) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
