"""Goodput: what share of a run's wall time went into steps, over all of its starts."""

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

KINDS = ("steps", "data_wait", "compile", "checkpoint", "evaluation", "restart")
FILE = "goodput.jsonl"
_FINISHED = ("done", "patience")  # reasons of an end after which no restart is due


class Goodput:
    """Sums up seconds by kind; remembers them in `workdir/goodput.jsonl` from one start to the next.

    - `steps`: from one step to the next, unless it is one of the following.
    - `data_wait`: the loop had no batch.
    - `compile`: the first start until its first step: building the model, compiling.
    - `checkpoint`: the loop was held up by a save (most of a save is not in its way).
    - `evaluation`: the evaluate hook.
    - `restart`: from the last step that survived until the first step of the start after it, so with the time of
      steps that are lost and done again, the time in which nothing ran, restoring, and compiling again. After a run
      that came to its end, nothing counts until somebody starts it for more steps.

    Each line is written when something happens and flushed at once, so that a killed process loses none. A line holds
    the sums at a step; a start that resumes at a step continues from the newest line of that step.
    """

    def __init__(self, path: Path | None, *, clock: Callable[[], float] = time.time):
        """Begin a start; the clock runs from here.

        Args:
          path: the file; None = remember nothing (all processes but the first).
          clock: seconds, of one origin over all starts.
        """
        self._path, self._clock = path, clock
        self._lines = _read(path) if path is not None else []
        self._began = self._mark = clock()
        self._waited: Callable[[], float] = lambda: 0.0
        self._waited_before = 0.0
        self._seconds: dict[str, float] | None = None

    def begin(self, step: int, *, waited: Callable[[], float] = lambda: 0.0) -> None:
        """Note that step `step` + 1 is about to begin.

        Args:
          step: steps done, that of the checkpoint from which this start resumes.
          waited: seconds that the loop has waited for data in this start so far.
        """
        self._waited, self._waited_before = waited, waited()
        self._mark = self._clock()
        here = [line for line in self._lines if line["step"] == step]
        if not self._lines:
            seconds = max(0.0, self._mark - self._began)
            wait = min(seconds, self._waited_before)
            self._seconds = dict.fromkeys(KINDS, 0.0) | {"compile": seconds - wait, "data_wait": wait}
        else:
            base = here[-1] if here else {"time": self._began, "seconds": {}}
            finished = self._lines[-1].get("reason") in _FINISHED
            since = self._began if finished else base["time"]
            self._seconds = {kind: float(base["seconds"].get(kind, 0.0)) for kind in KINDS}
            self._seconds["restart"] += max(0.0, self._mark - since)
        self.note("begin", step=step)

    @contextlib.contextmanager
    def spending(self, kind: str) -> Iterator[None]:
        """Count what happens inside as `kind` instead of `steps`."""
        assert kind in KINDS, kind
        self._count("steps")
        try:
            yield
        finally:
            self._count(kind)

    def note(self, event: str, *, step: int, **facts: Any) -> None:
        """Write a line with the sums after `step` steps; does nothing before `begin`."""
        if self._seconds is None:
            return
        self._count("steps")
        rounded = {kind: round(value, 3) for kind, value in self._seconds.items()}
        self._write({"event": event, "time": self._mark, "step": step, **facts, "seconds": rounded})

    def started(self) -> None:
        """Note that there was a start, if it is the first: what a kill before its first step costs is not forgotten."""
        if not self._lines:
            self._write({"event": "start", "time": self._began, "step": 0, "seconds": dict.fromkeys(KINDS, 0.0)})

    def shares(self) -> dict[str, float]:
        """Return the share (0..1, together 1) of each of KINDS; {} before `begin`."""
        if self._seconds is None:
            return {}
        self._count("steps")
        total = sum(self._seconds.values())
        if total <= 0.0:
            return {}
        return {kind: value / total for kind, value in self._seconds.items()}

    def _count(self, kind: str) -> None:
        """Add the time since the last count to `kind`, except what of it was waiting for data."""
        now, waited = self._clock(), self._waited()
        if self._seconds is not None:
            seconds = max(0.0, now - self._mark)
            wait = min(seconds, waited - self._waited_before)
            self._seconds[kind] += seconds - wait
            self._seconds["data_wait"] += wait
        self._mark, self._waited_before = now, waited

    def _write(self, line: dict[str, Any]) -> None:
        if self._path is None:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a+b") as file:
            cut = file.tell() > 0 and (file.seek(-1, 2), file.read())[1] != b"\n"
            file.write(b"\n" * cut + json.dumps(line).encode() + b"\n")


def line_of(shares: dict[str, float]) -> str:
    """Return shares as one line.

    >>> line_of({"steps": 0.9, "data_wait": 0.0625, "compile": 0.0375})
    'goodput: steps 90.0 %, data wait 6.2 %, compile 3.8 %'
    """
    return "goodput: " + ", ".join(f"{kind.replace('_', ' ')} {100 * share:.1f} %" for kind, share in shares.items())


def _read(path: Path) -> list[dict[str, Any]]:
    """Return the whole lines of a file; one that a kill or a full disk cut off is left out."""
    lines = []
    for text in path.read_text(errors="replace").splitlines() if path.is_file() else ():
        try:
            line = json.loads(text)
            lines.append({**line, "time": float(line["time"]), "step": int(line["step"]), "seconds": line["seconds"]})
        except (ValueError, KeyError, TypeError):
            continue
    return lines
