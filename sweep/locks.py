"""Locks of files (flock): they end with the processes that hold them, however these end.

A child that inherits the descriptor holds the lock, too. On one machine that is all that is needed; of several machines
the file system must share locks (NFS 4 does).
"""

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from ..base.errors import UserError

_NO_LOCKS = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL}


@contextlib.contextmanager
def alone(path: Path) -> Iterator[None]:
    """Hold the lock of a file for the time being, and wait for it as long as it takes.

    Raises:
      UserError: the file system has no locks.
    """
    file = _open(path)
    try:
        _flock(file, fcntl.LOCK_EX, path=path)
        yield
    finally:
        os.close(file)


def try_lock(path: Path) -> int | None:
    """Lock a file, made if absent; returns its descriptor, or None if another process has the lock.

    Raises:
      UserError: the file system has no locks.
    """
    file = _open(path)
    try:
        _flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB, path=path)
    except BlockingIOError:
        os.close(file)
        return None
    except BaseException:
        os.close(file)
        raise
    return file


def _open(path: Path) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)


def _flock(file: int, how: int, *, path: Path) -> None:
    try:
        fcntl.flock(file, how)
    except BlockingIOError:
        raise
    except OSError as error:
        if error.errno in _NO_LOCKS:
            raise UserError(
                f"the file system of {path.parent} has no file locks, which a sweep needs; choose another --workdir"
            ) from error
        raise
