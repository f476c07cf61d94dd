"""Video preprocessing declared as a string, `"random_resized_crop(224)|flip_lr"`, parsed before any data is read.

The same crop, flip and colours for all frames of a clip. Crops, a resize and flips that stand first are part of
decoding: pixels outside the window are not touched again, and where it is shrunk by 2 or more, a JPEG is decoded at
1/2, 1/4 or 1/8 of its size. All is a function of its inputs, random numbers included, whatever the thread.
No tensorflow.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from ...base.errors import UserError
from ..transforms import colours, geometry, naflex, pillow, times
from .declare import parse
from .frames import Frames
from .rand_augment import RandAugment


class VideoOp(Protocol):
    """One operation of the table: its arguments are its fields.

    Beside this, an operation is called with the frames (`__call__(frames, uniforms) -> Frames`), or has `views` and
    `split(frames) -> list[Frames]`, or acts on frame indices (`move`, see `times`).

    Attributes:
      draws: how many uniform random numbers it takes for a clip.
    """

    draws: int

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Return the size that frames of `height` x `width` get; ValueError if they are too small."""
        ...


OPS: dict[str, type] = {
    "resize": geometry.Resize,
    "resize_short": geometry.ResizeShort,
    "resize_bicubic": pillow.ResizeBicubic,
    "resize_bilinear": pillow.ResizeBilinear,
    "resize_short_bicubic": pillow.ResizeShortBicubic,
    "resize_short_bilinear": pillow.ResizeShortBilinear,
    "resize_linear": pillow.ResizeLinear,
    "resize_tensorflow": pillow.ResizeTensorflow,
    "naflex": naflex.NaFlex,
    "center_crop": geometry.CenterCrop,
    "center_crop_torchvision": geometry.CenterCropTorchvision,
    "random_crop": geometry.RandomCrop,
    "random_resized_crop": geometry.RandomResizedCrop,
    "three_crop": geometry.ThreeCrop,
    "ten_crop": geometry.TenCrop,
    "flip_lr": geometry.FlipLr,
    "rotate": geometry.Rotate,
    "color_jitter": colours.ColorJitter,
    "grayscale": colours.Grayscale,
    "blur": colours.Blur,
    "noise": colours.Noise,
    "frame_noise": colours.FrameNoise,
    "rand_augment": RandAugment,
    "temporal_jitter": times.TemporalJitter,
    "reverse": times.Reverse,
    "speed": times.Speed,
    "frame_dropout": times.FrameDropout,
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
    operations: tuple[Any, ...]
    height: int
    width: int

    @property
    def draws(self) -> int:
        """How many uniform random numbers it takes for a clip."""
        return sum(operation.draws for operation in self.operations)

    @property
    def views(self) -> int:
        """How many pictures it makes of each frame: 1, or those of `three_crop` or `ten_crop`."""
        return max([1, *(getattr(operation, "views", 1) for operation in self.operations)])

    def shape(self, num_frames: int) -> tuple[int, ...]:
        """Return the shape of a clip of T frames: (T,H,W,3), or (V,T,H,W,3) with V > 1 views."""
        several = (self.views,) if self.views > 1 else ()
        return (*several, num_frames, self.height, self.width, 3)

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

    def times(self, frames: np.ndarray, *, num_available: int, uniforms: np.ndarray) -> np.ndarray:
        """Change which frames are used, as the operations in time say.

        Args:
          frames: indices int64 [T] in 0 ... num_available - 1, as a sampler drew them.
          num_available: how many frames there are.
          uniforms: float32 [draws], the same numbers that the pixels get.

        Returns:
          Indices int64 [T] in the same range.
        """
        for operation, numbers in self._with_numbers(uniforms):
            if hasattr(operation, "move"):
                frames = operation.move(frames, num_available=num_available, uniforms=numbers)
        return frames

    def __call__(
        self,
        encoded: Sequence[bytes],
        *,
        height: int,
        width: int,
        uniforms: np.ndarray,
        out: np.ndarray | None = None,
    ) -> np.ndarray:
        """Decode and transform the frames of a clip.

        Args:
          encoded: T frames, JPEG files or access units of H.264 as `units.drawable` returns them.
          height: of the stored pictures, pixels.
          width: likewise.
          uniforms: float32 [draws], random numbers in [0, 1).
          out: where the result goes, uint8 of the result's shape, contiguous; None = a new array.

        Returns:
          uint8 [T,H,W,3] (with views [V,T,H,W,3]), RGB.

        Raises:
          ValueError: a frame is damaged or has another size.
        """
        out = np.empty(self.shape(len(encoded)), np.uint8) if out is None else out
        target = out if self.views == 1 else None
        self._apply(Frames.of_encoded(encoded, height=height, width=width, target=target), uniforms=uniforms, out=out)
        return out

    def decoded(self, video: np.ndarray, *, uniforms: np.ndarray) -> np.ndarray:
        """Transform the frames of a clip that another program decoded: uint8 RGB [T,height,width,3]; else as a call."""
        out = np.empty(self.shape(len(video)), np.uint8)
        self._apply(Frames.of_video(video), uniforms=uniforms, out=out)
        return out

    def _apply(self, frames: Frames, *, uniforms: np.ndarray, out: np.ndarray) -> None:
        """Run the operations on the frames of a clip and leave the pixels in `out`."""
        views = [frames]
        for operation, numbers in self._with_numbers(uniforms):
            if hasattr(operation, "split"):
                views = [part for one in views for part in operation.split(one)]
            elif not hasattr(operation, "move"):
                views = [operation(one, numbers) for one in views]
        for one, place in zip(views, [out] if self.views == 1 else out, strict=True):
            if (video := one.video()) is not place:
                np.copyto(place, video)

    def _with_numbers(self, uniforms: np.ndarray) -> Iterator[tuple[Any, np.ndarray]]:
        """Yield each operation with its own random numbers."""
        used = 0
        for operation in self.operations:
            yield operation, uniforms[used : used + operation.draws]
            used += operation.draws


def parse_video(declared: str, *, field: str) -> VideoTransform:
    """Parse a declaration such as `"resize_short(224)|center_crop(224)"`.

    Args:
      declared: operations of `OPS`, separated by `|`.
      field: the config field that holds the string, named in errors.

    Raises:
      UserError: an unknown operation or wrong arguments, frames of different clips would differ in size, or several
        operations give several views.
    """
    operations: list[Any] = parse(declared, table=OPS, field=field)
    if len([1 for operation in operations if hasattr(operation, "split")]) > 1:
        raise UserError(f"{field}={declared!r} crops several views twice; keep one of three_crop and ten_crop")
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
