"""The frames of a clip to bytes: JPEG files (simplejpeg), or access units of H.264 (PyAV, libx264)."""

import re
from fractions import Fraction
from typing import Any, Protocol

import av
import numpy as np
from av.error import FFmpegError
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc

from ..transforms.jpeg import encode_jpeg
from ..transforms.units import is_key
from .clip import DecodeOptions
from .place import DecodeError

# Equal pictures give equal bytes on any machine: one thread, no code that depends on the processor. No CABAC, no
# deblocking and no weights (`fastdecode`) make a tenth more bytes, which decode in less than half the time.
_PARAMETERS = "scenecut=0:bframes=0:open-gop=0:threads=1:lookahead-threads=1:cpu-independent=1"
_STREAM = "aud=1:repeat-headers=1:annexb=1:chromaloc=1"
_RATE = 25  # frames per second, as far as libx264 knows: its quality at a CRF depends on it
_NOTE = re.compile(rb"\x00\x00\x01\x06.*?(?=\x00\x00\x01)", re.DOTALL)  # in the first unit: libx264's name and options


class FrameEncoder(Protocol):
    """Takes the frames of a clip in order."""

    def add(self, rgb: np.ndarray) -> None:
        """Take a frame, uint8 [H,W,3]; all have one size."""
        ...

    def end(self) -> list[bytes]:
        """Return what is stored, one value for each frame."""
        ...


def frame_encoder(options: DecodeOptions) -> FrameEncoder:
    """Return the encoder of a clip, as `options.frames_as` says."""
    if options.frames_as == "h264":
        return _H264Frames(segment=options.segment, crf=options.crf)
    return _JpegFrames(quality=options.jpeg_quality)


class _JpegFrames:
    def __init__(self, *, quality: int):
        self._quality, self._files = quality, list[bytes]()

    def add(self, rgb: np.ndarray) -> None:
        self._files.append(encode_jpeg(rgb, quality=self._quality))

    def end(self) -> list[bytes]:
        return self._files


class _H264Frames:
    """Encodes frames in segments, each a key picture and those that are predicted from the one before."""

    def __init__(self, *, segment: int, crf: int):
        self._segment, self._crf = segment, crf
        self._context: Any = None
        self._units: list[bytes] = []
        self._taken = 0

    def add(self, rgb: np.ndarray) -> None:
        planes = _planes(rgb)
        height, width = planes[0].shape
        try:
            if self._context is None:
                self._context = _context(height, width, segment=self._segment, crf=self._crf)
            assert (self._context.height, self._context.width) == (height, width)  # PyAV would scale
            frame: Any = av.VideoFrame(width, height, "yuv420p")
            frame.color_range, frame.pts = ColorRange.JPEG, self._taken
            for plane, part in zip(frame.planes, planes, strict=True):
                np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: part.shape[0], : part.shape[1]] = part
            self._units += map(bytes, self._context.encode(frame))
        except (FFmpegError, ValueError) as error:
            raise DecodeError("its frames cannot be encoded as H.264", str(error)) from error
        self._taken += 1

    def end(self) -> list[bytes]:
        if self._context is not None:
            self._units += map(bytes, self._context.encode(None))
        units, self._units = [_NOTE.sub(b"", unit) for unit in self._units], []
        assert [is_key(unit) for unit in units] == [i % self._segment == 0 for i in range(self._taken)]
        return units


def _context(height: int, width: int, *, segment: int, crf: int) -> Any:
    context: Any = av.CodecContext.create("libx264", "w")
    context.width, context.height, context.pix_fmt = width, height, "yuv420p"
    context.framerate, context.time_base = Fraction(_RATE, 1), Fraction(1, _RATE)
    context.color_range, context.colorspace = ColorRange.JPEG, Colorspace.ITU601
    context.color_primaries, context.color_trc = ColorPrimaries.BT709, ColorTrc.IEC61966_2_1
    context.thread_count = 1
    keys = f"keyint={segment}:min-keyint={segment}"
    parameters = {"x264-params": f"{keys}:{_PARAMETERS}:{_STREAM}"}
    context.options = {"preset": "veryfast", "tune": "fastdecode", "crf": str(crf)} | parameters
    return context


def _planes(rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return grey [H,W], and blue and red differences [H/2,W/2], as JPEG has them; an odd side is filled up."""
    import cv2  # loaded by those who need it

    height, width = rgb.shape[:2]
    if height % 2 or width % 2:
        rgb = cv2.copyMakeBorder(rgb, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
    grey, red, blue = cv2.split(cv2.cvtColor(np.ascontiguousarray(rgb), cv2.COLOR_RGB2YCrCb))
    half = (grey.shape[1] // 2, grey.shape[0] // 2)
    blue, red = (cv2.resize(part, half, interpolation=cv2.INTER_AREA) for part in (blue, red))
    return grey, blue, red
