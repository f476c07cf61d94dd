"""The sound of a file alone, of sound files too: mono int16 (PyAV)."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from av.error import FFmpegError
from av.stream import Disposition

from ..options import SAMPLE_RATE
from ..paths import PathLike
from .pictures import open_media
from .place import DecodeError, check_local
from .sound import Sound, seconds, sound_stream


def decode_sound(
    path: PathLike,
    *,
    rate: int = SAMPLE_RATE,
    max_seconds: float = 600.0,
    start_s: float | None = None,
    end_s: float | None = None,
    progress: Callable[[float], object] | None = None,
) -> np.ndarray:
    """Decode the main sound track of a sound file or a film; pictures are not looked at.

    Args:
      path: as for `decode_clip`.
      rate: Hz of the result.
      max_seconds: what comes after so many seconds is not decoded.
      start_s: start of a window in seconds from the file's first picture (of a sound file: from its first sample); None
        = the first sample of the track, wherever it lies.
      end_s: end of the window; None = the end of the track.
      progress: called with the time that is reached, in seconds from the start.

    Returns:
      int16 [S] at `rate`, mono, from the start on; silence where the track has none yet.

    Raises:
      DecodeError: no media file, no sound in it, or sound that cannot be decoded.
    """
    check_local(path)
    with open_media(path) as container:
        stream, note = sound_stream(container)
        if stream is None:
            raise DecodeError("no sound track", note)
        sound = Sound(stream, rate=rate)
        start = _begins(stream) if start_s is None else _begins(_pictures(container) or stream) + start_s
        length = max_seconds if end_s is None else min(max_seconds, end_s - (start_s or 0.0))
        sound.keep_between(start, start + length)
        try:
            for packet in container.demux(stream):
                sound.push(packet)
                if progress is not None and math.isfinite(sound.until):
                    progress(sound.until - start)
                if sound.until - start > length:
                    break
        except FFmpegError as error:
            raise DecodeError("cannot be decoded", error.strerror or str(error)) from error
    duration = min(sound.until - start, length)
    samples = sound.samples(start=start, duration_s=duration) if duration > 0 else None
    if samples is None:
        raise DecodeError("no sound could be decoded")
    return samples


def _begins(stream: Any) -> float:
    """File time of a stream's start in seconds."""
    return 0.0 if stream.start_time is None else seconds(stream.start_time, stream.time_base)


def _pictures(container: Any) -> Any:
    """The stream of moving pictures, None if there is none: cover art has no time."""
    return next((s for s in container.streams.video if not s.disposition & Disposition.attached_pic), None)
