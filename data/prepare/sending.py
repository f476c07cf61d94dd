"""`prepare --out URL`: the folder is built on the local disk, then sent; prepare.json, which vouches for it, goes last.

Killed at any moment, the same command goes on: what is built stays in the local folder, what was sent is noted there.
Whoever reads the URL meanwhile finds no prepare.json, and so no half of a folder. Shards that Beam's workers have put
behind the URL (far_build.py) are copied to their places by the store.
"""

import contextlib
import hashlib
import json
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from ...base.errors import UserError
from ...data import remote
from ..layout import APPENDING, BUILDING, RESULTS
from ..manifest import write_whole
from ..paths import cache_folder, file_name, open_binary
from .elsewhere import copy_all, delete_all, read_elsewhere
from .folder import may_stay, same_as_wanted

_VOUCHER = "prepare.json"
_SENT = ".sent.json"  # in the local folder: size and time of each file that has arrived
_OURS = (*RESULTS, BUILDING, APPENDING)  # what an earlier build may have left behind the URL
_COPIES = 64  # between two notes of what has been copied


def staging_folder(url: str, *, append: bool = False) -> Path:
    """Return the local folder in which what belongs behind a URL is built, or appended to what is there."""
    name = hashlib.sha256(f"{url} append".encode() if append else url.encode()).hexdigest()[:16]
    return cache_folder() / "staging" / name / file_name(url)


def finished(url: str, wanted: dict[str, Any], *, overwrite: bool) -> dict[str, Any] | None:
    """Return the prepare.json behind a URL if what is there is wanted and whole; None if it has to be made.

    Raises:
      UserError: something else is there, or it cannot be reached.
    """
    if (done := voucher(url)) is None:
        return None
    try:
        there = remote.walk(url)
        whole = sum(there[name] for name in there if _is_shard(name)) == done["bytes"]
        same = same_as_wanted(done, wanted, where=url, overwrite=overwrite)
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{url}/{_VOUCHER} is not from twinreel prepare ({error!r}); give another --out") from error
    if not may_stay(done, whole and same, where=url, overwrite=overwrite):
        return None
    remove_build(url, name=BUILDING)  # a run that was killed at its very end leaves it
    return done


def voucher(url: str) -> dict[str, Any] | None:
    """Return the prepare.json behind a URL; None if there is none.

    Raises:
      UserError: something else is there, or it cannot be reached.
    """
    if not remote.is_file(f"{url}/{_VOUCHER}"):
        if strange := [name for name in remote.walk(url) if not name.startswith(_OURS)]:
            raise UserError(
                f"--out {url!r} holds something else ({', '.join(sorted(strange)[:3])}, ...) and no {_VOUCHER}; "
                "give an empty or new folder"
            )
        return None
    try:
        with open_binary(f"{url}/{_VOUCHER}") as file:
            return json.loads(file.read())
    except ValueError as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{url}/{_VOUCHER} is not from twinreel prepare ({error!r}); give another --out") from error


def fetch_lists(url: str, *, to: Path) -> None:
    """Fetch a prepared folder without its shards, prepare.json last.

    Raises:
      UserError: it cannot be reached, or there is no room for it.
    """
    files = {name: size for name, size in remote.walk(url).items() if name.startswith((*RESULTS, _VOUCHER))}
    files = {name: size for name, size in files.items() if ".array_record" not in name}
    columns = (
        TextColumn("fetching lists"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("", total=sum(files.values()))
        for name, size in sorted(files.items(), key=lambda item: item[0] == _VOUCHER):
            place = to / name
            if not place.resolve().is_relative_to(to.resolve()):
                raise UserError(f"{url}/{name} would lead out of {str(to)!r}; remove that file")
            place.parent.mkdir(parents=True, exist_ok=True)
            remote.download(f"{url}/{name}", to=place, size=size, advance=lambda count: progress.advance(task, count))


def send(folder: Path, *, url: str, keep: Collection[str] = ()) -> None:
    """Send a built folder to a URL and remove it here; what an interrupted run has sent is not sent again.

    Shards that lie behind the URL already are copied there, before what was built there is removed.

    Shards that are not there yet go first, while what is there can still be read.

    Args:
      folder: the built folder.
      url: where it goes.
      keep: files behind the URL that belong to it, by their path below it, though they are not in `folder`.

    Raises:
      UserError: the URL cannot be written to.
    """
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    files = {name: path for name, path in files.items() if not name.startswith(".")}
    voucher, far = files.pop(_VOUCHER), read_elsewhere(folder)
    states: dict[str, list[Any]] = {name: [(at := path.stat()).st_size, at.st_mtime_ns] for name, path in files.items()}
    states |= {name: [size, place] for name, (place, size) in far.items()}
    there, sent = remote.walk(url), _sent(folder)
    columns = (TextColumn("sending"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("", total=sum(state[0] for state in states.values()))

        def put(names: list[str]) -> None:
            todo = [name for name in names if sent.get(name) != states[name] or there.get(name) != states[name][0]]
            progress.advance(task, sum(states[name][0] for name in set(names) - set(todo)))
            copied = [name for name in todo if name in far]
            for some in [copied[i : i + _COPIES] for i in range(0, len(copied), _COPIES)]:
                copy_all(url, shards={name: far[name] for name in some})
                note(some)
            for name in (name for name in todo if name in files):
                remote.upload(files[name], url=f"{url}/{name}")
                note([name])

        def note(names: list[str]) -> None:
            sent.update({name: states[name] for name in names})
            write_whole(folder / _SENT, parts=[json.dumps(sent)])
            progress.advance(task, sum(states[name][0] for name in names))

        new = [name for name in states if _is_shard(name) and name not in there]
        put(new)
        remote.delete(f"{url}/{_VOUCHER}")
        put([name for name in states if name not in new])
    outdated = {name for name in there if name.startswith(RESULTS)} - {*states, *keep}
    delete_all(url, names=outdated)
    remote.upload(voucher, url=f"{url}/{_VOUCHER}")
    remove_build(url, name=BUILDING)
    remove_build(url, name=APPENDING)
    _remove_folder(folder)


def remove_sent(folder: Path, *, done: dict[str, Any]) -> None:
    """Remove the local folder of what is behind a URL, `done`, that a run has left which was killed at its very end.

    A build with other options stays.
    """
    try:
        if json.loads((folder / _VOUCHER).read_text(encoding="utf-8")) == done:
            _remove_folder(folder)
    except (OSError, ValueError):
        return


def _remove_folder(folder: Path) -> None:
    """Remove a folder that was sent; prepare.json, which tells what the rest is, last."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != _VOUCHER:
            path.unlink()
    shutil.rmtree(folder)


def remove_build(url: str, *, name: str) -> None:
    """Remove what Beam's workers have put into the folder `name` behind a URL (layout.py).

    Raises:
      UserError: it cannot be removed.
    """
    delete_all(f"{url}/{name}", names=remote.walk(f"{url}/{name}"))


def _is_shard(name: str) -> bool:
    return ".array_record" in name and not name.startswith(".")


@contextlib.contextmanager
def sent(folder: Path, *, url: str) -> Iterator[None]:
    """Send the folder when it has been built; of one that fails, rejects.jsonl, which says why. "" = nowhere."""
    try:
        yield
    except UserError:
        if url and (folder / "rejects.jsonl").is_file():
            remote.upload(folder / "rejects.jsonl", url=f"{url}/rejects.jsonl")
        raise
    if url:
        send(folder, url=url)


def _sent(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / _SENT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
