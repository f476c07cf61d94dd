"""What a probe learns from and is measured on: frozen features of clips with their classes."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from ...base.errors import UserError

Say = Callable[[str], None]
"""Tells the user how far a probe is."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProbeSet:
    """Clips with frozen features.

    Attributes:
      features: float32 [m,D], or tokens [m,L,D].
      targets: bool [m,c], the classes of each clip.
      mask: bool [m,L], True where a token is real; None = all are.
    """

    features: np.ndarray
    targets: np.ndarray
    mask: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def labels(self) -> np.ndarray:
        """The class of each clip, int64 [m], where each has one."""
        return self.targets.argmax(axis=1)

    @property
    def seen(self) -> np.ndarray:
        """Which classes occur, bool [c]."""
        return np.asarray(self.targets.any(axis=0))

    def take(self, rows: np.ndarray) -> "ProbeSet":
        """Return some of the clips, by index."""
        mask = None if self.mask is None else self.mask[rows]
        return ProbeSet(features=self.features[rows], targets=self.targets[rows], mask=mask)

    def with_others(self, other: "ProbeSet") -> "ProbeSet":
        """Return the clips of both sets."""
        mask = None
        if self.mask is not None and other.mask is not None:
            mask = np.concatenate([self.mask, other.mask])
        joined = (np.concatenate([getattr(self, key), getattr(other, key)]) for key in ("features", "targets"))
        return ProbeSet(**dict(zip(("features", "targets"), joined, strict=True)), mask=mask)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scored:
    """The scores of a probe.

    Attributes:
      scores: float64 [n,c], in [0, 1]: a distribution over the classes where each clip has one class, else a
        probability for each; 0 for a class that never occurs in training.
      facts: what was chosen and how it went, JSON values.
    """

    scores: np.ndarray
    facts: dict[str, Any]


def draw_shots(targets: np.ndarray, *, shots: int, key: tuple[int, int]) -> np.ndarray:
    """Draw k clips of each class; of a class with fewer, all.

    Args:
      targets: bool [m,c].
      shots: k.
      key: seed and number of the draw, 0 or more.

    Returns:
      int64, the drawn clips in rising order; a clip of several classes may be drawn for each.

    >>> draw_shots(np.eye(3, dtype=bool)[[0, 0, 1, 2, 2, 2]], shots=1, key=(0, 0)).shape
    (3,)
    """
    if shots < 1:
        raise UserError(f"--shots is {shots}; wanted 1 or more clips of each class, or leave it out for all clips")
    generator = np.random.Generator(np.random.Philox(key=np.array(key, np.uint64)))
    drawn = np.zeros(len(targets), bool)
    for own in np.asarray(targets, bool).T:
        drawn[generator.permutation(np.flatnonzero(own))[:shots]] = True
    return np.flatnonzero(drawn)


def check_trainable(train: ProbeSet, *, classes: list[str], several: bool) -> None:
    """Raise UserError where nothing can be learnt: fewer than two classes, or labels that are the same for all."""
    seen = train.seen
    if not several and seen.sum() < 2:
        names = ", ".join(name for name, one in zip(classes, seen, strict=True) if one) or "none"
        raise UserError(
            f"a probe needs training clips of two classes or more, and the {len(train)} there have {names}; give the "
            "clips of the training split 'labels' in the manifest and prepare again, or choose another --train_split"
        )
    if several and not (seen & ~train.targets.all(axis=0)).any():
        raise UserError(
            f"all {len(train)} training clips have the same labels, so there is nothing to tell apart; choose another "
            "--train_split"
        )
