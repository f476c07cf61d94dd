"""`run.json` of a workdir in an object store: who writes to the run, and which checkpoints it has.

An object store has no rename, no folders and no locks, but it replaces one object atomically, and on condition that the
object is still the one that was read. So lease and list of checkpoints share one object: a commit is a conditional
write of it. A writer that was taken for dead and wakes up again can upload files, but can commit none.
"""

import copy
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from ...base.errors import UserError
from .store import Conflict, Store

FILE = "run.json"
BEAT_S = 10.0
"""Seconds between two beats of the owner."""
MISSED = 4
"""So many beats may be missing before an owner on another machine counts as dead."""
_FORMAT = 1

State = dict[str, Any]
"""format, epoch (number of starts), worked (the last start whose stages were ready to write), owner (None = nobody
writes), checkpoints (name -> entry), write (unique)."""


class LeaseLost(UserError):
    """Another start has taken the run over; nothing that this one does counts any more."""


def read_state(store: Store) -> State | None:
    """Return the state of the run at a URL, None if there is none.

    Raises:
      UserError: it cannot be read, or another version of twinreel wrote it.
    """
    found = store.read(FILE)
    return None if found is None else _parsed(found[0], store=store)


class Ledger:
    """The lease of a run, held from its construction to `release`, and its list of checkpoints.

    Attributes:
      state: as it was last read or written.
    """

    def __init__(
        self,
        store: Store,
        *,
        say: Callable[[str], None],
        beat_s: float = BEAT_S,
        on_lost: Callable[[str], None] = lambda text: None,
    ):
        """Take the lease.

        Args:
          store: of the run.
          say: prints a line for the user.
          beat_s: seconds between two beats.
          on_lost: called in a thread, with the reason, when another start has taken the run over.

        Raises:
          UserError: another run writes there, or the store cannot be written to.
        """
        self._store, self._say, self._beat_s, self._on_lost = store, say, beat_s, on_lost
        self._mutex, self._closed, self._lost = threading.RLock(), threading.Event(), ""
        self._tag: str | None = None
        self._renewed = time.monotonic()
        self.state: State = {"format": _FORMAT, "epoch": 0, "owner": None, "checkpoints": {}}
        self._acquire()
        self._thread = threading.Thread(target=self._run, name="twinreel-lease", daemon=True)
        self._thread.start()

    @property
    def epoch(self) -> int:
        """The number of this start."""
        return self.state["epoch"]

    def fresh(self) -> bool:
        """Tell whether the lease was renewed so lately that no other start can have taken the run over."""
        return not self._lost and time.monotonic() - self._renewed < (MISSED - 1) * self._beat_s

    def update(self, change: Callable[[State], None]) -> None:
        """Change the state, atomically, as long as this start holds the lease.

        Raises:
          LeaseLost: another start has taken the run over.
          UserError: the store cannot be reached.
        """
        with self._mutex:
            if self._lost:
                raise LeaseLost(self._lost)
            new = copy.deepcopy(self.state)
            change(new)
            try:
                self._write(new)
            except Conflict as conflict:
                owner = (self.state.get("owner") or {}) if self._refresh() else {}
                self._lost = (
                    f"{self._store.url} was taken over by another run ({who(owner)}), because this one did not renew "
                    f"its lease for {MISSED * self._beat_s:g} s; nothing more is saved from here. Stop one of the two"
                )
                raise LeaseLost(self._lost) from conflict

    def release(self) -> None:
        """Give the lease back; a fault is none: the next start waits for the lease to run out."""
        self._closed.set()
        self._thread.join()
        try:
            self.update(lambda state: state.update(owner=None))
        except UserError as error:
            self._say(f"warning: the lease of {self._store.url} was not given back: {error}")

    def _acquire(self) -> None:
        patience_s = MISSED * self._beat_s
        seen, since = self._refresh(), time.monotonic()
        waited = False
        while True:
            owner = self.state["owner"]
            if owner and _runs_here(owner):
                raise UserError(_refusal(self._store.url, owner=owner))
            if owner and not _ran_here(owner):
                patience_s = MISSED * max(self._beat_s, owner["beat_s"])
                if not waited:
                    waited = True
                    self._say(f"{self._store.url} is leased to {who(owner)}; watching its lease for {patience_s:g} s")
                if time.monotonic() - since < patience_s:
                    time.sleep(patience_s / 40)
                    if self._refresh() != seen:
                        if self.state["owner"]:
                            raise UserError(_refusal(self._store.url, owner=self.state["owner"]))
                        seen, since = self._tag, time.monotonic()
                    continue
            new: State = copy.deepcopy(self.state) | {"owner": me(self._beat_s), "epoch": self.epoch + 1}
            try:
                self._write(new)
                return
            except Conflict:  # another start was faster, or the owner is alive after all
                self._refresh()
                if self.state["owner"]:
                    raise UserError(_refusal(self._store.url, owner=self.state["owner"])) from None

    def _refresh(self) -> str | None:
        """Read the state; returns its tag."""
        found = self._store.read(FILE)
        if found is not None:
            self.state, self._tag = _parsed(found[0], store=self._store), found[1]
        return self._tag

    def _write(self, new: State) -> None:
        new["write"], began = uuid.uuid4().hex, time.monotonic()
        try:
            self._tag = self._store.replace(FILE, json.dumps(new).encode(), tag=self._tag)
        except Conflict:
            found = self._store.read(FILE)
            # A request whose answer was lost is sent again, and then conflicts with itself.
            if found is None or _parsed(found[0], store=self._store).get("write") != new["write"]:
                raise
            self._tag = found[1]
        self.state, self._renewed = new, began

    def _run(self) -> None:
        while not self._closed.wait(self._beat_s):
            try:
                self.update(_beat)
            except LeaseLost as error:
                self._on_lost(str(error))
                return
            except UserError as error:  # the next beat may come through; until then nobody knows
                self._say(f"warning: the lease of {self._store.url} was not renewed: {error}")


