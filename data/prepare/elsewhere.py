"""Shards of a prepared folder that lie in an object store before the folder is sent there (far_build.py makes them)."""

import concurrent.futures
import json
from collections.abc import Iterable
from pathlib import Path

from ...base.errors import UserError
from ...data import remote
from ..layout import ELSEWHERE
from ..manifest import write_whole

AT_ONCE = 16
"""Requests that run at a time."""
Elsewhere = dict[str, tuple[str, int]]
"""Of shards that lie in an object store already: final path in the folder -> object, by its path below the URL that the
folder is sent to, and its size in bytes."""


def read_elsewhere(folder: Path) -> Elsewhere:
    """Return the shards of a prepared folder that lie in an object store already."""
    try:
        found = json.loads((folder / ELSEWHERE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return {name: (place, size) for name, (place, size) in found.items()}


def write_elsewhere(folder: Path, *, shards: Elsewhere) -> None:
    """Note the shards of a prepared folder that lie in an object store already; nothing is written if there are none.

    Raises:
      OSError: the disk cannot be written to.
    """
    if shards:
        write_whole(folder / ELSEWHERE, parts=[json.dumps(shards)])


def delete_all(url: str, *, names: Iterable[str]) -> None:
    """Delete files below a URL.

    Raises:
      UserError: one cannot be deleted.
    """
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        for _ in pool.map(lambda name: remote.delete(f"{url}/{name}"), names):
            pass


def copy_all(url: str, *, shards: Elsewhere) -> None:
    """Let the store copy shards to their final names.

    Raises:
      UserError: one cannot be copied.
    """

    def copy(item: tuple[str, tuple[str, int]]) -> None:
        name, (place, size) = item
        try:
            remote.copy(f"{url}/{place}", to=f"{url}/{name}", size=size)
        except remote.NoSuchFile as error:
            raise UserError(f"{error}: the build behind {url!r} was removed; run the same command again") from error

    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        for _ in pool.map(copy, shards.items()):
            pass
