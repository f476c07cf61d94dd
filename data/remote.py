"""Files behind URLs, through fsspec: faults become words, transfers appear whole or not at all."""

import contextlib
import hashlib
import io
import os
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

from ..base.errors import UserError
from .tars import Slice


class NoSuchFile(UserError):
    """A file that does not exist; another one than the many that cannot be reached."""


EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}
"""Scheme of a URL -> the extra of twinreel that brings its package."""
TRAFFIC: Counter[str] = Counter()
"""Bytes that came and requests that were made since the process began, of shards and of parts of files."""
AT_ONCE = 64
"""Requests to a store that run at a time."""
# Of the file systems: as many connections as there are requests at a time (botocore keeps ten by default).
_OPTIONS: dict[str, dict[str, Any]] = {"s3": {"config_kwargs": {"max_pool_connections": AT_ONCE}}}
_OPTIONS["s3a"] = _OPTIONS["s3"]
_WHOLE = 64 * 2**20  # files and members up to this size are fetched in one request
_BLOCK = 4 * 2**20  # bytes of one request where a file is read in parts
_HEADERS = 256 * 2**10  # the same where only headers are read: what lies between them is sought over
# Keys of what fsspec says of a file: what stands for its contents, and when they changed.
_TAGS = ("etag", "md5hash", "content-md5", "crc32c", "checksum", "digest", "generation")
_TIMES = ("lastmodified", "last-modified", "last_modified", "updated", "mtime", "modified", "created")
_PIECE = 8 * 2**20  # bytes between two reports of progress
_TRIES = 3  # of a transfer that breaks off
_WAIT_S = 0.5  # before the second of them; twice as long before the third


def open_file(url: str) -> BinaryIO:
    """Open a remote file for reading; a file of moderate size is fetched whole, in one request.

    Raises:
      UserError: it does not exist or cannot be reached.
    """
    return open_slice(url, offset=0, size=size(url))


def open_slice(url: str, *, offset: int, size: int) -> BinaryIO:
    """Open `size` bytes from `offset` on of a remote file as a file of its own.

    Raises:
      UserError: it does not exist or cannot be reached.
    """
    with user_errors(url):
        system, path = _system(url)
        if size <= _WHOLE:
            data = system.cat_file(path, start=offset, end=offset + size) if size else b""
            if len(data) != size:
                raise UserError(f"{url!r} gave {len(data):,} of the {size:,} bytes from {offset:,} on; fetch it again")
            return io.BytesIO(data)
        file = system.open(path, "rb", block_size=_BLOCK, cache_type="readahead")
    return cast(BinaryIO, io.BufferedReader(Slice(cast(BinaryIO, file), offset=offset, size=size)))


def open_headers(url: str) -> BinaryIO:
    """Open a remote archive to read its headers: with small requests.

    Raises:
      UserError: it does not exist or cannot be reached.
    """
    with user_errors(url):
        system, path = _system(url)
        return cast(BinaryIO, system.open(path, "rb", block_size=_HEADERS, cache_type="readahead"))


def is_file(url: str) -> bool:
    """Whether there is such a file.

    Raises:
      UserError: it cannot be found out.
    """
    with user_errors(url):
        system, path = _system(url)
        try:
            return system.info(path)["type"] == "file"
        except FileNotFoundError:
            return False


def size(url: str) -> int:
    """Return the size of a remote file in bytes.

    Raises:
      UserError: it does not exist or cannot be reached.
    """
    with user_errors(url):
        system, path = _system(url)
        found = system.info(path)
        if found["type"] != "file" or found["size"] is None:
            raise UserError(f"{url!r} is a folder, or does not state its size; wanted a file")
        return int(found["size"])


def size_if_any(url: str) -> int | None:
    """Return the size of a remote file in bytes, None if there is no such file.

    Raises:
      UserError: it cannot be found out.
    """
    try:
        return size(url)
    except NoSuchFile:
        return None


