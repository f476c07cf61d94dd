"""Where the parts of each record lie in its shard, so that the drawn frames can be read without the rest.

A shard is an ArrayRecord file without compression, one record in each chunk of Riegeli's format: a header of 40 bytes,
then `size` bytes that end with the record. A header of 24 bytes stands at each multiple of 64 KiB and interrupts
whatever is there. Places are counted without these (here: in the stream), and turned into places in the file.
A record is a tf.train.Example (protobuf), whose fields are found without parsing their contents.
"""

import mmap
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from array_record.python.array_record_module import ArrayRecordReader

PART = np.dtype(
    [
        ("value", "<u8"),  # where the record begins, in the stream
        ("bytes", "<u4"),  # its size; 0 = not known
        ("crc", "<u4"),  # CRC-32 of the record
        ("sound", "<u4"),  # where its sound begins, from the record's first byte
        ("sound_bytes", "<u4"),
        ("sound_crc", "<u4"),
    ]
)
FRAME = np.dtype(
    [
        ("begin", "<u4"),  # where its JPEG file or access unit begins, from the record's first byte
        ("bytes", "<u4"),
        ("crc", "<u4"),
        ("time_s", "<f4"),  # when it begins, from the clip's start
    ]
)
_BLOCK, _HEADER, _CHUNK = 1 << 16, 24, 40


class Parts(NamedTuple):
    """The records of a shard: `PART` [n], and `FRAME` [m] of all of them, side by side; `counts` int64 [n] of each."""

    records: np.ndarray
    frames: np.ndarray
    counts: np.ndarray


def in_file(place: int) -> int:
    """Return where in the file a place of the stream lies."""
    return place + _HEADER * (place // (_BLOCK - _HEADER) + 1)


def range_of(place: int, *, size: int) -> tuple[int, int]:
    """Return first byte and size of the part of the file that holds `size` (above 0) bytes of the stream."""
    begin = in_file(place)
    return begin, in_file(place + size - 1) + 1 - begin


def without_headers(content: bytes, *, begin: int) -> bytes:
    """Return the stream's bytes of a part of the file that begins at `begin`, not within a header."""
    edge = _BLOCK - begin % _BLOCK
    if len(content) <= edge:
        return content
    found = [content[:edge]]
    found += [content[at + _HEADER : at + _BLOCK] for at in range(edge, len(content), _BLOCK)]
    return b"".join(found)


def find_parts(path: Path) -> Parts:
    """Find the parts of all records of a shard.

    Raises:
      ValueError: it is of another form.
    """
    with path.open("rb") as file:
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    records, frames, counts = [], [], []
    values = list(_values(content))
    reader = ArrayRecordReader(str(path), options="readahead_buffer_size:0,max_parallelism:0")
    count = reader.num_records()
    reader.close()
    if count != len(values):
        raise ValueError(f"{path.name} has {count} records, but {len(values)} chunks of one: several are in a chunk")
    for value, size in values:
        begin, length = range_of(value, size=size) if size else (0, 0)
        record = without_headers(content[begin : begin + length], begin=begin)
        fields = dict(_fields(record))
        times = np.frombuffer(_floats(record, fields.get("timestamps_s")), "<f4")
        stored = list(_bytes(record, fields.get("frames")))
        sound = next(_bytes(record, fields.get("audio")), (0, 0))
        if len(times) != len(stored):
            raise ValueError(f"{len(times)} times of {len(stored)} frames")
        made = np.zeros(len(stored), FRAME)
        made["time_s"] = times
        for i, (start, end) in enumerate(stored):
            made[i] = start, end - start, zlib.crc32(record[start:end]), times[i]
        start, end = sound
        records.append((value, size, zlib.crc32(record), start, end - start, zlib.crc32(record[start:end])))
        frames.append(made)
        counts.append(len(made))
    every = np.concatenate(frames) if frames else np.zeros(0, FRAME)
    return Parts(np.array(records, PART), every, np.array(counts, np.int64))


def save_parts(path: Path, *, parts: Parts) -> None:
    """Write parts to a file."""
    with path.open("wb") as file:
        for array in parts:
            np.save(file, array, allow_pickle=False)


def load_parts(path: Path) -> Parts:
    """Read what `save_parts` wrote; OSError or ValueError if it is not there or damaged."""
    with path.open("rb") as file:
        return Parts(*(np.load(file, allow_pickle=False) for _ in range(3)))


def _values(content: mmap.mmap) -> Iterator[tuple[int, int]]:
    """Yield place in the stream and size of each record of a shard; they stand before all other chunks."""
    place = 0  # in the stream, without the first header
    while in_file(place) + _CHUNK <= len(content):
        begin, length = range_of(place, size=_CHUNK)
        head = without_headers(content[begin : begin + length], begin=begin)
        _, size, _, kind, decoded = struct.unpack("<5Q", head)
        kind, records = kind & 0xFF, kind >> 8
        if kind == ord("r"):
            if records != 1:
                return  # the index of the file, which stands behind all records
            begin, _ = range_of(place + _CHUNK, size=1)
            if content[begin]:
                raise ValueError("its records are compressed")
            yield place + _CHUNK + size - decoded, decoded
        elif kind != ord("s"):
            return  # the index of the file: no record follows
        place += _CHUNK + size


def _fields(record: bytes) -> Iterator[tuple[str, tuple[int, int]]]:
    """Yield the name of each feature of an Example, and where its list begins and ends."""
    for begin, end in _members(record, 0, len(record), number=1):
        for entry_begin, entry_end in _members(record, begin, end, number=1):
            [(key, key_end)] = _members(record, entry_begin, entry_end, number=1)
            for place in _members(record, entry_begin, entry_end, number=2):
                yield record[key:key_end].decode(), place


def _bytes(record: bytes, place: tuple[int, int] | None) -> Iterator[tuple[int, int]]:
    """Yield where each value of a bytes_list lies."""
    for begin, end in _members(record, *place, number=1) if place else ():
        yield from _members(record, begin, end, number=1)


def _floats(record: bytes, place: tuple[int, int] | None) -> bytes:
    """Return the packed values of a float_list."""
    lists = list(_members(record, *place, number=2)) if place else []
    return b"".join(record[b:e] for begin, end in lists for b, e in _members(record, begin, end, number=1))


def _members(record: bytes, begin: int, end: int, *, number: int) -> Iterator[tuple[int, int]]:
    """Yield where each field of that number lies in a message; all of them are of the kind that has a length."""
    while begin < end:
        tag, begin = _varint(record, begin)
        if tag & 7 != 2:
            raise ValueError(f"a field of kind {tag & 7}")
        size, begin = _varint(record, begin)
        if tag >> 3 == number:
            yield begin, begin + size
        begin += size


def _varint(record: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = record[place]
        value |= (byte & 0x7F) << shift
        place += 1
        if byte < 0x80:
            return value, place
        shift += 7


def joined(ranges: Sequence[tuple[int, int]], *, gap: int) -> list[tuple[int, int]]:
    """Return ranges (begin, size) that cover those given, in order; those no more than `gap` bytes apart are one."""
    found: list[tuple[int, int]] = []
    for begin, size in sorted(ranges):
        if found and begin <= found[-1][0] + found[-1][1] + gap:
            last = found[-1]
            found[-1] = (last[0], max(last[0] + last[1], begin + size) - last[0])
        else:
            found.append((begin, size))
    return found
