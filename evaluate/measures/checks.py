"""Checks of arrays that every measure takes: a bad entry is named with its row or id before anything is counted."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...base.errors import UserError


def check_index(index: np.ndarray, *, name: str, length: int, limit: int) -> np.ndarray:
    """Return `index` as int64 [length] with values in [0, limit), or raise a UserError that names the bad entry.

    >>> check_index([1, 0], name="video_of_text", length=2, limit=2).tolist()
    [1, 0]
    """
    index = np.asarray(index)
    if index.shape != (length,) or not np.issubdtype(index.dtype, np.integer):
        raise UserError(f"{name!r} is {index.dtype} of shape {index.shape}; wanted integers of shape ({length},)")
    bad = np.flatnonzero((index < 0) | (index >= limit))
    if len(bad):
        raise UserError(f"{name!r}[{bad[0]}] is {index[bad[0]]}; wanted an index from 0 to {limit - 1}")
    return index.astype(np.int64)


def check_scores(
    scores: Any, *, name: str = "scores", rows: Sequence[str] | None = None, columns: Sequence[str] | None = None
) -> np.ndarray:
    """Return `scores` as float64 [n,m], or raise a UserError that names the first score that is not finite.

    Args:
      scores: numbers [n,m], neither of them 0.
      name: of the array, for messages.
      rows: the name or id of each row, for messages; None: its index.
      columns: the same of each column.

    >>> check_scores([[1, 2]]).tolist()
    [[1.0, 2.0]]
    >>> check_scores([[0.5, float("nan")]], rows=["query7"], columns=["v1", "v2"])
    Traceback (most recent call last):
    ...
    twinreel.base.errors.UserError: 'scores' of row 'query7' and column 'v2' is nan; wanted a finite score: look for NaN or inf in the embeddings of these two
    """  # noqa: E501
    array = check_numbers(scores, name=name, dimensions=2)
    finite = np.isfinite(array)
    if not finite.all():
        row, column = np.argwhere(~finite)[0].tolist()
        place = f"row {_named(rows, row)} and column {_named(columns, column)}"
        raise UserError(
            f"{name!r} of {place} is {array[row, column]}; wanted a finite score: look for NaN or inf in the "
            "embeddings of these two"
        )
    return array


def check_numbers(array: Any, *, name: str, dimensions: int) -> np.ndarray:
    """Return an array of numbers as float64, or raise a UserError where it is empty or has other dimensions.

    >>> check_numbers([1, 2], name="scores", dimensions=1).tolist()
    [1.0, 2.0]
    """
    array = np.asarray(array)
    if array.ndim != dimensions or 0 in array.shape or array.dtype.kind not in "fiub":
        wanted = ("one number per item", "[rows, columns]", "three axes")[dimensions - 1]
        raise UserError(f"{name!r} is {array.dtype} of shape {array.shape}; wanted numbers, {wanted}, at least one")
    return array.astype(np.float64, copy=False)


def check_vector(
    values: Any, *, name: str, length: int | None = None, of: str = "", ids: Sequence[str] | None = None
) -> np.ndarray:
    """Return finite numbers float64 [n], or raise a UserError that names the first bad one.

    Args:
      values: numbers [n], at least one.
      name: of the array, for messages.
      length: the n wanted, or None.
      of: the array that it must match in length, for messages.
      ids: the id of each entry, for messages; None: its index.

    >>> check_vector([1, 2], name="hits").tolist()
    [1.0, 2.0]
    """
    array = check_numbers(values, name=name, dimensions=1)
    if length is not None and len(array) != length:
        raise UserError(f"{name!r} has {len(array)} entries and {of!r} has {length}; wanted one for each")
    bad = np.flatnonzero(~np.isfinite(array))
    if len(bad):
        raise UserError(
            f"{name!r} of {_named(ids, int(bad[0]))} is {array[bad[0]]}; wanted a finite number: correct that entry or "
            "leave it out"
        )
    return array


def check_ids(ids: Sequence[str], *, name: str) -> list[str]:
    """Return ids as a list, or raise a UserError that names one which stands twice.

    >>> check_ids(["v1", "v2", "v1"], name="video_ids")
    Traceback (most recent call last):
    ...
    twinreel.base.errors.UserError: 'video_ids' has 'v1' twice, in rows 0 and 2; each item is measured once: leave one out
    """  # noqa: E501
    first: dict[str, int] = {}
    for row, one in enumerate(ids):
        if one in first:
            raise UserError(
                f"{name!r} has {one!r} twice, in rows {first[one]} and {row}; each item is measured once: leave one out"
            )
        first[one] = row
    return list(ids)


def check_same_length(*, minimum: int = 1, **lists: Any) -> int:
    """Return the common length of the lists, or raise a UserError that names two that differ, or one that is short.

    >>> check_same_length(answers=["a"], truth=["b"])
    1
    """
    (first, n), *others = ((name, len(values)) for name, values in lists.items())
    for name, length in others:
        if length != n:
            raise UserError(f"{first!r} has {n} entries and {name!r} has {length}; wanted one for each")
    if n < minimum:
        raise UserError(f"{first!r} has {n} entries; wanted at least {minimum}")
    return n


def _named(names: Sequence[str] | None, place: int) -> str:
    return str(place) if names is None else repr(str(names[place]))
