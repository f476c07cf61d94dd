"""Operations on the colours of a clip, and blur and noise. Each is declared by its name in `OPS`."""

import dataclasses

import numpy as np

from ..transforms import pixels
from .arguments import between, probability, seed_of
from .frames import Frames


class SameSize:
    """What leaves the size of frames alone."""

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Return the same size."""
        return height, width


@dataclasses.dataclass(frozen=True)
class ColorJitter(SameSize):
    """Scale brightness, contrast and saturation by factors drawn from [1 - x, 1 + x] (SimCLR, arXiv:2002.05709).

    `hue` > 0 also turns the hue by a part of the circle drawn from [-hue, hue]. All are one affine map of the colours
    (contrast about the clip's mean grey), rounded and clipped once.
    """

    x: float
    hue: float = 0.0
    draws = 4

    def __post_init__(self):
        if not 0 < self.x <= 1:
            raise ValueError(f"0 < x <= 1 is wanted, got {self.x}")
        if not 0 <= self.hue <= 0.5:
            raise ValueError(f"0 <= hue <= 0.5 is wanted, got {self.hue}")

    def __call__(self, frames: Frames, uniforms: np.ndarray) -> Frames:
        """Apply to a clip."""
        brightness, contrast, saturation = (between(1 - self.x, 1 + self.x, u) for u in uniforms[:3])
        hue = between(-self.hue, self.hue, uniforms[3])
        factors = {"brightness": brightness, "contrast": contrast, "saturation": saturation, "hue": hue}
        return Frames.of_video(pixels.jitter(frames.video(), **factors))


@dataclasses.dataclass(frozen=True)
class Grayscale(SameSize):
    """Make the clip grey (luma of Rec. 601 in all three channels) with probability p."""

    p: float
    draws = 1

    def __post_init__(self):
        probability(p=self.p)

    def __call__(self, frames: Frames, uniforms: np.ndarray) -> Frames:
        """Apply to a clip."""
        return Frames.of_video(pixels.grey(frames.video())) if uniforms[0] < self.p else frames


@dataclasses.dataclass(frozen=True)
class Blur(SameSize):
    """Blur with probability p by a Gaussian whose sigma is drawn from [min_sigma, max_sigma] pixels (SimCLR)."""

    min_sigma: float = 0.1
    max_sigma: float = 2.0
    p: float = 0.5
    draws = 2

    def __post_init__(self):
        probability(p=self.p)
        if not 0 < self.min_sigma <= self.max_sigma:
            raise ValueError(f"0 < min_sigma <= max_sigma is wanted, got {self.min_sigma} and {self.max_sigma}")

    def __call__(self, frames: Frames, uniforms: np.ndarray) -> Frames:
        """Apply to a clip."""
        if uniforms[0] >= self.p:
            return frames
        sigma = between(self.min_sigma, self.max_sigma, uniforms[1])
        return Frames.of_video(pixels.blur(frames.video(), sigma=sigma))


@dataclasses.dataclass(frozen=True)
class Noise(SameSize):
    """Add one picture of Gaussian noise, of standard deviation `std` in grey levels, to all frames of a clip."""

    std: float
    draws = 1
    per_frame = False

    def __post_init__(self):
        if not 0 < self.std <= 255:
            raise ValueError(f"0 < std <= 255 is wanted, got {self.std}")

    def __call__(self, frames: Frames, uniforms: np.ndarray) -> Frames:
        """Apply to a clip."""
        seed = seed_of(uniforms[0])
        return Frames.of_video(pixels.noise(frames.video(), std=self.std, seed=seed, per_frame=self.per_frame))


@dataclasses.dataclass(frozen=True)
class FrameNoise(Noise):
    """Add other Gaussian noise, of standard deviation `std` in grey levels, to each frame of a clip."""

    per_frame = True
