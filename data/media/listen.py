"""The sound of a file alone, of sound files too: mono int16 (PyAV)."""

import numpy as np
from av.error import FFmpegError

from ..options import SAMPLE_RATE
from ..paths import PathLike
from .pictures import open_media
from .place import DecodeError, check_local
from .sound import Sound, seconds, sound_stream


def decode_sound(path: PathLike, *, rate: int = SAMPLE_RATE, max_seconds: float = 600.0) -> np.ndarray:
    """Decode the main sound track of a sound file or a film; pictures are not looked at.

    Args:
      path: as for `decode_clip`.
      rate: Hz of the result.
      max_seconds: what comes after so many seconds is not decoded.

    Returns:
      int16 [S] at `rate`, mono, from the first sample of the track on.

    Raises:
      DecodeError: no media file, no sound in it, or sound that cannot be decoded.
    """
    check_local(path)
    with open_media(path) as container:
        stream, note = sound_stream(container)
        if stream is None:
            raise DecodeError("no sound track", note)
        sound = Sound(stream, rate=rate)
        start = 0.0 if stream.start_time is None else seconds(stream.start_time, stream.time_base)
        try:
            for packet in container.demux(stream):
                sound.push(packet)
                if sound.until - start > max_seconds:
                    break
        except FFmpegError as error:
            raise DecodeError("cannot be decoded", error.strerror or str(error)) from error
    duration = min(sound.until - start, max_seconds)
    samples = sound.samples(start=start, duration_s=duration) if duration > 0 else None
    if samples is None:
        raise DecodeError("no sound could be decoded")
    return samples
