"""What a user points `prepare` at (a manifest, a CSV, a folder of videos) to a list of clips, all with a split."""

import collections
import csv
import dataclasses
import difflib
import hashlib
import io
import os
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from ...base.errors import UserError
from ..manifest import Clip, make_clip, read_manifest
from ..paths import PathLike, file_name, folder_of, is_remote, open_binary

SPLITS = ("train", "val", "test")
VIDEO_SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("3g2", "3gp", "asf", "avi", "f4v", "flv", "gif", "h264", "hevc", "ivf", "m2ts", "m2v", "m4v", "mkv", "mov"),
        *("mp4", "mpeg", "mpg", "mts", "mxf", "nut", "ogm", "ogv", "ts", "vob", "webm", "wmv", "y4m"),
    )
)
ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
# What becomes a clip of one frame (media/stills.py).
PICTURE_SUFFIXES = frozenset((".bmp", ".jpeg", ".jpg", ".png", ".webp"))
_COLUMNS = ("path", "caption", "start_s", "end_s", "split", "label")
_LONGEST_FIELD = 64 * 2**20  # bytes of one CSV field; Python's default of 128 KiB is short for a long transcript


def read_source(source: PathLike) -> tuple[PathLike, list[Clip]]:
    """Read a manifest, a CSV, a folder, or WebDataset archives.

    - `.jsonl`: a manifest (see `data/manifest.py`).
    - `.csv` (or `.tsv`): columns `path,caption[,start_s,end_s,split,label]`; further columns become `meta`. Rows of the
      same path and window are captions of one clip.
    - a folder: each video or picture with a `.txt` beside it that has one caption per line; or, if none has one, class
      folders whose name is the label. Folders `train`, `val`, `test` at the top are splits.
    - `.tar`: a WebDataset archive, a pattern of them, or a folder that has nothing but such (see `webdataset`).

    Manifests, CSV files and archives may lie behind a URL.

    Where no clip has a split, 80 % go to train, 10 % to val and 10 % to test by a hash of the clip's group or else of
    its path, so that windows of one file and members of one group share a split.

    Returns:
      The folder to which the clips' paths are relative, and the clips, all with a split, in the order of the source.

    Raises:
      UserError: the source does not exist, holds no clip, or has a fault (names place, value and remedy).
    """
    if is_archive(source) or (is_remote(source) and not _suffix(source)):
        from .webdataset import read  # here, because that module imports this one

        return read(os.fspath(source))
    if is_remote(source):
        return folder_of(source), assign_splits(_read_list(source), where=str(source))
    source = Path(source)
    if source.is_dir():
        root, clips = source, _read_folder(source)
    elif not source.exists():
        raise UserError(
            f"source {str(source)!r} does not exist; give a manifest (.jsonl), a .csv or a folder of videos"
        )
    else:
        root, clips = source.parent, _read_list(source)
    return root, assign_splits(clips, where=str(source))


def is_archive(source: PathLike) -> bool:
    """Whether a source is meant as WebDataset archives: a name (or pattern of names) of archives, or a folder of them.

    A folder is, if it has archives right inside and no video.
    """
    if str(source).lower().endswith(ARCHIVES):
        return True
    if is_remote(source) or not Path(source).is_dir():
        return False
    suffixes = {entry.suffix.lower() for entry in Path(source).iterdir()}
    return ".tar" in suffixes and not suffixes & (VIDEO_SUFFIXES | {".jsonl", ".csv", ".tsv"})


def _read_list(source: PathLike) -> list[Clip]:
    if _suffix(source) in (".csv", ".tsv"):
        return _read_csv(source)
    if _suffix(source) in (".jsonl", ".ndjson"):
        return read_manifest(source)
    raise UserError(
        f"source {str(source)!r} is of no known kind; "
        "give a manifest (.jsonl), a .csv, a folder of videos or .tar archives"
    )


def _suffix(source: PathLike) -> str:
    return PurePosixPath(file_name(source)).suffix.lower()


def assign_splits(clips: list[Clip], *, where: str) -> list[Clip]:
    """Return the clips with a split each: as given, or by hash if none has one.

    Raises:
      UserError: some clips have a split and others have none; `where` names the source in the message.
    """
    without = [clip for clip in clips if not clip.split]
    if not without:
        return clips
    if len(without) < len(clips):
        names = ", ".join(repr(clip.clip_id) for clip in without[:3])
        raise UserError(
            f"{where}: {len(without)} of {len(clips)} clips have no split (the first: {names}); "
            "give every clip a split, or none to have them split by hash"
        )
    return [dataclasses.replace(clip, split=hashed_split(clip.group or _stem(clip.path))) for clip in clips]


