"""Encode a moving-shapes clip as an MP4 file (H.264, AAC) whose bytes depend on its content and PyAV's version only."""

import functools
import io
from collections.abc import Sequence
from fractions import Fraction

import av
import numpy as np
from jaxtyping import UInt8

from .render import SAMPLE_RATE, Event, Tone, render_clip, render_tone

# One thread and no CPU-bound short cuts: without `cpu-independent`, a few files in a hundred differ from run to run
# (x264's macroblock tree).
_X264 = {"preset": "veryfast", "crf": "16", "threads": "1", "x264-params": "cpu-independent=1:me=dia:subme=1"}
_AAC_FRAME = 1024  # samples in a packet


def encode_clip(events: Sequence[Event], *, tone: Tone, background: int, size: int, fps: float) -> bytes:
    """Return the MP4 file of a clip.

    Args:
      events: in their order in time.
      tone: its sound.
      background: seed of the background.
      size: side of the square picture in pixels, even.
      fps: frames per second.
    """
    pictures = np.concatenate([_draw(event, size=size, background=background) for event in events])
    return _encode(pictures, fps=fps, sound=_encode_tone(tone, seconds=len(pictures) / fps))


def encode_silent(frames: UInt8[np.ndarray, "T H W 3"], *, fps: float) -> bytes:
    """Return an MP4 file of RGB pictures, without sound."""
    return _encode(_planes(frames), fps=fps)


@functools.lru_cache(maxsize=8)  # order twins show the same events and are written in succession
def _draw(event: Event, *, size: int, background: int) -> UInt8[np.ndarray, "n h W"]:
    """Return the pictures of one event; see `_planes`."""
    return _planes(render_clip([event], size=size, seed=background))


def _planes(frames: UInt8[np.ndarray, "T H W 3"]) -> UInt8[np.ndarray, "T h W"]:
    """Return RGB pictures as yuv420p planes, h = 3/2 of the height.

    They are converted all at once, as one tall picture: a call per picture takes three times as long.
    """
    count, height, width, _ = frames.shape
    tall = av.VideoFrame.from_ndarray(frames.reshape(-1, width, 3), format="rgb24")
    planes = tall.reformat(format="yuv420p", interpolation="AREA").to_ndarray().reshape(-1)
    area = count * height * width
    y, u, v = np.split(planes, [area, area * 5 // 4])
    return np.concatenate([plane.reshape(count, -1) for plane in (y, u, v)], axis=1).reshape(-1, height * 3 // 2, width)


def _encode(pictures: UInt8[np.ndarray, "T h W"], *, fps: float, sound: tuple[tuple[int, bytes], ...] = ()) -> bytes:
    """Return an MP4 file: H.264 of the yuv420p pictures, and the encoded sound of `_encode_tone`, if there is any."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        video = container.add_stream(
            "libx264",
            rate=Fraction(fps).limit_denominator(1001),
            options=_X264,
            width=pictures.shape[2],
            height=pictures.shape[1] * 2 // 3,
            pix_fmt="yuv420p",
        )
        audio = container.add_stream("aac", rate=SAMPLE_RATE, layout="mono") if sound else None
        for picture in pictures:
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="yuv420p")))
        container.mux(video.encode(None))
        for start, data in sound:
            assert audio is not None
            packet = av.Packet(data)
            packet.stream, packet.time_base = audio, Fraction(1, SAMPLE_RATE)
            packet.pts = packet.dts = start
            packet.duration = _AAC_FRAME
            container.mux(packet)
    return file.getvalue()


@functools.lru_cache(maxsize=2)  # order twins have the same sound
def _encode_tone(tone: Tone, *, seconds: float) -> tuple[tuple[int, bytes], ...]:
    """Return the tone as AAC packets with the sample at which each begins (the first one lies before 0: priming)."""
    encoder = av.AudioCodecContext.create("aac", "w")
    encoder.sample_rate, encoder.layout, encoder.format = SAMPLE_RATE, "mono", "fltp"
    encoder.bit_rate = 16_000
    encoder.options = {"aac_coder": "fast"}
    block = av.AudioFrame.from_ndarray(render_tone(tone, seconds=seconds)[None], format="s16", layout="mono")
    block.sample_rate = SAMPLE_RATE
    block.pts, block.time_base = 0, Fraction(1, SAMPLE_RATE)  # without them every packet is stamped 0
    packets = [*encoder.encode(block), *encoder.encode(None)]
    return tuple((int(packet.pts or 0), bytes(packet)) for packet in packets)
