"""A share of the records of a split, by source file: a function of the files and the seed."""

import numpy as np

from ...base.errors import UserError
from ..options import DataOptions
from .source import Source
from .table import Table

_MULTIPLIERS = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))  # of splitmix64 (Steele et al. 2014)
_GOLDEN = 0x9E3779B97F4A7C15


def records_of_share(rows: Table, *, share: float, seed: int) -> np.ndarray:
    """Choose the records that belong to a share of the source files.

    Files are put into an order that their names and the seed determine, and the first of them are taken, at least one:
    records of one file are taken together, and a smaller share is a part of a larger one. A record without a file
    (precomputed features) counts as a file of its own.

    Args:
      rows: of the split, n records.
      share: of the files, above 0 and at most 1.
      seed: of the run.

    Returns:
      bool [n], True = belongs to it.
    """
    file = rows.column("file").astype(np.uint64)
    alone = np.arange(len(file), dtype=np.uint64) + np.uint64(1)
    files, number = np.unique(np.where(file == 0, alone, file), return_inverse=True)
    order = np.lexsort((files, _mixed(files, seed=seed)))
    taken = np.zeros(len(files), bool)
    taken[order[: max(1, round(share * len(files)))]] = True
    return taken[number]


def only_of_share(data: DataOptions, *, sources: list[Source], seed: int, only: np.ndarray | None) -> np.ndarray | None:
    """Return the records to train on, int64 [m], rising where `only` is; None = all.

    Args:
      data: `config.data`, whose `share` decides.
      sources: opened.
      seed: of the run.
      only: the records that take part otherwise, int [m]; None = all.

    Raises:
      UserError: a share of a mixture.
    """
    if data.feed.share == 1.0:
        return only
    if len(sources) > 1:
        raise UserError(
            f"config.data.share={data.feed.share:g} takes a part of one prepared folder, and config.data.mixture names "
            f"{len(sources)}; give the sources weights instead, or train on one folder (config.data.dir)"
        )
    taken = records_of_share(sources[0].rows, share=data.feed.share, seed=seed)
    return np.flatnonzero(taken) if only is None else np.asarray(only, np.int64)[taken[np.asarray(only, np.int64)]]


def _mixed(keys: np.ndarray, *, seed: int) -> np.ndarray:
    """Return a permutation of 64-bit numbers, uint64 [n]: the finalizer of splitmix64."""
    mixed = keys ^ np.uint64((seed + 1) * _GOLDEN % 2**64)
    for shift, multiplier in zip((30, 27), _MULTIPLIERS, strict=True):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * multiplier
    return mixed ^ (mixed >> np.uint64(31))