def hashed_split(name: str) -> str:
    """Return `train` (80 %), `val` (10 %) or `test` (10 %), the same one for the same name everywhere.

    >>> [hashed_split(name) for name in ("a", "b", "dance/clip7")]
    ['train', 'train', 'train']
    """
    tenth = int.from_bytes(hashlib.sha256(name.encode("utf-8")).digest()[:8], "big") % 10
    return {8: "val", 9: "test"}.get(tenth, "train")


def clean_captions(clips: Iterable[Clip]) -> tuple[list[Clip], int, int]:
    """Drop captions that are empty or blank; give a clip that has labels but no caption its first label as caption.

    Returns:
      The clips (one without caption and label keeps none), the number of captions dropped, and the number of clips
      whose caption is made from a label. Captions that stay are unchanged.
    """
    cleaned, dropped, from_labels = [], 0, 0
    for clip in clips:
        captions = tuple(caption for caption in clip.captions if caption.strip())
        dropped += len(clip.captions) - len(captions)
        if not captions and clip.labels:
            captions = (label_caption(clip.labels[0]),)
            from_labels += 1
        cleaned.append(dataclasses.replace(clip, captions=captions))
    return cleaned, dropped, from_labels


def label_caption(label: str) -> str:
    """Return the caption that a label makes where a clip has no other: the label with blanks for underscores."""
    return label.replace("_", " ")


# --- CSV ---


def _read_csv(path: PathLike) -> list[Clip]:
    """Read `path,caption[,start_s,end_s,split,label]`; rows of one path and window are captions of one clip."""
    rows: dict[tuple[str, str, str], dict[str, Any]] = {}
    for where, row in _csv_rows(path):
        fields = _csv_fields(row, where=where)
        key = (fields["path"], str(fields["start_s"]), str(fields["end_s"]))
        first = rows.setdefault(key, fields | {"where": where, "captions": []})
        for name in ("split", "labels"):
            if first[name] != fields[name]:
                raise UserError(
                    f"{where}: {fields['path']!r} has {name} {fields[name]!r} here but {first[name]!r} in "
                    f"{first['where']}; rows of one clip must agree"
                )
        first["captions"] += fields["captions"]
    if not rows:
        raise UserError(f"{path}: has a header but no row; write one row per caption")
    names = _clip_ids((path, _window(start, end)) for path, start, end in rows)
    return [
        make_clip({**fields, "clip_id": name}, where=fields.pop("where"))
        for name, fields in zip(names, rows.values(), strict=True)
    ]


