"""`prepare --out URL`: the folder is built on the local disk, then sent; prepare.json, which vouches for it, goes last.

Killed at any moment, the same command goes on: what is built stays in the local folder, what was sent is noted there.
Whoever reads the URL meanwhile finds no prepare.json, and so no half of a folder.
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
from ..layout import RESULTS
from ..manifest import write_whole
from ..paths import cache_folder, file_name, open_binary
from .folder import may_stay, same_as_wanted

_VOUCHER = "prepare.json"
_SENT = ".sent.json"  # in the local folder: size and time of each file that has arrived
_OURS = RESULTS  # what an earlier build may have left behind the URL


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
        size = sum(size for name, size in remote.walk(url).items() if ".array_record" in name)
        whole = size == done["bytes"]
        same = same_as_wanted(done, wanted, where=url, overwrite=overwrite)
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{url}/{_VOUCHER} is not from twinreel prepare ({error!r}); give another --out") from error
    return done if may_stay(done, whole and same, where=url, overwrite=overwrite) else None


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
    files = {name: size for name, size in remote.walk(url).items() if name.startswith((*_OURS, _VOUCHER))}
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
    voucher = files.pop(_VOUCHER)
    sent = _sent(folder)
    there = remote.walk(url)
    columns = (TextColumn("sending"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("", total=sum(path.stat().st_size for path in files.values()))

        def put(names: list[str]) -> None:
            for name in names:
                state = [files[name].stat().st_size, files[name].stat().st_mtime_ns]
                if sent.get(name) != state or there.get(name) != state[0]:
                    remote.upload(files[name], url=f"{url}/{name}")
                    sent[name] = state
                    write_whole(folder / _SENT, parts=[json.dumps(sent)])
                progress.advance(task, state[0])

        new = [name for name in files if ".array_record" in name and name not in there]
        put(new)
        remote.delete(f"{url}/{_VOUCHER}")
        put([name for name in files if name not in new])
    for name in there:
        if name.startswith(_OURS) and name not in files and name not in keep:
            remote.delete(f"{url}/{name}")
    remote.upload(voucher, url=f"{url}/{_VOUCHER}")
    shutil.rmtree(folder)


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
