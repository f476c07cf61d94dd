"""Reads one media file, or a window of it: the kept frames one by one, then the sound and the notes (PyAV)."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from av.error import EOFError as EndOfFile
from av.error import FFmpegError

from ..options import SAMPLE_RATE
from ..paths import PathLike
from .clip import DecodeOptions
from .pictures import InOrder, Sampler, explain, frame_interval, open_media, picture_decoder, video_stream
from .place import DecodeError, check_local
from .scale import Scaler
from .seek import Appearance, FirstPicture, may_seek, restarts_at
from .sound import Sound, is_silent, seconds, sound_stream
from .stills import SHOWN_S, is_still, read_still

_SEEK_S = 5.0  # windows that start later than this are sought where that is safe, not decoded up to
_BEFORE_S = 1.0  # how much earlier to seek: some containers index decoding time, which is ahead of presentation
_LATE_S = 5.0  # how far behind the pictures the sound may lie in the file
_CUT_SHORT = 0.9  # pictures that end before this share of the stated duration are worth a note
_MAX_BROKEN = 0.5  # a clip with a larger share of broken packets is not used
_SHORT_OF_S = 0.5  # seconds of sound that are missing, or left over, from which on a note says so
_VAGUE = ("no frame could be decoded", "too many broken packets", "cannot be decoded")  # the decoder's log may say more
_PAST_END = "window ends after the pictures: cut at their end"


class _SeekMissed(Exception):
    """The pictures after a seek may differ from those decoded from the start."""


class Reader:
    """Iterates over the kept frames of one clip.

    Attributes, which are set when the last frame was taken:
      audio: int16 [S], see `DecodedClip`.
      silent: whether there is a sound track with nothing to hear in it.
      duration_s: length of the clip in seconds.
      notes: how the clip differs from the file.
      source: what the file's pictures are.
      stated_s: length of the file in seconds as its container states it; None = it does not.
    """

    def __init__(
        self,
        path: PathLike,
        *,
        options: DecodeOptions,
        start_s: float | None,
        end_s: float | None,
        progress: Callable[[float], object] | None = None,
    ):
        """Set up; for the arguments see `decode_clip`. Nothing is opened yet."""
        self._path, self._options, self._progress = path, options, progress
        self._start, self._end = start_s or 0.0, end_s
        self._packets = self._broken = 0
        self.audio: np.ndarray | None = None
        self.silent = False
        self.duration_s = 0.0
        self.notes: list[str] = []
        self.source: dict[str, Any] = {}
        self.stated_s: float | None = None

    def __iter__(self) -> Iterator[tuple[float, np.ndarray]]:
        """Yield `(seconds from the clip's start, uint8 [H,W,3])`; whatever goes wrong becomes a DecodeError."""
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
        if self._end is not None and self._end > 2 * SHOWN_S:
            self.notes.append(_PAST_END)
        yield 0.0, rgb

    def _frames(self) -> Iterator[tuple[float, np.ndarray]]:
        first = self._first_picture() if self._start > _SEEK_S else None
        if first is not None:
            try:
                yield from self._window(first)
                return
            except _SeekMissed:
                pass
        yield from self._window(None)

    def _first_picture(self) -> FirstPicture | None:
        """Return the file's first picture; None where the window has to be decoded from the start."""
        with open_media(self._path) as container:
            video, _ = video_stream(container, max_pixels=self._options.max_pixels)
            if not may_seek(container, video, start_s=self._start):
                return None
            order = InOrder(frame_interval(video))
            for packet in container.demux(video):
                for frame in self._decode(packet, video.codec_context):
                    if frame.pts is None or frame.format.name == "pal8":
                        return None
                    for time, settled in order.push(frame):
                        return FirstPicture(time, Appearance.of(settled))
        return None

    def _window(self, first: FirstPicture | None) -> Iterator[tuple[float, np.ndarray]]:
        """Read the window's frames and sound; seek to it if the file's first picture is given.

        Raises:
          _SeekMissed: the pictures after the seek may differ from those decoded from the start; nothing was yielded.
        """
        self._packets = self._broken = 0
        self.notes = []
        with open_media(self._path) as container:
            video, note = video_stream(container, max_pixels=self._options.max_pixels)
            self._note(note)
            self.source, self.stated_s = _described(video), _stated(container, video)
            order = InOrder(frame_interval(video))
            sound = self._sound(container, order)
            scaler = Scaler(
                short_side=self._options.short_side,
                sample_aspect=float(video.sample_aspect_ratio or 1),
                max_pixels=self._options.max_pixels,
                spare_alpha=container.format.name == "avi",  # a BMP header's 32 bits are 24 and 8 without a meaning
            )
            sampler = Sampler(fps=self._options.fps, end=None if self._end is None else self._end - self._start)
            origin = None if first is None else first.stamp
            if first is not None:
                _seek(container, stamp=first.stamp + self._start - _BEFORE_S)
            for time, frame in self._in_order(container, video, sound, sampler, order, first):
                origin = time if origin is None else origin
                if sound is not None and sampler.seen == 0:
                    sound.keep_between(origin + self._start, origin + self._start + self._longest())
                time -= origin + self._start
                self._check(time, sampler, order, first)
                if (kept := sampler.push(time, frame)) is not None:
                    yield kept[0], scaler(kept[1])
            if sampler.seen == 0 and first is not None:
                raise _SeekMissed
            kept, self.duration_s = sampler.finish(frame_interval(video))
            if kept is not None:
                yield kept[0], scaler(kept[1])
            self._report(video, order, scaler)
            if sound is not None and origin is not None:
                self._take(sound, origin=origin, sought=first is not None)

    def _check(self, time: float, sampler: Sampler, order: InOrder, first: FirstPicture | None) -> None:
        """Report progress at a frame; refuse a clip that is too long, or a seek that missed the window's start."""
        if self._progress is not None:
            self._progress(time)
        if sampler.seen == 0 and first is not None and (time > 1e-6 or self._broken):
            raise _SeekMissed
        if time > self._options.max_seconds:
            raise self._too_long()
        if time < 0:  # what happens before the window is none of the clip's
            self._packets = self._broken = 0
            order.notes.clear()

    def _in_order(
        self,
        container: Any,
        video: Any,
        sound: Sound | None,
        sampler: Sampler,
        order: InOrder,
        first: FirstPicture | None,
    ) -> Iterator[tuple[float, Any]]:
        """Yield `(file time, frame)` in order of time and feed `sound`, until both have reached the window's end.

        After a seek (`first` is given), frames before the first at which decoding can start are left out.
        """
        last = 0.0  # file time of the newest frame
        begun = first is None
        decoder, note = picture_decoder(video)
        self._note(note)
        for packet in container.demux([video] if sound is None else [video, sound.stream]):
            if sampler.past_end:
                now = _file_time(packet.dts, packet.time_base) + order.shifts[-1]
                if sound is None or sound.until > last or now > last + _LATE_S:
                    return
            if sound is not None and packet.stream is sound.stream:
                sound.push(packet)
            elif not sampler.past_end:
                for frame in self._decode(packet, decoder):
                    if first is not None and not begun:
                        begun = restarts_at(frame, first=first)
                        if not begun and _file_time(frame.pts, frame.time_base) > first.stamp + self._start:
                            raise _SeekMissed
                    for time, in_turn in order.push(frame) if begun else ():
                        last = time
                        yield time, in_turn
        if not sampler.past_end:
            yield from order.flush()

    def _decode(self, packet: Any, decoder: Any) -> list[Any]:
        """Decode a packet; a broken one is left out and counted."""
        self._packets += packet.size > 0
        try:
            return decoder.decode(packet)
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
        self._note(note)
        return None if stream is None else Sound(stream, shifts=order.shifts)

    def _take(self, sound: Sound, *, origin: float, sought: bool) -> None:
        """Keep the sound of the window, unless there is nothing to hear in it, and note what is unusual about it."""
        start = origin + self._start
        samples = sound.samples(start=start, duration_s=self.duration_s)
        if sought and sound.begins > 0:  # a packet that begins before the place sought to may reach into the window
            sound = self._sound_from_start(start)
            samples = sound.samples(start=start, duration_s=self.duration_s)
        self.silent = samples is not None and is_silent(samples)
        self.audio = None if self.silent else samples
        self._note("broken sound packets left out" if sound.broken else "")
        if self.silent:
            self._note("silent sound track left out")
        elif samples is None:
            self._note("sound track has nothing within the clip")
        else:
            for note in sorted(sound.notes):
                self._note(note)
            missing = len(samples) - sound.covered > _SHORT_OF_S * SAMPLE_RATE
            self._note("sound does not span the pictures: silence filled in" if missing else "")
        outside = sound.since < origin - _SHORT_OF_S if self._start == 0 else False
        outside = outside or (self._end is None and sound.until > start + self.duration_s + _SHORT_OF_S)
        self._note("sound before or after the pictures left out" if outside else "")

    def _sound_from_start(self, start: float) -> Sound:
        """Read the sound alone, from the start of the file to the window's end; `start` is the window's, in file time.

        Only files with a single time line are sought in, so no shifts are needed.
        """
        with open_media(self._path) as container:
            stream, _ = sound_stream(container)
            sound = Sound(stream)
            sound.keep_between(start, start + self.duration_s)
            for packet in container.demux(stream):
                sound.push(packet)
                if self._progress is not None and sound.until > 0:
                    self._progress(sound.until - start)
                if sound.until > start + self.duration_s:
                    break
            return sound

    def _longest(self) -> float:
        return self._options.max_seconds if self._end is None else self._end - self._start

    def _report(self, video: Any, order: InOrder, scaler: Scaler) -> None:
        """Refuse the clip if too much of it was broken; note how the pictures differ from the file's."""
        if self._broken > _MAX_BROKEN * self._packets:
            raise DecodeError("too many broken packets", f"{self._broken} of {self._packets}")
        self._note("broken picture packets left out" if self._broken else "")
        stated = seconds(video.duration, video.time_base) if video.duration else 0.0
        end = self._start + self.duration_s
        cut_off = end < _CUT_SHORT * min(stated, self._end or stated)
        self._note("pictures end before the time that the file states" if cut_off else "")
        past_end = self._end is not None and self._end > end + frame_interval(video)
        self._note(_PAST_END if past_end else "")
        for note in (*order.notes, *scaler.notes):
            self._note(note)

    def _note(self, note: str) -> None:
        """Add a note, once; "" = none."""
        if note and note not in self.notes:
            self.notes.append(note)

    def _too_long(self) -> DecodeError:
        limit = self._options.max_seconds
        return DecodeError(f"longer than max_seconds={limit:g}", "cut it into windows with start_s and end_s")


def _seek(container: Any, *, stamp: float) -> None:
    try:
        container.seek(int(stamp * 1e6), backward=True)
    except FFmpegError as error:
        raise _SeekMissed from error


def _described(video: Any) -> dict[str, Any]:
    """What `DecodedClip.source` says of a stream."""
    coded, rate = video.codec_context, video.average_rate
    fps = round(float(rate), 3) if rate else None
    return {"codec": coded.name, "height": coded.height, "width": coded.width, "fps": fps}


def _stated(container: Any, video: Any) -> float | None:
    """Return the length in seconds that a stream, or else its container, states."""
    if video.duration:
        return seconds(video.duration, video.time_base)
    return container.duration / 1e6 if container.duration else None


def _file_time(stamp: int | None, time_base: Any) -> float:
    """Return a stamp in seconds of the file; minus infinity where there is none."""
    return float("-inf") if stamp is None or time_base is None else seconds(stamp, time_base)
