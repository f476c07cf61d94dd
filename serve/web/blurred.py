"""What a server shows of an index whose faces are blurred: stretches of films and pictures, made on request."""

import collections
import contextlib
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from ...data.machine import cores
from ...data.media.apart import show_apart
from ...data.media.place import DecodeError
from ...data.media.workers import Limits
from .batching import Busy

LONGEST_S = 60.0
"""Seconds of a stretch."""

_LIMITS = Limits(clip_memory_gb=4.0)
_BYTES = 2**30  # of the stretches that are remembered; the oldest goes first
_WAITING = 16  # requests that may wait for their turn


class BlurredFilms:
    """Files in a temporary folder; all methods may be called from several threads."""

    def __init__(self, detector: str):
        """Make nothing yet.

        Args:
          detector: ONNX file, see `data.media.faces`.
        """
        self._detector, self._lock = detector, threading.Lock()
        self._folder = tempfile.TemporaryDirectory(prefix="twinreel-blurred-")
        self._made: collections.OrderedDict[str, tuple[Path, int]] = collections.OrderedDict()
        self._making: dict[str, threading.Lock] = {}
        at_once = max(1, cores() // 2)
        self._turns, self._places = threading.Semaphore(at_once), threading.Semaphore(at_once + _WAITING)

    def close(self) -> None:
        """Delete all files."""
        self._folder.cleanup()

    def made(self, path: Path, *, file: int, mtime_ns: int, span: tuple[float, float] | None) -> Path:
        """Return a stretch of a film as MP4, or a picture as JPEG, with faces blurred.

        Args:
          path: the film or the picture.
          file: its number in the index.
          mtime_ns: when it was last written.
          span: start and end in seconds; None of a picture.

        Raises:
          Busy: too many wait for theirs.
          DecodeError: it cannot be decoded.
        """
        times = "" if span is None else f"-{span[0]:.2f}-{span[1]:.2f}"
        name = f"{file}-{mtime_ns}{times}{'.jpg' if span is None else '.mp4'}"
        if (found := self._remembered(name)) is not None:
            return found
        with self._lock:
            lock = self._making.setdefault(name, threading.Lock())
        try:
            with lock, self._turn():
                if (found := self._remembered(name)) is not None:
                    return found
                out, (start, end) = Path(self._folder.name) / name, span or (None, None)
                try:
                    show_apart(path, out=out, start_s=start, end_s=end, blur_faces=self._detector, limits=_LIMITS)
                except DecodeError:  # a process that is killed leaves a part of the file
                    for part in out.parent.glob(f"*{name}*"):
                        part.unlink(missing_ok=True)
                    raise
                self._remember(name, out)
                return out
        finally:
            with self._lock:
                self._making.pop(name, None)

    def _remembered(self, name: str) -> Path | None:
        with self._lock:
            if name not in self._made:
                return None
            self._made.move_to_end(name)
            return self._made[name][0]

    def _remember(self, name: str, path: Path) -> None:
        with self._lock:
            self._made[name] = (path, path.stat().st_size)
            while sum(size for _, size in self._made.values()) > _BYTES and len(self._made) > 1:
                self._made.popitem(last=False)[1][0].unlink(missing_ok=True)

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        if not self._places.acquire(blocking=False):
            raise Busy("too many films are being blurred; ask again in a moment", retry_s=5)
        try:
            with self._turns:
                yield
        finally:
            self._places.release()
