"""`twinreel bench frames`: frames as JPEG files and as segments of H.264, in one run."""

import dataclasses
import itertools
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from ...base.errors import UserError
from ...base.parser import Parser
from ...data.media.clip import DecodeOptions
from ...data.media.decode import read_rgb
from ...data.media.encoders import frame_encoder
from ...data.paths import join
from ...data.sources.read import read_source
from ...data.transforms.preprocess import VideoTransform, parse_video
from ...data.transforms.units import drawable

DESCRIPTION = """\
Compare the two ways in which `twinreel prepare` stores frames, on the same frames of the same clips.

  twinreel bench frames clips.jsonl
  twinreel bench frames clips.jsonl --clips 50 --fps 0 --segment 8 16 --crf 18 23

Prints for JPEG with each quality, and for H.264 with each segment and CRF:
  kB stored     of a frame
  PSNR          dB, of all decoded frames
  kB read       of a clip: the --num_frames drawn frames, with those ahead of them that they need
  µs to decode  a drawn frame and cut a square out of its middle, as training does; CPU time of one thread
  µs to encode  a frame, likewise
Reading and decoding are measured for frames evenly spread over the clip, and for consecutive ones. The ways take turns,
and the fastest round of each counts, so that other load on the machine affects all of them.
"""
_MOST = 64  # frames of a clip
DRAWS = ("spread", "consecutive")


def main(argv: list[str]) -> int:
    """Run the verb."""
    parser = Parser(verb="bench frames", description=DESCRIPTION)
    parser.add_argument("source", metavar="SOURCE", help="a manifest, a CSV or a folder, as `twinreel prepare` takes")
    parser.add_argument("--clips", type=int, default=12, help="number of its clips to use, evenly spread")
    parser.add_argument("--fps", type=float, default=8.0, help="frames per second; 0 = every frame")
    parser.add_argument("--short_side", type=int, default=240, help="pixels of the shorter side; 0 = as in the file")
    parser.add_argument("--num_frames", type=int, default=8, help="frames that are drawn from a clip")
    parser.add_argument("--crop", type=int, default=224, help="side of the square; at most the shortest side")
    parser.add_argument("--jpeg_quality", type=int, nargs="+", default=[92, 80], metavar="N", help="1 to 100")
    parser.add_argument("--segment", type=int, nargs="+", default=[8, 4], metavar="N", help="frames of a segment")
    parser.add_argument("--crf", type=int, nargs="+", default=[18, 23], metavar="N", help="constant rate factors")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each way")
    parser.add_json()
    args, _ = parser.parse(argv)
    as_json = vars(args).pop("json")
    result = measure(args.source, **{name: value for name, value in vars(args).items() if name != "source"})
    print(json.dumps(result)) if as_json else _print(result)
    return 0


def measure(
    source: str,
    *,
    clips: int = 12,
    fps: float = 8.0,
    short_side: int = 240,
    num_frames: int = 8,
    crop: int = 224,
    jpeg_quality: Sequence[int] = (92, 80),
    segment: Sequence[int] = (8, 4),
    crf: Sequence[int] = (18, 23),
    rounds: int = 3,
) -> dict[str, Any]:
    """Measure each way to store frames.

    Args:
      source: manifest, CSV or folder.
      clips: number of its clips to use, evenly spread.
      fps: frames per second; 0 = every frame. The first 64 frames of a clip are used.
      short_side: pixels of the frames' shorter side; 0 = as in the file.
      num_frames: frames that are drawn from a clip.
      crop: side of the square that is cut out, pixels.
      jpeg_quality: qualities of JPEG, 1 to 100.
      segment: lengths of segments.
      crf: constant rate factors, each with each length.
      rounds: measurements of each way, of which the fastest counts.

    Returns:
      `clips`, `frames`, `crop`, and `ways`: by name `stored_bytes` of a frame, `psnr_db`, `encode_us`, and for each of
      `DRAWS` `DRAW_read_bytes` of a clip and `DRAW_decode_us` of a drawn frame.

    Raises:
      UserError: a fault in the source or the options.
    """
    for name, value in (("clips", clips), ("num_frames", num_frames), ("crop", crop), ("rounds", rounds)):
        if value < 1:
            raise UserError(f"--{name} must be at least 1, got {value}")
    options = DecodeOptions(fps=fps, short_side=short_side, audio=False)
    every = _frames(source, clips=clips, options=options)
    side = min(crop, *(min(rgb.shape[:2]) for frames in every for rgb in frames))
    transform = parse_video(f"center_crop({side})", field="--crop")
    ways = {f"JPEG, quality {value}": dataclasses.replace(options, jpeg_quality=value) for value in jpeg_quality}
    for length, rate in itertools.product(segment, crf):
        changed = dataclasses.replace(options, frames_as="h264", segment=length, crf=rate)
        ways[f"H.264, segments of {length}, CRF {rate}"] = changed
    found = {name: _Way(way, every=every, transform=transform, num_frames=num_frames) for name, way in ways.items()}
    for _ in track(range(rounds), "measuring", console=Console(stderr=True), transient=True):
        for way in found.values():
            way.one_round()
    about = {"clips": len(every), "frames": sum(map(len, every)), "num_frames": num_frames, "crop": side}
    return about | {"ways": {name: way.result() for name, way in found.items()}}