def _csv_rows(path: PathLike) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield `(place, row)` with the column names stripped and in lower case."""
    csv.field_size_limit(_LONGEST_FIELD)
    try:
        with io.TextIOWrapper(open_binary(path), encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter="\t" if _suffix(path) == ".tsv" else ",", strict=True)
            header = [name.strip().lower() for name in next(reader, [])]
            _check_header(header, path=path)
            for row in reader:
                if not any(cell.strip() for cell in row):
                    continue
                where = f"{path}, line {reader.line_num}"
                if len(row) != len(header):
                    raise UserError(
                        f"{where}: has {len(row)} fields, the header has {len(header)}; "
                        'put captions with commas in double quotes, as "a dog, running"'
                    )
                yield where, dict(zip(header, row, strict=True))
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8") from error
    except csv.Error as error:
        raise UserError(f"{path}: is not a CSV file that can be read ({error})") from error


def _check_header(header: list[str], *, path: PathLike) -> None:
    found = ", ".join(header) or "none"
    for column in ("path", "caption"):
        if column not in header:
            hint = difflib.get_close_matches(column, header, n=1, cutoff=0.6)
            raise UserError(
                f"{path}: has no column {column!r}; the columns found are: {found}. "
                + (f"Rename {hint[0]!r} to {column!r}, or add" if hint else f"Add the column {column!r}:")
                + f" (columns: {', '.join(_COLUMNS)})"
            )
    for name in header:
        if header.count(name) > 1:
            raise UserError(f"{path}: has column {name!r} twice; the columns found are: {found}")
        close = difflib.get_close_matches(name, _COLUMNS, n=1, cutoff=0.8)
        hint = f"{name}_s" if f"{name}_s" in _COLUMNS else close[0] if close else ""
        if name not in _COLUMNS and hint and hint not in header:
            raise UserError(f"{path}: unknown column {name!r}; did you mean {hint!r}? Rename it, or remove it")


def _csv_fields(row: dict[str, str], *, where: str) -> dict[str, Any]:
    """The fields of `Clip` that a row gives."""
    label = row.get("label", "").strip()
    return {
        "path": _posix(row["path"].strip()),
        "captions": [row["caption"]] if row["caption"].strip() else [],
        "start_s": _number(row, "start_s", where=where),
        "end_s": _number(row, "end_s", where=where),
        "split": row.get("split", "").strip(),
        "labels": [label] if label else [],
        "meta": {name: cell for name, cell in row.items() if name not in _COLUMNS and cell},
    }


def _number(row: dict[str, str], name: str, *, where: str) -> float | None:
    text = row.get(name, "").strip()
    if not text:
        return None
    try:
        return float(text)
    except ValueError:
        raise UserError(f"{where}: column {name!r} is {text!r}, wanted seconds, as 12.5") from None


def _posix(path: str) -> str:
    return path.replace("\\", "/") if "/" not in path else path


# --- folder ---


def _read_folder(folder: Path) -> list[Clip]:
    """Read a folder of videos with captions in `.txt` files, or of class folders."""
    videos = [
        path.relative_to(folder)
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in VIDEO_SUFFIXES | PICTURE_SUFFIXES
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
    if not videos:
        lists = sorted(path.name for path in folder.iterdir() if path.suffix.lower() in (".jsonl", ".csv", ".tsv"))
        hint = f"; it has {', '.join(lists)}: give that file instead" if lists else ""
        raise UserError(
            f"folder {str(folder)!r} has no video and no picture (looked for "
            f"{', '.join(sorted(VIDEO_SUFFIXES | PICTURE_SUFFIXES))}){hint}"
        )
    splits = _folder_splits(folder, videos)
    captioned = any((folder / video).with_suffix(".txt").is_file() for video in videos)
    names = _clip_ids((video.as_posix(), "") for video in videos)
    clips = []
    for name, video in zip(names, videos, strict=True):
        inner = video.parts[1:] if splits[video] else video.parts
        label = inner[0] if len(inner) > 1 and not captioned else ""
        captions = (
            _captions((folder / video).with_suffix(".txt")) if captioned else [label_caption(label)] if label else []
        )
        fields = {"clip_id": name, "path": video.as_posix(), "captions": captions, "split": splits[video]}
        clips.append(make_clip(fields | {"labels": [label] if label else []}, where=str(folder / video)))
    return clips


def _folder_splits(folder: Path, videos: list[Path]) -> dict[Path, str]:
    """The split of each video: the top folder's name if that is `train`, `val` or `test`."""
    splits = {video: video.parts[0] if len(video.parts) > 1 and video.parts[0] in SPLITS else "" for video in videos}
    outside = [str(video) for video, split in splits.items() if not split]
    if outside and len(outside) < len(videos):
        raise UserError(
            f"folder {str(folder)!r} has split folders ({', '.join(sorted(set(splits.values()) - {''}))}) but also "
            f"{len(outside)} videos outside them (the first: {outside[0]!r}); move these into a split folder"
        )
    return splits


def _captions(path: Path) -> list[str]:
    """The lines of a caption file; none where it does not exist (the clip is then rejected, and counted, later)."""
    if not path.is_file():
        return []
    try:
        return path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8") from error


# --- names ---


def _clip_ids(clips: Iterable[tuple[str, str]]) -> list[str]:
    """Names of clips given as `(path, window)`: path without suffix, `@window`; the suffix stays where names clash."""
    pairs = list(clips)
    short = [_stem(path) + window for path, window in pairs]
    uses = collections.Counter(short)
    return [path + window if uses[name] > 1 else name for name, (path, window) in zip(short, pairs, strict=True)]


def _window(start: str, end: str) -> str:
    if start == end == "None":
        return ""
    return f"@{start.replace('None', '0')}-{end.replace('None', '')}"


def _stem(path: str) -> str:
    return (PurePosixPath(path).parent / PurePosixPath(path).stem).as_posix()
