"""Tables of clips: CSV and Parquet files with the columns path, caption, ..., and Hugging Face's metadata files."""

import difflib
import os
from collections.abc import Iterator
from typing import Any

from ...base.errors import UserError
from ...data import strict_json
from ..faults import Faults
from ..manifest import Clip, make_clip
from ..paths import PathLike, file_name, open_binary
from ..timecode import to_seconds
from .csv_rows import CsvRows
from .kinds import suffix_of
from .notes import Notes
from .parquet_rows import ParquetRows
from .splits import unique_ids

COLUMNS = ("path", "caption", "start_s", "end_s", "split", "label")
_HUB = {"file_name": "path", "text": "caption"}  # columns of Hugging Face's metadata.csv and metadata.jsonl -> ours
_OTHER_NAMES = {  # column -> what other lists call it
    "path": (
        *("clip_path", "file", "file_name", "file_path", "filename", "filepath", "media", "media_path"),
        *("url", "video", "video_file", "video_name", "video_path", "videoid", "video_id", "id"),
    ),
    "caption": (
        *("captions", "text", "title", "sentence", "description", "desc", "annotation", "prompt", "query", "name"),
    ),
    "start_s": ("begin", "start", "start_sec", "start_time", "start_timestamp", "t_start"),
    "end_s": ("end", "end_sec", "end_time", "end_timestamp", "stop", "t_end"),
    "label": ("action", "category", "class", "class_name", "labels"),
    "split": ("fold", "partition", "set", "subset"),
}
_KEPT = "columns kept as meta"
_WHERE = "where"


def read_table(path: PathLike, *, notes: Notes) -> list[Clip]:
    """Read a table with the columns `path,caption[,start_s,end_s,split,label]`; further columns become `meta`.

    Rows of one path and window are captions of one clip. The separator of a CSV file is recognised in its header. A
    `metadata.csv`, `metadata.jsonl` or `metadata.parquet` as Hugging Face's libraries expect them (`file_name`, and
    `text` or `caption`) is read as well.

    Args:
      path: a `.csv`, `.tsv`, `.parquet` or `.jsonl` file.
      notes: where what was not read as it stands there is counted.

    Raises:
      UserError: a column that is missing, or faulty rows. The message names file, line, column, value and remedy of up
        to 20 faults, and counts the others.
    """
    name = os.fspath(path)
    faults = Faults(name)
    rows: dict[tuple[str, str, str], dict[str, Any]] = {}
    with open_binary(path) as file:
        table = _json_rows(file, path=name, faults=faults, notes=notes)
        if suffix_of(file_name(path)) in (".csv", ".tsv"):
            table = _csv_rows(file, path=name, faults=faults, notes=notes)
        elif suffix_of(file_name(path)) == ".parquet":
            table = _parquet_rows(file, path=name, notes=notes)
        try:
            for where, row in table:
                try:
                    _add_row(rows, _fields(row, where=where), notes=notes)
                except UserError as fault:
                    faults.add(fault)
        except UserError as fault:  # nothing behind it can be read
            faults.add(fault)
    clips = []
    ids = unique_ids((path, _window(start, end)) for path, start, end in rows)
    for clip_id, fields in zip(ids, rows.values(), strict=True):
        where = fields.pop(_WHERE)
        try:
            clips.append(make_clip({**fields, "clip_id": clip_id}, where=where))
        except UserError as fault:
            faults.add(fault)
    faults.check()
    if not clips:
        raise UserError(f"{name}: has a header but no row; write one row per caption")
    return clips


def is_hub_metadata(path: PathLike) -> bool:
    """Whether a `.jsonl` file is a metadata file of Hugging Face's: its first line has `file_name`, and no `path`."""
    with open_binary(path) as file:
        try:
            first = strict_json.parse(file.readline().decode("utf-8-sig"))
        except ValueError:
            return False
    return isinstance(first, dict) and "file_name" in first and not {"path", "clip_id"} & set(first)


