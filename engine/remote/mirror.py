"""Copies the small files of a stage to the store while a run works: config, metrics, TensorBoard, reports."""

import contextlib
import stat
import threading
from collections.abc import Callable
from pathlib import Path

from ...base.errors import UserError
from .store import Store

EVERY_S = 30.0
"""Seconds between two looks for files that have changed."""
_NOT_FOLDERS = {"checkpoints", "local", "stages", "transfer", "features", "logs"}  # or workdirs of their own
_OF_EACH = {"stalls", "profile"}  # folders that every process writes to, each under names of its own
_NOT_FILES = {"run.lock", "stage.json", "run.json"}


class Mirror:
    """Sends files that have changed, in a thread. A failure costs no training: it is counted, and reported once.

    Attributes:
      failures: how many attempts failed so far.
    """

    def __init__(
        self,
        folder: Path,
        *,
        store: Store,
        say: Callable[[str], None],
        first: bool = True,
        may: Callable[[], bool] = lambda: True,
        every_s: float = EVERY_S,
    ):
        """Begin.

        Args:
          folder: the stage.
          store: of the run.
          say: prints a line for the user.
          first: whether this is the first process; the others send their stacks and profiles alone.
          may: tells whether this process may write now; what it may not send waits.
          every_s: seconds between two looks.
        """
        self._may = may
        self.failures, self._first = 0, first
        self._folder, self._store, self._say, self._every_s = folder, store, say, every_s
        self._sent: dict[str, tuple[int, int]] = {}
        self._mutex, self._closed, self._broken = threading.Lock(), threading.Event(), False
        self._thread = threading.Thread(target=self._run, name="twinreel-mirror", daemon=True)
        self._thread.start()

    def push(self) -> bool:
        """Send what has changed; returns whether all arrived."""
        with self._mutex:
            if not self._may():
                return False
            try:
                changed = {name: now for name, now in self._files().items() if self._sent.get(name) != now}
                self._store.upload({name: self._folder / name for name in changed})
            except (UserError, OSError) as error:
                self.failures += 1
                if not self._broken:
                    self._say(
                        f"warning: metrics and other files were not copied to {self._store.url}: {error}; training "
                        f"continues, they are sent later ({self.failures} failures so far)"
                    )
                self._broken = True
                return False
            if self._broken:
                self._say(f"files are copied to {self._store.url} again, after {self.failures} failures")
            self._sent |= changed
            self._broken = False
            return True

    def close(self) -> None:
        """Send the rest and end the thread."""
        self._closed.set()
        self._thread.join()
        self.push()

    def _files(self) -> dict[str, tuple[int, int]]:
        """Return (time of change, size) of the files that belong to the far side, by name."""
        found = {}
        for top in sorted(self._folder.iterdir()):
            if top.name in _NOT_FILES | _NOT_FOLDERS or not (self._first or top.name in _OF_EACH):
                continue
            for path in top.rglob("*") if top.is_dir() else [top]:
                name = path.relative_to(self._folder)
                if any(part.startswith(".") or part.endswith(".partial") for part in name.parts):
                    continue
                with contextlib.suppress(FileNotFoundError):  # replaced at this moment
                    about = path.stat()
                    if stat.S_ISREG(about.st_mode):
                        found[name.as_posix()] = (about.st_mtime_ns, about.st_size)
        return found

    def _run(self) -> None:
        while not self._closed.wait(self._every_s):
            self.push()
