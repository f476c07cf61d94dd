"""A folder of videos and pictures, with texts beside them, a metadata file, or class folders, to clips."""

import dataclasses
import os
from pathlib import Path
from typing import Any

from ...base.errors import UserError
from ..manifest import REFUSED, Clip, make_clip
from ..sources import sidecars
from .captions import label_caption
from .kinds import LISTS, PICTURE_SUFFIXES, SYSTEM_FOLDERS, UNREAD_LISTS, VIDEO_SUFFIXES, is_hidden, left_out, suffix_of
from .notes import Notes
from .samples import Sample, group
from .splits import place_in_splits, unique_ids
from .table import read_table

_METADATA = (
    "metadata.csv",
    "metadata.tsv",
    "metadata.jsonl",
    "metadata.parquet",
)  # as Hugging Face's libraries look for them


def read_folder(folder: Path, *, notes: Notes) -> list[Clip]:
    """Read a folder; linked folders are followed.

    Each video or picture is a clip. Its captions are those that a `metadata.csv` (`.jsonl`, `.parquet`) gives it; in a
    folder without one, those of its own texts (`a.txt` with a caption per line, `a.cap`, `a.json`, `a.cls` beside
    `a.mp4`); or, where no file has texts, the name of its class folder, which is its label. Folders such as `train`,
    `Test`, `validation` are splits (`splits.place_in_splits`).

    Args:
      folder: the folder.
      notes: where the files are counted that belong to no clip.

    Raises:
      UserError: no video and no picture, a folder that cannot be read, files outside the split folders, or a list of
        captions of which it is not clear whether it is meant to be used.
    """
    files = _walk(folder, notes=notes)
    media = [name for name in files if suffix_of(name) in VIDEO_SUFFIXES | PICTURE_SUFFIXES]
    lists = [name for name in files if suffix_of(name) in (*LISTS, *UNREAD_LISTS)]
    if not media:
        raise _no_media(folder, files=files, lists=lists)
    metadata = [name for name in lists if name.rpartition("/")[2].lower() in _METADATA]
    if metadata:
        return _from_metadata(folder, metadata, files=files, notes=notes)
    samples = group(files, notes=notes, one_film=False)
    used = [sample for sample in samples if sample.media or (sample.texts and sample.features)]
    for sample in samples:
        if sample not in used:
            for name in (*sample.texts.values(), *sample.features.values()):
                notes.add("texts or features without a film left out (name them as their film is)", name=name)
    texts = [_read_texts(folder, sample) for sample in used]
    captioned = any(text is None or text.fields["captions"] or text.fields["labels"] for text in texts)
    if lists and not captioned:
        raise UserError(
            f"folder {str(folder)!r} has videos without texts of their own, and it has {', '.join(lists[:3])}: "
            "give that file instead, or move it away if it has nothing to do with the videos. A list needs the columns "
            "path and caption"
        )
    return _clips(folder, used, texts=texts, captioned=captioned, notes=notes)


def _no_media(folder: Path, *, files: list[str], lists: list[str]) -> UserError:
    hint = f"; it has {', '.join(sorted(lists)[:3])}: give that file instead" if lists else ""
    archives = [name for name in files if suffix_of(name) == ".tar"]
    if archives:
        hint = f"; it has archives ({', '.join(archives[:2])}): give them as a pattern, 'DIR/*/*.tar'"
    return UserError(
        f"folder {str(folder)!r} has no video and no picture (looked for "
        f"{', '.join(sorted(VIDEO_SUFFIXES | PICTURE_SUFFIXES))}){hint}"
    )


# --- clips with texts of their own, or in class folders ---


def _read_texts(folder: Path, sample: Sample) -> sidecars.Texts | None:
    """The texts of a sample; None (and a reason in the sample) where they cannot be used."""
    contents = {}
    try:
        for suffix, name in sample.texts.items():
            limit = sidecars.longest(suffix)
            with (folder / name).open("rb") as file:
                contents[suffix] = file.read(limit + 1)
            if len(contents[suffix]) > limit:
                raise sidecars.BadText(f"the {suffix} has more than {limit:,} bytes")
        return sidecars.read_texts(contents, one_per_line=True)
    except sidecars.BadText as error:
        sample.refused = sample.refused or f"text cannot be used: {error}"
    except OSError as error:
        sample.refused = sample.refused or f"text cannot be used: {name} cannot be read ({error.strerror})"
    return None


