"""Batches from the input pipeline to the devices, ahead of the step that needs them."""

import collections
import contextlib
import queue
import threading
import time
from collections.abc import Iterator

import jax
import numpy as np
from jax.sharding import Mesh

from ...base.errors import UserError
from ..sharding.mesh import batch_sharding, put_batch
from ..step.state import placed
from .signals import StopRequest

_LOOK_S = 0.1  # seconds after which one that waits for data looks whether it should stop
_REMEMBERED = 16  # batches whose clips are known; the loop looks back at most a few steps


class Prefetcher:
    """Reads batches in a background thread and puts them on the devices, at most `depth` ahead.

    Attributes:
      waited_s: seconds that `next` has waited for data so far.
      batch_size: rows of a global batch, known after the first `peek` or `next`.
    """

    def __init__(
        self,
        source: Iterator[dict[str, np.ndarray]],
        *,
        mesh: Mesh,
        start_step: int,
        offset: int = 0,
        depth: int = 2,
    ):
        """Begin to read.

        Args:
          source: this process's rows of the global batches.
          mesh: where they go.
          start_step: the number of the step that the first of them is for.
          offset: what to add to a number of steps for the number of batches, see `position.Position`.
          depth: batches ahead.
        """
        self.waited_s = 0.0
        self.batch_size = 0
        self._source, self._mesh, self._offset = source, mesh, offset
        self._queue: queue.Queue[dict[str, jax.Array] | BaseException] = queue.Queue(depth)
        self._rows: collections.OrderedDict[int, np.ndarray] = collections.OrderedDict()
        self._next_read = start_step
        self._peeked: dict[str, jax.Array] | None = None
        self._shapes: dict[str, jax.ShapeDtypeStruct] = {}
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="twinreel-prefetch", daemon=True)
        self._thread.start()

    def __enter__(self) -> "Prefetcher":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def next(self, stop: StopRequest | None = None) -> dict[str, jax.Array]:
        """Return the next batch as global arrays; an error of the input pipeline is raised here with its own type.

        If a stop is requested while there is none, zeros in its shape are returned instead: the step that gets them
        changes nothing, and the other processes, which have their rows and wait in it for these, learn of the stop.
        """
        if self._peeked is not None:
            batch, self._peeked = self._peeked, None
            return batch
        batch = self._wait(stop)
        return jax.tree.map(_zeros, self._shapes) if batch is None else batch

    def ready(self, stop: StopRequest) -> bool:
        """Wait for the first batch, which `peek` then returns; False if a stop is requested before it is there."""
        if self._peeked is None:
            self._peeked = self._wait(stop)
        return self._peeked is not None and not stop.requested

    def peek(self) -> dict[str, jax.Array]:
        """Return the next batch without taking it."""
        if self._peeked is None:
            self._peeked = self.next()
        return self._peeked

    def clips_of(self, step: int) -> list[int]:
        """Return `clip_index` of this process's rows of global batch `step` ([] if the batch has none)."""
        return self._rows.get(step, np.zeros(0, np.int64)).tolist()

    def facts(self, step: int) -> dict[str, float]:
        """Return what the source of the batches wants logged when `step` steps are done ({} if it has no `facts`)."""
        facts = getattr(self._source, "facts", None)
        return facts(step + self._offset) if facts is not None else {}

    def close(self) -> None:
        """Stop reading."""
        self._closed.set()
        while not self._queue.empty():  # wake a reader that waits for room
            self._queue.get_nowait()
        self._thread.join(timeout=10.0)

    def _wait(self, stop: StopRequest | None) -> dict[str, jax.Array] | None:
        """Take a batch from the queue; None if a stop is requested first."""
        start, item = time.perf_counter(), None
        while item is None and not (stop is not None and stop.requested and self._queue.empty()):
            with contextlib.suppress(queue.Empty):
                item = self._queue.get(timeout=_LOOK_S)
        self.waited_s += time.perf_counter() - start
        if isinstance(item, BaseException):
            self._queue.put(item)  # a further call raises it again instead of waiting
            raise item
        if item is not None and not self._shapes:
            self.batch_size = len(next(iter(item.values())))
            rows = batch_sharding(self._mesh)
            self._shapes = {key: placed(x, rows) for key, x in item.items()}
        return item

    def _run(self) -> None:
        try:
            for batch in self._source:
                self._remember(batch)
                if not self._put(put_batch(batch, mesh=self._mesh)):
                    return
            raise UserError(
                f"the input ended at step {self._next_read}, before config.train.steps; "
                "the iterator of train batches must be endless"
            )
        except BaseException as error:  # handed to the loop, which raises it
            self._put(error)
        finally:
            close = getattr(self._source, "close", None)  # a generator's: it frees what the pipeline holds
            if close is not None:
                close()

    def _put(self, item: dict[str, jax.Array] | BaseException) -> bool:
        while not self._closed.is_set():
            try:
                self._queue.put(item, timeout=0.2)
                return True
            except queue.Full:
                continue
        return False

    def _remember(self, batch: dict[str, np.ndarray]) -> None:
        if "clip_index" in batch:
            self._rows[self._next_read] = np.array(batch["clip_index"])
            if len(self._rows) > _REMEMBERED:
                self._rows.popitem(last=False)
        self._next_read += 1


def _zeros(x: jax.ShapeDtypeStruct) -> jax.Array:
    """A global array of zeros, made without other processes."""
    local = np.zeros(x.sharding.shard_shape(x.shape), x.dtype)
    return jax.make_array_from_callback(x.shape, x.sharding, lambda _: local)
