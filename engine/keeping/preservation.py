"""Which checkpoints are kept, and what is removed or set aside."""

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import jax

from ..remote.parcels import TEMPORARY

UNREADABLE = "unreadable"
"""`<this>-<step>` is what a checkpoint is renamed to that could not be read."""
DROPPED = "dropped"
"""The same, of a checkpoint after the step to which a run went back."""


class KeepLastAndBest:
    """Orbax's preservation policy: the newest `last` and the `best` with the highest (or lowest) score stay."""

    def __init__(self, *, last: int, best: int, mode: str):
        self.last, self._best, self._sign = last, best, 1.0 if mode == "max" else -1.0
        self.scores: dict[int, float] = {}

    def should_preserve(self, checkpoints, *, context) -> list[bool]:
        """Return which of the checkpoints (ascending by step) stay."""
        del context
        return self.stay([checkpoint.step for checkpoint in checkpoints])

    def stay(self, steps: list[int]) -> list[bool]:
        """Return which of the steps (ascending) stay; the scores of the others are forgotten."""
        scored = sorted((s for s in steps if s in self.scores), key=lambda s: (-self._sign * self.scores[s], s))
        stay = {*steps[-self.last :], *scored[: self._best]}
        self.scores = {s: v for s, v in self.scores.items() if s in stay}
        return [step in stay for step in steps]


def remove_half_written(folder: Path, *, warn: Callable[[str], None], here: bool | None = None) -> None:
    """Delete what a run left that was killed while it saved; orbax renames a checkpoint only when it is whole.

    Args:
      folder: of checkpoints.
      warn: receives the names.
      here: whether this process does it; None = the first one does, in a folder that all share.
    """
    here = jax.process_index() == 0 if here is None else here
    for path in sorted(folder.glob(f"*{TEMPORARY}*")) if folder.is_dir() else ():
        if here:
            warn(f"checkpoint {path} is half-written (the run was stopped while saving); removed")
            shutil.rmtree(path, ignore_errors=True)


def set_aside(paths: Iterable[Path], *, prefix: str, warn: Callable[[str], None], here: bool | None = None) -> None:
    """Rename checkpoints to `<prefix>-<step>`, so that their steps can be saved again.

    Args:
      paths: of them; those that do not exist are passed over.
      prefix: UNREADABLE or DROPPED.
      warn: receives the names.
      here: whether this process does it; None = the first one does, in a folder that all share.
    """
    here = jax.process_index() == 0 if here is None else here
    for path in paths:
        if here and path.exists():
            aside = path.with_name(f"{prefix}-{path.name}")
            if aside.exists():
                shutil.rmtree(aside)
            path.rename(aside)
            warn(f"{path} was renamed to {aside.name}")


def is_set_aside(path: Path) -> bool:
    """Tell whether `set_aside` has given a checkpoint its name."""
    prefix, _, step = path.name.rpartition("-")
    return prefix in (UNREADABLE, DROPPED) and step.isdigit()
