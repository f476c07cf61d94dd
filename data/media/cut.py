"""Stretches of films as an MP4 file: decoded, cut to the frame, and encoded again (PyAV: H.264 and AAC)."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.error import FFmpegError

from ...base.errors import UserError
from .clip import DecodeOptions
from .pictures import open_media, video_stream
from .reader import Reader
from .sound import sound_stream

_CLOCK = 90_000  # ticks a second of the pictures' times
_QUALITY = {"crf": "18", "preset": "veryfast"}
_BLOCK = 1024  # samples of an AAC frame
_LONGEST_S = 3600.0
_TURN_S = 10.0  # seconds of pictures that are encoded before it is the turn of the sound

Track = tuple[int, str]
"""Rate in Hz and channel layout of a sound track."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
    """A stretch of a film: `start_s` to `end_s`, seconds from the film's first picture; the film may end before."""

    source: Path
    start_s: float
    end_s: float


def cut(source: Path, *, out: Path, start_s: float, end_s: float) -> None:
    """Write a stretch of a film as MP4: the frames on display from `start_s` to `end_s`, with their own times.

    For the arguments and the errors see `Part` and `join`.
    """
    join([Part(source=source, start_s=start_s, end_s=end_s)], out=out)


def join(parts: Sequence[Part], *, out: Path, tick: Callable[[float], object] = lambda _: None) -> None:
    """Write stretches of films one after another as one MP4: the frames on display in each, with their own times.

    Pictures are upright, with square pixels and even sides, 4:2:0, in the size of the first one; sound keeps the rate
    of the first film that has any, as stereo or mono, and starts with its pictures, exact to the sample. Where a film
    has no sound there is silence; without any sound there is no sound track.

    Args:
      parts: one or more.
      out: the file; it appears whole or not at all.
      tick: called with the seconds that are written, again and again.

    Raises:
      DecodeError: a film cannot be decoded there.
      UserError: the same file as a source.
    """
    for part in parts:
        if out.exists() and out.samefile(part.source):
            raise UserError(f"{out} would replace the film that it is cut from; give another folder")
    track = next((found for source in dict.fromkeys(part.source for part in parts) if (found := _track(source))), None)
    temporary = out.with_name(f".{out.name}.tmp.mp4")
    try:
        with av.open(str(temporary), "w", options={"movflags": "faststart"}) as container:
            _encode(container, parts, track=track, tick=tick)
        temporary.replace(out)
    finally:
        temporary.unlink(missing_ok=True)


def _encode(container: Any, parts: Sequence[Part], *, track: Track | None, tick: Callable[[float], object]) -> None:
    """Encode pictures and sound in turns; the streams are declared before anything is written."""
    audio = None if track is None else container.add_stream("aac", rate=track[0], layout=track[1])
    heard = iter(()) if track is None else _sound_blocks(parts, track=track)
    video, spoken, turn = None, 0.0, _TURN_S
    lengths: dict[int, int] = {}  # stamp of a picture -> how long it is on display, in ticks
    for time, until, rgb in _pictures(parts):
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


def _pictures(parts: Sequence[Part]) -> Iterator[tuple[float, float, np.ndarray]]:
    """Yield the pictures of all parts, uint8 [H,W,3], with when each appears and disappears in the joined film."""
    options = DecodeOptions(fps=None, short_side=0, audio=False, max_seconds=_LONGEST_S)
    origin, held = 0.0, None
    for number, part in enumerate(parts, start=1):
        reader = Reader(part.source, options=options, start_s=part.start_s, end_s=part.end_s)
        for time, rgb in reader:
            if held is not None:
                yield held[0], origin + time, held[1]
            held = (origin + time, rgb)
        last = origin + reader.duration_s  # shorter than the part where the film ends before
        origin += part.end_s - part.start_s
        if held is not None and number == len(parts):
            yield held[0], last, held[1]


def _sound_blocks(parts: Sequence[Part], *, track: Track) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the sound of all parts in blocks float32 [channels,n], with the number of their first sample."""
    rate, rest, begun, elapsed = track[0], None, 0, 0.0
    for part in parts:
        first = round(elapsed * rate)
        elapsed += part.end_s - part.start_s
        found = _sound(part, samples=round(elapsed * rate) - first, track=track)
        rest = found if rest is None else np.concatenate([rest, found], axis=1)
        whole = rest.shape[1] // _BLOCK * _BLOCK
        for start in range(0, whole, _BLOCK):
            yield begun, rest[:, start : start + _BLOCK]
            begun += _BLOCK
        rest = rest[:, whole:]
    if rest is not None and rest.shape[1]:
        yield begun, rest


def _encode_block(container: Any, audio: Any, block: tuple[int, np.ndarray], *, track: Track | None) -> float:
    """Encode a block of sound; return the seconds at its end."""
    assert track is not None
    start, samples = block
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format="fltp", layout=track[1])
    frame.sample_rate, frame.pts, frame.time_base = track[0], start, Fraction(1, track[0])
    container.mux(audio.encode(frame))
    return (start + samples.shape[1]) / track[0]


def _track(source: Path) -> Track | None:
    """Return the rate of a film's sound, and the layout in which it is written; None without sound."""
    with open_media(source) as container:
        stream, _ = sound_stream(container)
        return None if stream is None else (stream.rate, "mono" if stream.channels == 1 else "stereo")


def _sound(part: Part, *, samples: int, track: Track) -> np.ndarray:
    """Return the sound of a stretch, float32 [channels,samples]; silence where the film has nothing."""
    rate, layout = track
    made = np.zeros((1 if layout == "mono" else 2, samples), np.float32)
    with open_media(part.source) as container:
        video, _ = video_stream(container, max_pixels=2**26)
        first = next(container.decode(video), None)
        origin = first.time if first is not None and first.time is not None else 0.0
    with open_media(part.source) as container:
        stream, _ = sound_stream(container)
        if stream is None:
            return made
        resampler = av.AudioResampler(format="fltp", layout=layout, rate=rate)
        if part.start_s > 1:
            container.seek(int((origin + part.start_s - 1) * 1e6), backward=True)
        for packet in container.demux(stream):
            try:
                decoded = packet.decode()
            except FFmpegError:
                continue
            for frame in decoded:
                if frame.time is None:
                    continue
                at = round((frame.time - origin - part.start_s) * rate)
                if at >= samples:
                    return made
                for piece in resampler.resample(frame):
                    _place(piece.to_ndarray(), into=made, at=at)
                    at += piece.samples
    return made


def _place(block: np.ndarray, *, into: np.ndarray, at: int) -> None:
    """Write a block of samples at its place, as far as it lies inside."""
    first, last = max(at, 0), min(at + block.shape[1], into.shape[1])
    if first < last:
        into[:, first:last] = block[:, first - at : last - at]
