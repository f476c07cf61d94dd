"""A live source as JPEG frames in a confined process: a camera, a network stream, a growing file, or a file in a loop.

The process reads its options from standard input, and writes frames to standard output: a line of JSON, then the JPEG.
"""

import contextlib
import dataclasses
import json
import math
import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from typing import Any, BinaryIO

import av
import av.logging
import simplejpeg
from av.error import EOFError as EndOfFile
from av.error import FFmpegError

from .limits import confine
from .pictures import open_media, picture_decoder, video_stream
from .place import DecodeError, check_local
from .scale import Scaler
from .sound import seconds

PROTOCOLS = {
    "rtsp": "rtsp,rtp,udp,tcp",
    "rtsps": "rtsp,rtsps,rtp,srtp,udp,tcp,tls",
    "rtmp": "rtmp,tcp",
    "rtmps": "rtmps,rtmp,tcp,tls",
    "http": "http,tcp",
    "https": "https,http,tls,tcp",
    "udp": "udp,rtp",
    "tcp": "tcp",
    "srt": "srt",
}
"""Scheme of a network stream -> the protocols that it may open: none of them reads files."""
_JUMP_S = 1.0  # a step back of more begins a new time line
_DECODE_S = 10.0  # a packet that takes longer to decode ends the process
_CAMERA = re.compile(r"/dev/video[0-9]+")
_CREDENTIALS = re.compile(r"(?<=://)[^/@\s]*@")


@dataclasses.dataclass(frozen=True, kw_only=True)
class LiveOptions:
    """What is read, and what is kept of it.

    Attributes:
      source: a path, a URL of `PROTOCOLS`, or a camera (`/dev/video0`).
      fps: frames per second that are kept; None or 0 = all.
      short_side: pixels of the shorter side of the kept frames; 0 = as they come.
      jpeg_quality: 1 to 100.
      max_pixels: largest picture that is accepted.
      loop: begin a file again at its end.
      follow: wait for a file to grow.
      pace: seconds of a file for each second of time: 1 = as a camera would give them, 0 = as fast as they are taken.
      stall_s: seconds without data after which a source counts as lost.
      memory_gb: limit of the process.
    """

    source: str
    fps: float | None = 8.0
    short_side: int = 256
    jpeg_quality: int = 92
    max_pixels: int = 2**26
    loop: bool = False
    follow: bool = False
    pace: float = 1.0
    stall_s: float = 10.0
    memory_gb: float = 4.0

    @property
    def is_file(self) -> bool:
        """Whether the source is a file, which ends, and not a camera or a stream."""
        return "://" not in self.source and _CAMERA.fullmatch(self.source) is None

    @property
    def shown(self) -> str:
        """The source without user name and password, for messages."""
        return _CREDENTIALS.sub("***@", self.source)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LiveFrame:
    """A frame that was kept.

    Attributes:
      time_s: its time in seconds from the first frame of the connection.
      arrived_s: when its packet came, by the clock `time.monotonic`, which all processes of a machine share.
      jpeg: the picture.
      height: in pixels.
      width: in pixels.
    """

    time_s: float
    arrived_s: float
    jpeg: bytes
    height: int
    width: int


