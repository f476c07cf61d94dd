"""Parts of files behind URLs: many at once, again where one fails, each of the length that was asked for."""

import random
import time
from collections.abc import Sequence

from ..base.errors import UserError
from . import remote

Part = tuple[str, int, int]  # URL of a file, first byte and number of bytes
_TRIES = 6
_WAIT_S = 0.25  # before the second try; twice as long before each further one, drawn from half of it on


def read_ranges(url: str, *, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
    """Read parts of one file, each given by first byte and number of bytes; see `read_parts`."""
    return read_parts([(url, *part) for part in ranges])


def read_parts(parts: Sequence[Part]) -> list[bytes]:
    """Read parts of remote files of one store, each in a request of its own. Any thread may call.

    What fails (time limits, 5xx, "slow down", a body that ends early) is asked for again after a pause that doubles.

    Args:
      parts: what to read.

    Raises:
      UserError: a part cannot be had in `_TRIES` tries, or never can: no such file, no right to read it.
    """
    found: dict[int, bytes] = {i: b"" for i, (_, _, size) in enumerate(parts) if not size}
    url, error = "", ""
    for attempt in range(_TRIES):
        if attempt:
            time.sleep(_WAIT_S * 2 ** (attempt - 1) * random.uniform(0.5, 1.0))
        wanted = [i for i in range(len(parts)) if i not in found]
        for i, came in zip(wanted, _once([parts[i] for i in wanted]), strict=True):
            if isinstance(came, bytes) and len(came) == parts[i][2]:
                found[i] = came
                continue
            url, error = parts[i][0], repr(came) if isinstance(came, Exception) else f"{len(came)} bytes came"
            if isinstance(came, FileNotFoundError | PermissionError | ImportError):
                with remote.user_errors(url):
                    raise came
        if len(found) == len(parts):
            return [found[i] for i in range(len(parts))]
    raise UserError(
        f"{url!r} cannot be read: {error} in the last of {_TRIES} tries; check store and network, then run again"
    )


def _once(parts: Sequence[Part]) -> list[bytes | Exception]:
    if not parts:
        return []
    with remote.user_errors(parts[0][0]):
        system, _ = remote.system_of(parts[0][0])
        paths = [remote.system_of(url)[1] for url, _, _ in parts]
        starts, ends = [begin for _, begin, _ in parts], [begin + size for _, begin, size in parts]
        limit = {"batch_size": remote.AT_ONCE} if system.async_impl else {}
        came = system.cat_ranges(paths, starts, ends, on_error="return", **limit)
    remote.TRAFFIC.update(bytes=sum(len(part) for part in came if isinstance(part, bytes)), requests=len(came))
    return came
