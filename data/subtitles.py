"""Subtitle files (SubRip, WebVTT) next to videos, as sentences with times; and sentences as a SubRip file."""

import html
import os
import re
from collections.abc import Iterable
from pathlib import Path

from .clip import Sentence
from .timecode import to_seconds

SUFFIXES = (".srt", ".vtt")
LONGEST = 16 * 2**20
"""Bytes of a file that is read."""
_MARKUP = re.compile(r"<[^>]*>|\{\\[^}]*\}")


def read_subtitles(path: Path) -> tuple[Sentence, ...]:
    """Read a subtitle file in UTF-8; entries whose times cannot be read are left out.

    Returns:
      In order of `start_s`, which counts from the file's first picture. Markup is removed, lines are joined.
    """
    with path.open("rb") as file:
        return subtitles_of(file.read(LONGEST))


def subtitles_of(content: bytes) -> tuple[Sentence, ...]:
    """Return the entries of a subtitle file; see `read_subtitles`."""
    text = content.decode("utf-8-sig", errors="replace")
    return tuple(sorted(_entries(text.splitlines()), key=lambda sentence: sentence.start_s))


def belongs(subtitle: str, *, to: str) -> bool:
    """Whether a subtitle file is that of a video: the same name, perhaps with a language before its suffix.

    >>> [belongs(name, to="a.mp4") for name in ("a.srt", "a.en.vtt", "ab.srt", "a.info.vtt")]
    [True, True, False, False]
    """
    stem, own = os.path.splitext(subtitle)[0], os.path.splitext(to)[0]  # noqa: PTH122
    language = stem.removeprefix(f"{own}.")
    return stem == own or (stem.startswith(f"{own}.") and language.isalpha() and len(language) <= 3)


def _entries(lines: list[str]) -> Iterable[Sentence]:
    starts = [i for i, line in enumerate(lines) if "-->" in line]
    for i in starts:
        before, _, after = lines[i].partition("-->")
        words = []
        for line in lines[i + 1 :]:
            if not line.strip():
                break
            words.append(html.unescape(_MARKUP.sub("", line)).strip())
        try:
            start_s, end_s = to_seconds(before.strip()), to_seconds((after.split() or [""])[0])
        except ValueError:
            continue
        text = " ".join(word for word in words if word)
        if text and 0 <= start_s < end_s < float("inf"):
            yield Sentence(start_s=start_s, end_s=end_s, text=text)


def within(sentences: Iterable[Sentence], *, start_s: float, end_s: float) -> list[Sentence]:
    """Return the sentences that are on for a part of a window."""
    return [sentence for sentence in sentences if sentence.start_s < end_s and sentence.end_s > start_s]


def write_srt(path: Path, *, sentences: Iterable[Sentence], start_s: float, end_s: float) -> int:
    """Write the sentences of a window as a SubRip file whose time 0 is the window's start; return how many there are.

    Without any, no file is written.
    """
    kept = within(sentences, start_s=start_s, end_s=end_s)
    blocks = []
    for number, sentence in enumerate(kept, start=1):
        first, last = max(sentence.start_s, start_s) - start_s, min(sentence.end_s, end_s) - start_s
        blocks.append(f"{number}\n{_stamp(first)} --> {_stamp(last)}\n{sentence.text}\n")
    if blocks:
        path.write_text("\n".join(blocks), encoding="utf-8")
    return len(blocks)


def _stamp(seconds: float) -> str:
    """Return a time as HH:MM:SS,mmm."""
    whole = round(1000 * seconds)
    return f"{whole // 3_600_000:02}:{whole // 60_000 % 60:02}:{whole // 1000 % 60:02},{whole % 1000:03}"
