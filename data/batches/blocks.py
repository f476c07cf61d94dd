"""The order over blocks: each place of a run lies in a lane, and a lane goes through few shards at a time.

In each epoch the shards of a split are put in a new order, one behind the other, and the units on this line (a unit is
a record, or the records of a group) are divided into L lanes, whose lengths differ by at most one unit. A lane is
divided into blocks of about W shards, and the units of a block are permuted. Row r of a global batch belongs to lane
r * L // B: who reads some rows of every batch reads few shards at a time, each of them once an epoch.

The longer lanes are others in each epoch, so that lanes stay within one unit of each other for the whole run. A source
with fewer units than lanes, of a mixture, has lanes without units in some epochs.

All of it is arithmetic. For a place, the shards of its epoch are put in order, which takes microseconds for each
thousand of them and is remembered; nothing is kept from one step to the next, nor read from the data.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import numpy as np

from ..tf_cpu import tf

MOST_LANES = 256
_ROUNDS = 4  # of the cipher, as tf.random.experimental.index_shuffle has them
_SHARDS, _UNITS = 1, 2  # what a permutation is of


def lanes_for(units_of_batch: int, *, shards: int, block_shards: int) -> int:
    """Return how many lanes there are: the largest power of two that divides the batch and leaves each two blocks."""
    most = min(MOST_LANES, max(1, shards // (2 * block_shards)))
    lanes = 1
    while 2 * lanes <= most and units_of_batch % (2 * lanes) == 0:
        lanes *= 2
    return lanes


@dataclasses.dataclass(frozen=True, kw_only=True)
class Blocks:
    """The order of one source.

    Attributes:
      ends: int64 [S], how many records there are up to the end of each shard; no shard is empty.
      group_size: g, records of a unit; the last unit of a shard is filled up.
      units_of: number of a shard -> its units int64 [u,g], counted from the shard's first record.
      lanes: L.
      block_shards: W, shards of a block, about.
      seed: of the run and the source, 0 to 2**32 - 1.
    """

    ends: np.ndarray
    group_size: int
    units_of: Callable[[int], np.ndarray]
    lanes: int
    block_shards: int
    seed: int

    @functools.cached_property
    def counts(self) -> np.ndarray:
        """Units of each shard, int64 [S]."""
        return -(-np.diff(self.ends, prepend=0) // self.group_size)

    @functools.cached_property
    def units(self) -> int:
        """Units of an epoch, U."""
        return int(self.counts.sum())

    @functools.cached_property
    def blocks(self) -> int:
        """How many blocks a lane has."""
        size = self.block_shards * self.units / len(self.ends)
        return max(1, round(self.units / self.lanes / size))

    def records(self, lane: np.ndarray, *, ordinal: np.ndarray, member: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return records int64 [m] and epochs int64 [m].

        Args:
          lane: int64 [m], below L.
          ordinal: int64 [m], how many units of the lane came before, from the beginning of the run.
          member: int64 [m], which record of the unit.
        """
        epoch, place = self._place(lane, ordinal)
        first, length = self._lane(lane, epoch)
        block, begin, size = self._block(place, length=length)
        shuffled = _permuted(place - begin, size=size, seed=(self.seed, epoch, lane * self.blocks + block, _UNITS))
        line = first + begin + shuffled
        shard, unit = np.empty_like(line), np.empty_like(line)
        for e in np.unique(epoch):
            here = epoch == e
            shard[here], unit[here] = self._on_line(line[here], epoch=int(e))
        return self._records(shard, unit=unit, member=member), epoch

    def shards(self, lane: int, *, ordinal: int, ahead: int = 0) -> list[int]:
        """Return the numbers of the shards of a block: the one with this unit of the lane, or one of those after it."""
        number = self.block(lane, ordinal=ordinal) + ahead
        epoch, block = divmod(number, self.blocks)
        start, length = (int(x[0]) for x in self._lane(np.array([lane]), np.array([epoch])))
        begin, end = (start + length * b // self.blocks for b in (block, block + 1))
        if begin == end:
            return []
        order, ends = self._line(epoch)
        first, last = np.searchsorted(ends, [begin, end - 1], side="right")
        return order[first : last + 1].tolist()

    def block(self, lane: int, *, ordinal: int) -> int:
        """Return the number of the block of a unit of a lane, counted from the beginning of the run."""
        lanes = np.array([lane])
        epoch, place = self._place(lanes, np.array([ordinal]))
        _, length = self._lane(lanes, epoch)
        return int(epoch[0]) * self.blocks + int(self._block(place, length=length)[0][0])

    def _place(self, lane: np.ndarray, ordinal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the epoch of a unit of a lane, and how many of the lane's units of this epoch come before it."""
        epoch = (ordinal * self.lanes + lane) // self.units  # units are dealt to the lanes in turn
        return epoch, ordinal + (lane - epoch * self.units) // self.lanes

    def _lane(self, lane: np.ndarray, epoch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return where a lane begins on the line of an epoch, and how many units it has."""

        def below(units: np.ndarray, lane: np.ndarray) -> np.ndarray:
            """Return how many of the run's first units the lanes below one have."""
            return units // self.lanes * lane + np.minimum(units % self.lanes, lane)

        start, end = epoch * self.units, (epoch + 1) * self.units
        first = below(end, lane) - below(start, lane)
        return first, below(end, lane + 1) - below(start, lane + 1) - first

    def _block(self, place: np.ndarray, *, length: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the block of a place in a lane, where the block begins in it, and how many units it has."""
        block = ((place + 1) * self.blocks - 1) // length  # the last block that begins at or before it
        begin = length * block // self.blocks
        return block, begin, length * (block + 1) // self.blocks - begin

    def _on_line(self, line: np.ndarray, *, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the shard, and the unit in it, of each place on the line of an epoch."""
        order, ends = self._line(epoch)
        place = np.searchsorted(ends, line, side="right")
        return order[place], line - ends[place] + self.counts[order[place]]

    def _line(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the shards of an epoch in order, and up to which unit each goes, both int64 [S]."""
        return _line(self, epoch)

    def _records(self, shard: np.ndarray, *, unit: np.ndarray, member: np.ndarray) -> np.ndarray:
        begin = np.where(shard > 0, self.ends[shard - 1], 0)
        if self.group_size == 1:
            return begin + unit
        found = np.empty_like(begin)
        for number in np.unique(shard):
            here = shard == number
            found[here] = begin[here] + self.units_of(int(number))[unit[here], member[here]]
        return found

    def __hash__(self) -> int:
        return id(self)

    def __eq__(self, other: object) -> bool:
        return self is other


@functools.lru_cache(maxsize=16)
def _line(blocks: Blocks, epoch: int) -> tuple[np.ndarray, np.ndarray]:
    count = len(blocks.ends)
    here = np.arange(count, dtype=np.int64)
    same = np.zeros(count, np.int64)
    order = _permuted(here, size=same + count, seed=(blocks.seed, same + epoch, same, _SHARDS))
    return order, np.cumsum(blocks.counts[order])


def _permuted(place: np.ndarray, *, size: np.ndarray, seed: tuple[int, np.ndarray, np.ndarray, int]) -> np.ndarray:
    """Shuffle each place int64 [m] among `size` int64 [m], by a permutation for each seed (run, epoch, part, what)."""
    run, epoch, part, what = seed
    # The cipher looks at the low 32 bits of three numbers.
    key = np.stack([np.full(len(place), run), epoch, part * 4 + what], axis=1).astype(np.int64)
    index = tf.constant(place, tf.int64)
    shuffled = tf.raw_ops.RandomIndexShuffle(index=index, seed=key, max_index=size - 1, rounds=_ROUNDS)
    return shuffled.numpy()


def same_shard(*, shards: int, lanes: int, block_shards: int) -> float:
    """Return how likely two rows of a batch are of one shard: in a full permutation 1 / S, here 1 / (L W)."""
    return 1.0 / min(shards, lanes * block_shards)


def expected_distance(*, shards: int, lanes: int, block_shards: int) -> float:
    """Return the mean distance of two rows of a batch in the data as prepared, as a share of it: 1/3 is the best.

    Two records of one shard lie a third of a shard apart on average; those of two shards, of which all pairs are as
    likely, (S + 1) / (3 S) of the whole.
    """
    same = same_shard(shards=shards, lanes=lanes, block_shards=block_shards)
    return same / (3 * shards) + (1 - same) * (shards + 1) / (3 * shards)


def shard_ends(ends: Sequence[int] | np.ndarray, *, only: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Return the ends of the shards that are not empty, int64 [S], and their numbers int64 [S].

    Args:
      ends: records up to the end of each shard.
      only: int64 [m], the records that take part, rising: the ends count these; None = all.
    """
    found = np.asarray(ends, np.int64)
    if only is not None:
        found = np.searchsorted(only, found)
    filled = np.diff(found, prepend=0) > 0
    return found[filled], np.flatnonzero(filled)