def _clips(
    folder: Path, samples: list[Sample], *, texts: list[sidecars.Texts | None], captioned: bool, notes: Notes
) -> list[Clip]:
    """The clips of the samples; the label is that of the class folder where no file has texts."""
    names = [sample.media or f"{sample.key}.npy" for sample in samples]
    places = place_in_splits(names, folder=str(folder))
    ids = unique_ids((name, "") for name in names)
    clips = []
    for sample, text, place, clip_id in zip(samples, texts, places, ids, strict=True):
        fields: dict[str, Any] = dict(text.fields) if text else {}
        if text:
            sidecars.note_left_out(text, name=sample.key, notes=notes)
        if not captioned and place.folders:
            fields |= {"labels": [place.folders[0]], "captions": [label_caption(place.folders[0])]}
        if sample.refused:
            fields = {"meta": {REFUSED: sample.refused}}
        clips.append(
            _clip(
                fields | {"clip_id": clip_id, "path": sample.media, "split": place.split, "features": sample.features},
                where=str(folder / (sample.media or sample.key)),
            )
        )
    return clips


def _clip(fields: dict[str, Any], *, where: str) -> Clip:
    """A clip; refused if its name is not UTF-8, which nothing but the file system can hold."""
    try:
        fields["path"].encode()
    except UnicodeEncodeError:
        shown = {name: os.fsencode(fields[name]).decode("utf-8", "backslashreplace") for name in ("clip_id", "path")}
        return Clip(
            clip_id=shown["clip_id"],
            path=shown["path"],
            split=fields["split"],
            meta={REFUSED: "file name is not UTF-8: rename the file"},
        )
    return make_clip(fields, where=where)


# --- clips of metadata files ---


def _from_metadata(folder: Path, metadata: list[str], *, files: list[str], notes: Notes) -> list[Clip]:
    """The clips that the metadata files name, each relative to the folder of its file."""
    clips: list[Clip] = []
    here: dict[str, str] = {}
    for name in metadata:
        inner, slash, _ = name.rpartition("/")
        if inner in here:
            raise UserError(f"{str(folder / inner)!r} has both {here[inner]} and {name}; keep one of them")
        here[inner] = name
        prefix = inner + slash
        for clip in read_table(folder / name, notes=notes):
            clips.append(dataclasses.replace(clip, clip_id=prefix + clip.clip_id, path=prefix + clip.path))
    named = {clip.path for clip in clips}
    for name in files:
        if name in named or name in metadata:
            continue
        if suffix_of(name) in VIDEO_SUFFIXES | PICTURE_SUFFIXES:
            notes.add("videos and pictures that no metadata file names left out", name=name)
        else:
            notes.add(left_out(name), name=name)
    places = place_in_splits([clip.path for clip in clips], folder=str(folder))
    return [
        clip if clip.split else dataclasses.replace(clip, split=place.split)
        for clip, place in zip(clips, places, strict=True)
    ]


# --- the files ---


def _walk(folder: Path, *, notes: Notes) -> list[str]:
    """The paths of all files below a folder, relative to it, in order; links are followed, but not round in circles."""
    found: list[str] = []
    waiting: list[tuple[str, frozenset[tuple[int, int]]]] = [("", frozenset())]
    while waiting:
        here, above = waiting.pop()
        try:
            place = (folder / here).stat()
            identity = (place.st_dev, place.st_ino)
            if identity in above:
                notes.add("linked folders that lead back to a folder around them left out", name=here)
                continue
            with os.scandir(folder / here) as entries:
                listed = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            raise UserError(
                f"{str(folder / here)!r} cannot be read ({error.strerror}); check its permissions"
            ) from error
        for entry in listed:
            path = f"{here}/{entry.name}" if here else entry.name
            if is_hidden(entry.name) or entry.name.lower() in SYSTEM_FOLDERS:
                notes.add("hidden files and folders left out", name=path)
            elif entry.is_dir():
                waiting.append((path, above | {identity}))
            elif entry.is_file() or entry.is_symlink():  # a link that leads nowhere is listed as a missing file
                found.append(path)
            else:
                notes.add("pipes, sockets and devices left out", name=path)
    return sorted(found, key=lambda path: path.split("/"))
