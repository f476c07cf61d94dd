"""One media file, or a window of it, to JPEG frames with their times and 16 kHz mono sound (PyAV, simplejpeg)."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
from av.error import EOFError as EndOfFile
from av.error import FFmpegError, InvalidDataError

from .fingerprint import Fingerprint
from .pictures import DecodeError, InOrder, Sampler, Scaler, frame_interval, open_media, video_stream
from .sound import Sound, seconds

__all__ = ["DecodeError", "DecodeOptions", "DecodedClip", "decode_clip", "read_rgb"]

_SEEK_S = 5.0  # windows that start later than this are sought, not decoded up to
_BEFORE_S = 1.0  # how much earlier to seek: some containers index decoding time, which is ahead of presentation
_LATE_S = 5.0  # how far behind the pictures the sound may lie in the file
_CUT_SHORT = 0.9  # pictures that end before this share of the stated duration are worth a note
_MAX_BROKEN = 0.5  # a clip with a larger share of broken packets is not used


class _SeekMissed(Exception):
    """Seeking landed after the window's start; the file has to be read from its beginning."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecodeOptions:
    """What is kept of a clip.

    Attributes:
      fps: frames per second to keep; None or 0 = every frame. Never more than the file has: a frame is kept once.
      short_side: pixels of the shorter side of the kept frames; 0 = as in the file. Smaller pictures stay as they are.
      jpeg_quality: 1 to 100 (libjpeg scale, chroma 4:2:0).
      audio: whether the sound is kept.
      max_seconds: longest clip (or window) that is accepted, in seconds; bounds the memory of one clip.
    """

    fps: float | None = 8.0
    short_side: int = 256
    jpeg_quality: int = 92
    audio: bool = True
    max_seconds: float = 600.0


@dataclasses.dataclass(kw_only=True)
class DecodedClip:
    """A decoded clip.

    Attributes:
      jpegs: n JPEG files, in order of presentation.
      timestamps_s: float32 [n], seconds from the clip's start, increasing.
      height: of the JPEG frames, in pixels, upright and with square pixels.
      width: likewise.
      audio: int16 [S] at 16 kHz, mono, S = duration_s * 16000: silence where the track has nothing; None = no sound.
      duration_s: length of the clip in seconds, the last frame's own duration included.
      notes: what was left out on the way, in words that are the same for all clips with the same trouble.
      source: what the file's pictures are: `codec`, `height`, `width` as coded, `fps` on average (None = not stated).
      fingerprint: what the clip is recognised by; None until a decoding process has filled it in.
    """

    jpegs: list[bytes]
    timestamps_s: np.ndarray
    height: int
    width: int
    audio: np.ndarray | None
    duration_s: float
    notes: tuple[str, ...] = ()
    source: dict[str, Any] = dataclasses.field(default_factory=dict)
    fingerprint: Fingerprint | None = None


def decode_clip(
    path: Path, *, options: DecodeOptions, start_s: float | None = None, end_s: float | None = None
) -> DecodedClip:
    """Decode a media file, or the window `[start_s, end_s)` of it.

    Time is presentation time, counted from the file's first picture. At `fps`, the frame on display at each multiple
    of 1/fps from the clip's start is kept, once, with its own time stamp. Frames are streamed: memory holds a few raw
    frames, the JPEGs and the sound.

    Args:
      path: a file with a video stream (cover art of a sound file does not count).
      options: what to keep.
      start_s: start of the window in seconds; None = 0.
      end_s: end of the window in seconds, exclusive; None = end of the pictures.

    Raises:
      DecodeError: the clip cannot be used; `reason` says why.
    """
    reader = _Reader(Path(path), options=options, start_s=start_s, end_s=end_s)
    jpegs: list[bytes] = []
    times: list[float] = []
    height = width = 0
    for time, rgb in reader:
        height, width = rgb.shape[:2]
        jpegs.append(_encode(rgb, quality=options.jpeg_quality))
        times.append(time)
    return DecodedClip(
        jpegs=jpegs,
        timestamps_s=np.asarray(times, dtype=np.float32),
        height=height,
        width=width,
        audio=reader.audio,
        duration_s=reader.duration_s,
        notes=tuple(reader.notes),
        source=reader.source,
    )


def read_rgb(
    path: Path, *, options: DecodeOptions, start_s: float | None = None, end_s: float | None = None
) -> list[tuple[float, np.ndarray]]:
    """Return what `decode_clip` would compress: `(seconds from the clip's start, uint8 [H,W,3])` of each kept frame.

    Raises:
      DecodeError: the clip cannot be used.
    """
    return list(_Reader(Path(path), options=options, start_s=start_s, end_s=end_s))


def _encode(rgb: np.ndarray, *, quality: int) -> bytes:
    # The accurate DCT costs next to nothing with SIMD; the fast one loses precision at high quality.
    return simplejpeg.encode_jpeg(
        np.ascontiguousarray(rgb), quality=quality, colorspace="RGB", colorsubsampling="420", fastdct=False
    )


