"""One start of a run whose workdir is in an object store: lease, stage, and the checkpoints on both sides."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from ...base.errors import UserError
from ..start.join import store as key_values
from ..start.preflight import agree, on_all
from . import parcels
from .ledger import BEAT_S, Ledger, read_state
from .mirror import EVERY_S, Mirror
from .store import DamagedError, Store

STAGE = "stage.json"
"""In a stage: which start of which run it belongs to."""
LOCAL = "local"
"""In a stage: the checkpoints that are on this disk alone, of several processes."""
_SAVED_WITHIN_S = 3600  # seconds that a process waits for the uploads of the others

_OPEN: "dict[Path, Session]" = {}


def session_of(folder: Path) -> "Session | None":
    """Return the session whose stage a folder is, None if it is no stage or nobody writes to it now."""
    return _OPEN.get(folder.absolute())


def bring(path: Path) -> None:
    """Fetch the checkpoint at a path in a stage whose run is open, if it lies in the store alone.

    Raises:
      UserError: it cannot be fetched.
    """
    session = session_of(path.parent.parent)
    there = session is not None and path.parent.name == parcels.FOLDER and path.name.isdigit()
    if session is not None and there and int(path.name) in session.steps():
        session.fetch(int(path.name))


class Session:
    """The far side of a stage while a run writes to it; all processes of the run have one, and call alike.

    Attributes:
      url: of the workdir.
      folder: the stage of this process.
      local: steps of the checkpoints that all of several processes have on their local disks, ascending.
    """

    def __init__(
        self,
        folder: Path,
        *,
        url: str,
        timeout_s: float,
        say: Callable[[str], None],
        beat_s: float = BEAT_S,
        every_s: float = EVERY_S,
        on_lost: Callable[[str], None] = lambda text: None,
    ):
        """Take the lease and bring the stage up to date; all processes call it.

        Args:
          folder: the stage.
          url: of the workdir.
          timeout_s: seconds to wait for the slowest process at each check.
          say: prints a line for the user.
          beat_s: seconds between two beats of the lease.
          every_s: seconds between two copies of the small files.
          on_lost: called, in a thread, when another start has taken the run over.

        Raises:
          UserError: another run has the lease, or the store or the stage cannot be used.
        """
        self.url, self.folder = url, folder.absolute()
        self._store, self._say, self._timeout_s = Store(url), say, timeout_s
        self._process, self._processes = jax.process_index(), jax.process_count()
        self._ledger: Ledger | None = None
        self._mirror: Mirror | None = None
        self.local: list[int] = []
        self._epoch, self._round, self._amended = 0, 0, 0
        self._checkpoints: dict[str, dict[str, Any]] = {}
        try:
            on_all("lease of the workdir", lambda: self._lease(beat_s, on_lost), timeout_s=timeout_s)
            on_all("stage of the workdir", self._bring_up_to_date, timeout_s=max(timeout_s, _SAVED_WITHIN_S))
            here = {"steps": _steps(self.folder / LOCAL) if self._processes > 1 else []}
            there = agree("local checkpoints", facts=here, judge=lambda facts: [], timeout_s=timeout_s)
            self.local = sorted(set.intersection(*({*facts["steps"]} for facts in there)))
            if self._ledger is not None:
                self._ledger.update(lambda state: state.update(worked=self._epoch))
        except BaseException:
            self._release()
            raise
        may = self._ledger.fresh if self._ledger is not None else lambda: True
        first = self._process == 0
        self._mirror = Mirror(self.folder, store=self._store, say=say, first=first, may=may, every_s=every_s)
        _OPEN[self.folder] = self

    def close(self) -> None:
        """Send the last files and give the lease back."""
        _OPEN.pop(self.folder, None)
        if self._mirror is not None:
            self._mirror.close()
        self._release()

    def push(self) -> None:
        """Send the small files that have changed; a failure is a warning."""
        if self._mirror is not None:
            self._mirror.push()

    def steps(self) -> list[int]:
        """Return the steps of the checkpoints in the store, ascending."""
        return sorted(int(name) for name in self._checkpoints if name.isdigit())

    def fetch(self, step: int) -> Path:
        """Return the checkpoint of a step in the stage; it is fetched if it is not there.

        Raises:
          DamagedError: it is not whole, or not what was saved.
          UserError: there is no room, or the store cannot be reached.
        """
        path = self.folder / parcels.FOLDER / str(step)
        if not path.exists():
            parcels.fetch(self._store, at=self._checkpoints[str(step)]["folder"], to=path)
        return path

    def save(self, folder: Path, *, step: int, keep: Callable[[list[int]], list[bool]]) -> None:
        """Send a checkpoint that this process has written, commit it, and drop those that are not kept.

        All processes call it, in their threads that save. Until the commit the checkpoint does not exist.

        Args:
          folder: the checkpoint, or this process's part of it.
          step: of it.
          keep: steps in the store, ascending -> which of them stay.

        Raises:
          UserError: the upload of a process failed, or another start has taken the run over.
        """
        to = f"{parcels.FOLDER}/{step}-{self._epoch}"
        fault, files = "", {}
        try:
            self.push()  # the curve up to this step first: a resumed run then has no gap
            files = parcels.send(self._store, folder, to=to, process=self._process, processes=self._processes)
        except (UserError, OSError) as error:
            fault = f"process {self._process}: {error}"

        def commit(all_files: parcels.Files) -> dict[str, Any]:
            assert self._ledger is not None
            parcels.write_manifest(self._store, all_files, to=to)
            size = sum(entry["size"] for entry in all_files.values())
            entry = {"folder": to, "bytes": size, "processes": self._processes}
            self._ledger.update(lambda state: state["checkpoints"].update({str(step): entry}))
            self._drop(keep)
            return self._ledger.state["checkpoints"]

        self._checkpoints = self._together(files, fault=fault, commit=commit)

    def amend(self, *, step: int, path: str, text: str) -> None:
        """Replace a small file of a checkpoint in the store; the first process does it."""
        self._amended += 1
        entry = self._checkpoints.get(str(step))
        if self._ledger is not None and entry is not None:
            number = 1000 * self._epoch + self._amended
            parcels.amend(self._store, at=entry["folder"], path=path, text=text, number=number)

    def set_aside(self, step: int, *, prefix: str) -> None:
        """Call a checkpoint `<prefix>-<step>` in the store; all processes call it."""
        if str(step) not in self._checkpoints:
            return
        self._checkpoints = dict(self._checkpoints)
        self._checkpoints[f"{prefix}-{step}"] = self._checkpoints.pop(str(step))
        if self._ledger is not None:
            mine = dict(self._checkpoints)
            self._ledger.update(lambda state: state.update(checkpoints=mine))

    def _lease(self, beat_s: float, on_lost: Callable[[str], None]) -> None:
        if self._process == 0:
            self._ledger = Ledger(self._store, say=self._say, beat_s=beat_s, on_lost=on_lost)

    def _release(self) -> None:
        ledger, self._ledger = self._ledger, None
        if ledger is not None:
            ledger.release()

    def _bring_up_to_date(self) -> None:
        """Make the stage what the run's last start left in the store, or keep it if this was the last writer."""
        state = self._ledger.state if self._ledger is not None else read_state(self._store)
        assert state is not None, "the first process has written it"
        self._epoch, self._checkpoints = state["epoch"], state["checkpoints"]
        if self._ledger is not None:
            self._remove_half_written()
        about, mark = _json(self.folder / STAGE), self.folder / STAGE
        # A start that was killed before it came as far as to work has changed nothing.
        worked = state.get("worked", self._epoch - 1)
        latest = about.get("url") == self.url and worked <= about.get("epoch", -1) < self._epoch
        if not latest or about.get("processes") != [self._process, self._processes]:
            self._empty()
            self.folder.mkdir(parents=True, exist_ok=True)
            names = [name for name in self._store.find() if _at_top(name) and name != "run.json"]
            self._store.download({name: self.folder / name for name in names})
        now = {"url": self.url, "epoch": self._epoch, "processes": [self._process, self._processes]}
        part = mark.with_name(f".{STAGE}.tmp")
        part.write_text(json.dumps(now))
        part.replace(mark)
        local = _steps(self.folder / parcels.FOLDER)
        if self._processes > 1:  # each process has a whole copy of what it fetched, and nothing else
            for step in set(local) - set(self.steps()):
                shutil.rmtree(self.folder / parcels.FOLDER / str(step))
            local = []
        newest = max(self.steps(), default=-1)
        if newest > max(local, default=-1):
            self._say(f"fetching the checkpoint of step {newest} from {self.url}")
            try:
                self.fetch(newest)
            except DamagedError as error:  # `restore` passes over it
                self._say(f"warning: {error}")

    def _empty(self) -> None:
        """Remove what lies in the stage from another start."""
        if not self.folder.is_dir():
            return
        for path in self.folder.iterdir():
            if path.name == "run.lock":
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()

    def _remove_half_written(self) -> None:
        """Delete the objects of checkpoints that were never committed, or that are no longer listed."""
        listed = {entry["folder"] for entry in self._checkpoints.values()}
        found = self._store.find(parcels.FOLDER)
        others = {"/".join(name.split("/")[:2]) for name in found if name.count("/") >= 2} - listed
        for folder in sorted(others):
            self._say(f"warning: {self.url}/{folder} was never committed (a start was stopped while saving); removed")
            parcels.remove(self._store, at=[folder], found=found)

    def _drop(self, keep: Callable[[list[int]], list[bool]]) -> None:
        """Take what is not kept off the list, then delete it; what a fault leaves is removed by the next start."""
        assert self._ledger is not None
        steps = sorted(int(name) for name in self._ledger.state["checkpoints"] if name.isdigit())
        gone = [str(step) for step, stays in zip(steps, keep(steps), strict=True) if not stays]
        folders = [self._ledger.state["checkpoints"][name]["folder"] for name in gone]
        if gone:
            left = {k: v for k, v in self._ledger.state["checkpoints"].items() if k not in gone}
            self._ledger.update(lambda state: state.update(checkpoints=left))
        try:
            parcels.remove(self._store, at=folders)
        except UserError as error:
            self._say(f"warning: old checkpoints were not deleted: {error}; the next start removes them")

    def _together(
        self, files: parcels.Files, *, fault: str, commit: Callable[[parcels.Files], dict[str, Any]]
    ) -> dict[str, Any]:
        """Gather the files of all processes on the first, commit there, and return the list of checkpoints to all."""
        self._round += 1
        client = key_values()
        if self._processes == 1 or client is None:
            if fault:
                raise UserError(fault)
            return commit(files)
        root = f"twinreel/save/{self._epoch}/{self._round}"
        client.key_value_set(f"{root}/{self._process}", json.dumps({"files": files, "fault": fault}))
        if self._process == 0:
            all_files, faults, listed = {}, [], {}
            for process in range(self._processes):
                got = json.loads(client.blocking_key_value_get(f"{root}/{process}", _SAVED_WITHIN_S * 1000))
                all_files |= got["files"]
                faults += [got["fault"]] if got["fault"] else []
            try:
                listed = {} if faults else commit(all_files)
            except UserError as error:
                faults.append(f"process 0: {error}")
            client.key_value_set(f"{root}/verdict", json.dumps({"faults": faults, "checkpoints": listed}))
        verdict = json.loads(client.blocking_key_value_get(f"{root}/verdict", _SAVED_WITHIN_S * 1000))
        if verdict["faults"]:
            raise UserError("; ".join(verdict["faults"]))
        return verdict["checkpoints"]


def _at_top(name: str) -> bool:
    return "/" not in name


def _steps(folder: Path) -> list[int]:
    return sorted(int(p.name) for p in folder.iterdir() if p.name.isdigit()) if folder.is_dir() else []


def _json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
