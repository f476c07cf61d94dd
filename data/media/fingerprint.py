"""Fingerprints of clips: a hash of everything that is stored, and perceptual hashes of the pictures.

The perceptual hash is ImageHash's pHash (low frequencies of the cosine transform against their median, 64 bits), here
for a whole clip at once and also of what moves: of each picture less the mean picture. A still camera gives all of its
clips nearly the same pictures; what moves tells them apart, and tells order twins apart.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Sequence

import numpy as np
import simplejpeg
from PIL import Image

from ..transforms.units import drawable, is_unit

FRAMES = 8  # pictures of a clip that are hashed
_SIDE, _LOW = 32, 8  # side of the picture that is transformed, and of the corner of low frequencies that is kept
_FLAT = 4.0  # grey levels: a picture whose standard deviation is below has no shape to hash (black, fades)
_STILL = 1.0  # the same for the difference from the mean picture: below it is the encoder's noise


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fingerprint:
    """Identifies a clip.

    Attributes:
      sha256: hex digest of the stored frames, their times and the sound.
      phash: 16 hex digits for each of `FRAMES` pictures evenly spread over the clip (one, if it has one frame only);
        "" where the picture is flat.
      motion: the same of each picture less the mean picture; "" where nothing moves.
    """

    sha256: str
    phash: tuple[str, ...]
    motion: tuple[str, ...]


def fingerprint(
    encoded: Sequence[bytes], *, timestamps_s: np.ndarray, duration_s: float, audio: np.ndarray | None
) -> Fingerprint:
    """Return the fingerprint of a decoded clip.

    Files with the same bytes have the same hash, whatever their names, and so have files that differ only in what is
    not stored (container, tags); two windows of one file do not.

    Args:
      encoded: n frames as they are stored, in order: JPEG files or access units of H.264.
      timestamps_s: float32 [n], seconds from the clip's start, increasing.
      duration_s: length of the clip in seconds.
      audio: int16 [S], or None without sound.
    """
    digest = hashlib.sha256(timestamps_s.astype("<f4").tobytes())
    for part in (*encoded, b"" if audio is None else audio.astype("<i2").tobytes()):
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    count = 1 if len(encoded) == 1 else FRAMES
    at = (np.arange(count) + 0.5) / count * duration_s
    shown = np.clip(np.searchsorted(timestamps_s, at, side="right") - 1, 0, len(encoded) - 1)
    small = _small_ones(encoded, indices=sorted(set(shown.tolist())))
    phash, motion = perceptual(np.stack([small[index] for index in shown.tolist()]))
    return Fingerprint(sha256=digest.hexdigest(), phash=phash, motion=motion)


def perceptual(pictures: np.ndarray) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the hashes of grey pictures [k,32,32] and of what moves in them, in hex, "" where there is nothing."""
    pictures = pictures.astype(np.float32)
    moving = pictures - pictures.mean(axis=0)
    return _hashes(pictures, least=_FLAT), _hashes(moving, least=_STILL)


def _small_ones(encoded: Sequence[bytes], *, indices: Sequence[int]) -> dict[int, np.ndarray]:
    """Decode frames to grey [32,32]; libjpeg decodes no larger than is needed for that."""
    values = [drawable(encoded, index) for index in indices]
    if is_unit(values[0]):
        from ..transforms.h264 import decode_grey  # loads OpenCV

        return {indices[i]: _shrunk(Image.fromarray(grey)) for i, grey in decode_grey(values)}
    least = 2 * _SIDE
    greys = (
        simplejpeg.decode_jpeg(value, "GRAY", min_height=least, min_width=least, min_factor=1)[..., 0]
        for value in values
    )
    return {index: _shrunk(Image.fromarray(grey)) for index, grey in zip(indices, greys, strict=True)}


def _shrunk(grey: Image.Image) -> np.ndarray:
    return np.asarray(grey.resize((_SIDE, _SIDE), Image.Resampling.BILINEAR))


def _hashes(pictures: np.ndarray, *, least: float) -> tuple[str, ...]:
    basis = _cosines()
    low = (basis @ pictures @ basis.T).reshape(len(pictures), -1)  # [k,64]
    bits = np.packbits(low > np.median(low, axis=1, keepdims=True), axis=1)
    shaped = pictures.std(axis=(1, 2)) >= least
    return tuple(row.tobytes().hex() if shape else "" for row, shape in zip(bits, shaped.tolist(), strict=True))


@functools.cache
def _cosines() -> np.ndarray:
    """The first rows of the cosine transform (DCT-II, not normalised), float32 [8,32]."""
    frequency, place = np.arange(_LOW)[:, None], np.arange(_SIDE)[None]
    return (2 * np.cos(np.pi * frequency * (2 * place + 1) / (2 * _SIDE))).astype(np.float32)
