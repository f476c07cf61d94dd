"""What the processes of a run must agree on."""

from collections.abc import Iterable, Iterator
from typing import Any

import jax
import numpy as np

from ...base.errors import UserError

_END = object()


def everywhere(holds: bool) -> bool:
    """Return whether `holds` is True on all processes; all must call it."""
    if jax.process_count() == 1:
        return holds
    from jax.experimental import multihost_utils

    return bool(np.all(multihost_utils.process_allgather(np.asarray(holds))))


def of_all(rows: np.ndarray) -> np.ndarray:
    """Return the rows of all processes, one after another; all must call it, with arrays of one shape."""
    if jax.process_count() == 1:
        return rows
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(rows, tiled=True))


def of_the_first(values: dict[str, float]) -> dict[str, float]:
    """Return the values that process 0 has; all must call it, with the same names."""
    if jax.process_count() == 1 or not values:
        return values
    from jax.experimental import multihost_utils

    agreed = multihost_utils.broadcast_one_to_all(np.asarray(list(values.values()), np.float32))
    return dict(zip(values, map(float, agreed), strict=True))


def in_step(items: Iterable[Any]) -> Iterator[Any]:
    """Pass on items of which every process makes as many; what one cannot make is an error on all, not a hang.

    All processes must go through their items in the same way.

    Raises:
      UserError: another process could not go on. What `items` raises here is raised here.
    """
    iterator = iter(items)
    while True:
        item, fault = _END, None
        try:
            item = next(iterator, _END)
        except Exception as error:  # whatever it is, the others must not wait for this process
            fault = error
        if not everywhere(fault is None):
            raise fault or UserError("another process of the run could not read its share; its own message says why")
        if item is _END:
            return
        yield item
