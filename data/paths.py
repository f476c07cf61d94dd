"""One way to name and open a file, wherever it lies: on a local disk, behind a URL, inside a tar archive.

    clips/a.mp4                           a local path
    s3://bucket/clips/a.mp4               a URL that fsspec knows (s3, gs, https, memory ...)
    shards/00000.tar::a.mp4               a member of a tar archive, by name; the archive may be local or remote
    shards/00000.tar::1536+48213::a.mp4   the same by its place: 48,213 bytes from byte 1,536 on

Members are read in place: nothing is ever extracted, so no name inside an archive can lead out of it.
"""

import dataclasses
import functools
import io
import os
import posixpath
import re
from pathlib import Path
from typing import BinaryIO, cast

from ..base.errors import UserError
from ..data import remote
from .remote import NoSuchFile
from .tars import Slice, TarError, members

PathLike = str | os.PathLike[str]

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")  # two letters at least: C:// is no URL
_MEMBER = re.compile(r"(?P<archive>.+?\.tar)::(?:(?P<offset>[0-9]{1,19})\+(?P<size>[0-9]{1,19})::)?(?P<name>.+)", re.S)
_INDEXED = 8  # archives whose members' places are remembered


@dataclasses.dataclass(frozen=True, kw_only=True)
class Member:
    """A member of a tar archive.

    Attributes:
      archive: local path or URL of the archive.
      name: of the member.
      offset: of its first byte in the archive; None = to be looked up by the name.
      size: bytes; None = likewise.
    """

    archive: str
    name: str
    offset: int | None = None
    size: int | None = None

    def __str__(self) -> str:
        place = "" if self.offset is None else f"{self.offset}+{self.size}::"
        return f"{self.archive}::{place}{self.name}"


def member_of(path: PathLike) -> Member | None:
    """Return what a path `ARCHIVE.tar::MEMBER` names; None for any other path."""
    found = _MEMBER.fullmatch(os.fspath(path))
    if found is None:
        return None
    offset, size = found["offset"], found["size"]
    return Member(
        archive=found["archive"],
        name=found["name"],
        offset=None if offset is None else int(offset),
        size=None if size is None else int(size),
    )


def is_remote(path: PathLike) -> bool:
    """Whether a path is a URL (`s3://bucket/key`), or a member of an archive behind one."""
    return _URL.match(os.fspath(path)) is not None


def is_plain(path: PathLike) -> bool:
    """Whether a path is a file of its own on a local disk."""
    return not is_remote(path) and member_of(path) is None


def join(root: PathLike, path: PathLike) -> str:
    """Return `path` as seen from the folder `root`; a URL or an absolute path stays as it is.

    Below a remote root, a path must stay below it: who wrote a remote list must not choose local files of the reader.

    Raises:
      UserError: the path leaves a remote root.
    """
    root, path = os.fspath(root), os.fspath(path)
    if is_remote(path):
        return path
    if not is_remote(root):
        return os.path.join(root, path)  # noqa: PTH118  (Path would rewrite what stands behind `::`)
    outer = path.partition("::")[0]
    if outer.startswith("/") or ".." in outer.split("/"):
        raise UserError(
            f"path {path!r} leaves the folder {root!r} of the list that names it; "
            "name files below that folder, or give a full URL"
        )
    return f"{root.rstrip('/')}/{path}"


def folder_of(path: PathLike) -> str:
    """Return the folder of a file, "." for a bare name."""
    path = os.fspath(path)
    return path.rpartition("/")[0] if is_remote(path) else str(Path(path).parent)


def file_name(path: PathLike) -> str:
    """Return the last part of a path or URL; of a member, of its name in the archive."""
    path = os.fspath(path).rstrip("/")
    member = member_of(path)
    return posixpath.basename(member.name if member else path)


def exists(path: PathLike) -> bool:
    """Whether there is such a file (or member of an archive).

    Raises:
      UserError: it cannot be found out (no permission, no such scheme, a damaged archive).
    """
    member = member_of(path)
    if member is not None:
        return exists(member.archive) and (member.offset is not None or member.name in _index(member.archive))
    return remote.is_file(os.fspath(path)) if is_remote(path) else os.path.isfile(path)  # noqa: PTH113


def member_names(archive: PathLike) -> list[str]:
    """Return the names of the members of a tar archive.

    Raises:
      UserError: there is no such archive, or it cannot be read.
    """
    return list(_index(os.fspath(archive)))


