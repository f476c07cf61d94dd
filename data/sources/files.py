"""Annotation files read with care: found by name, UTF-8, and every fault named by file, line or key, and value."""

import contextlib
import json
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, TypeVar, cast

from ...base.errors import UserError
from ...data import strict_json
from ..timecode import FORMS, to_seconds
from .csv_rows import CsvRows

_DEEPEST = 3  # folders below --annotations in which files are looked for
Kind = TypeVar("Kind")
_KINDS = {str: "a string", list: "a list", dict: "an object", int: "a whole number", float: "a number"}


class Folder:
    """The folder of annotation files; files are found by name, in it or in its subfolders."""

    def __init__(self, path: Path):
        """List the files once.

        Raises:
          UserError: no such folder.
        """
        self.path = Path(path)
        if not self.path.is_dir():
            raise UserError(f"--annotations {str(path)!r} is not a folder; give the folder of the annotation files")
        self._found: dict[str, list[Path]] = {}
        for here, folders, names in os.walk(self.path, followlinks=True):  # the depth bounds circles
            depth = len(Path(here).relative_to(self.path).parts)
            folders[:] = sorted(name for name in folders if not name.startswith(".") and depth < _DEEPEST)
            for name in sorted(names):
                self._found.setdefault(name.lower(), []).append(Path(here) / name)

    def find(self, *names: str) -> Path | None:
        """Return the file that has one of the names (the first name that is there; case does not count), or None.

        Raises:
          UserError: two files of that name in different subfolders, and none at the top.
        """
        for name in names:
            found = self._found.get(name.lower(), [])
            top = [path for path in found if path.parent == self.path]
            if len(top or found) > 1:
                both = " and ".join(str(path) for path in (top or found)[:2])
                raise UserError(f"two files could be {name!r}: {both}; keep one of them under --annotations")
            if found:
                return (top or found)[0]
        return None

    def require(self, *names: str) -> Path:
        """Return the file that has one of the names.

        Raises:
          UserError: there is none.
        """
        return self.find(*names) or self.lacks(*names)

    def lacks(self, *names: str) -> NoReturn:
        """Raise the error for files that are not there."""
        there = ", ".join(sorted(path.name for paths in self._found.values() for path in paths)[:8]) or "nothing"
        raise UserError(
            f"{self.path} has no {' or '.join(names)} (found: {there}); get the file from the benchmark's owners, "
            "`twinreel prepare --list NAME` says where"
        )

    def ending(self, *endings: str) -> list[Path]:
        """Return the files whose name ends so (case does not count), in order of their paths."""
        found = (path for name, paths in self._found.items() if name.endswith(endings) for path in paths)
        return sorted(found)


def read_text(path: Path) -> str:
    """Return the text of a UTF-8 file, without a byte order mark.

    Raises:
      UserError: not UTF-8; names file, line and byte.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); correct it, or download it again") from error
    try:
        return raw.removeprefix(b"\xef\xbb\xbf").decode("utf-8")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        value = error.object[error.start : error.start + 1]
        raise UserError(
            f"{path}, line {line}: byte {value!r} is not UTF-8 ({error.reason}); save the file as UTF-8"
        ) from error


def read_lines(path: Path) -> Iterator[tuple[str, str]]:
    """Yield `(place, line)` of the lines that are not blank, without the blanks at their end."""
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if line.strip():
            yield f"{path}, line {number}", line.rstrip()


def read_ids(path: Path) -> list[str]:
    """Return the ids of a list file: one per line, each once.

    Raises:
      UserError: an id that comes twice, or no id at all.
    """
    places: dict[str, str] = {}
    for where, line in read_lines(path):
        name = line.strip()
        if name in places:
            raise UserError(f"{where}: id {name!r} stands in {places[name]} already; remove one of the two")
        places[name] = where
    if not places:
        raise UserError(f"{path}: has no id; wanted one per line")
    return list(places)


def read_table(path: Path, *, columns: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield `(place, row)` of a CSV file with a header; the separator is recognised in it.

    Args:
      path: the file.
      columns: names that the header must have, in any order and case.

    Raises:
      UserError: a column that is missing, a row of another length, a file that is no CSV.
    """
    with _opened(path) as file:
        rows = CsvRows(file, path=str(path), known=columns)
        for column in columns:
            if rows.header.count(column) != 1:
                raise UserError(
                    f"{path}, line 1: wanted one column {column!r}, found the columns "
                    f"{', '.join(rows.header) or 'none'!s}; the header must name {', '.join(columns)}"
                )
        for line, row in rows:
            where = f"{path}, line {line}"
            if len(row) != len(rows.header):
                raise UserError(
                    f"{where}: has {len(row)} fields, the header has {len(rows.header)}; "
                    f"put texts with {rows.separated_by} in double quotes"
                )
            yield where, dict(zip(rows.header, row, strict=True))


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); correct it, or download it again") from error


