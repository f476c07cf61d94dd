"""Frames of any aspect ratio as a sequence of patches, as SigLIP 2's NaFlex form takes them. No tensorflow.

What it looks like: `models.layers.patch_sequences`.
"""

import dataclasses
import math

import numpy as np
from PIL import Image

from .arguments import at_least
from .frames import Frames
from .pillow import resized

_PRECISION = 1e-5  # of the scale, as transformers searches for it


@dataclasses.dataclass(frozen=True)
class NaFlex:
    """Resize frames so that they have at most n patches of `patch` x `patch` pixels, and cut them into these.

    The aspect ratio is kept as far as whole patches allow. The result is n + 1 patches below each other: the numbers of
    rows and columns, the patches row by row, and black ones up to n. As Pillow's BILINEAR, antialiased; it must be the
    last operation.
    """

    n: int
    patch: int = 16
    draws = 0

    def __post_init__(self):
        at_least(1, n=self.n)
        at_least(2, patch=self.patch)

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Return the size of the column of patches, whatever the frames' size."""
        return (self.n + 1) * self.patch, self.patch

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Return rows and columns of patches of frames of a size: the largest scale that fits, by bisection."""
        low, high = _PRECISION / 10, 100.0
        while high - low >= _PRECISION:
            scale = (low + high) / 2
            fits = math.prod(self._patches(side, scale) for side in (height, width)) <= self.n
            low, high = (scale, high) if fits else (low, scale)
        return self._patches(height, low), self._patches(width, low)

    def __call__(self, frames: Frames, uniforms: np.ndarray) -> Frames:
        """Apply to a clip."""
        rows, columns = self.grid(frames.height, frames.width)
        p, count = self.patch, rows * columns
        video = resized(frames, size=(rows * p, columns * p), method=Image.Resampling.BILINEAR).video()
        patches = video.reshape(len(video), rows, p, columns, p, 3).swapaxes(2, 3).reshape(len(video), count, p, p, 3)
        out = np.zeros((len(video), self.n + 1, p, p, 3), np.uint8)
        out[:, 1 : 1 + count] = patches
        out[:, 0, 0, 0, :2] = rows % 256, rows // 256
        out[:, 0, 0, 1, :2] = columns % 256, columns // 256
        return Frames.of_video(out.reshape(len(video), *self.size(0, 0), 3))

    def _patches(self, side: int, scale: float) -> int:
        return max(1, math.ceil(side * scale / self.patch))