def identity(url: str) -> tuple[int, str]:
    """Return the size in bytes of a remote file, and what its store states of its contents.

    The latter is an entity tag or checksum; where the store has none, the time of the last change; else "".

    Raises:
      UserError: the file does not exist or cannot be reached.
    """
    with user_errors(url):
        system, path = _system(url)
        found = {str(key).lower(): value for key, value in system.info(path).items()}
        if found["type"] != "file" or found["size"] is None:
            raise UserError(f"{url!r} is a folder, or does not state its size; wanted a file")
        stated = next((f"{key}={found[key]}" for key in (*_TAGS, *_TIMES) if found.get(key)), "")
        return int(found["size"]), stated


def listing(url: str) -> list[str]:
    """Return the URLs of the files right inside a remote folder.

    Raises:
      UserError: the folder does not exist or cannot be reached.
    """
    with user_errors(url):
        system, path = _system(url)
        return [system.unstrip_protocol(found["name"]) for found in system.ls(path, detail=True) if _is_file(found)]


def walk(url: str) -> dict[str, int]:
    """Return the sizes in bytes of all files below a remote folder, by their path below it; {} if there is none.

    Raises:
      UserError: it cannot be reached.
    """
    with user_errors(url):
        system, path = _system(url)
        found = system.find(path, detail=True)
        base = path.rstrip("/") + "/"
        return {name.removeprefix(base): int(item["size"]) for name, item in found.items() if name.startswith(base)}


def download(
    url: str, *, to: Path, size: int, sha256: str = "", advance: Callable[[int], None] = lambda _: None
) -> None:
    """Fetch a file; it appears whole or not at all.

    The caller sees to it that no other process fetches to the same place. What a killed one left is overwritten.

    Args:
      url: the remote file.
      to: the local file to make.
      size: bytes that it must have.
      sha256: of the bytes that must come, hex; "" = not known.
      advance: told the number of bytes of each piece.

    Raises:
      UserError: it cannot be reached, or what came has another size or checksum.
    """
    part = to.with_name(f".{to.name}.part")
    for attempt in range(_TRIES):
        time.sleep(attempt * _WAIT_S)
        try:
            got, digest = _copy(url, part, advance=advance)
        except UserError as error:
            if attempt == _TRIES - 1 or isinstance(error.__cause__, FileNotFoundError | PermissionError | ImportError):
                raise
            continue
        if got == size and sha256 in ("", digest):
            part.replace(to)
            return
        advance(-got)
    part.unlink(missing_ok=True)
    if got == size:
        raise UserError(
            f"{url!r} gave other bytes than were written, in each of {_TRIES} attempts (SHA-256 {digest[:12]}, wanted "
            f"{sha256[:12]}); it was replaced or is damaged: send it again, or run `twinreel prepare` again"
        )
    raise UserError(
        f"{url!r} gave {got:,} bytes, wanted {size:,}, in each of {_TRIES} attempts; "
        "it was cut short or is being written: check it, then run again"
    )


def _copy(url: str, part: Path, *, advance: Callable[[int], None]) -> tuple[int, str]:
    """Write what is behind a URL to a file; return how much came, and its SHA-256. On a fault, progress is undone."""
    got, digest = 0, hashlib.sha256()
    try:
        with user_errors(url):
            system, path = _system(url)
            with part.open("wb") as file, system.open(path, "rb", block_size=_PIECE, cache_type="readahead") as far:
                while piece := far.read(_PIECE):
                    file.write(piece)
                    digest.update(piece)
                    got += len(piece)
                    TRAFFIC.update(bytes=len(piece), requests=1)
                    advance(len(piece))
                file.flush()
                os.fsync(file.fileno())
    except UserError:
        advance(-got)
        raise
    return got, digest.hexdigest()


