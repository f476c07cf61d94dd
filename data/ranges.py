"""Parts of a file behind a URL: many at once, again where one fails, each of the length that was asked for."""

import random
import time
from collections.abc import Sequence

from ..base.errors import UserError
from . import remote

_TRIES = 6
_WAIT_S = 0.25  # before the second try; twice as long before each further one, drawn from half of it on
_AT_ONCE = 64  # requests of one call that run at a time


def read_ranges(url: str, *, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
    """Read parts of a remote file, each in a request of its own. Any thread may call.

    What fails (time limits, 5xx, "slow down", a body that ends early) is asked for again after a pause that doubles.

    Args:
      url: of the file.
      ranges: first byte and number of bytes of each part.

    Raises:
      UserError: a part cannot be had in `_TRIES` tries, or never can: no such file, no right to read it.
    """
    found: dict[int, bytes] = {i: b"" for i, (_, size) in enumerate(ranges) if not size}
    for attempt in range(_TRIES):
        if attempt:
            time.sleep(_WAIT_S * 2 ** (attempt - 1) * random.uniform(0.5, 1.0))
        wanted = [i for i in range(len(ranges)) if i not in found]
        error = None
        for i, part in zip(wanted, _once(url, [ranges[i] for i in wanted]), strict=True):
            if isinstance(part, bytes) and len(part) == ranges[i][1]:
                found[i] = part
            elif isinstance(part, FileNotFoundError | PermissionError | ImportError):
                with remote.told(url):
                    raise part
            else:
                error = part if isinstance(part, Exception) else f"{len(part)} of {ranges[i][1]} bytes came"
        if len(found) == len(ranges):
            return [found[i] for i in range(len(ranges))]
    raise UserError(
        f"{url!r} cannot be read: {error} in each of {_TRIES} tries; check the store and the network, then run again"
    )


def _once(url: str, ranges: Sequence[tuple[int, int]]) -> list[bytes | Exception]:
    with remote.told(url):
        system, path = remote.system_of(url)
        starts, ends = [begin for begin, _ in ranges], [begin + size for begin, size in ranges]
        limit = {"batch_size": _AT_ONCE} if system.async_impl else {}
        return system.cat_ranges([path] * len(ranges), starts, ends, on_error="return", **limit)
