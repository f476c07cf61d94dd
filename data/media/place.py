"""Access to media files: local files, members of tar archives, and files behind URLs."""

import io
import os
from pathlib import PurePosixPath
from typing import Any, BinaryIO

import av
from av.error import FFmpegError

from ...base.errors import UserError
from ...data import paths
from ..remote import NoSuchFile

_KEPT = 64 * 2**20  # remote files up to this size stay in memory: the next window is often of the same file
_last: tuple[str, bytes] | None = None


class DecodeError(Exception):
    """A clip that cannot be used; `reason` is short and the same for all clips with the same fault."""

    def __init__(self, reason: str, detail: str = ""):
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}" if self.detail else self.reason


def check_local(path: paths.PathLike) -> None:
    """Refuse a plain local file that does not exist or is empty; other paths are checked when they are opened.

    Raises:
      DecodeError: no such file, or nothing in it.
    """
    if not paths.is_plain(path):
        return
    if not os.path.isfile(path):  # noqa: PTH113  (a string, or a path)
        raise DecodeError("file does not exist")
    if os.path.getsize(path) == 0:  # noqa: PTH202
        raise DecodeError("file is empty")


def open_bytes(path: paths.PathLike) -> BinaryIO:
    """Open any file for reading: local, remote, or a member of an archive.

    Raises:
      DecodeError: there is none, it cannot be reached, or it is empty.
    """
    global _last
    key = os.fspath(path)
    if _last is not None and _last[0] == key:
        return io.BytesIO(_last[1])
    try:
        file = paths.open_binary(path)
    except NoSuchFile as error:
        raise DecodeError("file does not exist", str(error)) from error
    except UserError as error:
        raise DecodeError("file cannot be read", str(error)) from error
    length = file.seek(0, os.SEEK_END)
    file.seek(0)
    if length == 0:
        file.close()
        raise DecodeError("file is empty")
    if paths.is_remote(path) and length <= _KEPT:
        with file:
            _last = (key, file.read())
        return io.BytesIO(_last[1])
    return file


def open_elsewhere(path: paths.PathLike) -> Any:
    """Open a media file that lies in an archive or behind a URL, as `pictures.open_media` does a local one.

    The decoder reads it through a Python object (as fast as through its own protocols, as measured) and can open
    nothing else: no protocol is allowed to it.

    Raises:
      DecodeError: there is none, or it is not a media file.
    """
    file = _Named(open_bytes(path), suffix=PurePosixPath(paths.file_name(path)).suffix)
    try:
        return av.open(file, metadata_errors="replace", options={"protocol_whitelist": "none"})
    except FFmpegError as error:
        file.close()
        raise DecodeError("cannot be opened", error.strerror or str(error)) from error


class _Named:
    """A file as the decoder wants it: with a name, of which only the suffix is the file's own."""

    def __init__(self, file: BinaryIO, *, suffix: str):
        self.name = f"media{suffix.lower()}" if suffix[1:].isalnum() else "media"
        self.read, self.seek, self.tell, self.close = file.read, file.seek, file.tell, file.close

    def seekable(self) -> bool:
        return True