def read_json(path: Path, *, kind: type[Kind]) -> Kind:
    """Return the content of a JSON file.

    Args:
      path: the file.
      kind: `list` or `dict`, what the whole must be.

    Raises:
      UserError: not JSON, of another kind, or an object that has one key twice.
    """
    return parse_json(read_text(path), where=str(path), kind=kind)


def parse_json(text: str, *, where: str, kind: type[Kind]) -> Kind:
    """Return the value of a JSON text; arguments and errors as in `read_json`."""
    try:
        value = strict_json.parse(text)
    except json.JSONDecodeError as error:
        raise UserError(
            f"{where}: is not JSON ({error.msg} at line {error.lineno}, column {error.colno}); download it again"
        ) from error
    except strict_json.DuplicateKey as error:
        raise UserError(f"{where}: {error}") from error
    except ValueError as error:
        raise UserError(f"{where}: is not JSON that can be read ({error}); download it again") from error
    return expect(value, kind, what="the whole", where=where)


def member(record: dict[str, Any], key: str, kind: type[Kind], *, where: str) -> Kind:
    """Return the value of a key.

    Raises:
      UserError: no such key, or a value of another kind; names place, key and value.
    """
    if key not in record:
        raise UserError(f"{where}: has no {key!r} (found: {', '.join(map(repr, list(record)[:8])) or 'nothing'})")
    return expect(record[key], kind, what=repr(key), where=where)


def expect(value: Any, kind: type[Kind], *, what: str, where: str) -> Kind:
    """Return the value if it is of the kind (`float` takes whole numbers too).

    Raises:
      UserError: it is not.
    """
    good = isinstance(value, (int, float) if kind is float else kind) and not isinstance(value, bool)
    made: Any = value
    if good and kind is float:
        with contextlib.suppress(OverflowError):  # a whole number of hundreds of digits
            made = float(made)
        good = isinstance(made, float) and math.isfinite(made)
    if not good:
        shown = repr(value)
        shown = shown if len(shown) <= 80 else shown[:77] + "..."
        raise UserError(f"{where}: {what} is {shown}, wanted {_KINDS[kind]}")
    return cast(Kind, made)


def seconds(value: str | float, *, what: str, where: str) -> float:
    """Return a time in seconds, of a number or a text such as `12.5` or `00:01:02.5`; it may be negative.

    Raises:
      UserError: it is no time, or not a finite one.
    """
    with contextlib.suppress(ValueError):
        time = to_seconds(value)
        if math.isfinite(time):
            return time
    raise UserError(f"{where}: {what} is {value!r}, wanted {FORMS}")


def number(text: str, *, what: str, where: str) -> float:
    """Return the number that a text spells.

    Raises:
      UserError: it spells none.
    """
    with contextlib.suppress(ValueError):
        value = float(text)
        if math.isfinite(value):
            return value
    raise UserError(f"{where}: {what} is {text!r}, wanted a number, as 12.5")


def whole(text: str, *, what: str, where: str) -> int:
    """Return the whole number that a text spells.

    Raises:
      UserError: it spells none.
    """
    value = number(text, what=what, where=where)
    if not value.is_integer():
        raise UserError(f"{where}: {what} is {text!r}, wanted a whole number, as 12")
    return int(value)
