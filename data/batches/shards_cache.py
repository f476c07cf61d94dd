"""Local copies of prepared folders behind a URL: shards are fetched whole, ahead of their use or at the first one.

    CACHE/prepared/HASH/NAME/          the copy of .../NAME; HASH is of its URL and its prepare.json, so that a folder
                                       that is prepared anew gets a copy anew
    CACHE/prepared/HASH/NAME/.remote.json   from where it comes, and the sizes of its shards; written last

A shard appears whole or not at all, and is fetched once for all processes of a host. With a limit, the least recently
used copies are removed, but for one that a process has open; of this, the least recently used shards that no process
holds. The lists of clips are not copied if they are large: parts of them are read as they are needed (far_table.py).
"""

import concurrent.futures
import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import weakref
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from ...base.errors import UserError
from ...data import remote
from ..index.columns import ENDINGS as _ENDINGS
from ..layout import INDEX, INPUTS, NAME, home_of
from ..manifest import write_whole
from ..paths import PathLike, cache_folder, file_name, is_remote, open_binary

NOTE = ".remote.json"
_AT_A_TIME = 8  # shards
_SHARD = ".array_record"  # part of the name of a shard
_COPIED = 64 * 2**20  # bytes of clips.jsonl up to which everything but the shards is fetched at once
_LISTED = 2000  # shards up to which the folder is listed: more are taken to be there
_LARGE = ("clips.jsonl", "rejects.jsonl", "duplicates.jsonl", INPUTS)  # files that grow with the number of clips
_GB = 1e9


