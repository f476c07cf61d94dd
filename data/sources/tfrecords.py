"""Feature sequences inside TFRecord files (`tf.train.SequenceExample`), read one record at a time by their place.

`FILE.tfrecord::OFFSET::NAME` names the feature list NAME of the record that begins at byte OFFSET: so nothing needs to
be copied out of the files before records are made of it.
"""

import functools
import os
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ...configs.errors import UserError

_PLACE = re.compile(r"(?P<file>.+\.tfrecord)::(?P<offset>[0-9]{1,19})::(?P<name>[A-Za-z0-9_]+)", re.S)
_HEADER = struct.Struct("<QI")  # length of the record, and its checksum; another checksum stands behind the record
_AROUND = _HEADER.size + 4
_PREFIX = 64 * 2**10  # bytes that hold the context of nearly any record; the sequences stand behind it
_CONTEXT_TAG = 0x0A  # field 1 of SequenceExample, of the kind that has a length


class RecordError(Exception):
    """A record that cannot be read; the message says why."""


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


def _context(prefix: bytes, *, rest: Any) -> dict[str, list[Any]]:
    """The context of a record, of which `prefix` is the beginning and `rest()` gives what follows."""
    from google.protobuf.message import DecodeError as BadMessage

    from ..tf_cpu import tf  # here, because the list of sources is shown without tensorflow

    try:
        begin, end = _first_field(prefix)
        if prefix[:1] == bytes([_CONTEXT_TAG]) and end <= len(prefix):
            context = tf.train.Features.FromString(prefix[begin:end])
        else:  # written by another program, in another order or with a long context
            whole = prefix + (rest() if len(prefix) == _PREFIX else b"")
            context = tf.train.SequenceExample.FromString(whole).context
    except BadMessage as error:
        raise ValueError(str(error)) from error
    return {name: _values(feature) for name, feature in context.feature.items()}


def _first_field(data: bytes) -> tuple[int, int]:
    """Where the value of the first field of a message begins and ends (its length is a base-128 number)."""
    length = shift = 0
    for place, byte in enumerate(data[1:11], start=2):
        length |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return place, place + length
    raise ValueError("it is empty" if not data else "a length has no end")


def _values(feature: Any) -> list[Any]:
    kind = feature.WhichOneof("kind")
    return list(getattr(feature, kind).value) if kind else []


def read_sequence(file: str | os.PathLike[str], *, offset: int, name: str) -> np.ndarray:
    """Read a feature list of byte strings.

    Args:
      file: a TFRecord file of SequenceExamples.
      offset: bytes before the record, as `contexts` gives it.
      name: of the feature list.

    Returns:
      uint8 [n,D], a row per element of the list.

    Raises:
      RecordError: no such record or list, a checksum that does not fit, or rows of different lengths.
    """
    from google.protobuf.message import DecodeError as BadMessage

    from ..tf_cpu import tf

    try:
        record, _ = _reader(os.fspath(file)).read(offset)
        lists = tf.train.SequenceExample.FromString(record).feature_lists.feature_list
    except (tf.errors.OpError, IndexError, BadMessage) as error:
        raise RecordError(f"record at byte {offset:,}: {str(error).splitlines()[0]}") from error
    if name not in lists:
        raise RecordError(f"no feature list {name!r}, only {', '.join(sorted(lists)) or 'none'}")
    rows = [b"".join(feature.bytes_list.value) for feature in lists[name].feature]
    if len({len(row) for row in rows}) > 1:
        raise RecordError(f"feature list {name!r} has rows of different lengths")
    return np.frombuffer(b"".join(rows), np.uint8).reshape(len(rows), -1) if rows else np.zeros((0, 0), np.uint8)


@functools.lru_cache(maxsize=8)
def _reader(file: str) -> Any:
    # The one reader of TFRecord files with random access, which checks checksums; tensorflow has no public name for it.
    from tensorflow.python.lib.io.tf_record import tf_record_random_reader

    return tf_record_random_reader(file)
