"""Access units of H.264 to pixels (PyAV), and to JPEG files for whoever shows them.

Pictures are stored as JPEG stores them: all values 0 to 255, BT.601's matrix, colours at half the resolution and in the
middle of their four pixels, an odd side filled up by one pixel. They come back by smooth upsampling, as JPEG's do.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import av
import cv2
import numpy as np
from av.codec.context import Flags
from av.error import FFmpegError

from .jpeg import encode_jpeg
from .units import is_unit, split_units

_FORMATS = ("yuv420p", "yuvj420p")
_QUALITY = 92  # of the JPEG files that pages show


def decode_units(
    values: Sequence[bytes], *, height: int, width: int, window: tuple[int, int, int, int] | None = None
) -> Iterator[tuple[int, np.ndarray]]:
    """Decode frames of one clip, each picture once where frames follow each other; see `_pictures`.

    Args:
      values: T frames, each as `units.drawable` returns it.
      height: of the pictures, pixels.
      width: likewise.
      window: top, left, height, width of the part that is wanted, pixels; None = all.

    Yields:
      The place of each frame among `values`, in any order, and its picture, uint8 [height,width,3] of the window, RGB.

    Raises:
      ValueError: a value is damaged, or its pictures have another size.
    """
    last, rgb = None, np.zeros(0, np.uint8)
    for place, picture in _pictures(values):
        if picture is not last:
            rgb = _rgb(picture, height=height, width=width, window=window or (0, 0, height, width))
        last = picture
        yield place, rgb


def decode_grey(values: Sequence[bytes]) -> Iterator[tuple[int, np.ndarray]]:
    """Decode frames of one clip to grey; as `decode_units`, but uint8 [H,W] with the filling of odd sides.

    Raises:
      ValueError: a value is damaged.
    """
    for place, picture in _pictures(values):
        yield place, np.ascontiguousarray(_plane(picture.planes[0]))


def as_jpegs(values: Sequence[bytes], *, height: int, width: int) -> Sequence[bytes]:
    """Return frames as JPEG files, for pages: as they are, or made one by one as they are taken out.

    Args:
      values: frames of one clip, as `Record.frames` returns them.
      height: of the pictures, pixels.
      width: likewise.
    """
    return _Jpegs(values, height=height, width=width) if len(values) and is_unit(values[0]) else values


class _Jpegs(Sequence[bytes]):
    """JPEG files of frames that are stored as access units; nothing is kept."""

    def __init__(self, values: Sequence[bytes], *, height: int, width: int):
        self._values, self._height, self._width = values, height, width

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return _Jpegs(self._values[index], height=self._height, width=self._width)
        [(_, picture)] = decode_units([self._values[index]], height=self._height, width=self._width)
        return encode_jpeg(picture, quality=_QUALITY)


def _pictures(values: Sequence[bytes]) -> Iterator[tuple[int, Any]]:
    """Yield the place of each frame among `values`, in any order, and its picture, which repeats where values do.

    A value that begins with another one is of the same segment and a later frame, so only the rest of it is decoded.
    Sorting the values brings these together, whatever the order in which frames were drawn.
    """
    before, decoder, picture = b"", None, None
    for place in sorted(range(len(values)), key=lambda i: values[i]):
        value = values[place]
        if value != before or decoder is None:
            rest = value[len(before) :]
            if decoder is None or not (value.startswith(before) and is_unit(rest)):
                decoder, rest = _Decoder(), value
            picture, before = decoder.last(rest), value
        yield place, picture


class _Decoder:
    """Decodes the units of a segment in order."""

    def __init__(self):
        context = av.CodecContext.create("h264", "r")
        context.thread_count = 1
        context.flags |= Flags.low_delay  # no picture waits for a later one
        context.options = {"err_detect": "explode"}  # a damaged picture is an error, and not guessed
        self._context = context

    def last(self, units: bytes) -> Any:
        """Return the picture of the last of some units, which follow those that were decoded."""
        frame = None
        for unit in split_units(units):
            try:
                found = self._context.decode(av.Packet(unit))
            except FFmpegError as error:
                raise ValueError(f"a frame of H.264 cannot be decoded ({error})") from error
            if len(found) != 1 or found[0].is_corrupt:
                raise ValueError("a frame of H.264 is damaged")
            [frame] = found
        return frame


def _rgb(frame: Any, *, height: int, width: int, window: tuple[int, int, int, int]) -> np.ndarray:
    """Return a part of a picture, uint8 [h,w,3]."""
    wanted = (height + height % 2, width + width % 2)
    if (frame.height, frame.width) != wanted or frame.format.name not in _FORMATS:
        raise ValueError(
            f"a frame of {[frame.height, frame.width]} pixels, {frame.format.name}, instead of {list(wanted)}, yuv420p"
        )
    top, left, height, width = window
    # In steps of the colours' pixels, one more on each side, which upsampling reads at the edges of the window.
    first_row, first_column = max(top // 2 - 1, 0), max(left // 2 - 1, 0)
    rows, columns = slice(first_row, (top + height + 1) // 2 + 1), slice(first_column, (left + width + 1) // 2 + 1)
    grey, blue, red = map(_plane, frame.planes)
    blue, red = blue[rows, columns], red[rows, columns]
    shape = (2 * blue.shape[0], 2 * blue.shape[1])
    every = np.empty((*shape, 3), np.uint8)
    grey = grey[2 * first_row :, 2 * first_column :][: shape[0], : shape[1]]
    blue, red = (cv2.resize(part, shape[::-1], interpolation=cv2.INTER_LINEAR) for part in (blue, red))
    cv2.merge([grey, red, blue], every)
    cv2.cvtColor(every, cv2.COLOR_YCrCb2RGB, dst=every)
    return every[top - 2 * first_row :, left - 2 * first_column :][:height, :width]


def _plane(plane: Any) -> np.ndarray:
    return np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: plane.height, : plane.width]
