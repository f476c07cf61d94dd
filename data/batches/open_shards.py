"""Open ArrayRecord files, shared by all sources and threads of a process; the least recently used are closed first."""

import collections
import resource
import threading
from collections.abc import Hashable
from pathlib import Path

from array_record.python.array_record_module import ArrayRecordReader

_READER = "readahead_buffer_size:0,max_parallelism:0"  # for random access; without it each reader holds 16 MB
_SHARE = 0.5  # of the files that the process may open: the rest is for sockets, checkpoints, libraries
_MOST = 16_384  # where the process may open any number
_TOO_MANY = "Too many open files"


class OpenShards:
    """Keeps up to `limit` readers open, each with one file descriptor.

    Attributes:
      limit: readers that stay open.
    """

    def __init__(self, limit: int | None = None):
        """Make an empty collection; the default limit is half of the files that the process may open."""
        self.limit = allowed_readers() if limit is None else limit
        self._readers: collections.OrderedDict[tuple[Hashable, int], ArrayRecordReader] = collections.OrderedDict()
        self._lock = threading.Lock()

    def get(self, path: Path, *, owner: Hashable, number: int) -> ArrayRecordReader:
        """Return the reader of a file, opened if need be. Whoever still reads from one that is closed here holds it.

        Args:
          path: the file.
          owner: to whom it belongs: files that were replaced belong to another one.
          number: of the file among those of the owner.

        Raises:
          RuntimeError: the file cannot be opened.
        """
        key = (owner, number)
        with self._lock:
            reader = self._readers.get(key)
            if reader is not None:
                self._readers.move_to_end(key)
                return reader
        made = self._opened(path)  # not under the lock: others read on meanwhile
        with self._lock:
            reader = self._readers.setdefault(key, made)
            self._readers.move_to_end(key)
            self._close_down_to(self.limit)
        return reader

    def forget(self, owner: Hashable) -> None:
        """Close the files of an owner."""
        with self._lock:
            for key in [key for key in self._readers if key[0] == owner]:
                del self._readers[key]

    def close(self, owner: Hashable, *, number: int) -> None:
        """Close one file of an owner, if it is open."""
        with self._lock:
            self._readers.pop((owner, number), None)

    def __len__(self) -> int:
        return len(self._readers)

    def _opened(self, path: Path) -> ArrayRecordReader:
        try:
            return _open(path)
        except RuntimeError as error:
            if _TOO_MANY not in str(error):
                raise
            with self._lock:  # the rest of the process holds more files than its half
                self.limit = max(1, len(self._readers) // 2)
                self._close_down_to(self.limit - 1)
            return _open(path)

    def _close_down_to(self, count: int) -> None:
        while len(self._readers) > count:
            self._readers.popitem(last=False)


def _open(path: Path) -> ArrayRecordReader:
    reader = ArrayRecordReader(str(path), options=_READER)
    if not reader.ok():
        reader.read([0])  # raises what is wrong; opening does not
    return reader


def allowed_readers() -> int:
    """Return how many readers may stay open: half of the process's limit of open files (`ulimit -n`), at least one."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MOST if soft == resource.RLIM_INFINITY else min(max(1, int(_SHARE * soft)), _MOST)