class Mirror:
    """The local copy of a prepared folder; of a local one, the folder itself.

    Attributes:
      folder: where the files are, or will be once they are fetched.
      url: from where they come; "" for a local folder.
      checksums: SHA-256 (hex) of shards by their file name, of those that are to be checked when they are fetched.
      far: bytes of each file that is not copied, by its path below the folder; parts are to be read from the URL.
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
        self._held: dict[str, dict[Path, int]] = {}  # by owner: shards that are kept, and an open file that says so
        weakref.finalize(self, _let_go, self._held)
        self.checksums: dict[str, str] = {}
        self.far: dict[str, int] = {}
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

    def fetch(self, paths: Sequence[Path], *, shown: bool = True) -> None:
        """Fetch the shards that are not on the local disk yet, several at a time. Any thread may call.

        Args:
          paths: of the shards, below `folder`.
          shown: whether there is a progress bar.

        Raises:
          UserError: one cannot be fetched, or there is no room for it.
        """
        if not self.url:
            return
        wanted = [path for path in paths if not self._is_here(path)]
        if not wanted:
            return
        self._make_room(sum(self._sizes[self._relative(path)] for path in wanted), keep=paths)
        with _progress(shown=shown) as progress, concurrent.futures.ThreadPoolExecutor(_AT_A_TIME) as pool:
            total = sum(self._sizes[self._relative(path)] for path in wanted)
            task = progress.add_task(f"fetching {len(wanted)} shards of {file_name(self.url)}", total=total)
            tasks = [pool.submit(self._fetch, path, lambda count: progress.advance(task, count)) for path in wanted]
            try:
                for done in concurrent.futures.as_completed(tasks):
                    done.result()
            finally:
                pool.shutdown(cancel_futures=True)

    def hold(self, paths: Collection[Path], *, owner: str) -> None:
        """Fetch these shards and keep them until the owner's next call, if this process lives; let go of its others.

        Raises:
          UserError: one cannot be fetched, or there is no room for it.
        """
        if not self.url:
            return
        held = self._held.setdefault(owner, {})
        for path in held.keys() - set(paths):
            os.close(held.pop(path))
        missing = [path for path in paths if path not in held]
        while missing:
            self.fetch(missing, shown=False)
            for path in missing:
                with contextlib.suppress(FileNotFoundError):  # likewise, before it was opened
                    self._keep(path, held=held)
            missing = [path for path in missing if path not in held]

    def _keep(self, path: Path, *, held: dict[Path, int]) -> None:
        file = os.open(path, os.O_RDONLY)
        fcntl.flock(file, fcntl.LOCK_SH)
        now = _about(path)
        if now is None or os.fstat(file).st_ino != now.st_ino:  # another process made room meanwhile
            os.close(file)
            return
        os.utime(path)  # says when it was used last
        held[path] = file

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
                self._copy_small(folder, prepared)
            self._read_note(folder)
        os.utime(folder / NOTE)  # says when it was used last
        return folder

    def _copy_small(self, folder: Path, prepared: bytes) -> None:
        shards, small = self._listing(prepared)
        far = {}
        if small.get("clips.jsonl", 0) > _COPIED and f"{INDEX}/{next(iter(_splits(prepared)), '')}.json" in small:
            names = [name for name in small if name in _LARGE or (name.startswith(INDEX) and _is_array(name))]
            far = {name: small.pop(name) for name in names}
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
        note = {"url": self.url, "shards": shards, "far": far}
        write_whole(folder / NOTE, parts=[json.dumps(note, indent=2)])

    def _listing(self, prepared: bytes) -> tuple[dict[str, int], dict[str, int]]:
        """Return the sizes of the shards, and of all other files, by their path below the folder."""
        listed = _shards(prepared)
        if len(listed) <= _LISTED:
            found = {name: size for name, size in remote.walk(self.url).items() if not name.startswith(".")}
            return (
                {name: size for name, size in found.items() if _SHARD in name},
                {name: size for name, size in found.items() if _SHARD not in name},
            )
        homes = dict.fromkeys([home_of(NAME), *(name.rpartition("/")[0] for name in listed)])
        names = ["prepare.json", *_LARGE, *(f"{home}/{n}.json" for home in homes for n in ("dataset_info", "features"))]
        names += [f"{INDEX}/{split}{end}" for split in _splits(prepared) for end in _ENDINGS]
        with concurrent.futures.ThreadPoolExecutor(_AT_A_TIME) as pool:
            sizes = pool.map(lambda name: remote.size_if_any(f"{self.url}/{name}"), names)
            return listed, {name: size for name, size in zip(names, sizes, strict=True) if size is not None}

    def _read_note(self, folder: Path) -> None:
        note = json.loads((folder / NOTE).read_text(encoding="utf-8"))
        self.url, self._sizes, self.far = note["url"], note["shards"], note.get("far", {})

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
                url, sha256 = f"{self.url}/{self._relative(path)}", self.checksums.get(path.name, "")
                remote.download(url, to=path, size=size, sha256=sha256, advance=advance)

    def _make_room(self, need: int, *, keep: Sequence[Path] = ()) -> None:
        """Remove unused copies, then shards that no process holds, the least recently used first, but none to `keep`.

        They are removed until there is room for `need` bytes.

        Raises:
          UserError: there is none.
        """
        self._cache.mkdir(parents=True, exist_ok=True)
        if self._limit:
            copies = sorted(self._cache.glob(f"*/*/{NOTE}"), key=_last_used)
            taken = {note.parent: _taken(note.parent) for note in copies}
            for folder in taken:
                if sum(taken.values()) + need <= self._limit:
                    break
                if folder != self.folder and _remove(folder):
                    taken[folder] = 0
            if (over := sum(taken.values()) + need - self._limit) > 0:
                taken[self.folder] = taken.get(self.folder, 0) - self._drop_shards(over, keep=keep)
            if sum(taken.values()) + need > self._limit:
                in_use = decimal(sum(taken.values()))
                raise UserError(
                    f"{self.url!r} needs {decimal(need)} more in {str(self._cache)!r}, where copies in use take "
                    f"{in_use} of config.data.cache_gb={self._limit / _GB:g}; raise it, or set it to 0"
                )
        free = shutil.disk_usage(self._cache).free
        if need > free:
            free += self._drop_shards(need - free, keep=keep)
        if need > free:
            raise UserError(
                f"{self.url!r} needs {decimal(need)} in {str(self._cache)!r}, whose disk has {decimal(free)} left; "
                "set config.data.cache_dir to a folder on a larger disk"
            )

    def _drop_shards(self, count: float, *, keep: Sequence[Path]) -> int:
        """Remove shards of this copy until `count` bytes are free, or no more can be; return how many bytes are."""
        kept, freed = set(keep).union(*self._held.values()), 0
        if not self.folder.is_dir() or not self.url:
            return 0
        found = [path for path in self.folder.rglob(f"*{_SHARD}*") if path not in kept and path.name[0] != "."]
        for path in sorted(found, key=_last_used):
            if freed >= count:
                break
            with contextlib.suppress(BlockingIOError, FileNotFoundError), path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
                freed += os.fstat(file.fileno()).st_size
        return freed


def _let_go(held: dict[str, dict[Path, int]]) -> None:
    for files in held.values():
        while files:
            os.close(files.popitem()[1])


def _shards(prepared: bytes) -> dict[str, int]:
    """Return the sizes of the shards that a prepare.json lists; {} if it is of another version."""
    try:
        listed = json.loads(prepared)["shards"]
        names = [(Path(one["name"]).name, int(one["bytes"])) for one in listed]
        return {f"{home_of(name)}/{name}": size for name, size in names}
    except (ValueError, KeyError, TypeError):
        return {}


def _splits(prepared: bytes) -> list[str]:
    try:
        return list(json.loads(prepared)["counts"])
    except (ValueError, KeyError, TypeError):
        return []


def _is_array(name: str) -> bool:
    return not name.endswith(".json")


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
    """Return the bytes of the files of a copy, which other processes may be changing."""
    found = (_about(Path(root, name)) for root, _, names in os.walk(folder) for name in names)
    return sum(about.st_size for about in found if about is not None)


def _about(path: Path) -> os.stat_result | None:
    """Return what the disk says of a file; None if it is gone."""
    try:
        return path.stat()
    except FileNotFoundError:
        return None


def _last_used(path: Path) -> float:
    about = _about(path)
    return about.st_mtime if about is not None else 0.0


def _progress(*, shown: bool = True) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    return Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), disable=not shown)
