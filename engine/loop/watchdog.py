"""Ends a run that makes no progress, and reports where it stands, instead of letting it hold its devices."""

import contextlib
import faulthandler
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import jax

from ..remote.session import session_of

STATUS = 79  # exit status of a stalled process
PATIENCE = 10  # so many times longer may last what is no step: compiling, an evaluation, a save
FOLDER = "stalls"
_SEND_S = 20.0


class Watchdog:
    """Ends the process when no step is done for a time; all stacks go to standard error and to a file.

    The loop calls `beat` after each step. Until the first one, and inside `patient`, the limit is PATIENCE times as
    long: compiling, evaluating and saving are slower than a step, but hang as well when another process has died.

    The host runs at most a few steps ahead of the devices and then waits for them, so that a step that never ends on
    the devices, a batch that never comes and a collective whose partner is gone all end the beats.
    """

    def __init__(self, workdir: Path, *, timeout_s: float, leave: Callable[[int], object] = os._exit):
        """Begin to watch when entered.

        Args:
          workdir: the stacks are written to `workdir/stalls/<host>-<process>-<time>.txt`.
          timeout_s: seconds without a beat, config.train.stall_timeout; 0 = do not watch.
          leave: ends the process. It must not wait for threads, as these are what hangs.
        """
        self._folder, self._timeout_s, self._leave = workdir / FOLDER, timeout_s, leave
        self._tick_s = min(timeout_s / 4, 5.0)
        self._doing, self._factor = "building the model and compiling the step", PATIENCE
        self._step: int | None = None
        self._last = time.monotonic()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> "Watchdog":
        if self._timeout_s:
            self._last = time.monotonic()
            self._thread = threading.Thread(target=self._run, name="twinreel-watchdog", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._closed.set()
        if self._thread is not None:
            self._thread.join()
            faulthandler.cancel_dump_traceback_later()

    def beat(self, step: int) -> None:
        """Note that `step` steps have been handed to the device, and that what was due after them is done."""
        self._step, self._doing, self._factor, self._last = step, f"step {step + 1}", 1, time.monotonic()

    @contextlib.contextmanager
    def patient(self, doing: str) -> Iterator[None]:
        """Allow what happens inside PATIENCE times as long; `doing` names it in the message."""
        before = self._doing, self._factor
        self._doing, self._factor, self._last = doing, PATIENCE, time.monotonic()
        try:
            yield
        finally:
            (self._doing, self._factor), self._last = before, time.monotonic()

    def _run(self) -> None:
        while not self._closed.wait(self._tick_s):
            limit = self._timeout_s * self._factor
            # Code that never gives Python's lock back stops this thread too; then faulthandler's own thread, which
            # needs no lock, writes the stacks and ends the process with status 1.
            if _has_descriptor(sys.__stderr__):
                faulthandler.dump_traceback_later(limit + 2 * self._tick_s, exit=True, file=sys.__stderr__)  # pyright: ignore[reportArgumentType]
            waited = time.monotonic() - self._last
            if waited > limit:
                self._stalled(waited)
                return

    def _stalled(self, waited: float) -> None:
        host, process = socket.gethostname(), jax.process_index()
        message = (
            f"stalled: process {process} on {host} has been at {self._doing} for {waited:.0f} s "
            f"(config.train.stall_timeout={self._timeout_s:g}"
            + (f", {PATIENCE} times as long for what is no step" if self._factor > 1 else "")
            + f"; steps done: {self._step or 0}). It ends with status {STATUS}; the stacks of all its threads follow."
        )
        path = self._folder / f"{host}-{process}-{time.strftime('%Y%m%dT%H%M%S')}.txt"
        try:
            _dump(sys.__stderr__, message=f"{message} They are in {path} as well.")
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("w") as file:
                _dump(file, message=message)
            _send(self._folder.parent)
        except (OSError, ValueError) as error:  # a full disk, a closed standard error: end all the same
            _say(f"the stacks could not be written: {error}")
        finally:
            self._leave(STATUS)


def _send(workdir: Path) -> None:
    """Send the stacks to the store of a workdir that is a stage, within a few seconds; else only this host has them."""
    session = session_of(workdir)
    if session is not None:
        sender = threading.Thread(target=session.push, name="twinreel-stacks", daemon=True)
        sender.start()
        sender.join(timeout=_SEND_S)


def _dump(file: IO[str] | None, *, message: str) -> None:
    if file is None:
        return
    print(message, file=file, flush=True)
    if _has_descriptor(file):
        faulthandler.dump_traceback(file=file, all_threads=True)  # pyright: ignore[reportArgumentType]


def _has_descriptor(file: IO[str] | None) -> bool:
    try:
        return file is not None and file.fileno() >= 0
    except (OSError, ValueError):
        return False


def _say(text: str) -> None:
    with contextlib.suppress(OSError, ValueError):
        print(text, file=sys.__stderr__, flush=True)
