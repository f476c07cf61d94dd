"""What a user points `prepare` at (a manifest, a CSV, a folder, archives) to a list of clips, all with a split."""

import dataclasses
import os
from pathlib import Path

from ...base.errors import UserError
from ..manifest import Clip, read_manifest
from ..paths import PathLike, file_name, folder_of, is_remote
from .folder import read_folder
from .kinds import ARCHIVES, LISTS, TABLES, UNREAD_LISTS, VIDEO_SUFFIXES, suffix_of
from .notes import Notes
from .splits import assign_splits
from .table import is_hub_metadata, read_table
from .webdataset import read as read_archives


@dataclasses.dataclass(frozen=True, kw_only=True)
class Listing:
    """The clips of a source.

    Attributes:
      root: the folder to which the clips' paths are relative.
      clips: all with a split, in the order of the source.
      notes: what was left out, or read otherwise than it is written.
    """

    root: PathLike
    clips: list[Clip]
    notes: Notes


def read_source(source: PathLike) -> Listing:
    """Read a manifest, a CSV, a folder, or WebDataset archives.

    - `.jsonl`: a manifest (see `data/manifest.py`), or a `metadata.jsonl` of Hugging Face's.
    - `.csv`, `.tsv` or `.parquet`: a table, see `table.read_table`.
    - a folder: see `folder.read_folder`.
    - `.tar`: a WebDataset archive, a pattern of them, or a folder that has nothing but such (see `webdataset`).

    Manifests, CSV files and archives may lie behind a URL.

    Where no clip has a split, 80 % go to train, 10 % to val and 10 % to test by a hash of the clip's group or else of
    its path, so that windows of one file and members of one group share a split.

    Raises:
      UserError: the source does not exist, holds no clip, or has faults (names place, value and remedy).
    """
    notes = Notes()
    if is_archive(source) or (is_remote(source) and not suffix_of(file_name(source))):
        root, clips = read_archives(os.fspath(source), notes=notes)
    elif is_remote(source):
        root, clips = folder_of(source), _read_list(source, notes=notes)
    elif Path(source).is_dir():
        root, clips = Path(source), read_folder(Path(source), notes=notes)
    elif not Path(source).exists():
        raise UserError(
            f"source {str(source)!r} does not exist; give a manifest (.jsonl), a .csv or a folder of videos"
        )
    else:
        root, clips = Path(source).parent, _read_list(source, notes=notes)
    return Listing(root=root, clips=assign_splits(clips, where=str(source)), notes=notes)


def is_archive(source: PathLike) -> bool:
    """Whether a source is meant as WebDataset archives: a name (or pattern of names) of archives, or a folder of them.

    A folder is, if it has archives right inside and no video and no list.
    """
    if str(source).lower().endswith(ARCHIVES):
        return True
    if is_remote(source) or not Path(source).is_dir():
        return False
    suffixes = {entry.suffix.lower() for entry in Path(source).iterdir()}
    return ".tar" in suffixes and not suffixes & (VIDEO_SUFFIXES | set(LISTS))


def _read_list(source: PathLike, *, notes: Notes) -> list[Clip]:
    suffix = suffix_of(file_name(source))
    if suffix in TABLES or (file_name(source).lower() == "metadata.jsonl" and is_hub_metadata(source)):
        return read_table(source, notes=notes)
    if suffix in LISTS:
        return read_manifest(source)
    hint = ""
    if suffix in UNREAD_LISTS:
        read = "excel" if suffix == ".xlsx" else "feather"
        hint = f" (a table as CSV: pandas.read_{read}({file_name(source)!r}).to_csv('clips.csv', index=False))"
    raise UserError(
        f"source {str(source)!r} is of no known kind; "
        f"give a manifest (.jsonl), a .csv{hint}, a folder of videos or .tar archives"
    )