def _frames(source: str, *, clips: int, options: DecodeOptions) -> list[list[np.ndarray]]:
    listing = read_source(Path(source))
    chosen = listing.clips[:: max(1, len(listing.clips) // clips)][:clips]
    every = []
    for clip in track(chosen, "decoding", console=Console(stderr=True), transient=True):
        window = {"start_s": clip.start_s, "end_s": clip.end_s}
        frames = read_rgb(join(listing.root, clip.path), options=options, **window)[:_MOST]
        every.append([np.ascontiguousarray(rgb) for _, rgb in frames])
    if not every:
        raise UserError(f"{source!r} has no clips")
    return every


class _Way:
    """One way to store frames, and its figures."""

    def __init__(
        self,
        options: DecodeOptions,
        *,
        every: list[list[np.ndarray]],
        transform: VideoTransform,
        num_frames: int,
    ):
        self._options, self._every, self._transform = options, every, transform
        self._best: dict[str, float] = {}
        self._stored = self._encode()
        self._drawn = {draw: [self._draw(i, draw, num_frames) for i in range(len(every))] for draw in DRAWS}

    def one_round(self) -> None:
        """Encode all frames, and decode the drawn ones."""
        self._time("encode_us", self._encode, frames=sum(map(len, self._every)))
        for draw in DRAWS:
            frames = sum(map(len, self._drawn[draw]))
            self._time(f"{draw}_decode_us", lambda draw=draw: self._decode(draw), frames=frames)

    def result(self) -> dict[str, float]:
        stored = [part for clip in self._stored for part in clip]
        found = {"stored_bytes": sum(map(len, stored)) / len(stored), "psnr_db": self._psnr()}
        for draw in DRAWS:
            found[f"{draw}_read_bytes"] = sum(map(_bytes_of, self._drawn[draw])) / len(self._every)
        return found | self._best

    def _encode(self) -> list[list[bytes]]:
        stored = []
        for frames in self._every:
            encoder = frame_encoder(self._options)
            for rgb in frames:
                encoder.add(rgb)
            stored.append(encoder.end())
        return stored

    def _draw(self, clip: int, draw: str, count: int) -> list[bytes]:
        stored = self._stored[clip]
        count = min(count, len(stored))
        first = (len(stored) - count) // 2
        spread = ((np.arange(count) + 0.5) * len(stored) / count).astype(int).tolist()
        return [drawable(stored, i) for i in (spread if draw == "spread" else range(first, first + count))]

    def _decode(self, draw: str) -> None:
        for values, frames in zip(self._drawn[draw], self._every, strict=True):
            height, width = frames[0].shape[:2]
            self._transform(values, height=height, width=width, uniforms=np.zeros(0, np.float32))

    def _psnr(self) -> float:
        errors = []
        for stored, frames in zip(self._stored, self._every, strict=True):
            height, width = frames[0].shape[:2]
            whole = parse_video(f"resize({height}, {width})", field="")
            values = [drawable(stored, i) for i in range(len(stored))]
            decoded = whole(values, height=height, width=width, uniforms=np.zeros(0, np.float32))
            errors += [np.mean((a.astype(np.float32) - b) ** 2) for a, b in zip(decoded, frames, strict=True)]
        return float(np.mean([10 * np.log10(255**2 / max(error, 1e-9)) for error in errors]))

    def _time(self, name: str, function: Callable[[], object], *, frames: int) -> None:
        begin = time.thread_time()
        function()
        spent = 1e6 * (time.thread_time() - begin) / frames
        self._best[name] = min(spent, self._best.get(name, spent))


def _bytes_of(values: Sequence[bytes]) -> int:
    """Return the bytes that frames of a clip are made of; of those that begin with each other, the longest counts."""
    ordered = sorted(set(values))
    return sum(len(one) for one, after in zip(ordered, [*ordered[1:], b""], strict=True) if not after.startswith(one))


def _print(result: dict[str, Any]) -> None:
    drawn = f"{result['num_frames']} drawn, {result['crop']} px"
    table = Table(title=f"{result['clips']} clips, {result['frames']} frames; {drawn}")
    for name in ("", "kB stored", "PSNR", "kB read: spread", "consecutive", "µs to decode: spread", "consecutive"):
        table.add_column(name, justify="right" if name else "left")
    table.add_column("µs to encode", justify="right")
    for name, way in result["ways"].items():
        read = [f"{way[f'{draw}_read_bytes'] / 1e3:,.0f}" for draw in DRAWS]
        spent = [f"{way[f'{draw}_decode_us']:,.0f}" for draw in DRAWS]
        stored = (f"{way['stored_bytes'] / 1e3:,.1f}", f"{way['psnr_db']:.1f}")
        table.add_row(name, *stored, *read, *spent, f"{way['encode_us']:,.0f}")
    Console().print(table)
