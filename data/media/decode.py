"""One media file, or a window of it, to encoded frames with their times and 16 kHz mono sound (PyAV)."""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from ...base.errors import UserError
from ..paths import PathLike
from .clip import DecodedClip, DecodeOptions
from .encoders import frame_encoder
from .place import DecodeError
from .reader import Reader

__all__ = ["DecodeError", "DecodeOptions", "DecodedClip", "decode_clip", "read_rgb"]


def decode_clip(
    path: PathLike,
    *,
    options: DecodeOptions,
    start_s: float | None = None,
    end_s: float | None = None,
    progress: Callable[[float], object] | None = None,
) -> DecodedClip:
    """Decode a media file, or the window `[start_s, end_s)` of it.

    Time is presentation time, counted from the file's first picture. At `fps`, the frame on display at each multiple
    of 1/fps from the clip's start is kept, once, with its own time stamp. Frames are streamed: memory holds a few raw
    frames, the encoded ones and the sound. A picture (JPEG, PNG, WebP, BMP) is a clip of one frame that lasts 1/25 s.

    Args:
      path: a file with a video stream (cover art of a sound file does not count), or a picture; local, behind a URL,
        or in a tar archive (see `data/paths.py`).
      options: what to keep.
      start_s: start of the window in seconds; None = 0.
      end_s: end of the window in seconds, exclusive; None = end of the pictures.
      progress: called with the time of each decoded frame, in seconds from the window's start (negative before it).

    Raises:
      DecodeError: the clip cannot be used; `reason` says why.
      MemoryError: there is not enough for it.
    """
    reader, frames = _opened(path, options=options, start_s=start_s, end_s=end_s, progress=progress)
    encoder = frame_encoder(options)
    times: list[float] = []
    height = width = 0
    for time, rgb in frames:
        height, width = rgb.shape[:2]
        encoder.add(rgb)
        times.append(time)
    return DecodedClip(
        encoded=encoder.end(),
        timestamps_s=np.asarray(times, dtype=np.float32),
        height=height,
        width=width,
        audio=reader.audio,
        duration_s=reader.duration_s,
        notes=tuple(reader.notes),
        silent=reader.silent,
        source=reader.source,
        stated_s=reader.stated_s,
    )


def read_rgb(
    path: PathLike, *, options: DecodeOptions, start_s: float | None = None, end_s: float | None = None
) -> list[tuple[float, np.ndarray]]:
    """Return what `decode_clip` would compress: `(seconds from the clip's start, uint8 [H,W,3])` of each kept frame.

    Raises:
      DecodeError: the clip cannot be used.
    """
    return list(_opened(path, options=options, start_s=start_s, end_s=end_s)[1])


def _opened(
    path: PathLike, *, options: DecodeOptions, **window: Any
) -> tuple[Reader, Iterable[tuple[float, np.ndarray]]]:
    """Return the reader of a clip and its frames as they are kept; where faces are cut out, it is decoded twice."""
    if not options.crop_faces:
        reader = Reader(path, options=options, **window)
        return reader, shown(reader, options=options)
    from .faces import FaceDetector, cut_square, track  # OpenCV is loaded by those who look for faces

    whole = dataclasses.replace(options, short_side=0)
    look = Reader(path, options=dataclasses.replace(whole, audio=False), **window)
    try:
        find = FaceDetector(options.crop_faces)
        squares = track([find(rgb) for _, rgb in look])
    except UserError as error:
        raise DecodeError("faces cannot be cut out", str(error)) from error
    if squares is None:
        raise DecodeError("no face was found")
    reader = Reader(path, options=whole, **window)
    pairs = zip(shown(reader, options=options), squares, strict=True)
    return reader, ((time, cut_square(rgb, square=square, side=options.short_side)) for (time, rgb), square in pairs)


def shown(reader: Reader, *, options: DecodeOptions) -> Iterable[tuple[float, np.ndarray]]:
    """Return the frames of a reader, with faces blurred where the options say so.

    Raises:
      DecodeError: the detector cannot be used, when the first frame is taken; nothing is shown with faces then.
    """
    return reader if not options.blur_faces else _blurred(reader, detector=options.blur_faces)


def _blurred(reader: Reader, *, detector: str) -> Iterable[tuple[float, np.ndarray]]:
    from .faces import FaceDetector, without_faces  # OpenCV is loaded by those who blur

    try:
        yield from without_faces(reader, find=FaceDetector(detector))
    except UserError as error:
        raise DecodeError("faces cannot be blurred", str(error)) from error
