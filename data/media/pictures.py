"""The pictures of a media file: the choice of the stream, their order and times, and which are kept."""

import collections
import contextlib
import heapq
import re
from collections.abc import Iterator
from typing import Any

import av
import av.logging
from av.codec.codec import UnknownCodecError
from av.error import FFmpegError
from av.stream import Disposition

from ..paths import PathLike, is_plain
from .alpha import LEFT_OUT, has_alpha
from .place import DecodeError, open_elsewhere
from .sound import seconds

_REORDER = 4  # frames held back to sort their stamps; a packed B-frame needs 1
_JUMP_S = 1.0  # a step back of more than this starts a new time line (joined recordings): not disorder
_SLACK_S = 1e-3  # containers round stamps to a millisecond; a frame that comes this late is still in time
_LONGEST_SIDE = 65_500  # of a JPEG (libjpeg)
_REFUSED = re.compile(r"Picture size (\d+)x(\d+) is invalid")
_LONGEST_FRAME_S = 10.0  # stated durations beyond this are not believed
_WITH_ALPHA = {"vp8": "libvpx", "vp9": "libvpx-vp9"}  # decoders that know of transparency beside the stream


def open_media(path: PathLike) -> Any:
    """Open a media file for reading; bytes in its metadata that are not UTF-8 are tolerated.

    Raises:
      DecodeError: it is not a media file.
    """
    if not is_plain(path):
        return open_elsewhere(path)
    try:
        # Only the file protocol: a playlist must not make the decoder open something else.
        return av.open(f"file:{path}", metadata_errors="replace", options={"protocol_whitelist": "file"})
    except FFmpegError as error:
        raise DecodeError("cannot be opened", error.strerror or str(error)) from error


def video_stream(container: Any, *, max_pixels: int) -> tuple[Any, str]:
    """Return the main video stream, cover art of a sound file being none, and a note on the choice.

    Raises:
      DecodeError: no video stream, no decoder for it, or pictures of more than `max_pixels`.
    """
    streams = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
    if not streams:
        others = "sound only" if container.streams.audio else "nothing to show or to hear in it"
        kinds = "cover art only" if container.streams.video else others
        raise DecodeError("no video stream", kinds)
    best = container.streams.best("video")
    stream = best if best in streams else streams[0]
    if stream.codec_context is None:
        raise DecodeError("no decoder for the video stream")
    check_size(stream.codec_context.width, stream.codec_context.height, max_pixels=max_pixels)
    # Pictures may also grow on the way. Twice, because decoders round sizes up to whole blocks.
    stream.codec_context.options = {"max_pixels": str(2 * max_pixels)}
    stream.thread_count = 1  # clips are decoded in parallel processes, with which threads would compete
    return stream, "several video tracks, the main one taken" if len(streams) > 1 else ""


def picture_decoder(video: Any) -> tuple[Any, str]:
    """Return what decodes a video stream's packets, and a note on what it leaves out.

    WebM keeps the transparency of VP8 and VP9 beside the stream, where the decoders of libavcodec itself do not look;
    those of libvpx do.
    """
    coded = video.codec_context
    if video.metadata.get("alpha_mode") != "1" or has_alpha(coded.pix_fmt or ""):
        return coded, ""
    try:
        decoder = av.CodecContext.create(_WITH_ALPHA.get(coded.codec.canonical_name, ""), "r")
    except UnknownCodecError:
        return coded, LEFT_OUT
    decoder.thread_count = 1
    return decoder, ""


def check_size(width: int, height: int, *, max_pixels: int) -> None:
    """Refuse pictures that would take too much memory, before any is allocated.

    Raises:
      DecodeError: more than `max_pixels` pixels, or a side longer than JPEG allows.
    """
    if width * height > max_pixels:
        raise DecodeError(f"pictures larger than max_pixels={max_pixels}", f"{width} x {height} pixels")
    if max(width, height) > _LONGEST_SIDE:
        raise DecodeError(f"pictures with a side of more than {_LONGEST_SIDE} pixels", f"{width} x {height} pixels")


def explain(path: PathLike, *, error: DecodeError) -> DecodeError:
    """Return a more specific error where the decoder's log has one: it reports refused sizes only there."""
    level = av.logging.get_level()
    av.logging.set_level(av.logging.ERROR)
    try:
        with (
            av.logging.Capture() as lines,
            contextlib.suppress(DecodeError, FFmpegError),
            open_media(path) as container,
        ):
            next(container.decode(video=0), None)
    finally:
        av.logging.set_level(level)
    for _, _, line in lines:
        if (size := _REFUSED.search(line)) is not None and size[1] != "0":
            return DecodeError("pictures larger than any decoder takes", f"{size[1]} x {size[2]} pixels")
    return error


def frame_interval(stream: Any) -> float:
    """Return the nominal time from frame to frame in seconds; 1/25 where the stream states nothing credible."""
    for rate in (stream.guessed_rate, stream.average_rate):
        if rate and 0.05 <= rate <= 1000:
            return float(1 / rate)
    return 1 / 25


