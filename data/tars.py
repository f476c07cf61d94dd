"""The headers of a tar archive, read without trust: where each member lies, and what is wrong with it.

Python's tarfile would do for archives of one's own. For archives that came from anywhere it reads metadata of any size
into memory, recurses from header to header, and ends quietly at a damaged header as if the archive were whole. This
reader takes bounded memory and time, and says where and why it stops. Formats: ustar, pax, GNU, and the old one.
"""

import dataclasses
import io
import os
import threading
from collections.abc import Iterator
from typing import Any, BinaryIO

BLOCK = 512  # bytes; all parts of an archive are multiples of it
LONGEST_NAME = 4096  # bytes of a member's name
_LONGEST_PAX = 2**20  # bytes of one extended header
_AFTER_END = 2**20  # bytes looked at behind the end mark
_FILE = (b"0", b"\0", b"7")  # types of members with contents that can be read in place
_WITHOUT_DATA = (
    b"1",
    b"2",
    b"3",
    b"4",
    b"5",
    b"6",
)  # types behind whose header no contents stand, whatever the size says
_REFUSED = {
    **{b"1": "is a hard link", b"2": "is a symbolic link", b"3": "is a device", b"4": "is a device"},
    **{b"6": "is a pipe", b"S": "is a sparse file"},
}
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\0": "xz", b"\x28\xb5\x2f\xfd": "zstd"}


class TarError(Exception):
    """An archive that cannot be read on: `offset` is the byte at which the trouble is, `what` says which."""

    def __init__(self, what: str, *, offset: int):
        super().__init__(f"{what} at byte {offset:,}")
        self.what, self.offset = what, offset


@dataclasses.dataclass(frozen=True, kw_only=True)
class TarMember:
    """A member of an archive.

    Attributes:
      name: as the archive has it, without a leading `./`; bytes that are not UTF-8 are shown as `\\xNN`.
      header: offset of its header in bytes.
      data: offset of its contents in bytes.
      size: of its contents in bytes.
      refused: why it must not be used, "" for a sound one.
    """

    name: str
    header: int
    data: int
    size: int
    refused: str = ""


@dataclasses.dataclass
class _Extra:
    """What extended headers say of the member that follows."""

    name: bytes | None = None
    size: int | None = None
    refused: str = ""
    start: int | None = None  # offset of the first of them


class Slice(io.RawIOBase):
    """A stretch of a file as a file of its own."""

    def __init__(self, file: BinaryIO, *, offset: int, size: int):
        self._file, self._offset, self._size, self._at = file, offset, size, 0
        self._lock = threading.Lock()

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Go to a place, which may lie beyond the end."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        if start + offset < 0:
            raise ValueError(f"seek to {start + offset}, which lies before the start")
        self._at = start + offset
        return self._at

    def tell(self) -> int:
        """Return the place."""
        return self._at

    def readinto(self, buffer: Any, /) -> int:
        """Read into a buffer; return the number of bytes."""
        view = memoryview(buffer)
        count = max(0, min(len(view), self._size - self._at))
        with self._lock:
            self._file.seek(self._offset + self._at)
            data = self._file.read(count)
        view[: len(data)] = data
        self._at += len(data)
        return len(data)

    def close(self) -> None:
        """Close the file, too."""
        if not self.closed:
            self._file.close()
        super().close()


def members(file: BinaryIO) -> Iterator[TarMember]:
    """Yield the members of an archive but its folders, in order; contents are sought over, not read.

    Each member takes a header of 512 bytes, so their number is bound by the size of the archive.

    Args:
      file: the archive, opened for reading; between two members the caller may read and seek in it.

    Raises:
      TarError: it is compressed, damaged, cut short, or goes on behind its end mark. What came before is good.
    """
    end = file.seek(0, os.SEEK_END)
    at, extra = 0, _Extra()
    while True:
        if at == end:
            if at == 0:
                raise TarError("the file is empty", offset=0)
            raise TarError("the end mark is missing", offset=at)
        header = _read(file, at, BLOCK, end=end, what="a header")
        if header.count(0) == BLOCK:
            if extra.start is not None:
                raise TarError("an extended header without a member", offset=extra.start)
            _check_rest(file, at, end=end)
            return
        size, kind = _checked(header, at), header[156:157]
        data = at + BLOCK
        if kind in (b"L", b"K", b"x", b"X", b"g"):
            extra.start = at if extra.start is None else extra.start
            _extend(extra, kind, file, data, size=size, end=end)
            at = data + _blocks(size)
            continue
        if kind == b"S":
            data = _after_sparse_map(file, header, data, end=end)
        size = size if extra.size is None else extra.size
        stored = 0 if kind in _WITHOUT_DATA else size
        if data + stored > end:
            what = f"member {_shown(_name(header, extra))!r} needs {stored:,} bytes, of which {end - data:,} are there,"
            raise TarError(f"cut short: {what}", offset=at)
        raw = _name(header, extra)
        if not (kind == b"5" or (kind in _FILE and raw.endswith(b"/"))):
            start = at if extra.start is None else extra.start
            yield _member(raw, kind, header=start, data=data, size=stored, refused=extra.refused)
        at, extra = min(data + _blocks(stored), end), _Extra()


def _member(raw: bytes, kind: bytes, *, header: int, data: int, size: int, refused: str) -> TarMember:
    """Make a member; find out whether it may be used."""
    if kind not in _FILE:
        refused = refused or _REFUSED.get(kind, f"is of the unknown kind {kind!r}")
    return TarMember(
        name=_shown(raw), header=header, data=data, size=size, refused=refused or _wrong_name(raw.removeprefix(b"./"))
    )


