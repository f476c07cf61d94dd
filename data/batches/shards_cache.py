"""Local copies of prepared folders behind a URL: shards are fetched whole, at their first use.

    CACHE/prepared/HASH/NAME/          the copy of .../NAME; HASH is of its URL and its prepare.json, so that a folder
                                       that is prepared anew gets a copy anew
    CACHE/prepared/HASH/NAME/.remote.json   from where it comes, and the sizes of its shards; written last

A shard appears whole or not at all, and is fetched once for all processes of a host. With a limit, the least recently
used copies are removed; a copy that a process has open is never removed.
"""

import concurrent.futures
import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from ...base.errors import UserError
from ...data import remote
from ..manifest import write_whole
from ..paths import PathLike, cache_folder, file_name, is_remote, open_binary

NOTE = ".remote.json"
_AT_A_TIME = 8  # shards
_SHARD = ".array_record"  # part of the name of a shard; everything else is small and fetched at once
_GB = 1e9


class Mirror:
    """The local copy of a prepared folder; of a local one, the folder itself.

    Attributes:
      folder: where the files are, or will be once they are fetched.
      url: from where they come; "" for a local folder.
    """

    def __init__(self, folder: PathLike, *, cache_dir: str = "", cache_gb: float = 0.0):
        """Open a folder; of a remote one, fetch everything but the shards.

        Args:
          folder: a local folder, a URL, or the local copy of what lies behind a URL.
          cache_dir: folder for copies; "" = `twinreel` in the user's cache folder.
          cache_gb: gigabytes (1e9 bytes) that all copies in it may take; 0 = no limit.

        Raises:
          UserError: the folder cannot be reached, or is not prepared.
        """
        self._cache = cache_folder(cache_dir) / "prepared"
        self._limit = cache_gb * _GB
        self._sizes: dict[str, int] = {}
        self.url, self.folder = "", Path(folder)
        if is_remote(folder):
            self.url = os.fspath(folder).rstrip("/")
            self.folder = self._open()
        elif (self.folder / NOTE).is_file():
            self._cache = self.folder.parent.parent
            self._hold(self.folder)
            self._read_note(self.folder)

    def has(self, path: Path) -> bool:
        """Whether the folder has that shard, fetched or not."""
        return self._relative(path) in self._sizes if self.url else path.is_file()

    def fetch(self, paths: Sequence[Path]) -> None:
        """Fetch the shards that are not on the local disk yet, several at a time. Any thread may call.

        Raises:
          UserError: one cannot be fetched, or there is no room for it.
        """
        if not self.url:
            return
        wanted = [path for path in paths if not self._is_here(path)]
        if not wanted:
            return
        self._make_room(sum(self._sizes[self._relative(path)] for path in wanted))
        with _progress() as progress, concurrent.futures.ThreadPoolExecutor(_AT_A_TIME) as pool:
            total = sum(self._sizes[self._relative(path)] for path in wanted)
            task = progress.add_task(f"fetching {len(wanted)} shards of {file_name(self.url)}", total=total)
            tasks = [pool.submit(self._fetch, path, lambda count: progress.advance(task, count)) for path in wanted]
            try:
                for done in concurrent.futures.as_completed(tasks):
                    done.result()
            finally:
                pool.shutdown(cancel_futures=True)

    def _open(self) -> Path:
        """Make or find the copy; return its folder."""
        with _unprepared(self.url), open_binary(f"{self.url}/prepare.json") as file:
            prepared = file.read()
        digest = hashlib.sha256(self.url.encode() + b"\n" + prepared).hexdigest()[:16]
        folder = self._cache / digest / file_name(self.url)
        folder.mkdir(parents=True, exist_ok=True)
        self._hold(folder)
        with _locked(folder / ".open"):
            if not (folder / NOTE).is_file():
                self._copy_small(folder)
            self._read_note(folder)
        os.utime(folder / NOTE)  # says when it was used last
        return folder

    def _copy_small(self, folder: Path) -> None:
        found = remote.walk(self.url)
        small = {name: size for name, size in found.items() if _SHARD not in name and not name.startswith(".")}
        self._make_room(sum(small.values()))
        with _progress() as progress:
            task = progress.add_task(f"fetching the index of {file_name(self.url)}", total=sum(small.values()))
            for name, size in small.items():
                to = folder / name
                if not to.resolve().is_relative_to(folder.resolve()):
                    raise UserError(f"{self.url}/{name} would lead out of the cache folder; remove that file")
                to.parent.mkdir(parents=True, exist_ok=True)
                remote.download(
                    f"{self.url}/{name}", to=to, size=size, advance=lambda count: progress.advance(task, count)
                )
        shards = {name: size for name, size in found.items() if _SHARD in name}
        write_whole(folder / NOTE, parts=[json.dumps({"url": self.url, "shards": shards}, indent=2)])

    def _read_note(self, folder: Path) -> None:
        note = json.loads((folder / NOTE).read_text(encoding="utf-8"))
        self.url, self._sizes = note["url"], note["shards"]

    def _hold(self, folder: Path) -> None:
        """Mark the copy as in use for as long as this process lives."""
        use = os.open(folder.parent / ".use", os.O_RDWR | os.O_CREAT, 0o666)
        weakref.finalize(self, os.close, use)
        fcntl.flock(use, fcntl.LOCK_SH)
        folder.mkdir(parents=True, exist_ok=True)  # it may have been removed while we waited

    def _relative(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()

    def _is_here(self, path: Path) -> bool:
        try:
            return path.stat().st_size == self._sizes[self._relative(path)]
        except FileNotFoundError:
            return False

    def _fetch(self, path: Path, advance: Callable[[int], None]) -> None:
        """Fetch a shard, unless another process or thread has done it meanwhile."""
        size = self._sizes[self._relative(path)]
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path.with_name(f".{path.name}.lock")):
            if self._is_here(path):
                advance(size)
            else:
                remote.download(f"{self.url}/{self._relative(path)}", to=path, size=size, advance=advance)

    def _make_room(self, need: int) -> None:
        """Remove unused copies, the least recently used first, until there is room for `need` bytes.

        Raises:
          UserError: there is none.
        """
        self._cache.mkdir(parents=True, exist_ok=True)
        if self._limit:
            copies = sorted(self._cache.glob(f"*/*/{NOTE}"), key=lambda note: note.stat().st_mtime)
            taken = {note.parent: _taken(note.parent) for note in copies}
            for folder in taken:
                if sum(taken.values()) + need <= self._limit:
                    break
                if folder != self.folder and _remove(folder):
                    taken[folder] = 0
            if sum(taken.values()) + need > self._limit:
                in_use = decimal(sum(taken.values()))
                raise UserError(
                    f"{self.url!r} needs {decimal(need)} more in {str(self._cache)!r}, where copies in use take "
                    f"{in_use} of config.data.cache_gb={self._limit / _GB:g}; raise it, or set it to 0"
                )
        free = shutil.disk_usage(self._cache).free
        if need > free:
            raise UserError(
                f"{self.url!r} needs {decimal(need)} in {str(self._cache)!r}, whose disk has {decimal(free)} left; "
                "set config.data.cache_dir to a folder on a larger disk"
            )


@contextlib.contextmanager
def _unprepared(url: str) -> Iterator[None]:
    """Turn a missing prepare.json into a UserError with a remedy."""
    try:
        yield
    except remote.NoSuchFile as error:
        raise UserError(
            f"data folder {url!r} has no prepare.json: there is no such bucket or folder, it is not prepared, or the "
            f"upload was cut short; make it with `twinreel prepare SOURCE --out {url}`, or set config.data.dir"
        ) from error


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock against all other processes and threads."""
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _remove(folder: Path) -> bool:
    """Remove a copy that no process uses; return whether it is gone."""
    with (folder.parent / ".use").open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        (folder / NOTE).unlink(missing_ok=True)  # first: without it the rest counts for nothing
        shutil.rmtree(folder)
    return True


def _taken(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    return Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True))
