"""Tiny media files, written with PyAV; tests use them by the fixture `media`."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np


def grey(*levels: int, size: tuple[int, int] = (32, 48)) -> list[np.ndarray]:
    """Plain frames (height, width = `size`), one per grey level: coding leaves them distinct."""
    return [np.full((*size, 3), level, np.uint8) for level in levels]


def tone(seconds: float, *, hertz: float = 440.0, rate: int = 16_000) -> np.ndarray:
    """A sine at half of full scale, int16 [S]."""
    return np.round(16384 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.int16)


def write_media(
    path: Path,
    frames: list[np.ndarray] | None,
    *,
    fps: int = 8,
    stamps_ms: list[int] | None = None,
    sound: np.ndarray | None = None,
    sound_rate: int = 16_000,
    sound_from_s: float = 0.0,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    aspect: Fraction | None = None,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
) -> Path:
    """Write a media file; `sound` is int16 [S] or [channels, S], `stamps_ms` the frames' times instead of `fps`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options=container_options or {}) as container:
        video = audio = None
        if frames is not None:
            video = container.add_stream(codec, rate=fps)
            video.height, video.width = frames[0].shape[:2]
            video.pix_fmt = pix_fmt
            video.options = options or ({"crf": "12", "preset": "veryfast"} if codec == "libx264" else {})
            if stamps_ms is not None:
                video.codec_context.time_base = Fraction(1, 1000)
            if aspect is not None:
                video.codec_context.sample_aspect_ratio = aspect
        if sound is not None:
            sound = np.atleast_2d(sound)
            audio = container.add_stream("aac", rate=sound_rate, layout="mono" if len(sound) == 1 else "stereo")
        for index, picture in enumerate(frames or ()):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            if stamps_ms is not None:
                frame.pts, frame.time_base = stamps_ms[index], Fraction(1, 1000)
            container.mux(video.encode(frame))
        if sound is not None:
            layout = "mono" if len(sound) == 1 else "stereo"
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(sound), format="s16p", layout=layout)
            frame.sample_rate, frame.time_base = sound_rate, Fraction(1, sound_rate)
            frame.pts = round(sound_from_s * sound_rate)
            container.mux(audio.encode(frame))
        for stream in (video, audio):
            if stream is not None:
                container.mux(stream.encode(None))
    return path
