"""Programs that a search compiles: which one is next, several at a time, within a time."""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any, NamedTuple

from ..base.errors import UserError

_SHAPE = ("mesh.replica", "mesh.fsdp", "sharding.rules")  # changes that leave the activations of a device as they are


class Candidate(NamedTuple):
    """Changes to try.

    Attributes:
      changes: config field -> value.
      bytes: estimate of a chip's memory; between mesh shapes of one kind, the difference is exact.
      least_s: seconds that the matrix products take: no step is faster.
      order: sort key, lower is better.
    """

    changes: dict[str, Any]
    bytes: float
    least_s: float
    order: tuple[float, ...]

    @property
    def kind(self) -> dict[str, Any]:
        """The changes that decide what a device keeps and computes."""
        return {name: value for name, value in self.changes.items() if name not in _SHAPE}


class Queue:
    """Candidates in their order, without those that cannot win.

    Attributes:
      tries: the most programs to compile.
      passed_over: how many candidates were found not to be worth it.
    """

    def __init__(
        self, candidates: Mapping[str, Candidate], *, done: Mapping[str, dict[str, Any]], tries: int, limit: float
    ):
        """Start with results that are known.

        Args:
          candidates: by name, the most promising first.
          done: name -> `advice.summary`; results that are added to it later count as well.
          tries: the most programs to compile, known results included.
          limit: usable bytes of a chip.
        """
        self._all, self._done, self._limit = candidates, done, limit
        self._todo = [name for name in candidates if name not in done]
        self._room = tries - sum(name in done for name in candidates)
        self.tries, self.passed_over = min(tries, len(candidates)), 0

    def left(self) -> int:
        """Return how many programs would still be compiled."""
        return max(0, min(self._room, len(self._todo)))

    def next(self) -> tuple[str, dict[str, Any]] | None:
        """Take the next candidate off the queue: (name, changes), or None if there is none."""
        while self._room > 0 and self._todo:
            name = self._todo.pop(0)
            if self._cannot_win(self._all[name]):
                self.passed_over += 1
                continue
            self._room -= 1
            return name, self._all[name].changes
        return None

    def _cannot_win(self, one: Candidate) -> bool:
        for name, result in self._done.items():
            if result["fits"] and result["time"] and result["time"]["step_s"] <= one.least_s:
                return True
            other, needed = self._all.get(name), result["needed_bytes"]
            if other is None or result["fits"] or needed is None or other.kind != one.kind:
                continue
            if needed - (other.bytes - one.bytes) > self._limit:
                return True
        return False


def in_parallel(
    compile_changes: Callable[[dict[str, Any]], dict[str, Any]], queue: Queue, *, end: float
) -> Iterator[tuple[str, dict[str, Any] | UserError]]:
    """Yield (name, result) as they come; the result is a UserError for what cannot be.

    Once there is a result, nothing is begun that would end after `end` (of `time.monotonic`) if it took as long as the
    longest so far; the first programs are begun in any case. The compilers leave Python's lock. Half as many programs
    as cores at a time, at least two and at most eight: each compiler uses several threads, and gigabytes for a large
    model.
    """
    running, longest, first = dict[Future, tuple[str, float]](), 0.0, True
    workers = min(8, max(2, (os.cpu_count() or 1) // 2))
    with ThreadPoolExecutor(workers) as pool:
        while True:
            while len(running) < workers and ((now := time.monotonic()) + longest < end or first):
                if (chosen := queue.next()) is None:
                    break
                running[pool.submit(compile_changes, chosen[1])] = (chosen[0], now)
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                (name, begun), error = running.pop(future), future.exception()
                longest, first = max(longest, time.monotonic() - begun), first and error is not None
                if error is not None and not isinstance(error, UserError):
                    raise error
                yield name, future.result() if error is None else error
