"""Feature sequences inside TFRecord files (`tf.train.SequenceExample`), read one record at a time by their place.

`FILE.tfrecord::OFFSET::NAME` names the feature list NAME of the record that begins at byte OFFSET: so nothing needs to
be copied out of the files before records are made of it.
"""

import re
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ...base.errors import UserError

_PLACE = re.compile(r"(?P<file>.+\.tfrecord)::(?P<offset>[0-9]{1,19})::(?P<name>[A-Za-z0-9_]+)", re.S)
_HEADER = struct.Struct("<QI")  # length of the record, and its checksum; another checksum stands behind the record
_AROUND = _HEADER.size + 4
_PREFIX = 64 * 2**10  # bytes that hold the context of nearly any record; the sequences stand behind it
_CONTEXT_TAG = 0x0A  # field 1 of SequenceExample, of the kind that has a length


def place_of(path: str) -> tuple[str, int, str] | None:
    """Return file, offset and name of the list of a path `FILE.tfrecord::OFFSET::NAME`; None for any other path."""
    found = _PLACE.fullmatch(path)
    return (found["file"], int(found["offset"]), found["name"]) if found else None


def contexts(path: Path) -> Iterator[tuple[int, dict[str, list[Any]]]]:
    """Yield offset and context features of each record of a file; the sequences behind them are not read.

    Raises:
      UserError: the file is no TFRecord file, was cut short, or holds something else than SequenceExamples.
    """
    size, offset = path.stat().st_size, 0
    with path.open("rb") as file:
        while offset < size:
            file.seek(offset)
            head = file.read(_HEADER.size)
            length = _HEADER.unpack(head)[0] if len(head) == _HEADER.size else size
            if offset + length + _AROUND > size:
                raise UserError(
                    f"{path}: the record at byte {offset:,} goes beyond the end of the file ({size:,} bytes): it was "
                    "cut short or is no TFRecord file; fetch it again, or remove it"
                )
            try:
                yield offset, _context(file.read(min(length, _PREFIX)), rest=lambda n=length: file.read(n - _PREFIX))
            except ValueError as error:
                raise UserError(
                    f"{path}: the record at byte {offset:,} is no SequenceExample ({error}); fetch the file again, or "
                    "remove it"
                ) from error
            offset += length + _AROUND


def _context(prefix: bytes, *, rest: Callable[[], bytes]) -> dict[str, list[Any]]:
    """The context of a record, of which `prefix` is the beginning and `rest()` gives what follows.

    Read by the wire format of protocol buffers: its messages for this come with tensorflow alone, which the list of
    sources does without.

    Raises:
      ValueError: it is no such record.
    """
    tag, place = _number(prefix, 0)
    length, place = _number(prefix, place)
    if tag == _CONTEXT_TAG and place + length <= len(prefix):
        context = prefix[place : place + length]
    else:  # written by another program, in another order or with a long context
        context = _joined(prefix + (rest() if len(prefix) == _PREFIX else b""), 1)
    found: dict[str, list[Any]] = {}
    for _, entry in _fields(context):
        found[_joined(entry, 1).decode("utf-8")] = _values(_joined(entry, 2))
    return found


def _values(feature: bytes) -> list[Any]:
    """The values of a tf.train.Feature: bytes, or whole numbers; [] for other kinds."""
    values: list[Any] = []
    for kind, inner in _fields(feature):
        for _, value in _fields(inner) if kind in (1, 3) else ():
            if kind == 1 or isinstance(value, int):
                values.append(value)
                continue
            place = 0
            while place < len(value):  # numbers are packed
                number, place = _number(value, place)
                values.append(number)
    return [v - 2**64 if isinstance(v, int) and v >= 2**63 else v for v in values]


def _joined(message: bytes, wanted: int) -> bytes:
    """The bytes of a field that is a message or a string; where it comes several times, one after the other."""
    return b"".join(value for number, value in _fields(message) if number == wanted and isinstance(value, bytes))


def _fields(message: Any) -> Iterator[tuple[int, Any]]:
    """Yield number and value of each field of a message: whole numbers as int, all else as bytes."""
    if not isinstance(message, bytes):
        raise ValueError("a number stands where a message should")
    place = 0
    while place < len(message):
        tag, place = _number(message, place)
        kind = tag & 7
        if kind == 0:
            value, place = _number(message, place)
        else:
            length = {1: 8, 5: 4}.get(kind)
            if kind == 2:
                length, place = _number(message, place)
            if length is None or place + length > len(message):
                raise ValueError("a field goes beyond the end of its message")
            value = message[place : place + length]
            place += length
        yield tag >> 3, value


def _number(data: bytes, place: int) -> tuple[int, int]:
    """Return the base-128 number at a place, and the place behind it."""
    value = 0
    for index in range(10):
        if place + index >= len(data):
            break
        byte = data[place + index]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, place + index + 1
    raise ValueError("a number has no end")
