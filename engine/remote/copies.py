"""Local copies of models behind URLs: of a run's checkpoint, of a bundle, of public weights."""

import hashlib
import logging
import os
import shutil
from pathlib import Path

from ...base.errors import UserError
from . import parcels
from .ledger import FILE, State, read_state
from .place import cache, url_in
from .store import DamagedError, Store

log = logging.getLogger(__name__)

_CONFIG = "config.json"
_WEIGHTS = (".safetensors", ".npz")


def local_copy(path: str | Path) -> Path:
    """Return a local folder with the model that a path means; any path but an s3:// or gs:// URL is returned as it is.

    A copy is fetched once per content and kept in the user's cache folder, below twinreel/models.

    Args:
      path: a folder; or the URL of a run, of one of its checkpoints, of a bundle, or of a folder of public weights.

    Raises:
      UserError: nothing of that kind is there, it is damaged, or it cannot be reached.
    """
    url = url_in(path)
    if url is None:
        return Path(path)
    run, step = _run_and_step(url)
    store = Store(run)
    state = read_state(store)
    if state is not None:
        return _checkpoint(store, state=state, step=step, run=run)
    return _folder(Store(url))


def _run_and_step(url: str) -> tuple[str, int | None]:
    """Split the URL of a checkpoint, or of a folder of them, into run and step.

    >>> _run_and_step("s3://b/run/checkpoints/12"), _run_and_step("s3://b/run")
    (('s3://b/run', 12), ('s3://b/run', None))
    """
    head, _, last = url.rpartition("/")
    if last == parcels.FOLDER:
        return head, None
    above, _, name = head.rpartition("/")
    return (above, int(last)) if name == parcels.FOLDER and last.isdigit() else (url, None)


def _checkpoint(store: Store, *, state: State, step: int | None, run: str) -> Path:
    """Return a folder that holds config and one checkpoint of a run; the newest that is whole if no step is named."""
    steps = sorted((int(name) for name in state["checkpoints"] if name.isdigit()), reverse=True)
    if step is not None and step not in steps:
        listed = ", ".join(map(str, reversed(steps))) or "(none)"
        raise UserError(f"{run} has no checkpoint of step {step}; it has {listed}")
    for number in steps if step is None else [step]:
        at = state["checkpoints"][str(number)]["folder"]
        try:
            return _one(store, at=at, step=number, run=run)
        except DamagedError as error:
            if step is not None:
                raise
            log.warning("%s; using the one before it", error)
    raise UserError(
        f"{run} has no checkpoint that is whole; a run commits its first after config.train.checkpoint_every steps"
    )


def _one(store: Store, *, at: str, step: int, run: str) -> Path:
    manifest = store.read(f"{at}/{parcels.MANIFEST}")
    if manifest is None:
        raise DamagedError(f"{run}/{at} is damaged: {parcels.MANIFEST} is missing")
    place = _place(f"{run}/{at}", content=manifest[0])
    made = place / run.rpartition("/")[2]  # the name of the run stays: a fine-tuning records it
    if not made.is_dir():
        part = place.with_name(f"{place.name}.{os.getpid()}")
        shutil.rmtree(part, ignore_errors=True)
        config = store.read(_CONFIG)
        parcels.fetch(store, at=at, to=part / made.name / parcels.FOLDER / str(step))
        if config is not None:
            (part / made.name / _CONFIG).write_bytes(config[0])
        _settle(part, at=place)
    return made


def _folder(store: Store) -> Path:
    """Return a copy of a folder of files that is a bundle or public weights."""
    found = store.tags()
    if not any(name.endswith(_WEIGHTS) for name in found):
        there = ", ".join(sorted(found)[:5]) or "nothing"
        raise UserError(
            f"{store.url} is no model: wanted a run ({FILE}), one of its checkpoints, a bundle (spec.json and "
            f"model.safetensors), or public weights (*.safetensors or *.npz); it holds {there}"
        )
    place = _place(store.url, content=repr(sorted(found.items())).encode())
    made = place / store.url.rpartition("/")[2]
    if not made.is_dir():
        part = place.with_name(f"{place.name}.{os.getpid()}")
        shutil.rmtree(part, ignore_errors=True)
        store.download({name: part / made.name / name for name in found})
        _settle(part, at=place)
    return made


def _place(url: str, *, content: bytes) -> Path:
    return cache() / "models" / hashlib.sha256(url.encode() + b"\0" + content).hexdigest()[:20]


def _settle(part: Path, *, at: Path) -> None:
    """Give a copy its name, unless another process was faster."""
    try:
        part.rename(at)
    except OSError:
        if not at.is_dir():
            raise
        shutil.rmtree(part)