def serve() -> None:
    """Write the frames of a source until it ends (the main of the process)."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends its process itself
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # output of libraries must not mix with the frames
    options = LiveOptions(**json.loads(sys.stdin.buffer.readline()))
    confine(memory_gb=options.memory_gb)
    av.logging.set_level(av.logging.PANIC)
    with contextlib.suppress(BrokenPipeError):
        try:
            for frame in read_live(options):
                header = dataclasses.asdict(frame) | {"jpeg": len(frame.jpeg)}
                _send(out, header, frame.jpeg)
            _send(out, {"reason": "", "detail": ""})
        except DecodeError as error:
            detail = _CREDENTIALS.sub("***@", error.detail)
            _send(out, {"reason": error.reason, "detail": detail})
        except MemoryError:
            _send(out, {"reason": f"needed more than {options.memory_gb:g} GB of memory", "detail": ""})


def receive(pipe: BinaryIO) -> LiveFrame | DecodeError | None:
    """Read what `serve` wrote: a frame, why the source was lost, or None at its end.

    Raises:
      EOFError: the process died.
    """
    line = pipe.readline()
    if not line.endswith(b"\n"):
        raise EOFError
    header: dict[str, Any] = json.loads(line)
    if "reason" in header:
        return DecodeError(header["reason"], header["detail"]) if header["reason"] else None
    jpeg = pipe.read(header["jpeg"])
    if len(jpeg) < header["jpeg"]:
        raise EOFError
    header["jpeg"] = jpeg
    return LiveFrame(**header)


def read_live(options: LiveOptions) -> Iterator[LiveFrame]:
    """Yield the frames that are kept, as they come.

    Raises:
      DecodeError: the source cannot be opened or decoded, or is lost.
    """
    clock = _Clock(fps=options.fps, pace=options.pace if options.is_file and not options.follow else 0.0)
    try:
        while True:
            yield from _connection(options, clock)
            if not (options.loop and options.is_file):
                return
            clock.restart()
    except FFmpegError as error:
        ended = options.follow and type(error).__name__ == "ExitError" and clock.seen
        if not ended:
            raise DecodeError("the source is lost", error.strerror or str(error)) from error
    except (DecodeError, MemoryError, BrokenPipeError):
        raise
    except Exception as error:  # a broken stream may upset any layer of the decoder
        raise DecodeError("decoder failed", f"{type(error).__name__}: {error}") from error


def _connection(options: LiveOptions, clock: "_Clock") -> Iterator[LiveFrame]:
    with _open(options) as container:
        video, _ = video_stream(container, max_pixels=options.max_pixels)
        decoder, _ = picture_decoder(video)
        scaler = Scaler(
            short_side=options.short_side,
            sample_aspect=float(video.sample_aspect_ratio or 1),
            max_pixels=options.max_pixels,
        )
        for packet in container.demux(video):
            clock.wait(packet)
            for frame in _decode(packet, decoder):
                if (stamp := clock.keep(frame)) is None:
                    continue
                time_s, arrived_s = stamp
                rgb = scaler(frame)
                jpeg = simplejpeg.encode_jpeg(rgb, quality=options.jpeg_quality, colorsubsampling="420", fastdct=False)
                yield LiveFrame(time_s=time_s, arrived_s=arrived_s, jpeg=jpeg, height=rgb.shape[0], width=rgb.shape[1])
        if not clock.seen:
            raise DecodeError("no frame could be decoded", options.shown)


def _open(options: LiveOptions) -> Any:
    """Open the source; it may use the protocols of its scheme only."""
    source, timeout = options.source, options.stall_s
    try:
        if _CAMERA.fullmatch(source):
            return av.open(source, format="v4l2", timeout=timeout)
        if options.is_file:
            if not options.follow:
                check_local(source)
                return open_media(source)
            follow = {"follow": "1", "protocol_whitelist": "file"}
            return av.open(f"file:{source}", options=follow, metadata_errors="replace", timeout=timeout)
        scheme = source.partition("://")[0].lower()
        if scheme not in PROTOCOLS:
            known = f"known: {', '.join(PROTOCOLS)}, files, /dev/video0"
            raise DecodeError(f"unknown kind of source {scheme}://", known)
        given = {"protocol_whitelist": PROTOCOLS[scheme]}
        given |= {"rtsp_transport": "tcp"} if scheme.startswith("rtsp") else {}
        return av.open(source, options=given, metadata_errors="replace", timeout=timeout)
    except FFmpegError as error:
        raise DecodeError("cannot be opened", error.strerror or str(error)) from error


def _decode(packet: Any, decoder: Any) -> list[Any]:
    """Decode a packet within a limit of time; a broken one gives nothing."""
    signal.setitimer(signal.ITIMER_REAL, _DECODE_S)
    try:
        return decoder.decode(packet)
    except EndOfFile:
        return []
    except MemoryError:
        raise
    except FFmpegError:
        return []
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


class _Clock:
    """Times of frames: when they are due, when their packets came, and which are kept.

    Attributes:
      seen: frames of the connection.
    """

    def __init__(self, *, fps: float | None, pace: float):
        self._fps, self._pace = fps, pace
        self._started = time.monotonic()
        self._arrived: dict[int, float] = {}  # of the packets in the decoder, by their stamps
        self._origin: float | None = None  # stamp of the first frame, less the time at which it is shown
        self._last = self._interval = 0.0
        self._slot = -1
        self.seen = 0

    def restart(self) -> None:
        """Go on after the last frame, with the first one of the file."""
        self._origin = None
        self._arrived.clear()

    def wait(self, packet: Any) -> None:
        """Wait until a packet of a paced file is due; note when it came."""
        if packet.pts is None:
            return
        if self._pace and packet.time_base is not None:
            stamp = seconds(packet.pts, packet.time_base)
            time_s = 0.0 if self._origin is None else stamp - self._origin
            if self._origin is None and self.seen:
                time_s = self._last + self._interval
            time.sleep(max(0.0, self._started + time_s / self._pace - time.monotonic()))
        if len(self._arrived) > 1000:
            self._arrived.clear()
        self._arrived[packet.pts] = time.monotonic()

    def keep(self, frame: Any) -> tuple[float, float] | None:
        """Return the time of a frame and when it came, or None if it is not kept."""
        arrived = self._arrived.pop(frame.pts, None) or time.monotonic()
        following = self._last + (self._interval or 1 / 25) if self.seen else 0.0
        if frame.pts is None or frame.time_base is None:
            time_s = following
        else:
            stamp = seconds(frame.pts, frame.time_base)
            if self._origin is None or abs(stamp - self._origin - self._last) > max(_JUMP_S, 60 * self._interval):
                self._origin = stamp - following  # the first frame, a restart or a jump
            time_s = stamp - self._origin
        if self.seen and time_s <= self._last:
            return None
        if self.seen:
            self._interval = time_s - self._last
        self._last = time_s
        self.seen += 1
        if not self._fps:
            return time_s, arrived
        slot = math.floor(time_s * self._fps + 1e-3)
        if slot <= self._slot:
            return None
        self._slot = slot
        return time_s, arrived


def _send(pipe: BinaryIO, header: dict[str, Any], content: bytes = b"") -> None:
    pipe.write(json.dumps(header).encode() + b"\n" + content)
    pipe.flush()
