"""Films for `twinreel bench prepare` where no source is given: drifting patterns with a tone, H.264 and AAC."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from jaxtyping import UInt8

from ...data.manifest import Clip, write_manifest

_SECONDS, _FPS, _SIDE, _RATE = 4, 12, 256, 16_000


def write_films(folder: Path, *, films: int = 16, repeats: int = 6) -> Path:
    """Write films and a manifest in which each is a clip several times.

    Args:
      folder: existing folder to write to.
      films: number of files.
      repeats: number of clips of each file.

    Returns:
      The path of the manifest; it has `films * repeats` clips.
    """
    for number in range(films):
        _write(folder / f"{number}.mp4", seed=number)
    clips = [
        Clip(clip_id=f"{number}-{i}", path=f"{number}.mp4", captions=(f"pattern {number}",), split="train")
        for i in range(repeats)
        for number in range(films)
    ]
    write_manifest(folder / "films.jsonl", clips=clips)
    return folder / "films.jsonl"


def _frames(*, seed: int) -> UInt8[np.ndarray, "T H W 3"]:
    """Draw three waves of random direction, wavelength and speed in each colour, with a little grain."""
    rng = np.random.default_rng(seed)
    t, y, x = np.meshgrid(np.arange(_SECONDS * _FPS), *2 * [np.arange(_SIDE)], indexing="ij", sparse=True)
    picture = np.full((_SECONDS * _FPS, _SIDE, _SIDE, 3), 128.0, np.float32)
    for channel in range(3):
        for _ in range(3):
            a, b = rng.uniform(-0.15, 0.15, 2)  # radians a pixel
            wave = np.sin(a * x + b * y + rng.uniform(-0.4, 0.4) * t + rng.uniform(0, 6))
            picture[..., channel] += 35 * wave.astype(np.float32)
    picture += rng.normal(0, 4, (_SIDE, _SIDE, 1))
    return np.clip(picture, 0, 255).astype(np.uint8)


def _write(path: Path, *, seed: int) -> None:
    frames = _frames(seed=seed)
    samples = np.arange(_SECONDS * _RATE) / _RATE
    tone = (8000 * np.sin(2 * np.pi * (200 + 20 * seed) * samples)).astype(np.int16)
    with av.open(str(path), "w") as container:
        options = {"preset": "veryfast", "threads": "1"}
        video = container.add_stream("libx264", rate=_FPS, options=options, width=_SIDE, height=_SIDE)
        video.pix_fmt = "yuv420p"
        audio = container.add_stream("aac", rate=_RATE, layout="mono")
        for frame in frames:
            container.mux(video.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(video.encode(None))
        block = av.AudioFrame.from_ndarray(tone[None], format="s16", layout="mono")
        block.sample_rate, block.pts, block.time_base = _RATE, 0, Fraction(1, _RATE)
        container.mux(audio.encode(block))
        container.mux(audio.encode(None))
