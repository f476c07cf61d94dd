"""Which record stands where: arithmetic on the step number, without state.

Row n of a run -> unit n // g, member n % g -> the mixture says which source the unit belongs to, and how many of the
source's units came before -> epoch and slot -> by a stateless permutation of the epoch
(`tf.random.experimental.index_shuffle`) the unit of the source -> the record. So a run resumes at any step at no cost,
and any number of processes sees the same global batches.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ...base.errors import UserError, unknown
from ..tf_cpu import tf
from .mixture import Mixture

MAX_SEED = 2**31 - 1
MIX_BY = ("row", "batch")
NO_GROUP = np.uint64(0)
GOLDEN = 0x9E3779B9  # odd: sources get different seeds; index_shuffle looks at the low 32 bits of each number only


class Rows(NamedTuple):
    """Rows of a batch.

    Attributes:
      source: int32 [b], place of the source in the mixture.
      record: int64 [b], index of the record in its split.
      epoch: int64 [b], of the source.
      first: bool [b], False where an earlier row of the same global batch holds the same record.
    """

    source: np.ndarray
    record: np.ndarray
    epoch: np.ndarray
    first: np.ndarray


def first_of_each(source: np.ndarray, *, record: np.ndarray) -> np.ndarray:
    """Return bool [b], False where an earlier row has the same record int64 [b] of the same source int32 [b]."""
    first = np.zeros(len(record), bool)
    first[np.unique((source.astype(np.int64) << 48) | record, return_index=True)[1]] = True
    return first


def unit_table(groups: Sequence[int] | np.ndarray, *, group_size: int) -> np.ndarray:
    """Pack the records of a split into units that stay together.

    Members of one group make units of `group_size` g; what is left of them (a group of fewer than g, or the rest of a
    larger one) is packed in order with the records of no group. The last unit, if incomplete, is filled up with the
    first records of the split that are not in it: at most g - 1 records are seen twice an epoch.

    Args:
      groups: the key of each record's group [n], 0 for none.
      group_size: g, at least 1.

    Returns:
      int64 [U,g], indices of records.
    """
    group, count = np.asarray(groups), len(groups)
    if group_size == 1:
        return np.arange(count, dtype=np.int64)[:, None]
    _, first, number = np.unique(group, return_index=True, return_inverse=True)
    by_group = np.lexsort((np.arange(count), first[number]))  # groups in the order of their first members
    by_group = by_group[group[by_group] != 0]
    _, begin, members = np.unique(first[number[by_group]], return_index=True, return_counts=True)
    place = np.arange(len(by_group)) - np.repeat(begin, members)
    together = place < np.repeat(members // group_size * group_size, members)
    units = by_group[together].reshape(-1, group_size)
    others = np.setdiff1d(np.arange(count), units, assume_unique=True)
    if missing := -len(others) % group_size:
        last = others[len(others) // group_size * group_size :]
        fill = np.concatenate([np.setdiff1d(np.arange(min(count, group_size + missing)), last), last])
        others = np.concatenate([others, np.resize(fill, missing)])
    return np.concatenate([units, others.reshape(-1, group_size)]).astype(np.int64)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Order:
    """The endless, shuffled order of the records of one or several sources.

    Attributes:
      names: of the sources.
      units: int64 [U,g] of each source, see `unit_table`.
      mixture: which source a place belongs to.
      batch_size: rows B of a global batch.
      seed: of the run, 0 to 2**31 - 1.
      by_batch: whether all rows of a batch are of one source; else sources are mixed within a batch.
    """

    names: tuple[str, ...]
    units: tuple[np.ndarray, ...]
    mixture: Mixture
    batch_size: int
    seed: int
    by_batch: bool

    def rows(self, k: int) -> Rows:
        """Return the rows of global batch `k`, counted from 0."""
        group_size = self.units[0].shape[1]
        unit, member = np.divmod(np.arange(self.batch_size, dtype=np.int64), group_size)
        source, ordinal = self._places(k, unit)
        record, epoch = np.empty(self.batch_size, np.int64), np.empty(self.batch_size, np.int64)
        for i in np.unique(source):
            here = source == i
            epoch[here], slot = np.divmod(ordinal[here], len(self.units[i]))
            record[here] = self.units[i][self._permuted(slot, epoch=epoch[here], source=i), member[here]]
        return Rows(source, record, epoch, first_of_each(source, record=record))

    def epochs(self, k: int) -> dict[str, float]:
        """Return how often each source has been gone through before global batch `k`."""
        units = self.batch_size // self.units[0].shape[1]
        done = self.mixture.before(k) * units if self.by_batch else self.mixture.before(k * units)
        return {name: int(n) / len(u) for name, n, u in zip(self.names, done, self.units, strict=True)}

    def _places(self, k: int, unit: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return source int32 [b], and the number of the source's earlier units int64 [b], of units of batch `k`."""
        units = int(unit[-1]) + 1
        if not self.by_batch:
            return self.mixture.at(k * units + unit)
        source, earlier = self.mixture.at(np.full(len(unit), k, np.int64))
        return source, earlier * units + unit

    def _permuted(self, slot: np.ndarray, *, epoch: np.ndarray, source: int) -> np.ndarray:
        """Shuffle slots int64 [m] within the epoch int64 [m] of each (index_shuffle takes one seed for all)."""
        last = len(self.units[source]) - 1
        shuffled = np.empty_like(slot)
        for e in np.unique(epoch):
            here = epoch == e
            seed = np.array([(self.seed + int(source) * GOLDEN) % 2**32, e], np.int64)
            shuffled[here] = tf.random.experimental.index_shuffle(slot[here], seed=seed, max_index=last)  # pyright: ignore
        return shuffled


