"""A thread that reads a live source from its confined process, and connects again where it is lost."""

import dataclasses
import json
import os
import subprocess
import sys
import threading
import time
from typing import BinaryIO, cast

from ...data.media import live
from ...data.media.live import LiveFrame, LiveOptions
from ...data.media.place import DecodeError
from .rolling import Rolling

_LONGEST_S = 30.0  # between two attempts


class Feed:
    """Reads a source into a `Rolling`, with a process that may crash or hang without harm.

    Attributes:
      reconnects: attempts after the first.
      lost: why the source was given up; "" = it ended, or was stopped.
      opened: whether any frame came.
    """

    def __init__(self, options: LiveOptions, *, into: Rolling, retries: int, backoff_s: float = 0.5):
        """Set up; nothing is opened yet.

        Args:
          options: the source.
          into: where the frames go.
          retries: attempts in a row without a frame after which the source is given up.
          backoff_s: wait before the first new attempt; it doubles with each, up to 30 s.
        """
        self._options, self._into, self._retries, self._backoff_s = options, into, retries, backoff_s
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="feed", daemon=True)
        self.reconnects = 0
        self.lost = ""
        self.opened = False

    def start(self) -> None:
        """Open the source."""
        self._thread.start()

    def stop(self) -> None:
        """End the process; wait for the thread."""
        self._stopped.set()
        if self._process is not None:
            self._process.kill()
        self._into.stop()
        self._thread.join(timeout=10)

    def _run(self) -> None:
        started, failures, base = time.monotonic(), 0, 0.0
        try:
            while not self._stopped.is_set():
                frames, reason = self._connection(base)
                if self._stopped.is_set() or (reason == "" and self._options.is_file):
                    return
                failures = 0 if frames else failures + 1
                self.lost = reason or "the stream ended"
                if self._options.is_file or failures > self._retries:
                    return
                self.reconnects += 1
                self._stopped.wait(min(_LONGEST_S, self._backoff_s * 2**failures))
                self.lost, base = "", time.monotonic() - started
        finally:
            self._into.close()

    def _connection(self, base: float) -> tuple[int, str]:
        """Read until the source ends or is lost; return the number of frames, and why it was lost ("" = the end)."""
        process = self._process = _start(self._options)
        pipe, count = cast(BinaryIO, process.stdout), 0
        try:
            while (found := live.receive(pipe)) is not None:
                if isinstance(found, DecodeError):
                    return count, str(found)
                if count == 0:
                    self._into.begin(base)
                    self.opened = True
                count += 1
                self._into.put(cast(LiveFrame, found))
        except (EOFError, ValueError, OSError):
            process.kill()
            return count, f"the decoder crashed (status {process.wait()})"
        else:
            return count, ""
        finally:
            process.kill()
            process.wait()
            pipe.close()


def _start(options: LiveOptions) -> subprocess.Popen[bytes]:
    command = f"import sys; sys.path[:] = {sys.path!r}; from {live.__name__} import serve; serve()"
    process = subprocess.Popen(
        [sys.executable, "-c", command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )
    line = json.dumps(dataclasses.asdict(options)) + "\n"
    stdin = cast(BinaryIO, process.stdin)
    stdin.write(line.encode())  # not on the command line: a URL may hold a password
    stdin.close()
    return process