def size(path: PathLike) -> int:
    """Return the size of a file or member in bytes.

    Raises:
      UserError: there is none, or it cannot be reached.
    """
    member = member_of(path)
    if member is not None:
        return _located(member)[1]
    if is_remote(path):
        return remote.size(os.fspath(path))
    try:
        return Path(path).stat().st_size
    except OSError as error:
        raise _cannot(path, error) from error


def open_binary(path: PathLike) -> BinaryIO:
    """Open a file or member for reading; what is returned can be sought, and is to be closed by the caller.

    Raises:
      UserError: there is none, it may not be read, its scheme is unknown or needs a package that is not installed.
    """
    member = member_of(path)
    if member is not None:
        offset, length = _located(member)
        if is_remote(member.archive):
            return remote.open_slice(member.archive, offset=offset, size=length)
        return cast(BinaryIO, io.BufferedReader(Slice(open_binary(member.archive), offset=offset, size=length)))
    if is_remote(path):
        return remote.open_file(os.fspath(path))
    try:
        return Path(path).open("rb")
    except OSError as error:
        raise _cannot(path, error) from error


def listing(folder: PathLike, *, suffix: str) -> list[str]:
    """Return the files right inside a folder whose names end in `suffix`, as paths, in order of their names.

    Raises:
      UserError: the folder cannot be listed.
    """
    folder = os.fspath(folder)
    if is_remote(folder):
        return sorted(path for path in remote.listing(folder) if path.lower().endswith(suffix))
    try:
        entries = sorted(Path(folder).iterdir())
    except OSError as error:
        raise _cannot(folder, error) from error
    return [str(path) for path in entries if path.name.lower().endswith(suffix) and not path.is_dir()]


def cache_folder(given: str = "") -> Path:
    """Return the folder for copies of remote data: the one given, or `twinreel` in the user's cache folder."""
    if given:
        return Path(given).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "twinreel"


def pin(path: PathLike) -> str:
    """Return the path with the place of a member in it, so that whoever opens it need not look it up again.

    Raises:
      UserError: no such member, or the archive cannot be read.
    """
    member = member_of(path)
    if member is None or member.offset is not None:
        return os.fspath(path)
    offset, length = _located(member)
    return str(dataclasses.replace(member, offset=offset, size=length))


def _located(member: Member) -> tuple[int, int]:
    """Offset and size of a member, checked against the archive."""
    if member.offset is None or member.size is None:
        places = _index(member.archive)
        if member.name not in places:
            raise NoSuchFile(f"archive {member.archive!r} has no member {member.name!r}; mend the path, or the archive")
        return places[member.name]
    end = member.offset + member.size
    if end > (whole := size(member.archive)):
        raise UserError(
            f"archive {member.archive!r} ends at byte {whole:,}, but member {member.name!r} at {end:,}; the archive "
            "was cut short or replaced since it was listed: fetch it again, or list it anew"
        )
    return member.offset, member.size


def _index(archive: str) -> dict[str, tuple[int, int]]:
    """Places of an archive's members by name; looked up once per state of the archive."""
    if is_remote(archive):
        return _read_index(archive, str(remote.size(archive)))
    try:
        found = Path(archive).stat()
    except OSError as error:
        raise _cannot(archive, error) from error
    return _read_index(archive, f"{found.st_size} {found.st_mtime_ns}")


@functools.lru_cache(maxsize=_INDEXED)
def _read_index(archive: str, state: str) -> dict[str, tuple[int, int]]:
    del state  # part of the key
    places: dict[str, tuple[int, int]] = {}
    with open_binary(archive) if not is_remote(archive) else remote.open_headers(archive) as file:
        try:
            for member in members(file):
                if not member.refused:
                    places.setdefault(member.name, (member.data, member.size))
        except TarError:  # the members before the fault are there all the same; those behind it are "no such member"
            pass
    return places


def _cannot(path: PathLike, error: OSError) -> UserError:
    if isinstance(error, FileNotFoundError):
        return NoSuchFile(f"{os.fspath(path)!r} does not exist; check the path")
    what = {
        PermissionError: "may not be read; check its permissions",
        IsADirectoryError: "is a folder, wanted a file",
        NotADirectoryError: "is no folder",
    }.get(type(error))
    return UserError(f"{os.fspath(path)!r} {what or f'cannot be read ({error})'}")