def me(beat_s: float) -> dict[str, Any]:
    """Return this process as an owner."""
    created = psutil.Process().create_time()
    started = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(created))
    owner = {"host": socket.gethostname(), "place": _place(), "pid": os.getpid(), "created": created}
    return owner | {"started": started, "beat": 0, "beat_s": beat_s}


def who(owner: dict[str, Any]) -> str:
    """Name an owner in a sentence."""
    if not owner:
        return "a process that has ended since"
    return f"process {owner['pid']} on {owner['host']}, started {owner['started']}"


def _beat(state: State) -> None:
    state["owner"]["beat"] += 1


def _place() -> str:
    """What two processes share that see each other's process numbers: the boot of a machine and its namespace."""
    parts = [socket.gethostname()]
    for read in (
        lambda: Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
        lambda: str(Path("/proc/self/ns/pid").readlink()),
    ):
        try:
            parts.append(read())
        except OSError:  # not Linux
            continue
    return " ".join(parts)


def _ran_here(owner: dict[str, Any]) -> bool:
    """Tell whether an owner, if it lives, would be a process that this one could see."""
    return owner["place"] == _place()


def _runs_here(owner: dict[str, Any]) -> bool:
    if not _ran_here(owner):
        return False
    try:
        return abs(psutil.Process(owner["pid"]).create_time() - owner["created"]) < 1.0
    except psutil.Error:
        return False


def _parsed(data: bytes, *, store: Store) -> State:
    try:
        state = json.loads(data)
        if state["format"] == _FORMAT and isinstance(state["checkpoints"], dict):
            return state
        found = f"format {state['format']}"
    except (ValueError, KeyError, TypeError):
        found = "no run"
    raise UserError(f"{store.url}/{FILE} holds {found}, wanted format {_FORMAT}; choose another --workdir")


def _refusal(url: str, *, owner: dict[str, Any]) -> str:
    return (
        f"another run is writing to workdir {url}: {who(owner)}. Wait for it or stop it, or choose another --workdir. "
        "Processes that are to train together need --distributed, or --coordinator, --num_processes and --process_id"
    )
