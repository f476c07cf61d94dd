"""The objects below a URL of S3 or Google Cloud Storage: whole reads and writes, conditional writes, retries."""

import concurrent.futures
import contextlib
import hashlib
import random
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar, cast

from ...base.errors import UserError
from ...data.remote import EXTRAS, NoSuchFile, user_errors

TRIES = 10
"""Attempts of a request that is throttled, times out or breaks off."""
_WAIT_S, _LONGEST_WAIT_S = 0.5, 60.0  # before the second attempt; doubled up to the longest
_THREADS = 8  # files in flight at once
_PERMANENT = (FileNotFoundError, PermissionError, FileExistsError, IsADirectoryError, ImportError)

Made = TypeVar("Made")


class Conflict(Exception):
    """A conditional write whose condition does not hold: the object has changed since it was read."""


class DamagedError(UserError):
    """An object that is missing, or is not what was saved."""


class Store:
    """The objects below one URL.

    Attributes:
      url: without a slash at its end.
      retried: how many requests were repeated so far.
    """

    def __init__(self, url: str):
        """Open it; nothing is read.

        Raises:
          UserError: a scheme without conditional writes, or one whose package is not installed.
        """
        scheme = url.partition("://")[0].lower()
        if scheme not in EXTRAS:
            raise UserError(
                f"{url!r}: twinreel writes to s3:// and gs:// only, because a run needs conditional writes; for other "
                "stores mount a file system and give the path in it"
            )
        from fsspec.core import url_to_fs  # here, because it takes a while and few runs need it

        self.url, self.retried, self._google = url.rstrip("/"), 0, EXTRAS[scheme] == "gcs"
        with user_errors(url):
            # The same file system in two threads is safe; listings are not remembered, as other programs write too.
            self._system, self._base = url_to_fs(self.url, use_listings_cache=False)
        self._count = threading.Lock()

    def read(self, name: str) -> tuple[bytes, str] | None:
        """Return the content of an object and the tag for `replace`; None if there is no such object.

        Raises:
          UserError: the store cannot be reached.
        """
        path = self._path(name)

        def attempt() -> tuple[bytes, str]:
            if self._google:  # the generation first: if the content is newer, `replace` conflicts and nothing is lost
                tag = str(self._system.info(path)["generation"])
                return self._system.cat_file(path), tag
            bucket, key, _ = self._system.split_path(path)
            answer = self._system.call_s3("get_object", Bucket=bucket, Key=key)
            return _body(self._system, answer), answer["ETag"]

        with user_errors(self._url(name)):
            try:
                return self._retry(attempt)
            except FileNotFoundError:
                return None

    def replace(self, name: str, data: bytes, *, tag: str | None) -> str:
        """Write an object if it is still the one of `tag`; with None if there is none. Returns the new tag.

        Raises:
          Conflict: it is not. A repeated request may conflict with its own first attempt: compare the content.
          UserError: the store cannot be reached.
        """
        path = self._path(name)

        def attempt() -> str:
            if self._google:
                bucket, key, _ = self._system.split_path(path)
                answer = self._system.call(
                    "POST",
                    f"{self._system._location}/upload/storage/v1/b/{bucket}/o",
                    uploadType="media",
                    name=key,
                    ifGenerationMatch=tag or "0",
                    data=data,
                    json_out=True,
                )
                return str(answer["generation"])
            bucket, key, _ = self._system.split_path(path)
            condition = {"IfNoneMatch": "*"} if tag is None else {"IfMatch": tag}
            return self._system.call_s3("put_object", Bucket=bucket, Key=key, Body=data, **condition)["ETag"]

        with user_errors(self._url(name)):
            try:
                return self._retry(attempt)
            except Exception as error:
                gone = tag is not None and isinstance(error, FileNotFoundError)
                if _status(error) == 412 or isinstance(error, FileExistsError) or gone:  # gcsfs: FileExistsError
                    raise Conflict(name) from error
                raise

    def write(self, name: str, data: bytes) -> None:
        """Write an object, whatever was there.

        Raises:
          UserError: the store cannot be reached.
        """
        with user_errors(self._url(name)):
            self._retry(lambda: self._system.pipe_file(self._path(name), data))

    def find(self, below: str = "") -> dict[str, int]:
        """Return the sizes in bytes of all objects below a name, by name.

        Raises:
          UserError: the store cannot be reached.
        """
        return {name: int(item["size"]) for name, item in self._listed(below).items()}

    def tags(self, below: str = "") -> dict[str, str]:
        """Return what the store states of the content of all objects below a name, by name.

        Raises:
          UserError: the store cannot be reached.
        """
        keys = ("ETag", "generation", "md5Hash", "LastModified", "size")
        return {name: str([item.get(key) for key in keys]) for name, item in self._listed(below).items()}

    def upload(self, files: dict[str, Path]) -> dict[str, dict[str, Any]]:
        """Send files, several at once, and return {name: {"size", "sha256"}}.

        Raises:
          UserError: one cannot be sent.
        """

        def send(name: str, path: Path) -> tuple[str, dict[str, Any]]:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            with user_errors(self._url(name)):
                self._retry(lambda: self._system.put_file(str(path), self._path(name)))
            return name, {"size": path.stat().st_size, "sha256": digest}

        return dict(_together([lambda n=n, p=p: send(n, p) for n, p in files.items()]))

    def download(self, files: dict[str, Path], *, known: dict[str, dict[str, Any]] | None = None) -> None:
        """Fetch objects, several at once; each file appears whole or not at all.

        Args:
          files: object -> where it goes; folders are made.
          known: object -> {"size", "sha256"} that it must have.

        Raises:
          UserError: one cannot be fetched.
          DamagedError: one does not exist, or came with another content three times.
        """

        def fetch(name: str, path: Path) -> None:
            path.parent.mkdir(parents=True, exist_ok=True)
            part, wanted = path.with_name(f".{path.name}.part"), (known or {}).get(name)
            for _ in range(3):
                try:
                    with user_errors(self._url(name)):
                        self._retry(lambda: self._system.get_file(self._path(name), str(part)))
                except NoSuchFile as error:
                    raise DamagedError(f"{self._url(name)!r} is missing") from error
                if not part.exists():  # fsspec makes no file of an empty object in some versions
                    part.touch()
                if wanted is None or _matches(part, wanted=wanted):
                    part.replace(path)
                    return
            part.unlink()
            raise DamagedError(f"{self._url(name)!r} is damaged: its size or SHA-256 is not what was saved")

        _together([lambda n=n, p=p: fetch(n, p) for n, p in files.items()])

    def delete(self, names: Iterable[str]) -> None:
        """Delete objects; those that do not exist are no fault.

        Raises:
          UserError: one cannot be deleted.
        """

        def remove(name: str) -> None:
            with user_errors(self._url(name)), contextlib.suppress(FileNotFoundError):
                self._retry(lambda: self._system.rm_file(self._path(name)))

        _together([lambda n=n: remove(n) for n in names])

    def _listed(self, below: str) -> dict[str, dict[str, Any]]:
        """Return what the store says of all objects below a name, by name."""
        start = self._base + "/"
        with user_errors(self._url(below)):
            self._system.invalidate_cache()
            found = self._retry(lambda: self._system.find(self._path(below), detail=True))
        return {name.removeprefix(start): item for name, item in found.items() if name.startswith(start)}

    def _path(self, name: str) -> str:
        return f"{self._base}/{name}" if name else self._base

    def _url(self, name: str) -> str:
        return f"{self.url}/{name}" if name else self.url

    def _retry(self, attempt: Callable[[], Made]) -> Made:
        """Repeat a request with growing waits while its fault may pass."""
        for number in range(TRIES):
            try:
                return attempt()
            except Exception as error:
                if number == TRIES - 1 or not passing(error):
                    raise
                with self._count:
                    self.retried += 1
                time.sleep(min(_WAIT_S * 2**number, _LONGEST_WAIT_S) * random.uniform(0.5, 1.0))
        raise AssertionError("the loop returns or raises")


