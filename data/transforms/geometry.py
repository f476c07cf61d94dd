"""Operations that move pixels: sizes, crops, mirrored and turned pictures. Each is declared by its name in `OPS`."""

import dataclasses
import math

import numpy as np

from ..transforms import pixels
from .arguments import at_least, below, between, probability
from .frames import Frames


@dataclasses.dataclass(frozen=True)
class Resize:
    """Resize to h x w pixels (w = h if left out), whatever the aspect; bilinear, without aliasing."""

    h: int
    w: int = 0
    draws = 0

    def __post_init__(self):
        at_least(1, h=self.h)
        at_least(0, w=self.w)

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Return h x w."""
        return self.h, self.w or self.h

    def __call__(self, frames: Frames, uniforms: np.ndarray) -> Frames:
        """Apply to a clip."""
        return frames.resize(self.h, self.w or self.h)


@dataclasses.dataclass(frozen=True)
class ResizeShort:
    """Resize so that the shorter side has n pixels and the aspect stays; bilinear, without aliasing."""

    n: int
    draws = 0

    def __post_init__(self):
        at_least(1, n=self.n)

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Return the size with short side n, the other side rounded to the nearest."""
        short = min(height, width)
        h, w = ((2 * side * self.n + short) // (2 * short) for side in (height, width))
        return max(self.n, h), max(self.n, w)

    def __call__(self, frames: Frames, uniforms: np.ndarray) -> Frames:
        """Apply to a clip."""
        return frames.resize(*self.size(frames.height, frames.width))


@dataclasses.dataclass(frozen=True)
class CenterCrop:
    """Cut n x n pixels from the middle."""

    n: int
    draws = 0

    def __post_init__(self):
        at_least(1, n=self.n)

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Return n x n."""
        return _crop_size(self.n, height, width)

    def __call__(self, frames: Frames, uniforms: np.ndarray) -> Frames:
        """Apply to a clip."""
        return frames.crop((frames.height - self.n) // 2, (frames.width - self.n) // 2, self.n, self.n)


@dataclasses.dataclass(frozen=True)
class CenterCropTorchvision(CenterCrop):
    """Cut n x n pixels from the middle as torchvision, open_clip and timm do.

    Where an odd number of pixels is left over, the crop begins at the even one of the two middle places, not always at
    the first of them.
    """

    def __call__(self, frames: Frames, uniforms: np.ndarray) -> Frames:
        """Apply to a clip."""
        y, x = (round((side - self.n) / 2) for side in (frames.height, frames.width))  # Python rounds halves to even
        return frames.crop(y, x, self.n, self.n)


@dataclasses.dataclass(frozen=True)
class RandomCrop:
    """Cut n x n pixels from a random place."""

    n: int
    draws = 2

    def __post_init__(self):
        at_least(1, n=self.n)

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Return n x n."""
        return _crop_size(self.n, height, width)

    def __call__(self, frames: Frames, uniforms: np.ndarray) -> Frames:
        """Apply to a clip."""
        y = below(frames.height - self.n + 1, uniforms[0])
        x = below(frames.width - self.n + 1, uniforms[1])
        return frames.crop(y, x, self.n, self.n)


@dataclasses.dataclass(frozen=True)
class RandomResizedCrop:
    """Cut a random part and resize it to n x n pixels (Inception, arXiv:1409.4842, section 6).

    The part has a share of the area drawn from [min_scale, max_scale] and an aspect (width / height) drawn from
    [min_ratio, max_ratio], uniform in its logarithm. A part that would stick out keeps its aspect and is shrunk to fit.
    """

    n: int
    min_scale: float = 0.5
    max_scale: float = 1.0
    min_ratio: float = 0.75
    max_ratio: float = 4 / 3
    draws = 4

    def __post_init__(self):
        at_least(1, n=self.n)
        if not 0 < self.min_scale <= self.max_scale <= 1:
            raise ValueError(f"0 < min_scale <= max_scale <= 1 is wanted, got {self.min_scale} and {self.max_scale}")
        if not 0 < self.min_ratio <= self.max_ratio:
            raise ValueError(f"0 < min_ratio <= max_ratio is wanted, got {self.min_ratio} and {self.max_ratio}")

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Return n x n."""
        return self.n, self.n

    def __call__(self, frames: Frames, uniforms: np.ndarray) -> Frames:
        """Apply to a clip."""
        height, width = frames.height, frames.width
        area = height * width * between(self.min_scale, self.max_scale, uniforms[0])
        ratio = math.exp(between(math.log(self.min_ratio), math.log(self.max_ratio), uniforms[1]))
        h, w = math.sqrt(area / ratio), math.sqrt(area * ratio)
        fit = min(1.0, height / h, width / w)
        h, w = min(max(round(h * fit), 1), height), min(max(round(w * fit), 1), width)
        y, x = below(height - h + 1, uniforms[2]), below(width - w + 1, uniforms[3])
        return frames.crop(y, x, h, w).resize(self.n, self.n)


@dataclasses.dataclass(frozen=True)
class ThreeCrop:
    """Cut three views of n x n pixels, at the two ends and in the middle of the longer side; for evaluation.

    SlowFast (arXiv:1812.03982, section 4) tests so; the shorter side is centred, `resize_short(n)` makes it exactly n.
    """

    n: int
    draws = 0
    views = 3

    def __post_init__(self):
        at_least(1, n=self.n)

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Return n x n."""
        return _crop_size(self.n, height, width)

    def split(self, frames: Frames) -> list[Frames]:
        """Return the views of a clip: left, middle, right, or top, middle, bottom."""
        bottom, right = frames.height - self.n, frames.width - self.n
        y, x = bottom // 2, right // 2
        wide = frames.width >= frames.height
        places = [(y, 0), (y, x), (y, right)] if wide else [(0, x), (y, x), (bottom, x)]
        decoded = Frames.of_video(frames.video())
        return [decoded.crop(*place, self.n, self.n) for place in places]


@dataclasses.dataclass(frozen=True)
class TenCrop:
    """Cut ten views of n x n pixels: the four corners, the middle, and these five mirrored; for evaluation."""

    n: int
    draws = 0
    views = 10

    def __post_init__(self):
        at_least(1, n=self.n)

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Return n x n."""
        return _crop_size(self.n, height, width)

    def split(self, frames: Frames) -> list[Frames]:
        """Return the views of a clip: top left, top right, bottom left, bottom right, middle, the same mirrored."""
        bottom, right = frames.height - self.n, frames.width - self.n
        places = [(0, 0), (0, right), (bottom, 0), (bottom, right), (bottom // 2, right // 2)]
        decoded = Frames.of_video(frames.video())
        crops = [decoded.crop(*place, self.n, self.n) for place in places]
        return crops + [crop.flip_lr() for crop in crops]


@dataclasses.dataclass(frozen=True)
class FlipLr:
    """Mirror left and right with probability p."""

    p: float = 0.5
    draws = 1

    def __post_init__(self):
        probability(p=self.p)

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Return the same size."""
        return height, width

    def __call__(self, frames: Frames, uniforms: np.ndarray) -> Frames:
        """Apply to a clip."""
        return frames.flip_lr() if uniforms[0] < self.p else frames


@dataclasses.dataclass(frozen=True)
class Rotate:
    """Turn about the middle by an angle drawn from [-degrees, degrees]; the size stays, corners become black."""

    degrees: float
    draws = 1

    def __post_init__(self):
        if not 0 < self.degrees <= 180:
            raise ValueError(f"0 < degrees <= 180 is wanted, got {self.degrees}")

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Return the same size."""
        return height, width

    def __call__(self, frames: Frames, uniforms: np.ndarray) -> Frames:
        """Apply to a clip."""
        angle = between(-self.degrees, self.degrees, uniforms[0])
        return Frames.of_video(pixels.rotate(frames.video(), degrees=angle))


def _crop_size(n: int, height: int, width: int) -> tuple[int, int]:
    if min(height, width) < n:
        raise ValueError(f"a crop of {n} x {n} pixels does not fit in frames of {height} x {width}")
    return n, n
