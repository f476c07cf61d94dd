"""Fetching ahead in the order over blocks: the shards of the blocks at hand and of the next ones, and no others."""

import concurrent.futures
import contextlib
from collections.abc import Sequence

from ...base.errors import UserError
from ..options import DataOptions
from .block_order import BlockOrder
from .far_table import FarTable
from .source import Source, read_in_parts


class Ahead:
    """Told of each batch, fetches in a thread what its blocks and the next ones take, once per change of block."""

    def __init__(self, order: BlockOrder, *, sources: Sequence[Source], rows: slice, data: DataOptions):
        """Begin.

        Args:
          order: of the run.
          sources: in the order of `order.sources`.
          rows: those of a global batch that this process reads.
          data: `config.data`.
        """
        self._order, self._sources, self._rows = order, sources, rows
        self._parts = [read_in_parts(source, data=data, ahead=True) for source in sources]
        self._keys = data.feed.unique_captions
        self._at: tuple[int, ...] = ()
        self._before: set[tuple[int, int]] = set()
        self._pool = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="ahead")
        self._task: concurrent.futures.Future[None] | None = None

    def begin(self, k: int) -> None:
        """Take note that batch `k` is about to be read; what it takes is fetched, and what the next block takes."""
        at = self._order.block_numbers(k, rows=self._rows)
        if at == self._at:
            return
        self._at = at
        now = self._order.needs(k, rows=self._rows)
        following = self._order.needs(k, rows=self._rows, ahead=1)
        # Batches that are under way still read from the blocks before.
        wanted, self._before = now | following | self._before, now
        every = slice(0, self._order.batch_size)
        keyed = self._order.needs(k, rows=every) | self._order.needs(k, rows=every, ahead=1) if self._keys else set()
        if self._task is not None:
            self._task.cancel()  # one that waits is out of date; one that runs goes on
        self._task = self._pool.submit(self._fetch, now, wanted, keyed)

    def close(self) -> None:
        """Fetch no more."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _fetch(self, now: set[tuple[int, int]], wanted: set[tuple[int, int]], keyed: set[tuple[int, int]]) -> None:
        for part in (now, wanted):
            # A fetch that failed is reported when one of its rows is read.
            with contextlib.suppress(UserError):
                self._fetch_rows(part, keyed=keyed)
        for i, source in enumerate(self._sources):
            with contextlib.suppress(UserError):
                if not self._parts[i]:
                    source.records.hold(source.split, shards=self._of(i, wanted))

    def _fetch_rows(self, wanted: set[tuple[int, int]], *, keyed: set[tuple[int, int]]) -> None:
        for i, source in enumerate(self._sources):
            if isinstance(source.rows, FarTable):
                source.rows.fetch(self._of(i, wanted), keys=False, lines=True, frames=self._parts[i])
                source.rows.fetch(self._of(i, keyed), keys=True, lines=False, frames=False)

    def _of(self, source: int, wanted: set[tuple[int, int]]) -> list[int]:
        return sorted(int(self._order.numbers[source][shard]) for i, shard in wanted if i == source)
