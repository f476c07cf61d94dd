"""Which of a benchmark's videos are there: the folder is walked once, and clips find their file by its name."""

import dataclasses
import os
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from ...base.errors import UserError
from ..manifest import Clip
from .kinds import VIDEO_SUFFIXES

_TICK = 1000  # files between two reports of progress


@dataclasses.dataclass(frozen=True, kw_only=True)
class Located:
    """Clips whose video is there, with its `path` relative to the folder, and those whose video is not.

    Attributes:
      present: in the order given.
      missing: likewise; `path` stays the name that was looked for.
      several: how many clips have more than one file of their name; the first in order of paths is taken.
      files: how many files the folder has.
      example: one of them, for messages; "" = none.
    """

    present: list[Clip]
    missing: list[Clip]
    several: int
    files: int
    example: str


def locate(
    clips: Sequence[Clip],
    *,
    folder: Path,
    alternatives: Callable[[Clip], Iterable[Clip]],
    tick: Callable[[int], None] = lambda files: None,
) -> Located:
    """Find the video of each clip anywhere under a folder.

    A video is found by its name: `path` of the clip with any video suffix, or as it is, in composed or decomposed
    Unicode. Where `path` has folders
    (`brush_hair/x`), a file in such a folder goes before one elsewhere.

    Args:
      clips: with the video's name, without suffix, as `path`.
      folder: to look in, with all folders below it.
      alternatives: other names (and windows) of a clip's video, in order of preference.
      tick: called now and then with the number of files seen.

    Raises:
      UserError: no such folder, or one that cannot be read.
    """
    if not folder.is_dir():
        raise UserError(f"--videos {str(folder)!r} is not a folder; give the folder of the videos")
    forms = [[clip, *alternatives(clip)] for clip in clips]
    wanted = {_composed(form.path).rsplit("/", 1)[-1] for forms_of_clip in forms for form in forms_of_clip}
    index: dict[str, list[str]] = {}
    files, example = 0, ""
    for path in _walk(folder):
        files += 1
        if files % _TICK == 0:
            tick(files)
        name = _composed(path).rsplit("/", 1)[-1]
        stem, dot, suffix = name.rpartition(".")
        is_video = bool(dot) and f".{suffix.lower()}" in VIDEO_SUFFIXES
        example = example or path
        for key in (stem, name) if is_video else (name,):
            if key in wanted:
                index.setdefault(key, []).append(path)
    present, missing, several = [], [], 0
    for clip, *others in forms:
        if not clip.path:  # features only, whose files the source has seen where it names them
            files_of = {path.partition("::")[0] for path in clip.features.values()}
            (present if all((folder / path).is_file() for path in files_of) else missing).append(clip)
            continue
        for form in (clip, *others):
            if found := _matches(_composed(form.path), index):
                present.append(dataclasses.replace(form, path=found[0]))
                several += len(found) > 1
                break
        else:
            missing.append(clip)
    return Located(present=present, missing=missing, several=several, files=files, example=example)


def _matches(name: str, index: dict[str, list[str]]) -> list[str]:
    """The files of a name, those in the folders that it names first; all others only where there are none such."""
    folders, _, last = name.rpartition("/")
    found = index.get(last, [])
    inside = [path for path in found if folders and f"/{_composed(path)}".rpartition("/")[0].endswith(f"/{folders}")]
    return sorted(inside or found)


def _walk(folder: Path) -> Iterable[str]:
    """Yield the paths of all files below a folder, relative to it; links are followed, each folder once."""
    seen: set[tuple[int, int]] = set()
    waiting = [""]
    while waiting:
        here = waiting.pop()
        try:
            place = os.stat(folder / here)  # noqa: PTH116  (a Path for each file is slow in folders of a million)
            if (place.st_dev, place.st_ino) in seen:
                continue
            seen.add((place.st_dev, place.st_ino))
            with os.scandir(folder / here) as entries:
                listed = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            raise UserError(f"--videos: {str(folder / here)!r} cannot be read ({error.strerror})") from error
        for entry in listed:
            if entry.name.startswith(".") or not _is_utf8(entry.name):  # the latter no annotation file can name
                continue
            path = f"{here}/{entry.name}" if here else entry.name
            if entry.is_dir():
                waiting.append(path)
            else:
                yield path


def _composed(name: str) -> str:
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def _is_utf8(name: str) -> bool:
    try:
        return name.isascii() or bool(name.encode())
    except UnicodeEncodeError:
        return False
