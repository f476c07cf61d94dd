"""One trial: a run of the verb in a process of its own, whose evaluations are reported as they are written."""

import contextlib
import dataclasses
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

STOPPED = 75
"""Exit status of a run that was asked to stop and can be resumed."""
_POLL_S, _GRACE_S = 0.3, 300.0
_KILLED_AGAIN = 2  # times that a run which a signal ended (out of memory, a foreign kill) is resumed


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunSpec:
    """How a run is started.

    Attributes:
      verb: "pretrain" or "finetune".
      flags: its flags but --workdir.
      workdir: of the run.
      env: variables to add to the environment.
    """

    verb: str
    flags: tuple[str, ...]
    workdir: Path
    env: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def command(self, *, descriptor: int) -> list[str]:
        """Return the command of the process."""
        package = __package__.partition(".")[0] if __package__ else "twinreel"
        flags = [*self.flags, f"--workdir={self.workdir}", f"--stopped_status={STOPPED}"]
        return [sys.executable, "-m", f"{package}.sweep.child", str(descriptor), self.verb, *flags]

    def line(self) -> str:
        """Return the run as a line for a shell."""
        return shlex.join(["twinreel", self.verb, *self.flags, "--workdir", str(self.workdir)])


class Evaluations:
    """The evaluations in the metrics.jsonl of a run, read as it grows."""

    def __init__(self, workdir: Path):
        """Begin before the first line."""
        self._path, self._place, self._step = workdir / "metrics.jsonl", 0, -1
        self.last_step = 0

    def new(self) -> list[tuple[int, dict[str, float]]]:
        """Return the evaluations of steps after the last that was returned, and their finite results."""
        if not self._path.is_file():
            return []
        if self._path.stat().st_size < self._place:  # a resumed run dropped lines
            self._place = 0
        found: dict[int, dict[str, float]] = {}
        with self._path.open("rb") as file:
            file.seek(self._place)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._place += len(line)
                with contextlib.suppress(ValueError, KeyError, TypeError):
                    self._take(json.loads(line), found)
        return sorted(found.items())

    def _take(self, values: dict[str, Any], found: dict[int, dict[str, float]]) -> None:
        step = int(values["step"])
        self.last_step = max(self.last_step, step)
        if values["kind"] == "eval" and step > self._step:
            numbers = {
                name: float(one) for name, one in values.items() if isinstance(one, float | int) and name != "step"
            }
            found[step] = numbers
            self._step = step


def run_trial(
    spec: RunSpec,
    *,
    lock: int,
    stop: threading.Event,
    evaluated: Callable[[int, dict[str, float]], bool],
    stepped: Callable[[int], None],
) -> tuple[int, bool]:
    """Run until the end, and report its evaluations.

    A run that a signal ended from outside is resumed, twice at most.

    Args:
      spec: the run.
      lock: descriptor that the process inherits.
      stop: set when the sweep is to end; the run then saves and ends.
      evaluated: called with a step and its results; returns whether the run should stop.
      stepped: called with the last step in metrics.jsonl.

    Returns:
      The exit status (-n if signal n ended it), and whether `evaluated` stopped it.
    """
    seen, pruned, status = Evaluations(spec.workdir), False, 0
    for _ in range(1 + _KILLED_AGAIN):
        with _process(spec, lock=lock) as process:
            deadline: float | None = None
            while True:
                ended = process.poll() is not None  # before the lines are read: none may be missed
                for step, results in seen.new():
                    pruned = evaluated(step, results) or pruned
                stepped(seen.last_step)
                if ended:
                    break
                if (pruned or stop.is_set()) and deadline is None:
                    process.send_signal(signal.SIGTERM)
                    deadline = time.monotonic() + _GRACE_S
                if deadline is not None and time.monotonic() > deadline:
                    os.killpg(process.pid, signal.SIGKILL)
                time.sleep(_POLL_S)
            status = process.returncode
        if (status >= 0 and status != STOPPED) or pruned or stop.is_set():
            break
    return status, pruned


def last_lines(log: Path, *, count: int = 6) -> str:
    """Return the end of a log: from the line that begins with "error:", else the last lines."""
    if not log.is_file():
        return ""
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    errors = [number for number, line in enumerate(lines) if line.startswith("error:")]
    return "\n".join(lines[errors[-1] :] if errors else lines[-count:])


@contextlib.contextmanager
def _process(spec: RunSpec, *, lock: int) -> Any:
    """Start the process; it is gone at the end."""
    spec.workdir.mkdir(parents=True, exist_ok=True)
    reading, writing = os.pipe()
    process = None
    try:
        with log_of(spec.workdir).open("ab") as log:
            process = subprocess.Popen(
                spec.command(descriptor=reading),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=(reading, lock),
                start_new_session=True,  # Ctrl-C reaches the sweep alone, which then ends its runs in order
                env={**os.environ, "PYTHONUNBUFFERED": "1", **spec.env},
            )
        os.close(reading)
        reading = -1
        yield process
    finally:
        os.close(writing)
        if reading >= 0:
            os.close(reading)
        if process is not None and process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def log_of(workdir: Path) -> Path:
    """Return the file that holds the output of a trial's run, next to its workdir."""
    return workdir.with_name(f"{workdir.name}.log")


def value_of(results: Mapping[str, float], *, metric: str) -> float | None:
    """Return the metric of an evaluation, None if it is not there or not finite."""
    value = results.get(metric)
    return None if value is None else float(value)


def best_of(values: Sequence[float], *, maximize: bool) -> float:
    """Return the best of the values."""
    return max(values) if maximize else min(values)
