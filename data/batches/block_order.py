"""The order over blocks of one or several sources: which record each row holds, and which shards rows take."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from .blocks import Blocks, expected_distance, lanes_for
from .mixture import SLOTS, Mixture
from .order import GOLDEN, Rows, check_sizes, first_of_each

_SPREAD = 0.6180339887498949  # golden ratio: lanes begin at places of the mixture's period that are spread evenly


class Shards(NamedTuple):
    """A source, as its shards.

    Attributes:
      ends: int64 [S], how many records there are up to the end of each shard; no shard is empty.
      units_of: see `Blocks`.
      numbers: int64 [S], the numbers of these shards in the split, where not all take part; None = all do.
    """

    ends: np.ndarray
    units_of: Callable[[int], np.ndarray]
    numbers: np.ndarray | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class BlockOrder:
    """The endless order over blocks.

    Attributes:
      sources: the order of each source, by name.
      mixture: which source a place belongs to.
      batch_size: rows B of a global batch.
      by_batch: whether all rows of a batch are of one source.
      numbers: of each source int64 [S], the numbers of its shards in the split.
    """

    sources: Mapping[str, Blocks]
    mixture: Mixture
    batch_size: int
    by_batch: bool
    numbers: tuple[np.ndarray, ...]

    @property
    def lanes(self) -> int:
        """How many lanes L there are; B / L rows of a batch belong to each."""
        return next(iter(self.sources.values())).lanes

    def rows(self, k: int) -> Rows:
        """Return the rows of global batch `k`, counted from 0."""
        group_size, per = self._sizes
        unit, member = np.divmod(np.arange(self.batch_size, dtype=np.int64), group_size)
        lane, within = np.divmod(unit, per)
        source, ordinal = self._places(k, lane=lane, within=within)
        record, epoch = np.empty(self.batch_size, np.int64), np.empty(self.batch_size, np.int64)
        for i, blocks in enumerate(self.sources.values()):
            here = source == i
            if here.any():
                record[here], epoch[here] = blocks.records(lane[here], ordinal=ordinal[here], member=member[here])
        return Rows(source, record, epoch, first_of_each(source, record=record))

    def epochs(self, k: int) -> dict[str, float]:
        """Return how often each source has been gone through before global batch `k`."""
        done = np.zeros(len(self.sources), np.int64)
        for lane in range(self.lanes):
            done += self._before(k, lane)
        return {name: int(n) / one.units for (name, one), n in zip(self.sources.items(), done, strict=True)}

    def needs(self, k: int, *, rows: slice, ahead: int = 0) -> set[tuple[int, int]]:
        """Return the shards (source, number) of the blocks in which rows of global batch `k` lie.

        Args:
          k: number of the batch.
          rows: those of the batch that are looked at.
          ahead: 1 = of the blocks that follow these.
        """
        found = set()
        for lane, before in self._lanes(k, rows):
            for i, blocks in enumerate(self.sources.values()):
                found |= {(i, shard) for shard in blocks.shards(lane, ordinal=int(before[i]), ahead=ahead)}
        return found

    def block_numbers(self, k: int, *, rows: slice) -> tuple[int, ...]:
        """Return the numbers of the blocks that `needs` looks at: while they stay the same, so does what is needed."""
        return tuple(
            blocks.block(lane, ordinal=int(before[i]))
            for lane, before in self._lanes(k, rows)
            for i, blocks in enumerate(self.sources.values())
        )

    @property
    def distance(self) -> float:
        """See `blocks.expected_distance`; of the largest source."""
        one = max(self.sources.values(), key=lambda blocks: len(blocks.ends))
        shards = len(one.ends)
        width = shards / (one.lanes * one.blocks)
        return expected_distance(shards=shards, lanes=one.lanes, block_shards=max(1, round(width)))

    @property
    def _sizes(self) -> tuple[int, int]:
        """The size of a unit, and units of a lane in a batch."""
        group_size = next(iter(self.sources.values())).group_size
        return group_size, self.batch_size // group_size // self.lanes

    @functools.cached_property
    def _skipped(self) -> np.ndarray:
        """Units of each source that stand in the period before each lane begins, int64 [L,sources]."""
        return np.stack([self.mixture.before(int(phase)) for phase in _phase(np.arange(self.lanes))])

    def _lanes(self, k: int, rows: slice) -> list[tuple[int, np.ndarray]]:
        """Return the lanes of some rows, and how many units of each source each has had before batch `k`."""
        group_size, per = self._sizes
        first, last = (place // group_size // per for place in (rows.start, rows.stop - 1))
        return [(lane, self._before(k, lane)) for lane in range(first, last + 1)]

    def _before(self, k: int, lane: int) -> np.ndarray:
        """Return how many units of each source a lane has had before batch `k`, int64 [sources]."""
        _, per = self._sizes
        if self.by_batch:
            return self.mixture.before(k) * per
        phase = int(_phase(np.array([lane]))[0])
        return self.mixture.before(k * per + phase) - self._skipped[lane]

    def _places(self, k: int, *, lane: np.ndarray, within: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return source int32 [B], and how many units of that source the lane had before, int64 [B]."""
        _, per = self._sizes
        if self.by_batch:
            source, earlier = self.mixture.at(np.full(len(lane), k, np.int64))
            return source, earlier * per + within
        phase = _phase(lane)
        source, ordinal = self.mixture.at(k * per + within + phase)
        return source, ordinal - self._skipped[lane, source]


def make_block_order(
    shards: Mapping[str, Shards],
    *,
    shares: Mapping[str, float],
    group_size: int,
    batch_size: int,
    seed: int,
    mix_by: str = "row",
    process_count: int = 1,
    block_shards: int,
) -> BlockOrder:
    """Check the sizes and build the order; arguments and errors as of `order.make_order`, and:

    Args:
      shards: by source.
      block_shards: shards of a block, about.
    """
    sizes = {name: int(one.ends[-1]) for name, one in shards.items()}
    counts = {"group_size": group_size, "batch_size": batch_size, "process_count": process_count}
    check_sizes(sizes, shares=shares, seed=seed, mix_by=mix_by, **counts)
    most = max(len(one.ends) for one in shards.values())
    lanes = lanes_for(batch_size // group_size, shards=most, block_shards=block_shards)
    made = {
        name: Blocks(
            ends=one.ends,
            group_size=group_size,
            units_of=one.units_of,
            lanes=lanes,
            block_shards=block_shards,
            seed=(seed + i * GOLDEN) % 2**32,
        )
        for i, (name, one) in enumerate(shards.items())
    }
    mixture = Mixture.of([shares[name] for name in shards], names=tuple(shards))
    numbers = tuple(np.arange(len(one.ends)) if one.numbers is None else one.numbers for one in shards.values())
    by_batch = mix_by == "batch"
    return BlockOrder(sources=made, mixture=mixture, batch_size=batch_size, by_batch=by_batch, numbers=numbers)


def _phase(lane: np.ndarray) -> np.ndarray:
    """Return where in the period of the mixture each lane begins, int64."""
    return (lane * _SPREAD % 1.0 * SLOTS).astype(np.int64)
