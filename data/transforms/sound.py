"""Sound augmentation declared as a string, `"gain(6)|noise(20)"`, on int16 samples. No tensorflow.

What acts on spectrograms (SpecAugment) runs on the device: `models.spectrogram`.
"""

import dataclasses
from typing import Any

import numpy as np

from ..options import SAMPLE_RATE
from .arguments import between, seed_of
from .declare import parse

_LARGEST = 32767


@dataclasses.dataclass(frozen=True)
class Gain:
    """Make the sound louder or softer by a number of decibels drawn from [-db, db]; peaks are clipped."""

    db: float
    draws = 1

    def __post_init__(self):
        if not 0 < self.db <= 60:
            raise ValueError(f"0 < db <= 60 is wanted, got {self.db}")

    def __call__(self, sound: np.ndarray, uniforms: np.ndarray) -> np.ndarray:
        """Apply to int16 [s]."""
        return _int16(sound * 10 ** (between(-self.db, self.db, uniforms[0]) / 20))


@dataclasses.dataclass(frozen=True)
class Noise:
    """Add white Gaussian noise whose power lies `snr_db` decibels below that of the clip's sound; none to silence."""

    snr_db: float
    draws = 1

    def __post_init__(self):
        if not -20 <= self.snr_db <= 100:
            raise ValueError(f"-20 <= snr_db <= 100 is wanted, got {self.snr_db}")

    def __call__(self, sound: np.ndarray, uniforms: np.ndarray) -> np.ndarray:
        """Apply to int16 [s]."""
        if not len(sound):
            return sound
        level = np.sqrt(np.mean(np.square(sound, dtype=np.float64))) * 10 ** (-self.snr_db / 20)
        drawn = np.random.Generator(np.random.SFC64(seed_of(uniforms[0])))
        return _int16(sound + level * drawn.standard_normal(len(sound), dtype=np.float32))


@dataclasses.dataclass(frozen=True)
class Shift:
    """Move the sound against the pictures by a time drawn from [-seconds, seconds]; silence moves in."""

    seconds: float
    draws = 1

    def __post_init__(self):
        if not 0 < self.seconds <= 600:
            raise ValueError(f"0 < seconds <= 600 is wanted, got {self.seconds}")

    def __call__(self, sound: np.ndarray, uniforms: np.ndarray) -> np.ndarray:
        """Apply to int16 [s]; positive times make it later."""
        by = round(between(-self.seconds, self.seconds, uniforms[0]) * SAMPLE_RATE)
        by = max(-len(sound), min(by, len(sound)))
        moved = np.zeros_like(sound)
        moved[max(by, 0) : len(sound) + min(by, 0)] = sound[max(-by, 0) : len(sound) - max(by, 0)]
        return moved


AUDIO_OPS: dict[str, type] = {"gain": Gain, "noise": Noise, "shift": Shift}


@dataclasses.dataclass(frozen=True)
class SoundTransform:
    """A parsed declaration."""

    operations: tuple[Any, ...]

    @property
    def draws(self) -> int:
        """How many uniform random numbers it takes for a clip."""
        return sum(operation.draws for operation in self.operations)

    def __call__(self, sound: np.ndarray, *, uniforms: np.ndarray) -> np.ndarray:
        """Apply to int16 [s] with `draws` numbers in [0, 1); returns as many samples."""
        used = 0
        for operation in self.operations:
            sound = operation(sound, uniforms[used : used + operation.draws])
            used += operation.draws
        return sound


def parse_audio(declared: str, *, field: str) -> SoundTransform:
    """Parse operations of `AUDIO_OPS`, separated by `|`; "" = none.

    Raises:
      UserError: an unknown operation or wrong arguments; `field` is the config field that is named.
    """
    return SoundTransform(tuple(parse(declared, table=AUDIO_OPS, field=field)))


def _int16(samples: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(samples), -_LARGEST - 1, _LARGEST).astype(np.int16)