def make_order(
    groups: Mapping[str, Sequence[int] | np.ndarray],
    *,
    shares: Mapping[str, float],
    group_size: int,
    batch_size: int,
    seed: int,
    mix_by: str = "row",
    process_count: int = 1,
) -> Order:
    """Check the sizes and build the order.

    Args:
      groups: by source, the key of the group of each record of its split [n], 0 for none.
      shares: share of each source, summing to 1 (see `mixture.shares`).
      group_size: members of a group that stay together in a global batch.
      batch_size: rows of the global batch; process p of P reads rows p * B / P to (p + 1) * B / P.
      seed: of the run.
      mix_by: "row" mixes sources within a batch, "batch" takes each batch from one source.
      process_count: P.

    Raises:
      UserError: sizes that do not divide, a batch that is larger than a source, or a seed out of range.
    """
    sizes = {name: len(members) for name, members in groups.items()}
    counts = {"group_size": group_size, "batch_size": batch_size, "process_count": process_count}
    check_sizes(sizes, shares=shares, seed=seed, mix_by=mix_by, **counts)
    return Order(
        names=tuple(groups),
        units=tuple(unit_table(members, group_size=group_size) for members in groups.values()),
        mixture=Mixture.of([shares[name] for name in groups], names=tuple(groups)),
        batch_size=batch_size,
        seed=seed,
        by_batch=mix_by == "batch",
    )


def check_sizes(
    sizes: Mapping[str, int],
    *,
    shares: Mapping[str, float],
    group_size: int,
    batch_size: int,
    process_count: int,
    seed: int,
    mix_by: str,
) -> None:
    """Check what `make_order` says, for sources of so many records."""
    if mix_by not in MIX_BY:
        raise unknown("value of config.data.mix_by:", mix_by, MIX_BY)
    if not 0 <= seed <= MAX_SEED:
        raise UserError(f"seed={seed} is out of range; set config.seed to 0 ... {MAX_SEED}")
    _check_batch(batch_size, group_size=group_size, process_count=process_count)
    for name, size in sizes.items():
        rows = batch_size * (shares[name] if mix_by == "row" else 1.0)
        if rows > size:
            of = f" of source {name!r}" if len(sizes) > 1 else ""
            share = f" (its share is {rows:,.1f} rows)" if rows != batch_size else ""
            raise UserError(
                f"batch_size={batch_size}{share} is larger than the split{of}, which has {size} clips: a batch "
                f"would hold the same clip twice; set config.data.batch_size to "
                f"{_fitting(int(batch_size * size / rows), group_size)} or less"
                + (", or give the source less weight" if share else "")
            )


def _check_batch(batch_size: int, *, group_size: int, process_count: int) -> None:
    if batch_size < 1 or group_size < 1:
        raise UserError(
            f"batch_size={batch_size} and group_size={group_size} must be at least 1; "
            "set config.data.batch_size and config.data.group_size"
        )
    if batch_size % group_size:
        raise UserError(
            f"batch_size={batch_size} must be a multiple of group_size={group_size}, so that no group is torn apart; "
            f"set config.data.batch_size to {_next_multiple(batch_size, group_size)}, or change config.data.group_size"
        )
    if batch_size % process_count:
        raise UserError(
            f"batch_size={batch_size} must divide by the {process_count} processes; "
            f"set config.data.batch_size to {_next_multiple(batch_size, process_count)}"
        )


def _next_multiple(value: int, divisor: int) -> int:
    return -(-value // divisor) * divisor


def _fitting(value: int, divisor: int) -> int:
    return max(value // divisor, 1) * divisor