class InOrder:
    """Gives frames increasing times, holding a few frames back.

    Decoders output frames in order of presentation, whatever their stamps. So where stamps step back a little, the
    stamps are sorted, not the frames. After a step back of more than a second, time continues from the newest one. A
    frame without a stamp follows the one before it by the nominal interval. A frame that shares the stamp of the one
    before would not be visible and is left out.

    Attributes:
      shifts: what was added to the stamps in seconds: at first 0, then one more value for each new time line.
      notes: how the times differ from the file's stamps, for the clip's notes; an ordered set, which may be cleared.
    """

    def __init__(self, interval: float):
        self._interval = interval
        self._frames: collections.deque[Any] = collections.deque()
        self._stamps: list[float] = []  # a heap
        self.shifts = [0.0]
        self.notes: dict[str, None] = {}
        self._newest: float | None = None
        self._last: float | None = None

    def push(self, frame: Any) -> Iterator[tuple[float, Any]]:
        """Take the decoder's next frame; yield `(seconds of the file's time line, frame)` of those that are settled."""
        following = 0.0 if self._newest is None else self._newest + self._interval
        if frame.pts is None or frame.time_base is None:
            time = following
            self.notes["pictures without a time stamp: placed by the frame rate"] = None
        else:
            time = seconds(frame.pts, frame.time_base) + self.shifts[-1]
            if self._newest is not None and time < self._newest - _JUMP_S:
                self.shifts.append(self.shifts[-1] + following - time)
                time = following
                self.notes["time stamps start again: taken for recordings joined together"] = None
            elif self._newest is not None and time < self._newest:
                self.notes["time stamps of pictures put in order"] = None
        self._newest = time if self._newest is None else max(self._newest, time)
        heapq.heappush(self._stamps, time)
        self._frames.append(frame)
        if len(self._frames) > _REORDER:
            yield from self._pop()

    def flush(self) -> Iterator[tuple[float, Any]]:
        """Yield the frames that are still held back."""
        while self._frames:
            yield from self._pop()

    def _pop(self) -> Iterator[tuple[float, Any]]:
        time, frame = heapq.heappop(self._stamps), self._frames.popleft()
        if self._last is None or time > self._last:
            self._last = time
            yield time, frame
        else:
            self.notes["pictures that share a time stamp: only the first one taken"] = None


class Sampler:
    """Chooses the frames to keep from a stream of frames in order of time.

    At `fps`, the frame on display at each k/fps is kept, once; without, every frame that is on display within the
    window. Times are seconds from the window's start; a frame that came before it and is still on display has time 0.

    Attributes:
      end: end of the window, None = end of the pictures.
      past_end: whether a frame at or after `end` has come, so that no further one is needed.
      seen: number of frames pushed.
    """

    def __init__(self, *, fps: float | None, end: float | None):
        self._step = 1 / fps if fps else None
        self.end = end
        self.past_end = False
        self.seen = 0
        self._next = 0  # index of the next grid point
        self._held: tuple[float, Any] | None = None
        self._delta = 0.0
        self._kept_any = False

    def push(self, time: float, frame: Any) -> tuple[float, Any] | None:
        """Take the next frame; return the one before it if that is to be kept."""
        self.seen += 1
        kept = self._keep(until=time)
        self._delta = 0.0 if self._held is None else time - self._held[0]
        self._held = (time, frame)
        self.past_end = self.end is not None and time >= self.end - _SLACK_S
        return kept

    def finish(self, interval: float) -> tuple[tuple[float, Any] | None, float]:
        """Return the last frame if it is to be kept, and the end of the clip in seconds from the window's start.

        Args:
          interval: nominal frame interval in seconds, for a last frame that states no duration of its own.

        Raises:
          DecodeError: no frame at all, or none within the window.
        """
        if self._held is None:
            raise DecodeError("no frame could be decoded", "the pictures are damaged, encrypted or cut off")
        time, frame = self._held
        stated = seconds(frame.duration, frame.time_base) if frame.duration and frame.time_base else 0.0
        # A duration of one tick of a millisecond clock is no duration: the file does not know it.
        shown = stated if _SLACK_S < stated <= _LONGEST_FRAME_S else self._delta or interval
        pictures_end = time + shown
        end = pictures_end if self.end is None else min(self.end, pictures_end)
        if end <= 0:
            raise DecodeError("window starts after the last picture", f"pictures end {-end:.2f} s before it")
        kept = self._keep(until=pictures_end)
        if kept is None and not self._kept_any:  # shorter than the slack
            kept = (max(time, 0.0), frame)
        return kept, end

    def _keep(self, *, until: float) -> tuple[float, Any] | None:
        if self._held is None:
            return None
        time, frame = self._held
        if (time < 0 and until <= _SLACK_S) or (self.end is not None and time >= self.end - _SLACK_S):
            return None  # not on display within the window, but for the rounding of stamps
        until = until if self.end is None else min(until, self.end)
        if self._step is not None:
            if self._next * self._step >= until - _SLACK_S:
                return None
            while self._next * self._step < until - _SLACK_S:
                self._next += 1
        self._kept_any = True
        return max(time, 0.0), frame
