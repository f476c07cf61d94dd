"""Which record stands where: arithmetic on the step number, without state (design, section 2.3).

Row n of a run -> unit n // g, member n % g -> epoch and slot of the unit -> by a stateless permutation of the epoch
(`tf.random.experimental.index_shuffle`) the unit -> the record. So a run resumes at any step at no cost, and any number
of processes sees the same global batches.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple, cast

import numpy as np

from ...configs.errors import UserError
from ..tf_cpu import tf

MAX_SEED = 2**31 - 1


class Rows(NamedTuple):
    """Rows of one global batch.

    Attributes:
      record: int64 [b], index of the record in its split.
      epoch: int64 [b].
      first: bool [b], False where an earlier row of the same global batch holds the same record.
    """

    record: tf.Tensor
    epoch: tf.Tensor
    first: tf.Tensor


def unit_table(groups: Sequence[str | None], *, group_size: int) -> np.ndarray:
    """Pack the records of a split into units that stay together.

    Members of one group make units of `group_size` g; what is left of them (a group of fewer than g, or the rest of a
    larger one) is packed in order with the records of no group. The last unit, if incomplete, is filled up with the
    first records of the split that are not in it: at most g - 1 records are seen twice an epoch.

    Args:
      groups: the group of each record, None or "" for none.
      group_size: g, at least 1 and at most the number of records.

    Returns:
      int64 [U,g], indices of records.
    """
    if group_size == 1:
        return np.arange(len(groups), dtype=np.int64)[:, None]
    members: dict[str, list[int]] = {}
    for index, group in enumerate(groups):
        if group:
            members.setdefault(group, []).append(index)
    units = [
        indices[i : i + group_size]
        for indices in members.values()
        for i in range(0, len(indices) - group_size + 1, group_size)
    ]
    placed = set(np.concatenate(units).tolist()) if units else set()
    others = [index for index in range(len(groups)) if index not in placed]
    units += [others[i : i + group_size] for i in range(0, len(others), group_size)]
    last = units[-1]
    fill = (index for index in range(len(groups)) if index not in last)
    units[-1] = last + [next(fill) for _ in range(group_size - len(last))]
    return np.asarray(units, np.int64)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Order:
    """The endless, shuffled order of a split's records.

    Attributes:
      units: int64 [U,g], see `unit_table`; eager, so that tf.data takes it as an input, not as a constant of the graph.
      batch_size: rows B of a global batch.
      seed: of the run, 0 to 2**31 - 1.
      first_row: of the global batch, where this process begins.
      num_rows: rows b of this process.
    """

    units: tf.Tensor
    batch_size: int
    seed: int
    first_row: int
    num_rows: int

    @property
    def _shape(self) -> tuple[int, int]:
        return cast(tuple[int, int], tuple(self.units.shape))

    def rows(self, k: tf.Tensor) -> Rows:
        """Return this process's rows of global batch `k` (int64 scalar, from 0)."""
        num_units, group_size = self._shape
        position = tf.cast(k, tf.int64) * self.batch_size + tf.range(self.batch_size, dtype=tf.int64)
        unit = position // group_size
        epoch, slot = unit // num_units, unit % num_units
        # B <= records <= U g, so a batch meets two epochs at most (index_shuffle takes no seed per element: TF 2.21
        # pads such seeds along the wrong axis).
        earlier, later = (self._permuted(slot, epoch=epoch[0] + i) for i in range(2))
        shuffled = tf.where(epoch == epoch[0], earlier, later)
        record = shuffled
        if group_size > 1:
            record = tf.gather_nd(self.units, tf.stack([shuffled, position % group_size], axis=1))
        _, name = tf.unique(record, out_idx=tf.int64)
        row = tf.range(self.batch_size, dtype=tf.int64)
        first = tf.gather(tf.math.unsorted_segment_min(row, name, self.batch_size), name) == row
        part = slice(self.first_row, self.first_row + self.num_rows)
        return Rows(record[part], epoch[part], first[part])

    def _permuted(self, slot: tf.Tensor, *, epoch: tf.Tensor) -> tf.Tensor:
        seed = tf.stack([tf.constant(self.seed, tf.int64), epoch])
        last = self._shape[0] - 1
        return tf.random.experimental.index_shuffle(slot, seed=seed, max_index=last)  # pyright: ignore


def make_order(
    groups: Sequence[str | None],
    *,
    group_size: int,
    batch_size: int,
    seed: int,
    process_index: int = 0,
    process_count: int = 1,
) -> Order:
    """Check the sizes and build the order.

    Args:
      groups: the group of each record of the split, None or "" for none.
      group_size: members of a group that stay together in a global batch.
      batch_size: rows of the global batch; process p of P reads rows p * B / P to (p + 1) * B / P.
      seed: of the run.
      process_index: p.
      process_count: P.

    Raises:
      UserError: sizes that do not divide, a batch that is larger than the split, or a seed out of range.
    """
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
    if batch_size > len(groups):
        raise UserError(
            f"batch_size={batch_size} is larger than the split, which has {len(groups)} clips: a batch would hold the "
            f"same clip twice; set config.data.batch_size to {len(groups)} or less"
        )
    if not 0 <= seed <= MAX_SEED:
        raise UserError(f"seed={seed} is out of range; set config.seed to 0 ... {MAX_SEED}")
    rows = batch_size // process_count
    return Order(
        units=tf.constant(unit_table(groups, group_size=group_size)),
        batch_size=batch_size,
        seed=seed,
        first_row=process_index * rows,
        num_rows=rows,
    )


def _next_multiple(value: int, divisor: int) -> int:
    return -(-value // divisor) * divisor
