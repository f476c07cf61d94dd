"""Stretches of films as an MP4 file: decoded, cut to the frame, and encoded again."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import av
import numpy as np
from av.error import FFmpegError

from ...base.errors import UserError
from .clip import DecodeOptions
from .decode import shown
from .pictures import open_media, video_stream
from .reader import Reader
from .sound import sound_stream
from .write import BLOCK, Sound, Track, write_film

_LONGEST_S = 3600.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
    """A stretch of a film: `start_s` to `end_s`, seconds from the film's first picture; the film may end before."""

    source: Path
    start_s: float
    end_s: float


def cut(source: Path, *, out: Path, start_s: float, end_s: float, blur_faces: str = "") -> None:
    """Write a stretch of a film as MP4: the frames on display from `start_s` to `end_s`, with their own times.

    For the arguments and the errors see `Part` and `join`.
    """
    join([Part(source=source, start_s=start_s, end_s=end_s)], out=out, blur_faces=blur_faces)


def join(
    parts: Sequence[Part], *, out: Path, blur_faces: str = "", tick: Callable[[float], object] = lambda _: None
) -> None:
    """Write stretches of films one after another as one MP4: the frames on display in each, with their own times.

    Pictures are upright, with square pixels and even sides, 4:2:0, in the size of the first one; sound keeps the rate
    of the first film that has any, as stereo or mono, and starts with its pictures, exact to the sample. Where a film
    has no sound there is silence; without any sound there is no sound track.

    Args:
      parts: one or more.
      out: the file; it appears whole or not at all.
      blur_faces: ONNX file of the detector whose faces are blurred, see `faces`; "" = none. Voices stay as they are.
      tick: called with the seconds that are written, again and again.

    Raises:
      DecodeError: a film cannot be decoded there.
      UserError: the same file as a source.
    """
    for part in parts:
        if out.exists() and out.samefile(part.source):
            raise UserError(f"{out} would replace the film that it is cut from; give another folder")
    pictures = _pictures(parts, blur_faces=blur_faces)
    write_film(out, pictures=pictures, sound=sound_of(parts), tick=tick)


def sound_of(parts: Sequence[Part]) -> Sound | None:
    """Return the sound of stretches one after another, as `join` writes it; None where no film has any."""
    track = next((found for source in dict.fromkeys(part.source for part in parts) if (found := _track(source))), None)
    return None if track is None else Sound(track=track, blocks=_sound_blocks(parts, track=track))


def _pictures(parts: Sequence[Part], *, blur_faces: str) -> Iterator[tuple[float, float, np.ndarray]]:
    """Yield the pictures of all parts, uint8 [H,W,3], with when each appears and disappears in the joined film."""
    options = DecodeOptions(fps=None, short_side=0, audio=False, max_seconds=_LONGEST_S, blur_faces=blur_faces)
    origin, held = 0.0, None
    for number, part in enumerate(parts, start=1):
        reader = Reader(part.source, options=options, start_s=part.start_s, end_s=part.end_s)
        for time, rgb in shown(reader, options=options):
            if held is not None:
                yield held[0], origin + time, held[1]
            held = (origin + time, rgb)
        last = origin + reader.duration_s  # shorter than the part where the film ends before
        origin += part.end_s - part.start_s
        if held is not None and number == len(parts):
            yield held[0], last, held[1]


def _sound_blocks(parts: Sequence[Part], *, track: Track) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the sound of all parts in blocks float32 [channels,n], with the number of their first sample."""
    rate, rest, begun, elapsed = track[0], None, 0, 0.0
    for part in parts:
        first = round(elapsed * rate)
        elapsed += part.end_s - part.start_s
        found = _sound(part, samples=round(elapsed * rate) - first, track=track)
        rest = found if rest is None else np.concatenate([rest, found], axis=1)
        whole = rest.shape[1] // BLOCK * BLOCK
        for start in range(0, whole, BLOCK):
            yield begun, rest[:, start : start + BLOCK]
            begun += BLOCK
        rest = rest[:, whole:]
    if rest is not None and rest.shape[1]:
        yield begun, rest


def _track(source: Path) -> Track | None:
    """Return the rate of a film's sound, and the layout in which it is written; None without sound."""
    with open_media(source) as container:
        stream, _ = sound_stream(container)
        return None if stream is None else (stream.rate, "mono" if stream.channels == 1 else "stereo")


def _sound(part: Part, *, samples: int, track: Track) -> np.ndarray:
    """Return the sound of a stretch, float32 [channels,samples]; silence where the film has nothing."""
    rate, layout = track
    made = np.zeros((1 if layout == "mono" else 2, samples), np.float32)
    with open_media(part.source) as container:
        video, _ = video_stream(container, max_pixels=2**26)
        first = next(container.decode(video), None)
        origin = first.time if first is not None and first.time is not None else 0.0
    with open_media(part.source) as container:
        stream, _ = sound_stream(container)
        if stream is None:
            return made
        resampler = av.AudioResampler(format="fltp", layout=layout, rate=rate)
        if part.start_s > 1:
            container.seek(int((origin + part.start_s - 1) * 1e6), backward=True)
        for packet in container.demux(stream):
            try:
                decoded = packet.decode()
            except FFmpegError:
                continue
            for frame in decoded:
                if frame.time is None:
                    continue
                at = round((frame.time - origin - part.start_s) * rate)
                if at >= samples:
                    return made
                for piece in resampler.resample(frame):
                    _place(piece.to_ndarray(), into=made, at=at)
                    at += piece.samples
    return made


def _place(block: np.ndarray, *, into: np.ndarray, at: int) -> None:
    """Write a block of samples at its place, as far as it lies inside."""
    first, last = max(at, 0), min(at + block.shape[1], into.shape[1])
    if first < last:
        into[:, first:last] = block[:, first - at : last - at]
