"""Operations on which frames of a clip are used: they act on the drawn indices, before anything is read or decoded."""

import dataclasses
import math

import numpy as np

from .arguments import at_least, between, probability, seed_of
from .colours import SameSize


@dataclasses.dataclass(frozen=True)
class TemporalJitter(SameSize):
    """Move each frame by a number of stored frames drawn from [-k, k]; none leaves the clip or overtakes another."""

    k: int
    draws = 1

    def __post_init__(self):
        at_least(1, k=self.k)

    def move(self, frames: np.ndarray, *, num_available: int, uniforms: np.ndarray) -> np.ndarray:
        """Apply to the indices int64 [T]."""
        shifts = _generator(uniforms).integers(-self.k, self.k, len(frames), endpoint=True)
        moved = np.sort(np.clip(frames + shifts, 0, num_available - 1))
        ranks = np.argsort(np.argsort(frames, kind="stable"), kind="stable")
        return moved[ranks]


@dataclasses.dataclass(frozen=True)
class Reverse(SameSize):
    """Play the clip backwards with probability p."""

    p: float = 0.5
    draws = 1

    def __post_init__(self):
        probability(p=self.p)

    def move(self, frames: np.ndarray, *, num_available: int, uniforms: np.ndarray) -> np.ndarray:
        """Apply to the indices int64 [T]."""
        return frames[::-1] if uniforms[0] < self.p else frames


@dataclasses.dataclass(frozen=True)
class Speed(SameSize):
    """Change the speed by a factor drawn from [min, max], uniform in its logarithm.

    At 2 the frames spread over twice the time. The middle of the drawn stretch stays where the clip allows it; a
    stretch longer than the clip becomes the clip. Sound and transcript keep their window.
    """

    min: float
    max: float
    draws = 1

    def __post_init__(self):
        if not 0 < self.min <= self.max:
            raise ValueError(f"0 < min <= max is wanted, got {self.min} and {self.max}")

    def move(self, frames: np.ndarray, *, num_available: int, uniforms: np.ndarray) -> np.ndarray:
        """Apply to the indices int64 [T]."""
        factor = math.exp(between(math.log(self.min), math.log(self.max), uniforms[0]))
        first, last = int(frames.min()), int(frames.max())
        if first == last:
            return frames
        factor = min(factor, (num_available - 1) / (last - first))
        half = factor * (last - first) / 2
        middle = min(max((first + last) / 2, half), num_available - 1 - half)
        moved = np.rint(middle + factor * (frames - (first + last) / 2)).astype(np.int64)
        return np.clip(moved, 0, num_available - 1)


@dataclasses.dataclass(frozen=True)
class FrameDropout(SameSize):
    """Drop each frame but the first with probability p; the one before it stands in its place."""

    p: float
    draws = 1

    def __post_init__(self):
        probability(p=self.p)

    def move(self, frames: np.ndarray, *, num_available: int, uniforms: np.ndarray) -> np.ndarray:
        """Apply to the indices int64 [T]."""
        kept = _generator(uniforms).random(len(frames)) >= self.p
        kept[:1] = True
        return frames[np.maximum.accumulate(np.where(kept, np.arange(len(frames)), 0))]


def _generator(uniforms: np.ndarray) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(seed_of(uniforms[0])))
