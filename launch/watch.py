"""A group of processes that start and end together: their output, logs and exit statuses."""

import collections
import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import IO

_LAST_LINES = 20
_POLL_S = 0.05


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProcessSpec:
    """One process to start.

    Attributes:
      number: index from 0.
      command: program and arguments.
      env: variables to add to the environment of this process.
      log: file to which all its output is appended.
    """

    number: int
    command: tuple[str, ...]
    env: dict[str, str]
    log: Path


class ProcessGroup:
    """Starts processes, shows their output, and ends all when one fails.

    Attributes:
      stopped: whether a signal to this process ended the run.
    """

    def __init__(self, specs: Sequence[ProcessSpec], *, grace_s: float):
        """Store the specs; processes that do not end within `grace_s` seconds of SIGTERM are killed."""
        self.stopped = False
        self._specs, self._grace_s = specs, grace_s
        self._processes: list[subprocess.Popen[str]] = []
        self._last: list[collections.deque[str]] = [collections.deque(maxlen=_LAST_LINES) for _ in specs]
        self._print_lock = threading.Lock()

    def run(self) -> int:
        """Start all and wait; return 0, or the status of the first that failed (128 + n for signal n)."""
        with self._signals():
            readers = []
            try:
                for spec in self._specs:
                    self._start(spec)
                readers = [
                    threading.Thread(target=self._read, args=(m, p), name=f"twinreel-launch-{m.number}", daemon=True)
                    for m, p in zip(self._specs, self._processes, strict=True)
                ]
                for reader in readers:
                    reader.start()
                failed = self._wait()
            finally:
                self._end_all()
            for reader in readers:
                reader.join(timeout=10.0)
        return 0 if failed is None else self._report(failed)

    def _start(self, spec: ProcessSpec) -> None:
        spec.log.parent.mkdir(parents=True, exist_ok=True)
        # A session of its own: otherwise Ctrl-C on the terminal would reach it twice, and the second one interrupts.
        self._processes.append(
            subprocess.Popen(
                spec.command,
                env=os.environ | spec.env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,
            )
        )

    def _read(self, spec: ProcessSpec, process: subprocess.Popen[str]) -> None:
        stream: IO[str] | None = process.stdout
        assert stream is not None
        with stream, spec.log.open("a", encoding="utf-8") as log:
            for line in stream:
                log.write(line)
                log.flush()
                self._last[spec.number].append(line.rstrip("\n"))
                with self._print_lock, contextlib.suppress(OSError):  # the terminal is gone: the log has the line
                    print(f"[{spec.number}] {line}", end="" if line.endswith("\n") else "\n", flush=True)

    def _wait(self) -> int | None:
        """Wait until all have ended or one has failed; return the number of the one that failed."""
        while True:
            codes = [process.poll() for process in self._processes]
            failures = [i for i, code in enumerate(codes) if code not in (None, 0)]
            if failures:
                # When one dies, jax aborts the others soon after, so that several may have failed by now.
                return min(failures, key=lambda i: (codes[i] == -signal.SIGABRT, i))
            if all(code == 0 for code in codes):
                return None
            time.sleep(_POLL_S)

    def _end_all(self) -> None:
        """Send SIGTERM to the processes that still run, and SIGKILL after the grace period."""
        running = [process for process in self._processes if process.poll() is None]
        for process in running:
            _send(process, signal.SIGTERM)
        deadline = time.monotonic() + self._grace_s
        for process in running:
            try:
                process.wait(timeout=max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                _send(process, signal.SIGKILL)
                process.wait()

    def _report(self, failed: int) -> int:
        code, spec = self._processes[failed].returncode, self._specs[failed]
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
        lines = "\n".join(f"  {line}" for line in self._last[failed])
        others = len(self._specs) - 1
        ended = f"; the {others} other{'s were' if others > 1 else ' was'} ended" if others else ""
        print(f"launch: process {failed} {how}{ended}. Its last lines ({spec.log}):\n{lines}", file=sys.stderr)
        return 128 - code if code < 0 else code

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Forward SIGINT, SIGTERM and SIGHUP as SIGTERM, on which a run saves and ends; a second SIGINT kills.

        A SIGHUP that is ignored, as below nohup, stays so. The processes have sessions of their own: a terminal that is
        closed would reach this process alone, and leave them behind.
        """

        def handle(number: int, frame: FrameType | None) -> None:
            del frame
            again, self.stopped = self.stopped, True
            for process in self._processes:
                _send(process, signal.SIGKILL if again and number == signal.SIGINT else signal.SIGTERM)

        ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        caught = (signal.SIGINT, signal.SIGTERM, *(() if ignored else (signal.SIGHUP,)))
        before = {number: signal.signal(number, handle) for number in caught}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _send(process: subprocess.Popen[str], number: signal.Signals) -> None:
    """Signal a process; SIGKILL also goes to all processes that it has started."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            if number == signal.SIGKILL:
                os.killpg(process.pid, number)
            else:
                process.send_signal(number)
