"""One media file, or a window of it, to JPEG frames with their times and 16 kHz mono sound (PyAV, simplejpeg)."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import simplejpeg
from av.error import EOFError as EndOfFile
from av.error import FFmpegError

from ..paths import PathLike
from .fingerprint import Fingerprint
from .pictures import InOrder, Sampler, explain, frame_interval, open_media, video_stream
from .place import DecodeError, check_local
from .scale import Scaler
from .sound import Sound, is_silent, seconds, sound_stream
from .stills import SHOWN_S, is_still, read_still

__all__ = ["DecodeError", "DecodeOptions", "DecodedClip", "decode_clip", "read_rgb"]

_SEEK_S = 5.0  # windows that start later than this are sought, not decoded up to
_BEFORE_S = 1.0  # how much earlier to seek: some containers index decoding time, which is ahead of presentation
_LATE_S = 5.0  # how far behind the pictures the sound may lie in the file
_CUT_SHORT = 0.9  # pictures that end before this share of the stated duration are worth a note
_MAX_BROKEN = 0.5  # a clip with a larger share of broken packets is not used
_VAGUE = ("no frame could be decoded", "too many broken packets", "cannot be decoded")  # the decoder's log may say more


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
      max_pixels: largest picture (width * height in the file) that is accepted.
    """

    fps: float | None = 8.0
    short_side: int = 256
    jpeg_quality: int = 92
    audio: bool = True
    max_seconds: float = 600.0
    max_pixels: int = 2**26  # 8192 x 8192; 8K video has half of it


