"""Found stretches as files of their own: decoded, cut to the frame, and encoded again (PyAV: H.264 and AAC in MP4)."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.error import FFmpegError

from ...base.errors import UserError
from ...data.media.clip import DecodeOptions
from ...data.media.pictures import open_media, video_stream
from ...data.media.place import DecodeError
from ...data.media.reader import Reader
from ...data.media.sound import sound_stream
from ..index.subtitles import write_srt
from .collection import Collection
from .engine import Hit

_CLOCK = 90_000  # ticks a second of the pictures' times
_QUALITY = {"crf": "18", "preset": "veryfast"}
_BLOCK = 1024  # samples of an AAC frame
_LONGEST_S = 3600.0


def export_hits(
    hits: Sequence[Hit],
    *,
    collection: Collection,
    folder: Path,
    subtitles: bool = False,
    tick: Callable[[], object] = lambda: None,
) -> tuple[list[Path], list[str]]:
    """Cut the stretches of hits into files `RANK-NAME-START-END.mp4`.

    Args:
      hits: best first; pictures are left out.
      collection: the index, which has what is said.
      folder: where they go; made if there is none.
      subtitles: write what is said in each next to it, as SubRip (`.srt`).
      tick: called after each stretch.

    Returns:
      The MP4 files, and what was wrong with stretches that could not be cut.
    """
    folder.mkdir(parents=True, exist_ok=True)
    made, failed = [], []
    for rank, hit in enumerate(hits, start=1):
        source = Path(hit.file.path)
        for span in hit.spans if hit.file.fps else ():
            out = folder / f"{rank:03d}-{source.stem[:80]}-{span.start_s:.2f}-{span.end_s:.2f}.mp4"
            try:
                cut(source, out=out, start_s=span.start_s, end_s=span.end_s)
            except (DecodeError, FFmpegError) as error:
                failed.append(f"{source}: {error}")
            else:
                made.append(out)
                if subtitles:
                    said = collection.sentences(hit.file.id)
                    write_srt(out.with_suffix(".srt"), sentences=said, start_s=span.start_s, end_s=span.end_s)
            tick()
    return made, failed


def cut(source: Path, *, out: Path, start_s: float, end_s: float) -> None:
    """Write a stretch of a film as MP4: the frames on display from `start_s` to `end_s`, with their own times.

    Pictures are upright, with square pixels and even sides, 4:2:0; sound keeps its rate, as stereo or mono.

    Args:
      source: the film.
      out: the file; it appears whole or not at all.
      start_s: seconds from the film's first picture.
      end_s: the same, exclusive; the film may end before.

    Raises:
      DecodeError: the film cannot be decoded there.
      UserError: the same file as `source`.
    """
    if out.exists() and out.samefile(source):
        raise UserError(f"{out} would replace the film that it is cut from; give another folder")
    options = DecodeOptions(fps=None, short_side=0, audio=False, max_seconds=_LONGEST_S)
    frames = Reader(source, options=options, start_s=start_s, end_s=end_s)
    sound = _sound(source, start_s=start_s, end_s=end_s)
    temporary = out.with_name(f".{out.name}.tmp.mp4")
    try:
        with av.open(str(temporary), "w", options={"movflags": "faststart"}) as container:
            _encode(container, frames, sound=sound)
        temporary.replace(out)
    finally:
        temporary.unlink(missing_ok=True)


def _encode(container: Any, frames: Reader, *, sound: tuple[np.ndarray, int] | None) -> None:
    """Encode frames and sound; the streams are declared before anything is written."""
    video = audio = None
    if sound is not None:
        layout = "mono" if len(sound[0]) == 1 else "stereo"
        audio = container.add_stream("aac", rate=sound[1], layout=layout)
    for time, rgb in frames:
        height, width = (side - side % 2 for side in rgb.shape[:2])
        if video is None:
            video = container.add_stream("libx264", rate=30, options=_QUALITY)
            video.height, video.width, video.pix_fmt = height, width, "yuv420p"
            video.codec_context.time_base = Fraction(1, _CLOCK)
            video.codec_context.colorspace, video.codec_context.color_range = 1, 1  # BT.709, limited range
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb[:height, :width]), format="rgb24")
        frame = picture.reformat(width=video.width, height=video.height, format="yuv420p", dst_colorspace="ITU709")
        frame.pts, frame.time_base = round(time * _CLOCK), Fraction(1, _CLOCK)
        container.mux(video.encode(frame))
    if video is not None:
        container.mux(video.encode(None))
    if audio is not None and sound is not None:
        _encode_sound(container, audio, samples=sound[0], rate=sound[1])


def _encode_sound(container: Any, audio: Any, *, samples: np.ndarray, rate: int) -> None:
    layout = "mono" if len(samples) == 1 else "stereo"
    for start in range(0, samples.shape[1], _BLOCK):
        block = np.ascontiguousarray(samples[:, start : start + _BLOCK])
        frame = av.AudioFrame.from_ndarray(block, format="fltp", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
        container.mux(audio.encode(frame))
    container.mux(audio.encode(None))


def _sound(source: Path, *, start_s: float, end_s: float) -> tuple[np.ndarray, int] | None:
    """Return the sound of a stretch, float32 [channels,samples] and its rate; silence where the track has nothing."""
    with open_media(source) as container:
        video, _ = video_stream(container, max_pixels=2**26)
        first = next(container.decode(video), None)
        origin = first.time if first is not None and first.time is not None else 0.0
    with open_media(source) as container:
        stream, _ = sound_stream(container)
        if stream is None:
            return None
        rate, mono = stream.rate, stream.channels == 1
        samples = np.zeros((1 if mono else 2, round((end_s - start_s) * rate)), np.float32)
        resampler = av.AudioResampler(format="fltp", layout="mono" if mono else "stereo", rate=rate)
        if start_s > 1:
            container.seek(int((origin + start_s - 1) * 1e6), backward=True)
        for packet in container.demux(stream):
            try:
                decoded = packet.decode()
            except FFmpegError:
                continue
            for frame in decoded:
                if frame.time is None:
                    continue
                at = round((frame.time - origin - start_s) * rate)
                if at >= samples.shape[1]:
                    return samples, rate
                for part in resampler.resample(frame):
                    _place(part.to_ndarray(), into=samples, at=at)
                    at += part.samples
    return samples, rate


def _place(block: np.ndarray, *, into: np.ndarray, at: int) -> None:
    """Write a block of samples at its place, as far as it lies inside."""
    first, last = max(at, 0), min(at + block.shape[1], into.shape[1])
    if first < last:
        into[:, first:last] = block[:, first - at : last - at]
