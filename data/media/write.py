"""Pictures and sound as an MP4 file (PyAV: H.264 and AAC)."""

import dataclasses
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

_CLOCK = 90_000  # ticks a second of the pictures' times
_QUALITY = {"crf": "18", "preset": "veryfast"}
_TURN_S = 10.0  # seconds of pictures that are encoded before it is the turn of the sound

BLOCK = 1024
"""Samples of an AAC frame."""
Track = tuple[int, str]
"""Rate in Hz and channel layout of a sound track."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sound:
    """A sound track to be written.

    Attributes:
      track: its rate, and "mono" or "stereo".
      blocks: number of the first sample, and float32 [channels,n] of at most `BLOCK` samples, in order.
    """

    track: Track
    blocks: Iterator[tuple[int, np.ndarray]]


def write_film(
    out: Path,
    *,
    pictures: Iterator[tuple[float, float, np.ndarray]],
    sound: Sound | None = None,
    tick: Callable[[float], object] = lambda _: None,
) -> None:
    """Write a film: square pixels, even sides (an odd line is cut off), 4:2:0, in the size of the first picture.

    Args:
      out: the file; it appears whole or not at all.
      pictures: uint8 RGB [H,W,3] with the seconds at which each appears and disappears, in order.
      sound: None for none.
      tick: called with the seconds that are written, again and again.
    """
    temporary = out.with_name(f".{out.name}.tmp.mp4")
    try:
        with av.open(str(temporary), "w", options={"movflags": "faststart"}) as container:
            _encode(container, pictures, sound=sound, tick=tick)
        temporary.replace(out)
    finally:
        temporary.unlink(missing_ok=True)


def _encode(
    container: Any,
    pictures: Iterator[tuple[float, float, np.ndarray]],
    *,
    sound: Sound | None,
    tick: Callable[[float], object],
) -> None:
    """Encode pictures and sound in turns; the streams are declared before anything is written."""
    track = None if sound is None else sound.track
    audio = None if track is None else container.add_stream("aac", rate=track[0], layout=track[1])
    heard = iter(()) if sound is None else sound.blocks
    video, spoken, turn = None, 0.0, _TURN_S
    lengths: dict[int, int] = {}  # stamp of a picture -> how long it is on display, in ticks
    for time, until, rgb in pictures:
        height, width = (side - side % 2 for side in rgb.shape[:2])
        if video is None:
            video = container.add_stream("libx264", rate=30, options=_QUALITY)
            video.height, video.width, video.pix_fmt = height, width, "yuv420p"
            video.codec_context.time_base = Fraction(1, _CLOCK)
            video.codec_context.colorspace, video.codec_context.color_range = 1, 1  # BT.709, limited range
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb[:height, :width]), format="rgb24")
        frame = picture.reformat(width=video.width, height=video.height, format="yuv420p", dst_colorspace="ITU709")
        frame.pts, frame.time_base = round(time * _CLOCK), Fraction(1, _CLOCK)
        lengths[frame.pts] = round(until * _CLOCK) - frame.pts
        _mux(container, video.encode(frame), lengths=lengths)
        if time >= turn:  # the container holds back what has no counterpart in the other stream yet
            turn += _TURN_S
            while spoken < time and (block := next(heard, None)) is not None:
                spoken = _encode_block(container, audio, block, track=track)
        tick(until)
    if video is not None:
        _mux(container, video.encode(None), lengths=lengths)
    for block in heard:
        _encode_block(container, audio, block, track=track)
    if audio is not None:
        container.mux(audio.encode(None))


def _mux(container: Any, packets: Any, *, lengths: dict[int, int]) -> None:
    """Write packets of pictures with how long each is on display: the last one ends with the film."""
    for packet in packets:
        packet.duration = lengths.pop(packet.pts, 0)
        container.mux(packet)


def _encode_block(container: Any, audio: Any, block: tuple[int, np.ndarray], *, track: Track | None) -> float:
    """Encode a block of sound; return the seconds at its end."""
    assert track is not None
    start, samples = block
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format="fltp", layout=track[1])
    frame.sample_rate, frame.pts, frame.time_base = track[0], start, Fraction(1, track[0])
    container.mux(audio.encode(frame))
    return (start + samples.shape[1]) / track[0]
