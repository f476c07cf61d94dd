"""Dynamic batching: rows of requests that arrive together are encoded as one batch of a static size."""

import collections
import concurrent.futures
import dataclasses
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ...base.errors import UserError


class Busy(Exception):
    """The queue is full.

    Attributes:
      detail: the message for the client.
      retry_s: seconds after which it may ask again.
    """

    def __init__(self, detail: str, *, retry_s: int = 1):
        super().__init__(detail)
        self.detail, self.retry_s = detail, retry_s


@dataclasses.dataclass(frozen=True, kw_only=True)
class BatchOptions:
    """How rows are batched.

    Attributes:
      most: rows of the largest batch. Batches have 1, 4, 16, ... or `most` rows, so that few programs are compiled.
      wait_s: how long the first row waits for others, in seconds.
      queue: rows that may wait; further ones are refused.
    """

    most: int = 16
    wait_s: float = 0.002
    queue: int = 512

    def __post_init__(self):
        if self.most < 1 or self.queue < self.most or not 0 <= self.wait_s < 10:
            raise UserError(
                f"batches of {self.most} rows, a queue of {self.queue} and a wait of {self.wait_s} s; wanted at least "
                "one row, a queue of at least one batch, and a wait of 0 to 10 s"
            )

    @property
    def sizes(self) -> tuple[int, ...]:
        """The static sizes, increasing: the powers of four below `most`, and `most`."""
        found, size = [], 1
        while size < self.most:
            found.append(size)
            size *= 4
        return (*found, self.most)


@dataclasses.dataclass(eq=False, kw_only=True)
class _Job:
    """The rows of one request, and what is known of their embeddings so far."""

    rows: Sequence[Any]
    future: concurrent.futures.Future
    found: list[np.ndarray] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Watch:
    """Callbacks that observe the work of a `Batcher`.

    Attributes:
      batch: called after each batch with its real rows and its seconds.
      queue: called with the number of waiting rows whenever it changes.
    """

    batch: Callable[[int, float], None] = lambda rows, seconds: None
    queue: Callable[[int], None] = lambda rows: None


class Batcher:
    """A thread that encodes what waits in a bounded queue, first come, first served."""

    def __init__(
        self,
        encode: Callable[[list[Any]], np.ndarray],
        *,
        name: str,
        options: BatchOptions,
        watch: Watch | None = None,
    ):
        """Start the thread.

        Args:
          encode: takes a list of rows, as many as one of the static sizes; returns float32 [rows,E].
          name: of the rows, for messages and metrics.
          options: see `BatchOptions`.
          watch: observes batches and the queue.
        """
        self._encode, self._name, self._options, self._watch = encode, name, options, watch or Watch()
        self._waiting: collections.deque[tuple[_Job, Any]] = collections.deque()
        self._changed, self._closed = threading.Condition(), False
        self._thread = threading.Thread(target=self._work, name=f"encode {name}", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the thread works."""
        return self._thread.is_alive()

    def submit(self, rows: Sequence[Any]) -> concurrent.futures.Future:
        """Queue the rows of a request; the future has their embeddings, float32 [rows,E].

        Raises:
          Busy: too many rows wait.
        """
        job = _Job(rows=rows, future=concurrent.futures.Future())
        if not rows:
            job.future.set_result(np.zeros((0, 0), np.float32))
            return job.future
        with self._changed:
            if self._closed or len(self._waiting) + len(rows) > self._options.queue:
                raise Busy(f"{len(self._waiting)} rows wait to be encoded ({self._name}); ask again in a moment")
            self._waiting.extend((job, row) for row in rows)
            self._watch.queue(len(self._waiting))
            self._changed.notify()
        return job.future

    def warm(self, row: Any) -> None:
        """Compile the programs of all sizes, with any row."""
        for size in self._options.sizes:
            self._encode([row] * size)

    def close(self) -> None:
        """End the thread; what waits fails with `Busy`."""
        with self._changed:
            self._closed = True
            left = {job for job, _ in self._waiting}
            self._waiting.clear()
            self._changed.notify()
        for job in left:
            if not job.future.done():
                job.future.set_exception(Busy("the server is shutting down"))
        self._thread.join(30)

    def _work(self) -> None:
        while taken := self._take():
            begun, jobs, rows = time.monotonic(), [job for job, _ in taken], [row for _, row in taken]
            size = next(size for size in self._options.sizes if size >= len(rows))
            try:
                found = self._encode(rows + [rows[0]] * (size - len(rows)))
            except Exception as error:  # of this batch alone; the thread goes on
                for job in set(jobs):
                    if not job.future.done():
                        job.future.set_exception(error)
                continue
            self._watch.batch(len(rows), time.monotonic() - begun)
            for job, row in zip(jobs, found, strict=False):
                job.found.append(row)
                if len(job.found) == len(job.rows) and not job.future.done():
                    job.future.set_result(np.stack(job.found))

    def _take(self) -> list[tuple[_Job, Any]]:
        """Return the rows of the next batch, as soon as there is one; [] = the end."""
        most = self._options.most
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            self._changed.wait_for(lambda: len(self._waiting) >= most or self._closed, timeout=self._options.wait_s)
            taken = [self._waiting.popleft() for _ in range(min(most, len(self._waiting)))]
            self._watch.queue(len(self._waiting))
            return taken