def upload(path: Path, *, url: str) -> None:
    """Send a file; object stores show it whole or not at all, other servers get it under another name first.

    Raises:
      UserError: it cannot be sent, or what arrived has another size.
    """
    with user_errors(url):
        system, there = _system(url)
        if system.protocol in ("file", "local") or "sftp" in system.protocol or "smb" in system.protocol:
            beside = f"{there}.{secrets.token_hex(4)}.part"
            system.makedirs(there.rpartition("/")[0], exist_ok=True)
            system.put_file(str(path), beside)
            system.mv(beside, there)
        else:
            system.put_file(str(path), there)
    if (arrived := size(url)) != path.stat().st_size:
        raise UserError(f"{url!r} has {arrived:,} bytes after sending {path.stat().st_size:,}; run again")


def copy(url: str, *, to: str, size: int) -> None:
    """Copy a file within its store, which does so by itself: the bytes do not come here.

    Args:
      url: the remote file.
      to: the URL of the copy, in the same store.
      size: bytes that the copy must have.

    Raises:
      UserError: it does not exist, the store cannot copy, or the copy has another size.
    """
    with user_errors(to):
        system, source = _system(url)
        try:
            system.cp_file(source, system_of(to)[1])
        except NotImplementedError as error:
            scheme = url.partition("://")[0]
            raise UserError(f"{url!r}: {scheme}:// cannot copy a file; use s3:// or gs://") from error
    if (arrived := size_if_any(to)) != size:
        raise UserError(f"{to!r} has {arrived} bytes, wanted {size}; run the same command again")


def delete(url: str) -> None:
    """Delete a remote file, if there is one.

    Raises:
      UserError: it cannot be deleted.
    """
    with user_errors(url):
        system, path = _system(url)
        with contextlib.suppress(FileNotFoundError):
            system.rm_file(path)


@contextlib.contextmanager
def user_errors(url: str) -> Iterator[None]:
    """Turn what fsspec and the packages below it raise into a UserError that says what to do."""
    try:
        yield
    except UserError:
        raise
    except FileNotFoundError as error:
        raise NoSuchFile(f"{url!r} does not exist (bucket or file); check the URL") from error
    except PermissionError as error:
        raise UserError(
            f"{url!r} may not be read or written ({error}); check the credentials and the rights"
        ) from error
    except ImportError as error:
        scheme = url.partition("://")[0].lower()
        extra = EXTRAS.get(scheme)
        remedy = f"pip install 'twinreel[{extra}]'" if extra else f"install the package that it names ({error})"
        raise UserError(f"{url!r}: {scheme}:// needs a package that is not installed; {remedy}") from error
    except Exception as error:
        if "Protocol not known" in str(error):
            scheme = url.partition("://")[0]
            raise UserError(
                f"{url!r}: unknown scheme {scheme!r}; use a local path, s3://, gs:// or https://"
            ) from error
        if type(error).__name__ == "NoCredentialsError":
            raise UserError(f"{url!r}: no credentials found; set them as the store's own tools expect them") from error
        if isinstance(error, OSError | TimeoutError) or type(error).__module__.partition(".")[0] in _NETWORK:
            raise UserError(f"{url!r} cannot be reached ({type(error).__name__}: {error})") from error
        raise


_NETWORK = {"botocore", "aiobotocore", "aiohttp", "gcsfs", "google", "requests", "urllib3", "fsspec"}


def _is_file(found: dict[str, Any]) -> bool:
    return found["type"] == "file"


def system_of(url: str) -> tuple[Any, str]:
    """Return the file system of a URL and the path in it."""
    from fsspec.core import url_to_fs  # here, because it takes a while and few runs need it

    return url_to_fs(url, **_OPTIONS.get(url.partition("://")[0].lower(), {}))


def _system(url: str) -> tuple[Any, str]:
    """The file system of a URL and the path in it; what it remembers of listings is forgotten first."""
    system, path = system_of(url)
    system.invalidate_cache()
    return system, path
