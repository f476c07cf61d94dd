"""The bare loop with which `bench prepare` compares `prepare`: PyAV decodes, simplejpeg compresses, nothing else.

It shares no code with data/media, on purpose.
"""

import json
import sys
import time
from typing import Any

import av
import simplejpeg
from av.audio.resampler import AudioResampler
from av.error import FFmpegError
from av.video.reformatter import Interpolation

RATE = 16_000


def serve() -> None:
    """Answer each line `[path, start_s, end_s, options]` of standard input with a line of seconds by stage."""
    for line in sys.stdin:
        print(json.dumps(decode(*json.loads(line))), flush=True)


def decode(path: str, start_s: float | None, end_s: float | None, options: dict[str, Any]) -> dict[str, float]:
    """Decode a file once.

    Args:
      path: of the file.
      start_s: from where, in seconds; None = 0.
      end_s: up to where; None = to the end.
      options: fields of `DecodeOptions`.

    Returns:
      `frames` kept, and the seconds spent in `decode`, `scale`, `jpeg` and `sound`; 0 frames if decoding fails.
    """
    spent = {"frames": 0, "decode": 0.0, "scale": 0.0, "jpeg": 0.0, "sound": 0.0}
    try:
        _decode(path, start_s or 0.0, end_s or float("inf"), options, spent)
    except (FFmpegError, OSError, IndexError, ValueError):
        spent["frames"] = 0
    return spent


def _decode(path: str, start: float, end: float, options: dict[str, Any], spent: dict[str, float]) -> None:
    with av.open(path) as container:
        video = container.streams.video[0]
        video.thread_count = 1
        streams: list[Any] = [video]
        if options["audio"] and container.streams.audio:
            streams.append(container.streams.audio[0])
        if start:
            container.seek(int(start * 1e6), backward=True)
        resampler = AudioResampler(format="s16", layout="mono", rate=RATE)
        step = 1 / options["fps"] if options["fps"] else 0.0
        due = start
        clock = time.perf_counter()
        for packet in container.demux(streams):
            frames: Any = packet.decode()
            if packet.stream is not video:
                for frame in frames:
                    for piece in resampler.resample(frame):
                        piece.to_ndarray()
                clock = _lap(spent, "sound", clock)
                continue
            clock = _lap(spent, "decode", clock)
            for frame in frames:
                time_s = frame.time or 0.0
                if time_s >= end:
                    return
                if time_s < due - 1e-3:
                    continue
                due += step * max(1, int((time_s - due) / step) + 1) if step else 0.0
                rgb = _scaled(frame, options["short_side"])
                clock = _lap(spent, "scale", clock)
                simplejpeg.encode_jpeg(
                    rgb, quality=options["jpeg_quality"], colorspace="RGB", colorsubsampling="420", fastdct=False
                )
                clock = _lap(spent, "jpeg", clock)
                spent["frames"] += 1


def _scaled(frame: Any, short_side: int) -> Any:
    scale = min(1.0, short_side / min(frame.width, frame.height)) if short_side else 1.0
    size = {"width": max(1, round(frame.width * scale)), "height": max(1, round(frame.height * scale))}
    return frame.reformat(**size, format="rgb24", interpolation=Interpolation.AREA, threads=1).to_ndarray()


def _lap(spent: dict[str, float], stage: str, since: float) -> float:
    now = time.perf_counter()
    spent[stage] += now - since
    return now
