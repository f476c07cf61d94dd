"""The frames of a clip on their way from bytes to pixels: geometry is noted as long as nothing has been decoded."""

import dataclasses
import functools
import math
import threading
from collections.abc import Sequence

import cv2
import numpy as np
import simplejpeg

from .units import is_unit

_BUFFERS = threading.local()  # the whole picture, before its window is cut out: one buffer for each thread
_FRACTIONS = (8, 4, 2)  # libjpeg-turbo decodes at 1/8, 1/4, 1/2 for less than at full size; at 7/8 ... 5/8 for more


@dataclasses.dataclass(frozen=True, kw_only=True)
class Frames:
    """Frames of one clip, encoded (with a window to cut, a size to resize to and a side to mirror) or decoded.

    Attributes:
      encoded: T frames, JPEG files or access units of H.264 as `units.drawable` returns them; () once decoded.
      decoded: uint8 [T,height,width,3], or None while encoded.
      window: top, left, height, width in pixels of the stored picture.
      height: of the frames as they stand, pixels; differs from the window's while a resize is pending.
      width: likewise.
      source: height and width of the stored picture, pixels.
      resized: whether a resize is pending.
      mirrored: whether left and right are to be swapped.
      target: where decoded frames go if they have its shape, uint8 [T,H,W,3].
    """

    encoded: Sequence[bytes] = ()
    decoded: np.ndarray | None = None
    window: tuple[int, int, int, int] = (0, 0, 0, 0)
    height: int
    width: int
    source: tuple[int, int] = (0, 0)
    resized: bool = False
    mirrored: bool = False
    target: np.ndarray | None = None

    @classmethod
    def of_encoded(
        cls, encoded: Sequence[bytes], *, height: int, width: int, target: np.ndarray | None = None
    ) -> "Frames":
        """Begin with T encoded frames of `height` x `width` pixels."""
        window = (0, 0, height, width)
        return cls(encoded=encoded, window=window, height=height, width=width, source=(height, width), target=target)

    @classmethod
    def of_video(cls, video: np.ndarray) -> "Frames":
        """Begin with decoded frames, uint8 [T,H,W,3]."""
        return cls(decoded=video, height=video.shape[1], width=video.shape[2])

    def crop(self, y: int, x: int, height: int, width: int) -> "Frames":
        """Cut a part out: before decoding where no resize stands before it."""
        if self.decoded is None and not self.resized:
            x = self.width - x - width if self.mirrored else x
            window = (self.window[0] + y, self.window[1] + x, height, width)
            return dataclasses.replace(self, window=window, height=height, width=width)
        return Frames.of_video(self.video()[:, y : y + height, x : x + width])

    def resize(self, height: int, width: int) -> "Frames":
        """Resize with a triangle as wide as the step between new pixels: bilinear, and no aliasing when it shrinks."""
        if self.decoded is None and not self.resized:
            return dataclasses.replace(self, height=height, width=width, resized=True)
        video = self.video()
        if (self.height, self.width) == (height, width):
            return Frames.of_video(video)
        resized = np.empty((len(video), height, width, 3), np.uint8)
        for frame, into in zip(video, resized, strict=True):
            resize_into(frame, into=into)
        return Frames.of_video(resized)

    def flip_lr(self) -> "Frames":
        """Swap left and right."""
        if self.decoded is None:
            return dataclasses.replace(self, mirrored=not self.mirrored)
        return Frames.of_video(np.stack([cv2.flip(frame, 1) for frame in self.decoded]))

    def video(self) -> np.ndarray:
        """Return uint8 [T,height,width,3]; decodes what is still encoded."""
        if self.decoded is not None:
            return self.decoded
        shape = (len(self.encoded), self.height, self.width, 3)
        fits = self.target is not None and self.target.shape == shape
        video = self.target if self.target is not None and fits else np.empty(shape, np.uint8)
        if len(self.encoded) and is_unit(self.encoded[0]):
            from .h264 import decode_units  # PyAV is loaded by those who need it

            size = {"height": self.source[0], "width": self.source[1]}
            for place, part in decode_units(self.encoded, **size, window=self.window):
                self._put(part, into=video[place])
            return video
        for jpeg, into in zip(self.encoded, video, strict=True):
            self._put(self._decode(jpeg), into=into)
        return video

    def _decode(self, jpeg: bytes) -> np.ndarray:
        """Return the window of a JPEG picture, at a fraction of its size if that has enough pixels."""
        top, left, height, width = self.window
        ratio = self._ratio()
        if ratio > 1:
            # The scaled picture has ceil(side / ratio) pixels; the window's edges go to the nearest of them.
            edges = (top, left, top + height, left + width)
            top, left, bottom, right = ((2 * edge + ratio) // (2 * ratio) for edge in edges)
            bottom, right = min(bottom, -(-self.source[0] // ratio)), min(right, -(-self.source[1] // ratio))
            height, width = bottom - top, right - left
        picture = decode_jpeg(jpeg, height=self.source[0], width=self.source[1], ratio=ratio)
        return picture[top : top + height, left : left + width]

    def _put(self, part: np.ndarray, *, into: np.ndarray) -> None:
        """Resize and mirror a decoded window into its place."""
        if part.shape != into.shape:
            resize_into(part, into=into)
            part = into
        if self.mirrored:
            cv2.flip(part, 1, dst=into)
        elif part is not into:
            np.copyto(into, part)

    def _ratio(self) -> int:
        """The largest fraction 1/ratio at which the picture can be decoded and still has enough pixels."""
        shrink = min(self.window[2] // self.height, self.window[3] // self.width) if self.resized else 1
        return next((ratio for ratio in _FRACTIONS if shrink >= ratio), 1)


def decode_jpeg(jpeg: bytes, *, height: int, width: int, ratio: int = 1) -> np.ndarray:
    """Decode a JPEG file into this thread's buffer: the result holds until the thread decodes the next.

    The accurate DCT and the smooth upsampling of colours: what other users of libjpeg-turbo get by default.

    Args:
      jpeg: the file.
      height: that it must have, pixels.
      width: likewise.
      ratio: 2, 4 or 8 decodes at that fraction of the size, which takes less time.

    Returns:
      uint8 [ceil(height / ratio), ceil(width / ratio), 3], RGB.

    Raises:
      ValueError: it is damaged or has another size.
    """
    wanted = (-(-height // ratio), -(-width // ratio), 3)
    size = math.prod(wanted)
    if getattr(_BUFFERS, "pixels", None) is None or len(_BUFFERS.pixels) < size:
        _BUFFERS.pixels = np.empty(size, np.uint8)
    least = wanted if ratio > 1 else (0, 0)
    picture = simplejpeg.decode_jpeg(jpeg, min_height=least[0], min_width=least[1], buffer=_BUFFERS.pixels[:size])
    if picture.shape != wanted:
        raise ValueError(f"a frame of {list(picture.shape[:2])} instead of {list(wanted[:2])} pixels")
    return picture


def resize_into(picture: np.ndarray, *, into: np.ndarray) -> None:
    """Resize as antialiasing bilinear resizers do (Pillow, torchvision), to within a few grey levels and much faster.

    Where a side shrinks by a factor s in (1, 2], such a resizer weights the pixels with a triangle of 2 s pixels, whose
    variance is s^2 / 6. Here three taps make up for what plain bilinear interpolation (variance 1/6) lacks of that, and
    plain bilinear interpolation follows. A side that shrinks by more is averaged over areas instead.

    Args:
      picture: uint8 [h,w,3].
      into: uint8 [H,W,3], receives the result.
    """
    height, width = into.shape[:2]
    shrink = (picture.shape[0] / height, picture.shape[1] / width)
    if max(shrink) > 2:
        averaged = (height if shrink[0] > 2 else picture.shape[0], width if shrink[1] > 2 else picture.shape[1])
        picture = cv2.resize(picture, averaged[::-1], interpolation=cv2.INTER_AREA)
        shrink = (picture.shape[0] / height, picture.shape[1] / width)
    if max(shrink) > 1:
        (rows, sigma_y), (columns, sigma_x) = _taps(shrink[0]), _taps(shrink[1])
        border = cv2.BORDER_REPLICATE
        picture = cv2.GaussianBlur(picture, (columns, rows), sigmaX=sigma_x, sigmaY=sigma_y, borderType=border)
    cv2.resize(picture, (width, height), dst=into, interpolation=cv2.INTER_LINEAR)


@functools.lru_cache(maxsize=1024)
def _taps(shrink: float) -> tuple[int, float]:
    """How many taps, and the sigma with which OpenCV makes them: outer ones of (shrink^2 - 1) / 12 each."""
    if shrink <= 1:
        return 1, 1.0
    outer = (shrink * shrink - 1) / 12
    return 3, math.sqrt(-0.5 / math.log(outer / (1 - 2 * outer)))  # outer / middle = exp(-1 / (2 sigma^2))
