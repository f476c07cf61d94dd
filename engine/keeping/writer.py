"""The thread that saves, and how a process learns that another's save has failed."""

import atexit
import concurrent.futures
import contextlib
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import jax

from ..start.join import store

_ROOT = "twinreel/failed_saves"
_LOOK_S = 1.0


class OthersFailed(Exception):
    """Another process could not write its part of a checkpoint."""


class Writer:
    """Runs one job after another in a thread that does not keep the process from ending.

    Processes that save together wait for each other inside Orbax, for five minutes where one of them has failed. Here
    each tells the others through the key-value store of jax's coordinator, and those that wait look there.
    """

    def __init__(self, client: Any = None):
        """Begin.

        Args:
          client: a key-value store as jax's; None = that of this run, if it has several processes.
        """
        self._client = client if client is not None or jax.process_count() == 1 else store()
        self._key = f"{_ROOT}/{jax.process_index()}"
        self._last: threading.Thread | None = None
        self._failed = self._stuck = False

    def submit(self, function: Callable[..., None], *args: Any) -> concurrent.futures.Future[None]:
        """Run `function(*args)` after the job before it; what it raises is reported to the other processes."""
        done: concurrent.futures.Future[None] = concurrent.futures.Future()
        before = self._last

        def run() -> None:
            if before is not None:
                before.join()
            try:
                function(*args)
            except BaseException as error:
                self._failed = True
                with contextlib.suppress(Exception):  # the coordinator is gone: jax ends the others by itself
                    self._tell(error)
                done.set_exception(error)
            else:
                done.set_result(None)

        self._last = threading.Thread(target=run, name="twinreel-save", daemon=True)
        self._last.start()
        return done

    def _tell(self, error: BaseException) -> None:
        if self._client is not None:
            text = f"process {jax.process_index()} on {socket.gethostname()}: {type(error).__name__}: {error}"
            self._client.key_value_set(self._key, text, allow_overwrite=True)

    def result(self, job: concurrent.futures.Future[None]) -> None:
        """Wait for a job; raises what it raises, or OthersFailed while it waits for a process whose save has failed."""
        while self._client is not None and not concurrent.futures.wait([job], timeout=_LOOK_S).done:
            told = [text for key, text in self._client.key_value_dir_get(f"{_ROOT}/") if key != self._key]
            if told:
                self._failed = self._stuck = True
                raise OthersFailed("; ".join(told))
        job.result()

    def close(self) -> None:
        """Wait for the last job, unless it waits for others that have failed."""
        if self._last is not None and not self._stuck:
            self._last.join()
        if self._failed and jax.process_count() > 1:
            atexit.register(_leave)


def _leave() -> None:
    """End at once: the interpreter cannot end a thread that waits in Orbax, nor jax meet processes that have ended.

    The first process, without which jax ends all others at once, is the last.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    if jax.process_index() == 0:
        time.sleep(5 * _LOOK_S)
    os._exit(2)
