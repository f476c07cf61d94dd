"""What stands beside a media file in a WebDataset archive (`KEY.txt`, `KEY.json`, `KEY.cls`) to fields of a clip.

The fields of `KEY.json` are those that video2dataset and img2dataset write: `caption`; `clips` (where the file was cut
out of its video); `yt_meta_dict.subtitles`, `clip_subtitles` and `whisper_transcript` (what is said).
"""

import json
import math
import re
from typing import Any

LONGEST_TEXT = 2**20  # bytes of a .txt or .cls
LONGEST_JSON = 16 * 2**20  # bytes of a .json
_LONGEST_META = 2000  # characters of a string that is kept under `meta`
_HANDLED = frozenset(
    (
        *("caption", "captions", "text", "label", "labels", "clips", "key", "status", "error_message"),
        *("clip_subtitles", "whisper_transcript", "yt_meta_dict", "transcript", "group", "refused"),
    )
)
_TIME = re.compile(r"(?:(\d{1,4}):)?(\d{1,2}):(\d{1,2}(?:[.,]\d{1,9})?)")


class BadText(Exception):
    """A text that cannot be read; the message says why."""


def text(data: bytes) -> str:
    """Return a text file's contents, without byte order mark and blanks at its ends.

    Raises:
      BadText: it is not UTF-8.
    """
    try:
        return data.decode("utf-8").removeprefix("\ufeff").strip()
    except UnicodeDecodeError as error:
        raise BadText(f"not UTF-8 ({error.reason} at byte {error.start})") from error


def json_fields(data: bytes) -> dict[str, Any]:
    """Return the fields of a JSON object; its numbers may be anything that JSON can spell.

    Raises:
      BadText: it is not UTF-8, not JSON, or no object.
    """
    try:
        fields = json.loads(text(data))
    except (ValueError, RecursionError) as error:
        raise BadText(f"not JSON ({str(error)[:80]})") from error
    if not isinstance(fields, dict):
        raise BadText(f"{type(fields).__name__}, wanted a JSON object")
    return fields


def captions(caption: str, fields: dict[str, Any]) -> list[str]:
    """Return the captions of a clip, each once: that of the text file, then those of the JSON."""
    found = [caption]
    for name in ("caption", "captions", "text"):
        value = fields.get(name)
        found += [value] if isinstance(value, str) else _strings(value)
    return list(dict.fromkeys(stripped for item in found if (stripped := item.strip())))


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


def meta(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the plain values (text, number, truth) of the JSON that no other field of a clip holds."""
    kept = {key: value for key, value in fields.items() if key not in _HANDLED and _is_plain(value)}
    stretch = _stretch(fields)
    if math.isfinite(stretch[1]):
        kept["cut_from_s"] = list(stretch)
    return kept


def video_key(key: str, fields: dict[str, Any]) -> str:
    """Return the name of the video that a file was cut from: clips of one video belong into one split."""
    for name in ("videoid", "videoID", "video_id", "url"):
        if isinstance(value := fields.get(name), str) and value:
            return value
    return re.sub(r"_\d{5}$", "", key)  # video2dataset numbers the clips of a video so


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


def _seconds(value: object) -> float | None:
    """A time: seconds, or `HH:MM:SS.mmm`; None for anything else."""
    if isinstance(value, str):
        found = _TIME.fullmatch(value.strip())
        if found is None:
            return None
        hours, minutes, rest = found.groups()
        return int(hours or 0) * 3600 + int(minutes) * 60 + float(rest.replace(",", "."))
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 <= value < 1e9 else None


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
