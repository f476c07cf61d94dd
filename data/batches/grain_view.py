"""The rows of a run as a `grain.MapDataset`, for training loops that take their input from Grain.

    from twinreel.data.batches.grain_view import map_dataset

    rows = map_dataset(data, tokenizer=tokenizer, seed=0)
    for batch in rows.batch(data.feed.batch_size).to_iter_dataset():    # the global batches of `pretrain`
        ...

Element n is row n of the run: row n % B of global batch n // B. Which record that is, and all that is random about
it, is arithmetic: Grain shuffles and repeats nothing, and the state of its iterators is all that a resumed loop
needs. (`pip install 'twinreel[grain]'`)
"""

import sys
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...base.errors import UserError
from ..options import DataOptions
from ..text.tokenizer import Tokenizer
from .pipeline import Batches, train_batches
from .targets import Targets

try:
    import grain  # pyright: ignore[reportMissingImports]
except ImportError as error:
    raise UserError("a grain.MapDataset needs Grain: pip install 'twinreel[grain]'") from error


def map_dataset(
    data: DataOptions,
    *,
    tokenizer: Tokenizer,
    seed: int,
    steps: int | None = None,
    process_index: int = 0,
    process_count: int = 1,
    label_names: Sequence[str] | None = None,
    targets: Targets | None = None,
    only: np.ndarray | None = None,
) -> "grain.MapDataset[dict[str, np.ndarray]]":
    """Return the rows that `train_batches` brings in batches, with random access.

    The data set is opened at its first use, and once in each worker of `mp_prefetch`. Of data behind a URL in the order
    over blocks, nothing is fetched ahead: a shard comes at the first use of one of its records.

    Args:
      data: `config.data`.
      tokenizer: turns captions into ids.
      seed: of the run, 0 to 2**31 - 1.
      steps: global batches of the data set; None = it has no end (`sys.maxsize` elements).
      process_index: p of P. The data set has the rows p * B / P to (p + 1) * B / P of each global batch: its batches of
        B / P elements are those of process p.
      process_count: P.
      label_names: as in `train_batches`.
      targets: likewise.
      only: likewise.

    Returns:
      A data set of dicts, with the keys of `train_batches` and arrays without the axis b.

    Raises:
      UserError: numbers that do not fit; at the first use, what `train_batches` raises.
    """
    if process_count < 1 or not 0 <= process_index < process_count or data.feed.batch_size % process_count:
        raise UserError(
            f"process_index={process_index}, process_count={process_count}: wanted an index below the count, and a "
            f"count that divides config.data.batch_size={data.feed.batch_size}"
        )
    if steps is not None and steps < 1:
        raise UserError(f"steps={steps}, wanted 1 or more, or None for a data set without an end")
    given = {"process_index": process_index, "process_count": process_count}
    given |= {"label_names": label_names, "targets": targets, "only": only}
    return _Rows(data, steps=steps, given=given | {"tokenizer": tokenizer, "seed": seed})


class _Rows(grain.MapDataset[dict[str, np.ndarray]]):
    """See `map_dataset`."""

    def __init__(self, data: DataOptions, *, steps: int | None, given: dict[str, Any]):
        super().__init__()
        self._data, self._given = data, given
        self._share = data.feed.batch_size // given["process_count"]
        self._length = sys.maxsize if steps is None else steps * self._share
        self._lock, self._batches = threading.Lock(), None

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return self.slice(index)
        k, row = divmod(int(index) % self._length, self._share)  # Grain repeats a data set by counting on
        batch = self._opened().at(k, part=slice(row, row + 1))
        return {name: column[0] for name, column in batch.items()}

    def _opened(self) -> Batches:
        with self._lock:
            if self._batches is None:
                self._batches = train_batches(self._data, start_step=0, in_order=False, **self._given)
            return self._batches

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_lock": None, "_batches": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._lock = threading.Lock()
