"""Checkpoints as objects: sent file by file, listed in a manifest, fetched, verified and put together again."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...base.errors import UserError
from .store import DamagedError, Store

FOLDER = "checkpoints"
MANIFEST = "files.json"
"""In the folder of a checkpoint: path in the checkpoint -> {"object", "size", "sha256"}."""
TEMPORARY = "orbax-checkpoint-tmp"
"""In the name of a folder that is not whole, as orbax has it."""
_PART = "ocdbt.process_"

Files = dict[str, dict[str, Any]]


def send(store: Store, folder: Path, *, to: str, process: int = 0, processes: int = 1) -> Files:
    """Send this process's files of a checkpoint; returns what the manifest says of them.

    Of several processes each has written its own part of the arrays: the first sends all else as well. The index over
    the parts is not sent, as each process knows its own part only; `fetch` builds it.

    Args:
      store: of the run.
      folder: the checkpoint.
      to: name of its folder in the store.
      process: number of this process.
      processes: how many there are.
    """
    names = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()]
    if processes > 1:
        own = f"state/{_PART}{process}/"
        names = [name for name in names if name.startswith(own) or (process == 0 and not _is_index(name))]
    sent = store.upload({f"{to}/{name}": folder / name for name in names})
    return {name: {"object": name, **sent[f"{to}/{name}"]} for name in names}


def write_manifest(store: Store, files: Files, *, to: str) -> None:
    """Write the list of all files of a checkpoint; without it the files mean nothing."""
    store.write(f"{to}/{MANIFEST}", json.dumps(files).encode())


def amend(store: Store, *, at: str, path: str, text: str, number: int) -> None:
    """Replace a small file of a checkpoint, atomically: a new object, then a manifest that names it.

    Args:
      store: of the run.
      at: name of the checkpoint's folder in the store.
      path: of the file in the checkpoint.
      text: its new content.
      number: makes the object's name; no two amendments of a checkpoint have the same.
    """
    import hashlib

    files, data = read_manifest(store, at=at), text.encode()
    name = f"{path}.{number}"
    store.write(f"{at}/{name}", data)
    files[path] = {"object": name, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    write_manifest(store, files, to=at)


def read_manifest(store: Store, *, at: str) -> Files:
    """Read the list of files of a checkpoint.

    Raises:
      DamagedError: there is none, or it is no manifest.
    """
    found = store.read(f"{at}/{MANIFEST}")
    try:
        if found is None:
            raise ValueError("there is none")
        return json.loads(found[0])
    except ValueError as error:
        raise DamagedError(f"{store.url}/{at}/{MANIFEST} cannot be used: {error}") from error


def fetch(store: Store, *, at: str, to: Path) -> None:
    """Fetch a checkpoint; its folder appears whole or not at all.

    Args:
      store: of the run.
      at: name of its folder in the store.
      to: the folder to make.

    Raises:
      DamagedError: it is not whole, or not what was saved.
      UserError: there is no room for it, or the store cannot be reached.
    """
    files = read_manifest(store, at=at)
    needed = sum(entry["size"] for entry in files.values())
    to.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(to.parent).free
    if free < needed:
        raise UserError(
            f"{to.parent} has {free / 1e9:.2f} GB free, and {store.url}/{at} takes {needed / 1e9:.2f} GB; make room, "
            "or set TWINREEL_STAGE (of a run) or XDG_CACHE_HOME to a larger disk"
        )
    part = to.with_name(f"{to.name}.{TEMPORARY}-fetch")
    shutil.rmtree(part, ignore_errors=True)
    objects = {path: f"{at}/{entry['object']}" for path, entry in files.items()}
    known = {objects[path]: entry for path, entry in files.items()}
    store.download({objects[path]: part / path for path in files}, known=known)
    merge(part / "state")
    part.rename(to)


def merge(state: Path) -> None:
    """Build the index over the parts of several processes, where there is none."""
    parts = sorted(state.glob(f"{_PART}*"))
    if not parts or (state / "manifest.ocdbt").exists():
        return
    import tensorstore as ts

    context = ts.Context()  # one for all: copying within a store needs it

    def opened(folder: Path) -> Any:
        spec = {"driver": "ocdbt", "base": {"driver": "file", "path": f"{folder}/"}}
        return ts.KvStore.open(spec, context=context).result()

    whole = opened(state)
    with ts.Transaction(atomic=True) as transaction:
        for folder in parts:
            opened(folder).experimental_copy_range_to(whole.with_transaction(transaction)).result()


def remove(store: Store, *, at: Sequence[str], found: Mapping[str, int] | None = None) -> None:
    """Delete folders of checkpoints that no list names any more."""
    for folder in at:
        names = found or store.find(folder)
        store.delete([name for name in names if name.startswith(folder + "/")])


def _is_index(name: str) -> bool:
    return name == "state/manifest.ocdbt" or name.startswith("state/d/")
