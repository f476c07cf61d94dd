"""Video preprocessing declared as a string, `"random_resized_crop(224)|flip_lr"`, parsed before any data is read.

The same crop, flip and colours for all frames of a clip. Crops that stand first are part of decoding: only that part of
each JPEG is decompressed, and where it is shrunk by 2 or more, the JPEG is decoded at 1/2, 1/4 or 1/8 of its size.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Protocol

from ...configs.errors import UserError
from ..tf_cpu import tf
from . import pixels
from .declare import parse
from .pixels import Frames, Number


class VideoOp(Protocol):
    """One operation of the table: its arguments are its fields.

    Attributes:
      draws: how many uniform random numbers it takes for a clip.
    """

    draws: int

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Return the size that frames of `height` x `width` get; ValueError if they are too small."""
        ...

    def __call__(self, frames: Frames, uniforms: tf.Tensor) -> Frames:
        """Apply to the frames of a clip, with `draws` numbers in [0, 1)."""
        ...


@dataclasses.dataclass(frozen=True)
class Resize:
    """Resize to h x w pixels (w = h if left out), whatever the aspect; bilinear."""

    h: int
    w: int = 0
    draws = 0

    def __post_init__(self):
        _at_least(1, h=self.h)
        _at_least(0, w=self.w)

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Return h x w."""
        return self.h, self.w or self.h

    def __call__(self, frames: Frames, uniforms: tf.Tensor) -> Frames:
        """Apply to a clip."""
        return frames.resize(self.h, self.w or self.h)


@dataclasses.dataclass(frozen=True)
class ResizeShort:
    """Resize so that the shorter side has n pixels and the aspect stays; bilinear."""

    n: int
    draws = 0

    def __post_init__(self):
        _at_least(1, n=self.n)

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Return the size with short side n."""
        short = min(height, width)
        return max(self.n, (2 * height * self.n + short) // (2 * short)), max(
            self.n, (2 * width * self.n + short) // (2 * short)
        )

    def __call__(self, frames: Frames, uniforms: tf.Tensor) -> Frames:
        """Apply to a clip."""
        short = tf.minimum(frames.height, frames.width)
        h, w = ((2 * side * self.n + short) // (2 * short) for side in (frames.height, frames.width))  # to the nearest
        return frames.resize(tf.maximum(h, self.n), tf.maximum(w, self.n))


@dataclasses.dataclass(frozen=True)
class CenterCrop:
    """Cut n x n pixels from the middle."""

    n: int
    draws = 0

    def __post_init__(self):
        _at_least(1, n=self.n)

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Return n x n."""
        return _crop_size(self.n, height, width)

    def __call__(self, frames: Frames, uniforms: tf.Tensor) -> Frames:
        """Apply to a clip."""
        return frames.crop((frames.height - self.n) // 2, (frames.width - self.n) // 2, self.n, self.n)


@dataclasses.dataclass(frozen=True)
class RandomCrop:
    """Cut n x n pixels from a random place."""

    n: int
    draws = 2

    def __post_init__(self):
        _at_least(1, n=self.n)

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Return n x n."""
        return _crop_size(self.n, height, width)

    def __call__(self, frames: Frames, uniforms: tf.Tensor) -> Frames:
        """Apply to a clip."""
        y = _below(frames.height - self.n + 1, uniforms[0])
        x = _below(frames.width - self.n + 1, uniforms[1])
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
        _at_least(1, n=self.n)
        if not 0 < self.min_scale <= self.max_scale <= 1:
            raise ValueError(f"0 < min_scale <= max_scale <= 1 is wanted, got {self.min_scale} and {self.max_scale}")
        if not 0 < self.min_ratio <= self.max_ratio:
            raise ValueError(f"0 < min_ratio <= max_ratio is wanted, got {self.min_ratio} and {self.max_ratio}")

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Return n x n."""
        return self.n, self.n

    def __call__(self, frames: Frames, uniforms: tf.Tensor) -> Frames:
        """Apply to a clip."""
        height, width = tf.cast(frames.height, tf.float32), tf.cast(frames.width, tf.float32)
        area = height * width * (self.min_scale + (self.max_scale - self.min_scale) * uniforms[0])
        low, high = math.log(self.min_ratio), math.log(self.max_ratio)
        ratio = tf.exp(low + (high - low) * uniforms[1])
        h, w = tf.sqrt(area / ratio), tf.sqrt(area * ratio)
        fit = tf.minimum(1.0, tf.minimum(height / h, width / w))
        h = tf.clip_by_value(tf.cast(tf.round(h * fit), tf.int32), 1, frames.height)
        w = tf.clip_by_value(tf.cast(tf.round(w * fit), tf.int32), 1, frames.width)
        y, x = _below(frames.height - h + 1, uniforms[2]), _below(frames.width - w + 1, uniforms[3])
        return frames.crop(y, x, h, w).resize(self.n, self.n)


@dataclasses.dataclass(frozen=True)
class FlipLr:
    """Mirror left and right with probability p."""

    p: float = 0.5
    draws = 1

    def __post_init__(self):
        _probability(p=self.p)

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Return the same size."""
        return height, width

    def __call__(self, frames: Frames, uniforms: tf.Tensor) -> Frames:
        """Apply to a clip."""
        return frames.apply_if(uniforms[0] < self.p, pixels.flip_lr)


@dataclasses.dataclass(frozen=True)
class ColorJitter:
    """Scale brightness, contrast and saturation by factors drawn from [1 - x, 1 + x] (SimCLR, arXiv:2002.05709).

    The three are one affine map of the colours (contrast about the clip's mean grey), rounded and clipped once.
    """

    x: float
    draws = 3

    def __post_init__(self):
        if not 0 < self.x <= 1:
            raise ValueError(f"0 < x <= 1 is wanted, got {self.x}")

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Return the same size."""
        return height, width

    def __call__(self, frames: Frames, uniforms: tf.Tensor) -> Frames:
        """Apply to a clip."""
        factors = 1.0 + self.x * (2.0 * uniforms - 1.0)
        return frames.apply(lambda video: pixels.jitter(video, factors))


@dataclasses.dataclass(frozen=True)
class Grayscale:
    """Make the clip grey (luma of Rec. 601 in all three channels) with probability p."""

    p: float
    draws = 1

    def __post_init__(self):
        _probability(p=self.p)

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Return the same size."""
        return height, width

    def __call__(self, frames: Frames, uniforms: tf.Tensor) -> Frames:
        """Apply to a clip."""
        return frames.apply_if(uniforms[0] < self.p, pixels.grey)


OPS: dict[str, type] = {
    "resize": Resize,
    "resize_short": ResizeShort,
    "center_crop": CenterCrop,
    "random_crop": RandomCrop,
    "random_resized_crop": RandomResizedCrop,
    "flip_lr": FlipLr,
    "color_jitter": ColorJitter,
    "grayscale": Grayscale,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class VideoTransform:
    """A parsed declaration.

    Attributes:
      declared: the string.
      field: the config field that holds it.
      operations: what it says, in order.
      height: of the frames that come out, in pixels.
      width: likewise.
    """

    declared: str
    field: str
    operations: tuple[VideoOp, ...]
    height: int
    width: int

    @property
    def draws(self) -> int:
        """How many uniform random numbers it takes for a clip."""
        return sum(operation.draws for operation in self.operations)

    def check(self, *, height: int, width: int, example: str) -> None:
        """Check that frames of a size can go through.

        Raises:
          UserError: they are too small for a crop; `example` says where such frames were seen.
        """
        try:
            for operation in self.operations:
                height, width = operation.size(height, width)
        except ValueError as error:
            raise UserError(
                f"{self.field}={self.declared!r}: {error} ({example}); "
                f"put a resize_short(n) before it, or prepare the clips with a larger --short_side"
            ) from None

    def __call__(self, jpegs: Sequence[tf.Tensor], *, height: Number, width: Number, uniforms: tf.Tensor) -> tf.Tensor:
        """Decode and transform the frames of a clip.

        Args:
          jpegs: T string scalars.
          height: of the JPEG pictures, pixels, int32 scalar.
          width: likewise.
          uniforms: float32 [draws], random numbers in [0, 1).

        Returns:
          uint8 [T,H,W,3], RGB.
        """
        frames = Frames.of_jpegs(jpegs, height=height, width=width)
        used = 0
        for operation in self.operations:
            frames = operation(frames, uniforms[used : used + operation.draws])
            used += operation.draws
        video = frames.video()
        return tf.ensure_shape(video, [len(jpegs), self.height, self.width, 3])


def parse_video(declared: str, *, field: str) -> VideoTransform:
    """Parse a declaration such as `"resize_short(224)|center_crop(224)"`.

    Args:
      declared: operations of `OPS`, separated by `|`.
      field: the config field that holds the string, named in errors.

    Raises:
      UserError: an unknown operation or wrong arguments, or frames of different clips would differ in size.
    """
    operations: list[Any] = parse(declared, table=OPS, field=field)
    sizes = set()
    for height, width in ((4096, 8192), (8192, 4096)):  # two aspects, larger than any crop
        for operation in operations:
            height, width = operation.size(height, width)
        sizes.add((height, width))
    if len(sizes) > 1:
        raise UserError(
            f"{field}={declared!r} leaves frames of different sizes, which make no batch; "
            "end with center_crop(n), random_crop(n) or resize(h, w), for example 'resize_short(224)|center_crop(224)'"
        )
    height, width = sizes.pop()
    return VideoTransform(declared=declared, field=field, operations=tuple(operations), height=height, width=width)


def _crop_size(n: int, height: int, width: int) -> tuple[int, int]:
    if min(height, width) < n:
        raise ValueError(f"a crop of {n} x {n} pixels does not fit in frames of {height} x {width}")
    return n, n


def _below(bound: Number, uniform: tf.Tensor) -> tf.Tensor:
    """A whole number in [0, bound) from a number in [0, 1)."""
    drawn = tf.cast(uniform * tf.cast(bound, tf.float32), tf.int32)
    return tf.minimum(drawn, bound - 1)


def _at_least(least: int, **given: int) -> None:
    for name, value in given.items():
        if isinstance(value, int) and value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")


def _probability(**given: float) -> None:
    for name, value in given.items():
        if isinstance(value, (int, float)) and not 0 <= value <= 1:
            raise ValueError(f"{name} is a probability between 0 and 1, got {value}")
