"""RandAugment (arXiv:1909.13719): a few operations of equal strength, drawn at random, the same for a clip's frames."""

import dataclasses

import numpy as np

from ..transforms import pixels
from .arguments import at_least, below
from .colours import SameSize
from .frames import Frames

_STEPS = 10  # the strongest magnitude
_GREYS = np.arange(256)


@dataclasses.dataclass(frozen=True)
class RandAugment(SameSize):
    """Apply `num_ops` of the 14 operations of the paper, drawn with replacement, at `magnitude` 0 ... 10.

    The ranges are those of AutoAugment (arXiv:1805.09501, table 6), as the paper has it. Whatever looks at the picture
    (autocontrast, equalize, contrast) looks at all frames of the clip at once, so that nothing flickers.
    """

    num_ops: int = 2
    magnitude: float = 9.0

    def __post_init__(self):
        at_least(1, num_ops=self.num_ops)
        if not 0 <= self.magnitude <= _STEPS:
            raise ValueError(f"0 <= magnitude <= {_STEPS} is wanted, got {self.magnitude}")

    @property
    def draws(self) -> int:
        """Two for each operation: which one, and its sign."""
        return 2 * self.num_ops

    def __call__(self, frames: Frames, uniforms: np.ndarray) -> Frames:
        """Apply to a clip."""
        video = frames.video()
        strength = self.magnitude / _STEPS
        names = list(AUGMENTS)
        for which, sign in uniforms.reshape(self.num_ops, 2):
            name = names[below(len(names), which)]
            video = AUGMENTS[name](video, strength if sign < 0.5 else -strength)
        return Frames.of_video(video)


def identity(video: np.ndarray, strength: float) -> np.ndarray:
    """Leave the clip as it is."""
    return video


def autocontrast(video: np.ndarray, strength: float) -> np.ndarray:
    """Stretch each channel of the clip to 0 ... 255."""
    table = np.empty((256, 3))
    for channel in range(3):
        values = video[..., channel]
        low, high = int(values.min()), int(values.max())
        table[:, channel] = (_GREYS - low) * (255 / (high - low)) if high > low else _GREYS
    return pixels.look_up(video, np.clip(table, 0, 255).astype(np.uint8))


def equalize(video: np.ndarray, strength: float) -> np.ndarray:
    """Make the histogram of each channel of the clip flat, by the rule of Pillow's ImageOps.equalize."""
    table = np.empty((256, 3), np.uint8)
    for channel in range(3):
        counts = np.bincount(video[..., channel].reshape(-1), minlength=256)
        step = (counts.sum() - counts[counts > 0][-1]) // 255
        before = np.cumsum(counts) - counts
        table[:, channel] = np.minimum((step // 2 + before) // step, 255) if step else _GREYS
    return pixels.look_up(video, table)


def rotate(video: np.ndarray, strength: float) -> np.ndarray:
    """Turn by up to 30 degrees."""
    return pixels.rotate(video, degrees=30 * strength)


def solarize(video: np.ndarray, strength: float) -> np.ndarray:
    """Invert what is at least as bright as a threshold, 256 falling to 0."""
    threshold = 256 * (1 - abs(strength))
    return pixels.look_up(video, np.where(threshold > _GREYS, _GREYS, 255 - _GREYS).astype(np.uint8))


def posterize(video: np.ndarray, strength: float) -> np.ndarray:
    """Keep the upper bits only, 8 falling to 4."""
    bits = 8 - round(4 * abs(strength))
    return pixels.look_up(video, (_GREYS & (256 - 2 ** (8 - bits))).astype(np.uint8))


def color(video: np.ndarray, strength: float) -> np.ndarray:
    """Scale the saturation by a factor of 0.1 to 1.9."""
    return pixels.jitter(video, brightness=1, contrast=1, saturation=1 + 0.9 * strength)


def contrast(video: np.ndarray, strength: float) -> np.ndarray:
    """Scale the contrast about the clip's mean grey by a factor of 0.1 to 1.9."""
    return pixels.jitter(video, brightness=1, contrast=1 + 0.9 * strength, saturation=1)


def brightness(video: np.ndarray, strength: float) -> np.ndarray:
    """Scale the brightness by a factor of 0.1 to 1.9."""
    return pixels.jitter(video, brightness=1 + 0.9 * strength, contrast=1, saturation=1)


def sharpness(video: np.ndarray, strength: float) -> np.ndarray:
    """Sharpen by a factor of 0.1 (smooth) to 1.9."""
    return pixels.sharpen(video, factor=1 + 0.9 * strength)


def shear_x(video: np.ndarray, strength: float) -> np.ndarray:
    """Shift rows against each other by up to 0.3 of their distance from the top."""
    return pixels.warp(video, np.array([[1, 0.3 * strength, 0], [0, 1, 0]]))


def shear_y(video: np.ndarray, strength: float) -> np.ndarray:
    """Shift columns against each other by up to 0.3 of their distance from the left."""
    return pixels.warp(video, np.array([[1, 0, 0], [0.3 * strength, 1, 0]]))


def translate_x(video: np.ndarray, strength: float) -> np.ndarray:
    """Shift sideways by up to 150/331 of the width."""
    return pixels.warp(video, np.array([[1, 0, round(150 / 331 * video.shape[2] * strength)], [0, 1.0, 0]]))


def translate_y(video: np.ndarray, strength: float) -> np.ndarray:
    """Shift up or down by up to 150/331 of the height."""
    return pixels.warp(video, np.array([[1, 0, 0], [0, 1, round(150 / 331 * video.shape[1] * strength)]], float))


AUGMENTS = {
    **{"identity": identity, "autocontrast": autocontrast, "equalize": equalize, "rotate": rotate},
    **{"solarize": solarize, "posterize": posterize, "color": color, "contrast": contrast},
    **{"brightness": brightness, "sharpness": sharpness, "shear_x": shear_x, "shear_y": shear_y},
    **{"translate_x": translate_x, "translate_y": translate_y},
}