@dataclasses.dataclass(kw_only=True)
class DecodedClip:
    """A decoded clip.

    Attributes:
      jpegs: n JPEG files, in order of presentation.
      timestamps_s: float32 [n], seconds from the clip's start, increasing.
      height: of the JPEG frames, in pixels, upright and with square pixels.
      width: likewise.
      audio: int16 [S] at 16 kHz, mono, S = duration_s * 16000: silence where the track has nothing; None = no sound,
        or nothing but silence.
      duration_s: length of the clip in seconds, the last frame's own duration included.
      notes: what was left out on the way, in words that are the same for all clips with the same trouble.
      silent: whether there is a sound track, but with nothing to hear in it.
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
    silent: bool = False
    source: dict[str, Any] = dataclasses.field(default_factory=dict)
    fingerprint: Fingerprint | None = None


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
    frames, the JPEGs and the sound. A picture (JPEG, PNG, WebP, BMP) is a clip of one frame that lasts 1/25 s.

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
    reader = _Reader(path, options=options, start_s=start_s, end_s=end_s, progress=progress)
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
        silent=reader.silent,
        source=reader.source,
    )


def read_rgb(
    path: PathLike, *, options: DecodeOptions, start_s: float | None = None, end_s: float | None = None
) -> list[tuple[float, np.ndarray]]:
    """Return what `decode_clip` would compress: `(seconds from the clip's start, uint8 [H,W,3])` of each kept frame.

    Raises:
      DecodeError: the clip cannot be used.
    """
    return list(_Reader(path, options=options, start_s=start_s, end_s=end_s))


def _encode(rgb: np.ndarray, *, quality: int) -> bytes:
    # The accurate DCT costs next to nothing with SIMD; the fast one loses precision at high quality.
    return simplejpeg.encode_jpeg(
        np.ascontiguousarray(rgb), quality=quality, colorspace="RGB", colorsubsampling="420", fastdct=False
    )


class _Reader:
    """Iterates over the kept frames of one clip; afterwards `audio`, `silent`, `duration_s` and `notes` are set."""

    def __init__(
        self,
        path: PathLike,
        *,
        options: DecodeOptions,
        start_s: float | None,
        end_s: float | None,
        progress: Callable[[float], object] | None = None,
    ):
        self._path, self._options, self._progress = path, options, progress
        self._start, self._end = start_s or 0.0, end_s
        self._packets = self._broken = 0
        self.audio: np.ndarray | None = None
        self.silent = False
        self.duration_s = 0.0
        self.notes: list[str] = []
        self.source: dict[str, Any] = {}

    def __iter__(self) -> Iterator[tuple[float, np.ndarray]]:
        """Yield `(time, rgb)`; whatever goes wrong becomes a DecodeError."""
        check_local(self._path)
        if self._end is not None and self._end - self._start > self._options.max_seconds:
            raise self._too_long()
        try:
            yield from self._still() if is_still(self._path) else self._frames()
        except (DecodeError, MemoryError) as error:
            if isinstance(error, DecodeError) and error.reason in _VAGUE:
                raise explain(self._path, error=error) from error
            raise
        except FFmpegError as error:
            raise explain(self._path, error=DecodeError("cannot be decoded", error.strerror or str(error))) from error
        except Exception as error:  # a broken file may upset any layer of the decoder, and must not end the build
            raise DecodeError("decoder failed", f"{type(error).__name__}: {error}") from error

    def _still(self) -> Iterator[tuple[float, np.ndarray]]:
        """Read a picture as one frame on display for a moment."""
        if self._start >= SHOWN_S:
            raise DecodeError("window starts after the last picture", "the file is a single picture")
        rgb, notes = read_still(self._path, short_side=self._options.short_side, max_pixels=self._options.max_pixels)
        self.notes = list(notes)
        self.duration_s = min(SHOWN_S, self._end or SHOWN_S) - self._start
        yield 0.0, rgb

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
            video = video_stream(container, max_pixels=self._options.max_pixels)
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
            video = video_stream(container, max_pixels=self._options.max_pixels)
            self.source = _described(video)
            order = InOrder(frame_interval(video))
            sound = self._sound(container, order)
            scaler = Scaler(
                short_side=self._options.short_side,
                sample_aspect=float(video.sample_aspect_ratio or 1),
                max_pixels=self._options.max_pixels,
            )
            sampler = Sampler(fps=self._options.fps, end=None if self._end is None else self._end - self._start)
            sought = origin is not None
            if origin is not None:
                container.seek(int((origin + self._start - _BEFORE_S) * 1e6), backward=True)
            for time, frame in self._in_order(container, video, sound, sampler, order):
                if origin is None:
                    origin = time
                if sound is not None and sampler.seen == 0:
                    sound.keep_between(origin + self._start, origin + self._start + self._longest())
                time -= origin + self._start
                if self._progress is not None:
                    self._progress(time)
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
                self._take(sound.samples(start=origin + self._start, duration_s=self.duration_s))
            self._report(video, sound)
            if scaler.note:
                self.notes.append(scaler.note)

    def _in_order(
        self, container: Any, video: Any, sound: Sound | None, sampler: Sampler, order: InOrder
    ) -> Iterator[tuple[float, Any]]:
        """Yield `(file time, frame)` in order of time and feed `sound`, until both have reached the window's end."""
        last = 0.0  # file time of the newest frame
        for packet in container.demux([video] if sound is None else [video, sound.stream]):
            if sampler.past_end and (
                sound is None or sound.until > last or _stamp(packet) + order.shifts[-1] > last + _LATE_S
            ):
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
        except MemoryError:  # which is an FFmpegError too
            raise
        except FFmpegError:
            self._broken += 1
            return []

    def _sound(self, container: Any, order: InOrder) -> Sound | None:
        if not self._options.audio:
            return None
        stream, note = sound_stream(container)
        self.notes += [note] if note else []
        return None if stream is None else Sound(stream, shifts=order.shifts)

    def _take(self, samples: np.ndarray | None) -> None:
        """Keep the sound of the window, unless there is nothing to hear in it."""
        self.silent = samples is not None and is_silent(samples)
        self.audio = None if self.silent else samples
        self.notes += ["silent sound track left out"] if self.silent else []

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