def _add_row(rows: dict[tuple[str, str, str], dict[str, Any]], fields: dict[str, Any], *, notes: Notes) -> None:
    """Add the fields of a row to those of its clip."""
    key = (fields["path"], str(fields["start_s"]), str(fields["end_s"]))
    first = rows.setdefault(key, fields | {"captions": []})
    for name in ("split", "labels"):
        if first[name] != fields[name]:
            raise UserError(
                f"{fields[_WHERE]}: {fields['path']!r} has {name} {fields[name]!r} here but {first[name]!r} in "
                f"{first[_WHERE]}; rows of one clip must agree"
            )
    if first["meta"] != fields["meta"]:
        notes.add("rows whose further columns differ from the clip's first row, which is kept", name=fields[_WHERE])
    first["captions"] += fields["captions"]


def _fields(row: dict[str, Any], *, where: str) -> dict[str, Any]:
    """The fields of `Clip` that a row gives, and its place; times are in seconds."""
    label = _text(row, "label", where=where).strip()
    captions = row.get("caption")
    if not isinstance(captions, list):
        captions = [_text(row, "caption", where=where)]
    if not all(isinstance(caption, str) for caption in captions):
        raise UserError(f"{where}: column 'caption' is {str(captions)[:80]}, wanted a text")
    return {
        _WHERE: where,
        "path": _posix(_text(row, "path", where=where)),
        "captions": [caption for caption in captions if caption.strip()],
        "start_s": _time(row, "start_s", where=where),
        "end_s": _time(row, "end_s", where=where),
        "split": _text(row, "split", where=where).strip(),
        "labels": [label] if label else [],
        "meta": {name: cell for name, cell in row.items() if name not in COLUMNS and cell not in ("", None)},
    }


def _text(row: dict[str, Any], name: str, *, where: str) -> str:
    value = row.get(name)
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise UserError(f"{where}: column {name!r} is {str(value)[:80]}, wanted a text")
    return str(value)


def _time(row: dict[str, Any], name: str, *, where: str) -> float | None:
    value = row.get(name)
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    try:
        return to_seconds(value)
    except ValueError as error:
        raise UserError(f"{where}: column {name!r} is {value!r}, wanted {error}") from None


def _window(start: str, end: str) -> str:
    if start == end == "None":
        return ""
    return f"@{start.replace('None', '0')}-{end.replace('None', '')}"


def _posix(path: str) -> str:
    return path.replace("\\", "/") if "/" not in path else path


# --- rows ---


def _csv_rows(file: Any, *, path: str, faults: Faults, notes: Notes) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield `(place, row)` of a CSV file."""
    usual = "\t" if suffix_of(path) == ".tsv" else ","
    rows = CsvRows(file, path=path, known={*COLUMNS, *_HUB}, separator=usual)
    if rows.separator != usual:
        notes.add(f"tables read with {rows.separated_by} between the fields", name=path)
    header = _checked(_renamed(rows.header, path=path, notes=notes), path=path, separated_by=rows.separated_by)
    _note_kept(header, path=path, notes=notes)
    nameless = [index for index, name in enumerate(header) if not name]
    for line, row in rows:
        where = f"{path}, line {line}"
        if len(row) != len(header):
            faults.add(
                UserError(
                    f"{where}: has {len(row)} fields, the header has {len(header)}; "
                    f'put captions with {rows.separated_by} in double quotes, as "a dog{rows.separator} running"'
                )
            )
            continue
        if any(row[index].strip() for index in nameless):
            notes.add("cells of a column without a name left out (name the column to keep it as meta)", name=where)
        yield where, {name: cell for name, cell in zip(header, row, strict=True) if name}


def _json_rows(file: Any, *, path: str, faults: Faults, notes: Notes) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield `(place, row)` of a metadata.jsonl."""
    names: dict[str, None] = {}
    for number, raw in enumerate(file, start=1):
        where = f"{path}, line {number}"
        if not raw.strip():
            continue
        try:
            row = strict_json.parse(raw.decode("utf-8-sig"))
            if not isinstance(row, dict):
                raise ValueError("no JSON object")
            renamed = _renamed(list(row), path=path, notes=Notes() if names else notes)
            _checked(renamed, path=where, separated_by="")
        except UserError as fault:
            faults.add(fault)
            continue
        except ValueError as error:
            faults.add(UserError(f"{where}: cannot be read ({str(error)[:100]}); write one JSON object per line"))
            continue
        names |= dict.fromkeys(renamed)
        yield where, dict(zip(renamed, row.values(), strict=True))
    _note_kept(list(names), path=path, notes=notes)


