"""Processes that live and die together: their lines, their logs, their ends."""

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
class Member:
    """One process to start.

    Attributes:
      number: from 0.
      command: program and arguments.
      env: what its environment has beside this process's.
      log: file that gets all it prints; appended to.
    """

    number: int
    command: tuple[str, ...]
    env: dict[str, str]
    log: Path


class Pack:
    """Starts the members, shows what they print, and ends all when one fails.

    Attributes:
      stopped: whether a signal to this process ended the run.
    """

    def __init__(self, members: Sequence[Member], *, grace_s: float):
        """Take the members; `grace_s` seconds lie between asking the others to end and killing them."""
        self.stopped = False
        self._members, self._grace_s = members, grace_s
        self._processes: list[subprocess.Popen[str]] = []
        self._last: list[collections.deque[str]] = [collections.deque(maxlen=_LAST_LINES) for _ in members]
        self._print_lock = threading.Lock()

    def run(self) -> int:
        """Start all and wait; return 0, or the status of the first that failed (128 + n for signal n)."""
        with self._signals():
            readers = []
            try:
                for member in self._members:
                    self._start(member)
                readers = [
                    threading.Thread(target=self._read, args=(m, p), name=f"twinreel-launch-{m.number}", daemon=True)
                    for m, p in zip(self._members, self._processes, strict=True)
                ]
                for reader in readers:
                    reader.start()
                culprit = self._wait()
            finally:
                self._end_all()
            for reader in readers:
                reader.join(timeout=10.0)
        return 0 if culprit is None else self._blame(culprit)

    def _start(self, member: Member) -> None:
        member.log.parent.mkdir(parents=True, exist_ok=True)
        # A session of its own: Ctrl-C on the terminal would otherwise reach it twice, and the second one interrupts.
        self._processes.append(
            subprocess.Popen(
                member.command,
                env=os.environ | member.env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,
            )
        )

    def _read(self, member: Member, process: subprocess.Popen[str]) -> None:
        stream: IO[str] | None = process.stdout
        assert stream is not None
        with stream, member.log.open("a", encoding="utf-8") as log:
            for line in stream:
                log.write(line)
                log.flush()
                self._last[member.number].append(line.rstrip("\n"))
                with self._print_lock:
                    print(f"[{member.number}] {line}", end="" if line.endswith("\n") else "\n", flush=True)

    def _wait(self) -> int | None:
        """Wait until all have ended or one has failed; return the number of the one that failed."""
        while True:
            codes = [process.poll() for process in self._processes]
            failed = [i for i, code in enumerate(codes) if code not in (None, 0)]
            if failed:
                # When one dies jax aborts the others soon after, so that both may be seen at once.
                return min(failed, key=lambda i: (codes[i] == -signal.SIGABRT, i))
            if all(code == 0 for code in codes):
                return None
            time.sleep(_POLL_S)

    def _end_all(self) -> None:
        """Ask those that still run to end, and kill them after the grace."""
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

    def _blame(self, culprit: int) -> int:
        code, member = self._processes[culprit].returncode, self._members[culprit]
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
        lines = "\n".join(f"  {line}" for line in self._last[culprit])
        others = len(self._members) - 1
        ended = f"; the {others} other{'s were' if others > 1 else ' was'} ended" if others else ""
        print(f"launch: process {culprit} {how}{ended}. Its last lines ({member.log}):\n{lines}", file=sys.stderr)
        return 128 - code if code < 0 else code

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Pass SIGINT and SIGTERM on as SIGTERM, which makes a run save and end; a second SIGINT kills."""

        def handle(number: int, frame: FrameType | None) -> None:
            del frame
            again, self.stopped = self.stopped, True
            for process in self._processes:
                _send(process, signal.SIGKILL if again and number == signal.SIGINT else signal.SIGTERM)

        before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _send(process: subprocess.Popen[str], number: signal.Signals) -> None:
    """Signal a process; SIGKILL goes to all that it has started as well."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            if number == signal.SIGKILL:
                os.killpg(process.pid, number)
            else:
                process.send_signal(number)