def passing(error: BaseException) -> bool:
    """Tell whether a fault of a request may pass: throttling, a server's fault, a connection that broke off."""
    if isinstance(error, _PERMANENT) or str(error).startswith("Forbidden"):  # gcsfs says that in an OSError
        return False
    status = _status(error)
    if status is not None:
        return status in (408, 409, 425, 429) or status >= 500
    import errno

    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG):
        return False
    network = ("botocore", "aiobotocore", "aiohttp", "gcsfs", "google", "requests", "urllib3", "fsspec")
    return isinstance(error, OSError | TimeoutError) or type(error).__module__.partition(".")[0] in network


def _status(error: BaseException | None) -> int | None:
    """Return the HTTP status behind an error, as botocore or gcsfs state it; None if there is none."""
    while error is not None:
        answer = getattr(error, "response", None)
        if isinstance(answer, dict) and "ResponseMetadata" in answer:
            return int(answer["ResponseMetadata"]["HTTPStatusCode"])
        code = getattr(error, "code", None)
        if type(error).__module__.startswith("gcsfs") and code is not None:
            return int(code)
        error = error.__cause__
    return None


def _body(system: Any, answer: dict[str, Any]) -> bytes:
    """Return the bytes of an answer whose body is read asynchronously."""
    from fsspec.asyn import sync

    async def read() -> bytes:
        async with answer["Body"] as stream:
            return await stream.read()

    return cast(bytes, sync(system.loop, read))


def _matches(path: Path, *, wanted: dict[str, Any]) -> bool:
    with path.open("rb") as file:
        size, digest = path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest()
    return (size, digest) == (wanted["size"], wanted["sha256"])


def _together(calls: list[Callable[[], Made]]) -> list[Made]:
    """Call all in threads; the first error is raised when the others have ended."""
    if len(calls) <= 1:
        return [call() for call in calls]
    with concurrent.futures.ThreadPoolExecutor(max_workers=_THREADS, thread_name_prefix="twinreel-store") as pool:
        jobs = [pool.submit(call) for call in calls]
    return [job.result() for job in jobs]