def _parquet_rows(file: Any, *, path: str, notes: Notes) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield `(place, row)` of a Parquet file."""
    rows = ParquetRows(file, path=path, notes=notes)
    header = _checked(_renamed(rows.header, path=path, notes=notes), path=path, separated_by="")
    _note_kept(header, path=path, notes=notes)
    for where, row in rows:
        yield where, dict(zip(header, row.values(), strict=True))


def _renamed(header: list[str], *, path: str, notes: Notes) -> list[str]:
    """The header of Hugging Face's metadata files in our names; any other as it is."""
    if "file_name" not in header or "path" in header or not {"text", "caption", "label"} & set(header):
        return header
    ours = _HUB if "caption" not in header else {"file_name": "path"}
    read = ", ".join(f"{theirs} as {name}" for theirs, name in ours.items() if theirs in header)
    notes.add(f"tables whose columns were read as Hugging Face names them ({read})", name=path)
    return [ours.get(name, name) for name in header]


def _note_kept(header: list[str], *, path: str, notes: Notes) -> None:
    for name in header:
        if name and name not in COLUMNS:
            meant = next((ours for ours in ("label", "split") if name in _OTHER_NAMES[ours] and ours not in header), "")
            notes.add(_KEPT, name=f"{name} (rename it to use it as {meant})" if meant else name)


def _checked(header: list[str], *, path: str, separated_by: str) -> list[str]:
    """Return the header, if it has the columns that are needed, each once, and none that is meant as another.

    Raises:
      UserError: it does not.
    """
    missing = [name for name in ("path", "caption") if name not in header]
    if "label" in header and "path" in header:
        missing = []
    if missing:
        raise _missing(missing, header, path=path, separated_by=separated_by)
    for name in header:
        if name and header.count(name) > 1:
            raise UserError(f"{path}: has column {name!r} twice; the columns found are: {', '.join(header)}")
        meant = next((ours for ours in ("start_s", "end_s") if name in _OTHER_NAMES[ours]), "")
        close = difflib.get_close_matches(name, COLUMNS, n=1, cutoff=0.8)
        meant = meant or (close[0] if close else "")
        if name not in COLUMNS and meant and meant not in header:
            raise UserError(f"{path}: unknown column {name!r}; did you mean {meant!r}? Rename it, or remove it")
    return header


def _missing(missing: list[str], header: list[str], *, path: str, separated_by: str) -> UserError:
    """The error for a table that lacks columns, with the columns that are most likely meant."""
    remedies = []
    free = [name for name in header if name not in COLUMNS]
    for name in missing:
        likely = [other for other in _OTHER_NAMES[name] if other in free]
        likely = likely[:1] or difflib.get_close_matches(name, free, n=1, cutoff=0.6)
        remedies.append(f"rename {likely[0]!r} to {name!r}" if likely else f"add the column {name!r}")
        free = [other for other in free if other not in likely]
    found = ", ".join(header) or "none"
    found += f" (separated by {separated_by})" if len(header) > 1 and separated_by not in ("", "commas") else ""
    what = " and ".join(f"no column {name!r}" for name in missing)
    return UserError(
        f"{path}: has {what}; the columns found are: {found}. In the header, {' and '.join(remedies)} "
        f"(columns: {', '.join(COLUMNS)})"
    )