class _Reader:
    """Iterates over the kept frames of one clip; afterwards `audio`, `duration_s` and `notes` are set."""

    def __init__(self, path: Path, *, options: DecodeOptions, start_s: float | None, end_s: float | None):
        self._path, self._options = path, options
        self._start, self._end = start_s or 0.0, end_s
        self._packets = self._broken = 0
        self.audio: np.ndarray | None = None
        self.duration_s = 0.0
        self.notes: list[str] = []
        self.source: dict[str, Any] = {}

    def __iter__(self) -> Iterator[tuple[float, np.ndarray]]:
        """Yield `(time, rgb)`; whatever goes wrong becomes a DecodeError."""
        if not self._path.is_file():
            raise DecodeError("file does not exist")
        if self._path.stat().st_size == 0:
            raise DecodeError("file is empty")
        if self._end is not None and self._end - self._start > self._options.max_seconds:
            raise self._too_long()
        try:
            yield from self._frames()
        except DecodeError:
            raise
        except FFmpegError as error:
            raise DecodeError("cannot be decoded", error.strerror or str(error)) from error
        except Exception as error:  # a broken file may upset any layer of the decoder, and must not end the build
            raise DecodeError("decoder failed", f"{type(error).__name__}: {error}") from error

    def _frames(self) -> Iterator[tuple[float, np.ndarray]]:
        origin = self._first_stamp() if self._start > _SEEK_S else None
        if origin is not None:
            try:
                yield from self._window(origin)
                return
            except _SeekMissed:
                pass
        yield from self._window(None)

    def _first_stamp(self) -> float | None:
        """Time stamp of the file's first picture in seconds; None where seeking by stamps makes no sense."""
        with open_media(self._path) as container:
            video = video_stream(container)
            order = InOrder(frame_interval(video))
            for packet in container.demux(video):
                for frame in self._decode(packet):
                    if frame.pts is None:
                        return None
                    for time, _ in order.push(frame):
                        return time
        return None

    def _window(self, origin: float | None) -> Iterator[tuple[float, np.ndarray]]:
        """Read the window's frames and sound; seek to it if `origin`, the stamp of the first picture, is given."""
        self._packets = self._broken = 0
        self.notes = []
        with open_media(self._path) as container:
            video = video_stream(container)
            self.source = _described(video)
            sound = self._sound(container)
            scaler = Scaler(short_side=self._options.short_side, sample_aspect=float(video.sample_aspect_ratio or 1))
            sampler = Sampler(fps=self._options.fps, end=None if self._end is None else self._end - self._start)
            sought = origin is not None
            if origin is not None:
                container.seek(int((origin + self._start - _BEFORE_S) * 1e6), backward=True)
            for time, frame in self._in_order(container, video, sound, sampler):
                if origin is None:
                    origin = time
                if sound is not None and sampler.seen == 0:
                    sound.keep_between(origin + self._start, origin + self._start + self._longest())
                time -= origin + self._start
                if sampler.seen == 0 and sought and time > 1e-6:
                    raise _SeekMissed
                if time > self._options.max_seconds:
                    raise self._too_long()
                if (kept := sampler.push(time, frame)) is not None:
                    yield kept[0], scaler(kept[1])
            if sampler.seen == 0 and sought:
                raise _SeekMissed
            kept, self.duration_s = sampler.finish(frame_interval(video))
            if kept is not None:
                yield kept[0], scaler(kept[1])
            if sound is not None and origin is not None:
                self.audio = sound.samples(start=origin + self._start, duration_s=self.duration_s)
            self._report(video, sound)

    def _in_order(
        self, container: Any, video: Any, sound: Sound | None, sampler: Sampler
    ) -> Iterator[tuple[float, Any]]:
        """Yield `(file time, frame)` in order of time and feed `sound`, until both have reached the window's end."""
        order = InOrder(frame_interval(video))
        last = 0.0  # file time of the newest frame
        for packet in container.demux([video] if sound is None else [video, sound.stream]):
            if sampler.past_end and (sound is None or sound.until > last or _stamp(packet) > last + _LATE_S):
                return
            if packet.stream is not video:
                assert sound is not None
                sound.push(packet)
            elif not sampler.past_end:
                for frame in self._decode(packet):
                    for time, in_turn in order.push(frame):
                        last = time
                        yield time, in_turn
        if not sampler.past_end:
            yield from order.flush()

    def _decode(self, packet: Any) -> list[Any]:
        """Decode a packet; a broken one is left out and counted."""
        self._packets += packet.size > 0
        try:
            return packet.decode()
        except EndOfFile:
            return []
        except InvalidDataError:
            self._broken += 1
            return []

    def _sound(self, container: Any) -> Sound | None:
        stream = container.streams.best("audio") if self._options.audio else None
        if stream is None:
            return None
        if stream.codec_context is None:
            self.notes.append("no decoder for the sound")
            return None
        return Sound(stream)

    def _longest(self) -> float:
        return self._options.max_seconds if self._end is None else self._end - self._start

    def _report(self, video: Any, sound: Sound | None) -> None:
        """Refuse the clip if too much of it was broken; note what was."""
        if self._broken > _MAX_BROKEN * self._packets:
            raise DecodeError("too many broken packets", f"{self._broken} of {self._packets}")
        if self._broken:
            self.notes.append("broken picture packets left out")
        if sound is not None and sound.broken:
            self.notes.append("broken sound packets left out")
        stated = seconds(video.duration, video.time_base) if video.duration else 0.0
        end = self._start + self.duration_s
        if end < _CUT_SHORT * min(stated, self._end or stated):
            self.notes.append("pictures end before the time that the file states")

    def _too_long(self) -> DecodeError:
        limit = self._options.max_seconds
        return DecodeError(f"longer than max_seconds={limit:g}", "cut it into windows with start_s and end_s")


def _described(video: Any) -> dict[str, Any]:
    """What `DecodedClip.source` says of a stream."""
    coded, rate = video.codec_context, video.average_rate
    fps = round(float(rate), 3) if rate else None
    return {"codec": coded.name, "height": coded.height, "width": coded.width, "fps": fps}


def _stamp(packet: Any) -> float:
    """File time of a packet in seconds; minus infinity where it bears none."""
    if packet.dts is None or packet.time_base is None:
        return float("-inf")
    return seconds(packet.dts, packet.time_base)