def _wrong_name(raw: bytes) -> str:
    """Why a name is refused; "" for a sound one."""
    if not raw:
        return "has no name"
    if len(raw) > LONGEST_NAME:
        return f"has a name of more than {LONGEST_NAME:,} bytes"
    if raw.startswith((b"/", b"\\")) or raw[1:3] in (b":\\", b":/"):
        return "has an absolute name"
    if b".." in raw.replace(b"\\", b"/").split(b"/"):
        return "has a name with '..' in it"
    if any(byte < 32 or byte == 127 for byte in raw):
        return "has control characters in its name"
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        return "has a name that is not UTF-8"
    return ""


def _shown(raw: bytes) -> str:
    return raw.removeprefix(b"./")[:LONGEST_NAME].decode("utf-8", "backslashreplace")


def _checked(header: bytes, at: int) -> int:
    """Check a header's sum; return the size that it states."""
    if at == 0:
        for magic, name in _COMPRESSED.items():
            if header.startswith(magic):
                raise TarError(
                    f"the archive is compressed ({name}), which cannot be read in place; unpack it:", offset=0
                )
    stated = _number(header[148:156])
    rest = header[:148] + b" " * 8 + header[156:]
    signed = sum(rest) - 256 * sum(byte > 127 for byte in rest)  # as some old programs reckoned
    if stated is None or stated not in (sum(rest), signed):
        raise TarError("no tar archive: damaged header" if at == 0 else "damaged header", offset=at)
    size = _number(header[124:136])
    if size is None:
        raise TarError("header with an impossible size", offset=at)
    return size


def _number(field: bytes) -> int | None:
    """A number as tar writes it: octal digits, or binary where the first bit is set; None if it is neither."""
    if field[0] & 0x80:
        return int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big") if field[0] == 0x80 else None
    digits = field.split(b"\0", 1)[0].strip(b" ")
    if not digits:
        return 0
    return int(digits, 8) if all(byte in b"01234567" for byte in digits) else None


def _name(header: bytes, extra: _Extra) -> bytes:
    if extra.name is not None:
        return extra.name
    name = header[:100].split(b"\0", 1)[0]
    prefix = header[345:500].split(b"\0", 1)[0] if header[257:263] == b"ustar\0" else b""
    return prefix + b"/" + name if prefix else name


def _extend(extra: _Extra, kind: bytes, file: BinaryIO, data: int, *, size: int, end: int) -> None:
    """Take in an extended header, which speaks of the member behind it."""
    if data + size > end:
        raise TarError("cut short: an extended header", offset=data - BLOCK)
    if kind == b"K":  # the target of a link: links are refused whatever they point to
        return
    if size > _LONGEST_PAX:
        extra.refused = f"has an extended header of {size:,} bytes (at most {_LONGEST_PAX:,})"
        return
    block = _read(file, data, size, end=end, what="an extended header")
    if kind == b"L":
        extra.name = block.split(b"\0", 1)[0]
        return
    try:
        fields = _pax(block)
        stated = int(fields[b"size"]) if b"size" in fields else None
    except ValueError:
        raise TarError("damaged extended header", offset=data - BLOCK) from None
    if kind == b"g":
        if fields.keys() & {b"path", b"size"}:
            raise TarError("a global header that gives every member one name or size", offset=data - BLOCK)
        return
    extra.name = fields.get(b"path", extra.name)
    if stated is not None:
        if not 0 <= stated <= end:
            raise TarError("cut short, or an impossible size in an extended header", offset=data - BLOCK)
        extra.size = stated
    if any(key.startswith(b"GNU.sparse.") for key in fields):
        extra.refused = extra.refused or _REFUSED[b"S"]


def _pax(block: bytes) -> dict[bytes, bytes]:
    """The records of a pax header, `LENGTH KEY=VALUE\\n` each.

    Raises:
      ValueError: it is not made of such records.
    """
    fields, at = {}, 0
    while at < len(block) and block[at] != 0:
        space = block.find(b" ", at, at + 20)
        if space < 0 or not block[at:space].isdigit():
            raise ValueError("no length")
        stop = at + int(block[at:space])
        if not space < stop <= len(block) or block[stop - 1 : stop] != b"\n":
            raise ValueError("wrong length")
        key, equals, value = block[space + 1 : stop - 1].partition(b"=")
        if not equals:
            raise ValueError("no value")
        fields[key] = value
        at = stop
    return fields


def _after_sparse_map(file: BinaryIO, header: bytes, data: int, *, end: int) -> int:
    """Where the contents of a GNU sparse member begin: behind the blocks that map its holes."""
    more = header[482]
    while more:
        more = _read(file, data, BLOCK, end=end, what="the map of a sparse member")[504]
        data += BLOCK
    return data


def _check_rest(file: BinaryIO, at: int, *, end: int) -> None:
    """Refuse an archive with something behind its end mark: two archives joined, of which the second would be lost."""
    file.seek(at)
    rest = file.read(min(end - at, _AFTER_END))
    if rest.count(0) != len(rest):
        first = len(rest) - len(rest.lstrip(b"\0"))
        raise TarError("something stands behind the end mark,", offset=at + first)


def _read(file: BinaryIO, at: int, count: int, *, end: int, what: str) -> bytes:
    file.seek(at)
    data = file.read(count)
    if len(data) < count:
        raise TarError(f"cut short: {what}", offset=min(at, end))
    return data


def _blocks(size: int) -> int:
    return -(-size // BLOCK) * BLOCK
