"""Resizing exactly as Pillow or OpenCV does, with which public models were trained. No tensorflow.

`resize` and `resize_short` (see `geometry`) are bilinear, come within a few grey levels of Pillow's and are several
times faster, as small frames are then decoded small. These here are for the input of public weights.
"""

import dataclasses
from typing import ClassVar

import cv2
import numpy as np
from PIL import Image

from .arguments import at_least
from .frames import Frames


@dataclasses.dataclass(frozen=True)
class _Resize:
    h: int
    w: int = 0
    draws = 0
    method: ClassVar[Image.Resampling] = Image.Resampling.BICUBIC

    def __post_init__(self):
        at_least(1, h=self.h)
        at_least(0, w=self.w)

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Return h x w."""
        return self.h, self.w or self.h

    def __call__(self, frames: Frames, uniforms: np.ndarray) -> Frames:
        """Apply to a clip."""
        return resized(frames, size=self.size(frames.height, frames.width), method=self.method)


@dataclasses.dataclass(frozen=True)
class _ResizeShort:
    n: int
    draws = 0
    method: ClassVar[Image.Resampling] = Image.Resampling.BICUBIC

    def __post_init__(self):
        at_least(1, n=self.n)

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Return the size with short side n, the other side rounded down, as torchvision and transformers do."""
        short = min(height, width)
        return self.n * height // short, self.n * width // short

    def __call__(self, frames: Frames, uniforms: np.ndarray) -> Frames:
        """Apply to a clip."""
        return resized(frames, size=self.size(frames.height, frames.width), method=self.method)


class ResizeBicubic(_Resize):
    """Resize to h x w pixels (w = h if left out), whatever the aspect; as Pillow's BICUBIC, antialiased."""


class ResizeBilinear(_Resize):
    """Resize to h x w pixels (w = h if left out), whatever the aspect; as Pillow's BILINEAR, antialiased."""

    method = Image.Resampling.BILINEAR


class ResizeShortBicubic(_ResizeShort):
    """Resize so that the shorter side has n pixels and the aspect stays; as Pillow's BICUBIC, antialiased."""


class ResizeShortBilinear(_ResizeShort):
    """Resize so that the shorter side has n pixels and the aspect stays; as Pillow's BILINEAR, antialiased."""

    method = Image.Resampling.BILINEAR


class ResizeLinear(_Resize):
    """Resize to h x w pixels (w = h if left out) between the four nearest pixels, with aliasing; as OpenCV's default.

    ViCLIP resizes so, and to within a grey level torchvision's preset of video models.
    """

    def __call__(self, frames: Frames, uniforms: np.ndarray) -> Frames:
        """Apply to a clip."""
        video, (height, width) = frames.video(), self.size(frames.height, frames.width)
        return Frames.of_video(np.stack([cv2.resize(one, (width, height)) for one in video]))


class ResizeTensorflow(_Resize):
    """Resize to h x w pixels (w = h if left out) between the four nearest pixels; as `tf.image.resize`, cut to levels.

    big_vision resizes so: its default has no antialiasing, and the result is cast to uint8, which rounds down.
    """

    def __call__(self, frames: Frames, uniforms: np.ndarray) -> Frames:
        """Apply to a clip."""
        video, (height, width) = frames.video().astype(np.float32), self.size(frames.height, frames.width)
        made = np.stack([cv2.resize(one, (width, height)) for one in video])
        return Frames.of_video((made + np.float32(1e-3)).astype(np.uint8))  # whole levels stay, whatever the last bits


def resized(frames: Frames, *, size: tuple[int, int], method: Image.Resampling) -> Frames:
    """Decode frames and resize each to height x width with a filter of Pillow."""
    video, (height, width) = frames.video(), size
    if (frames.height, frames.width) == size:
        return Frames.of_video(video)
    return Frames.of_video(
        np.stack([np.asarray(Image.fromarray(one).resize((width, height), method)) for one in video])
    )
