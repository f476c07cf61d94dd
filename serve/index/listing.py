"""What is to be indexed: the media files of folders, and the clips of manifests and tables."""

import dataclasses
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from ...base.errors import UserError
from ...data.clip import REFUSED, Clip, Sentence
from ...data.paths import is_plain, join
from ...data.sources.kinds import PICTURE_SUFFIXES, SYSTEM_FOLDERS, VIDEO_SUFFIXES, is_hidden, suffix_of
from ...data.sources.read import read_source
from ...data.subtitles import SUFFIXES, belongs, read_subtitles

_NO_END = 1e9  # seconds; end of a transcript without times


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
    """A file, or a window of one, that is to be indexed.

    Attributes:
      key: names it in the index: its path, and its window where it has one.
      root: the folder or the list that names it.
      path: absolute path of the media file.
      start_s: start of the window in seconds from the file's first picture; None = from the first picture.
      end_s: end of the window; None = to the last picture.
      size: bytes.
      mtime_ns: when the file was last written.
      captions: texts of the clip.
      labels: class names.
      sentences: what is said, with times.
      refused: why it cannot be indexed; "" = it can.
    """

    key: str
    root: str
    path: str
    start_s: float | None = None
    end_s: float | None = None
    size: int = 0
    mtime_ns: int = 0
    captions: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    sentences: tuple[Sentence, ...] = ()
    refused: str = ""


def list_source(source: str) -> list[Entry]:
    """List the media files of a folder with all folders below it, or the clips of a manifest or table.

    Hidden files and files that are no video or picture are left out; linked folders are followed. A subtitle file of a
    video's name (`a.srt`, `a.vtt`, `a.en.srt` for `a.mp4`) is its transcript.

    Args:
      source: a folder, a `.jsonl` manifest, or a `.csv` table.

    Raises:
      UserError: it does not exist, cannot be read, or has nothing to index.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        entries = list(_files(str(path.resolve())))
        if not entries:
            raise UserError(
                f"folder {source!r} has no video and no picture (looked for "
                f"{', '.join(sorted(VIDEO_SUFFIXES | PICTURE_SUFFIXES))}); give the folder of your videos"
            )
        return entries
    if path.is_file() and suffix_of(path.name) in VIDEO_SUFFIXES | PICTURE_SUFFIXES:
        raise UserError(f"{source!r} is a single file; give the folder in which it lies, or a manifest (.jsonl)")
    listing = read_source(path)
    root = str(path.resolve())
    entries = [_of_clip(clip, root=root, folder=str(Path(root).parent)) for clip in listing.clips]
    return list({entry.key: entry for entry in entries}.values())


def _files(root: str) -> Iterator[Entry]:
    """Yield the media files below a folder, in order of their paths; each folder once."""
    seen: set[tuple[int, int]] = set()
    for here, folders, names in os.walk(root, followlinks=True, onerror=_unreadable):
        place = os.stat(here)  # noqa: PTH116
        if (place.st_dev, place.st_ino) in seen:
            folders.clear()
            continue
        seen.add((place.st_dev, place.st_ino))
        folders[:] = sorted(name for name in folders if not is_hidden(name) and name.lower() not in SYSTEM_FOLDERS)
        subtitles = sorted(name for name in names if suffix_of(name) in SUFFIXES)
        for name in sorted(names):
            if is_hidden(name) or suffix_of(name) not in VIDEO_SUFFIXES | PICTURE_SUFFIXES:
                continue
            entry = _with_state(Entry(key=f"{here}/{name}", root=root, path=f"{here}/{name}"))
            found = [one for one in subtitles if belongs(one, to=name)]
            if found and not entry.refused:
                entry = dataclasses.replace(entry, sentences=read_subtitles(Path(here) / found[0]))
            yield entry


def _unreadable(error: OSError) -> None:
    raise UserError(f"{error.filename!r} cannot be read ({error.strerror}); check its permissions") from error


def _of_clip(clip: Clip, *, root: str, folder: str) -> Entry:
    """Return the entry of a clip of a manifest."""
    if not clip.path or not is_plain(clip.path):
        what = f"{clip.path!r} lies in an archive or behind a URL" if clip.path else "the clip has features only"
        return Entry(key=f"{root}#{clip.clip_id}", root=root, path=clip.path, refused=f"no local file: {what}")
    path = os.path.normpath(join(folder, clip.path))
    window = f"#{clip.start_s or 0:g}-{'' if clip.end_s is None else f'{clip.end_s:g}'}"
    said = clip.sentences
    if clip.transcript and not said:
        said = (Sentence(start_s=clip.start_s or 0.0, end_s=clip.end_s or _NO_END, text=clip.transcript),)
    return _with_state(
        Entry(
            key=path + (window if clip.start_s is not None or clip.end_s is not None else ""),
            root=root,
            path=path,
            start_s=clip.start_s,
            end_s=clip.end_s,
            captions=clip.captions,
            labels=clip.labels,
            sentences=said,
            refused=str(clip.meta.get(REFUSED, "")),
        )
    )


def _with_state(entry: Entry) -> Entry:
    """Return the entry with the size and time of its file, or with the reason why there are none."""
    try:
        entry.path.encode()
    except UnicodeEncodeError:
        shown = os.fsencode(entry.path).decode("utf-8", "backslashreplace")
        return Entry(key=shown, root=entry.root, path=shown, refused="file name is not UTF-8: rename the file")
    try:
        found = os.stat(entry.path)  # noqa: PTH116
    except OSError as error:
        reason = "file does not exist" if isinstance(error, FileNotFoundError) else f"cannot be read: {error.strerror}"
        return dataclasses.replace(entry, refused=entry.refused or reason)
    return dataclasses.replace(entry, size=found.st_size, mtime_ns=found.st_mtime_ns)


def combined(sources: Sequence[str]) -> tuple[list[Entry], list[str]]:
    """List several sources; return the entries, each key once, and the roots.

    Raises:
      UserError: see `list_source`.
    """
    entries: dict[str, Entry] = {}
    roots = []
    for source in sources:
        found = list_source(source)
        roots.append(str(Path(source).expanduser().resolve()))
        for entry in found:
            entries.setdefault(entry.key, entry)
    return list(entries.values()), roots
