"""One writer per workdir: a lock that ends with the process that holds it, however that ends.

The operating system's lock (flock) decides between processes of one host, and between hosts on file systems that share
locks (NFS does). Others do not, such as many mounts of buckets. There the owner's beats decide, which it writes into
the lock file: a start on another host that finds an owner watches whether they continue. A workdir in an object store
is leased (`remote.ledger`); the lock then guards its stage against a second process on this machine.
"""

import contextlib
import contextvars
import errno
import fcntl
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import psutil

from ...base.errors import UserError
from ..remote.place import url_of
from ..remote.session import Session
from ..start.preflight import on_all
from ..start.scheduler import check_tasks

FILE = "run.lock"
BEAT_S = 10.0
"""Seconds between two beats of the owner."""
_MISSED = 3  # so many beats may be late before an owner on another host counts as dead
_NO_LOCKS = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOLCK}

_HELD: contextvars.ContextVar[frozenset[Path]] = contextvars.ContextVar("held_workdirs", default=frozenset())

Owner = dict[str, Any]
"""host, pid, created (seconds since 1970), started (for people), beat, beat_s; {} = unknown."""


@contextlib.contextmanager
def writing_alone(
    workdir: Path, *, timeout_s: float, say: Callable[[str], None], beat_s: float = BEAT_S
) -> Iterator[None]:
    """Hold the lock of `workdir` for the time being, on the first process; all processes of the run must call it.

    Of a workdir in an object store this takes the lease and brings the stage up to date; at the end it sends the last
    files and gives the lease back.

    It may be entered again inside itself: a verb that writes before and after the training holds it over all of that.

    Args:
      workdir: made if it does not exist; removed again if nothing was written into it.
      timeout_s: seconds to wait for the slowest process, config.train.preflight_timeout.
      say: prints a line for the user.
      beat_s: seconds between two beats.

    Raises:
      UserError: another run is writing to it, or it cannot be written to; on all processes. Or a launcher has started
        several tasks that do not know of each other.
    """
    held: list[_Lock] = []

    check_tasks(processes=jax.process_count())
    place = workdir.absolute()
    if place in _HELD.get():
        yield
        return

    def acquire() -> None:
        if jax.process_index() == 0 or url is not None:
            held.append(_Lock(workdir, say=say, beat_s=beat_s))

    def lost(text: str) -> None:
        say(f"error: {text}")
        os.kill(os.getpid(), signal.SIGTERM)  # the loop ends as on any request to stop; its save is refused

    url, session = url_of(place), None
    token = _HELD.set(_HELD.get() | {place})
    try:
        on_all("lock of the workdir", acquire, timeout_s=timeout_s)
        if url is not None:
            session = Session(place, url=url, timeout_s=timeout_s, say=say, beat_s=beat_s, on_lost=lost)
        yield
    finally:
        if session is not None:
            session.close()
        _HELD.reset(token)
        for lock in held:
            lock.release()


class _Lock:
    """The lock of a workdir, held from its construction to `release`."""

    def __init__(self, workdir: Path, *, say: Callable[[str], None], beat_s: float):
        self._path, self._made = workdir / FILE, not workdir.exists()
        try:
            workdir.mkdir(parents=True, exist_ok=True)
            self._file = _acquire(self._path, say=say, beat_s=beat_s)
        except OSError as error:
            raise UserError(f"the workdir {workdir} cannot be written to ({error.strerror})") from error
        created = psutil.Process().create_time()
        started = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(created))
        self._owner: Owner = {"host": socket.gethostname(), "pid": os.getpid(), "created": created, "started": started}
        self._owner |= {"beat": 0, "beat_s": beat_s}
        self._write()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="twinreel-lock", daemon=True)
        self._thread.start()

    def release(self) -> None:
        """Remove the file, and the folder if nothing else is in it."""
        self._closed.set()
        self._thread.join()
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)
            if self._made and not any(self._path.parent.iterdir()):
                self._path.parent.rmdir()
        os.close(self._file)

    def _run(self) -> None:
        while not self._closed.wait(self._owner["beat_s"]):
            self._owner["beat"] += 1
            self._write()

    def _write(self) -> None:
        text = json.dumps(self._owner).encode().ljust(400) + b"\n"  # of one length: no rest of an older one stays
        with contextlib.suppress(OSError):  # a full disk; the lock holds all the same
            os.pwrite(self._file, text, 0)
            os.fsync(self._file)


def _acquire(path: Path, *, say: Callable[[str], None], beat_s: float) -> int:
    """Open and lock the file at `path`; returns its descriptor.

    Raises:
      UserError: another run has it.
    """
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            alone = _flock(file)
            owner = _read(path)
            if alone is False or _lives(owner, path=path, locked=bool(alone), say=say, beat_s=beat_s):
                raise UserError(_refusal(path.parent, owner=_read(path)))
            if path.exists() and os.fstat(file).st_ino == path.stat().st_ino:
                return file  # else its last owner has just removed it
        except BaseException:
            os.close(file)
            raise
        os.close(file)


def _flock(file: int) -> bool | None:
    """Lock a file; False if another process has the lock, None if the file system has no locks."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return None
        raise


def _lives(owner: Owner, *, path: Path, locked: bool, say: Callable[[str], None], beat_s: float) -> bool:
    """Tell whether the owner that a lock file names lives although this process could lock it."""
    if not owner:
        return False
    if owner["host"] == socket.gethostname():  # where there are locks, they are shared on one host
        return not locked and _runs_here(owner)
    patience_s = _MISSED * max(beat_s, owner["beat_s"])
    say(f"{path} was left by {_who(owner)}; waiting up to {patience_s:g} s to see whether that run is alive")
    end = time.monotonic() + patience_s
    while time.monotonic() < end:
        time.sleep(patience_s / 50)
        now = _read(path)
        if now and now != owner:
            return True
    return False


def _runs_here(owner: Owner) -> bool:
    if owner["pid"] == os.getpid():
        return False
    try:
        return abs(psutil.Process(owner["pid"]).create_time() - owner["created"]) < 1.0
    except psutil.Error:
        return False


def _read(path: Path) -> Owner:
    """Return the owner that a lock file names; {} if it names none (it is being written)."""
    try:
        owner = json.loads(path.read_text())
        return owner if {"host", "pid", "created", "started", "beat_s"} <= owner.keys() else {}
    except (OSError, ValueError, AttributeError):
        return {}


def _refusal(workdir: Path, *, owner: Owner) -> str:
    return (
        f"another run is writing to workdir {workdir}: {_who(owner)}. Wait for it or stop it, or choose another "
        "--workdir. Processes that are to train together need --distributed, or --coordinator, --num_processes and "
        "--process_id"
    )


def _who(owner: Owner) -> str:
    if not owner:
        return "a process that has just started"
    return f"process {owner['pid']} on {owner['host']}, started {owner['started']}"
