"""A film of any length as vectors of its moments, in bounded memory: decoded and embedded chunk by chunk."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Protocol

import numpy as np

from ...base.errors import UserError
from ...data.machine import cores
from ...data.media.decode import DecodedClip, DecodeError, DecodeOptions
from ...data.media.pictures import open_media
from ...data.options import InputSpec
from ...zoo.spec import ModelSpec
from ..media.chunks import Task, WholeFile, decode_chunks
from ..media.files import decode_options, frames_graph, frames_of
from ..media.windows import Windows, part_of
from .encoder import Encoder

FPS = 8.0
"""Frames per second that are decoded for models that do not say so themselves."""
_PIECE_SLACK_S = 0.1  # by which a container may state a film too short, so that no sliver is left over


class PieceModel(Protocol):
    """A model that looks at pieces of films, such as a `TimelinePredictor` of task "summarise".

    Attributes:
      spec: what it is.
      piece_seconds: about how long a piece is.
    """

    spec: ModelSpec

    @property
    def piece_seconds(self) -> float:  # noqa: D102 - see the class
        ...

    def steps(self, video: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the time tokens [b,T',D] and scores [b,T'] of clips, uint8 [b,T,H,W,3]."""
        ...


FilmModel = Encoder | PieceModel


@dataclasses.dataclass(frozen=True, kw_only=True)
class Film:
    """The moments of a film.

    Attributes:
      path: the file.
      edges_s: float64 [n+1], start of each moment and end of the last, seconds from the first picture.
      vectors: float32 [n,D].
      scores: float64 [n], 0..1, of a model that scores moments; None of one that does not.
      contrast: float32 [n], mean over the moment's frames of the standard deviation of their grey levels, 0..128.
      stamps_s: float64 [k], times of the decoded frames.
    """

    path: Path
    edges_s: np.ndarray
    vectors: np.ndarray
    scores: np.ndarray | None
    contrast: np.ndarray
    stamps_s: np.ndarray

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return float(self.edges_s[-1])


def index_options(spec: InputSpec, *, fps: float = FPS, audio: bool = False) -> DecodeOptions:
    """Return how long films are decoded: as the model says; otherwise at `fps`, with twice the pixels that it takes."""
    height, width = frames_graph(spec).shape[-3:-1]
    options = dataclasses.replace(decode_options(spec), audio=audio)
    if "fps" not in spec.decode:
        options = dataclasses.replace(options, fps=fps or None)
    if "short_side" not in spec.decode:
        options = dataclasses.replace(options, short_side=2 * min(height, width))
    return options


def read_film(
    model: FilmModel,
    path: Path,
    *,
    seconds: float,
    batch_size: int = 8,
    workers: int = 0,
    tick: Callable[[float, float | None], object] = lambda done_s, length_s: None,
) -> Film:
    """Decode a film and embed its moments.

    An `Encoder` embeds each moment by itself, as it does a clip. A model along time looks at pieces of equal length,
    near to that of the clips that it was trained on; its moments are the time steps of the pieces.

    Args:
      model: one of either.
      path: a film that PyAV decodes.
      seconds: length of a moment of an `Encoder`; the last one may be shorter.
      batch_size: moments or pieces at a time.
      workers: processes that decode; 0 = one per core.
      tick: called with the seconds that are done and the film's length (None = unknown), again and again.

    Raises:
      UserError: a file that cannot be decoded, pictures too small for the model, or `seconds` not above 0.
    """
    if not seconds > 0:
        raise UserError(f"moments of {seconds:g} seconds; wanted a length above 0")
    if not isinstance(model, Encoder):
        seconds = _piece_seconds(path, wanted=model.piece_seconds)
    windows = Windows(seconds=seconds, overlap=0.0)
    chunks = _chunks(model.spec.input, path, windows=windows, workers=workers)
    return _film(model, chunks, path=path, windows=windows, batch_size=batch_size, tick=tick)


def film_of_clip(model: FilmModel, clip: DecodedClip, *, path: Path, seconds: float, batch_size: int = 8) -> Film:
    """Embed the moments of a clip that is decoded already, such as that of a record; for the rest see `read_film`.

    Args:
      model: an `Encoder`, or a model that looks at pieces of `seconds`.
      clip: its frames.
      path: what the film is called.
      seconds: length of a moment.
      batch_size: moments at a time.
    """
    windows = Windows(seconds=seconds, overlap=0.0)
    parts = []
    for number in range(windows.chunks(clip.duration_s)):
        start, end = windows.chunk(number)
        part = part_of(clip, start_s=start, end_s=min(end, clip.duration_s))
        parts.append((number, part, clip.duration_s))
    return _film(model, parts, path=path, windows=windows, batch_size=batch_size)


def _film(
    model: FilmModel,
    chunks: Iterable[tuple[int, DecodedClip, float | None]],
    *,
    path: Path,
    windows: Windows,
    batch_size: int,
    tick: Callable[[float, float | None], object] = lambda done_s, length_s: None,
) -> Film:
    """Embed the moments of chunks, which come with their number and the length of the film, in any order."""
    found: dict[int, tuple[np.ndarray, np.ndarray | None, np.ndarray]] = {}
    spans: dict[int, tuple[float, float]] = {}
    stamps: dict[int, np.ndarray] = {}
    for number, chunk, length_s in chunks:
        moments = windows.moments(number, decoded_s=chunk.duration_s, origin=0.0)
        clips = [part for part, _ in zip(windows.cut(chunk), moments, strict=False)]
        stamps[number] = chunk.timestamps_s.astype(np.float64) + windows.chunk(number)[0]
        for begin in range(0, len(clips), batch_size):
            part = clips[begin : begin + batch_size]
            video = np.stack([frames_of(model.spec.input, clip=clip) for clip in part])
            vectors, scores = _embedded(model, video, size=batch_size)
            for i, moment in enumerate(moments[begin : begin + len(part)]):
                spans[moment.number] = (moment.start_s, moment.end_s)
                own = None if scores is None else scores[i]
                found[moment.number] = (vectors[i], own, _contrast(video[i], steps=len(vectors[i])))
        tick(sum(end - start for start, end in spans.values()), length_s)
    order = sorted(found)
    vectors = np.concatenate([np.atleast_2d(found[place][0]) for place in order])
    steps = len(vectors) // len(order)
    starts = [np.linspace(*spans[place], steps + 1)[:-1] for place in order]
    own = [scores for place in order if (scores := found[place][1]) is not None]
    return Film(
        path=path,
        edges_s=np.append(np.concatenate(starts), spans[order[-1]][1]),
        vectors=vectors.astype(np.float32),
        scores=np.concatenate(own).astype(np.float64) if own else None,
        contrast=np.concatenate([found[place][2] for place in order]),
        stamps_s=np.concatenate([stamps[number] for number in sorted(stamps)]),
    )


def _contrast(video: np.ndarray, *, steps: int) -> np.ndarray:
    """Return the contrast of `steps` equal parts of a clip, uint8 [T,H,W,3] or [V,T,H,W,3]; float32 [steps]."""
    grey = video.reshape(-1, *video.shape[-4:])[0].mean(axis=-1, dtype=np.float32)  # of several views the first
    each = grey.std(axis=(1, 2))
    return np.array([part.mean() for part in np.array_split(each, steps)], np.float32)


def _embedded(model: FilmModel, video: np.ndarray, *, size: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Return vectors [b,T',D] and scores [b,T'] of clips; batches have one size, so that nothing is compiled again."""
    count = len(video)
    filled = np.concatenate([video, np.zeros((size - count, *video.shape[1:]), np.uint8)])
    if isinstance(model, Encoder):
        return model.encode_video_arrays(filled, batch_size=size)[:count, None], None
    vectors, scores = model.steps(filled)
    return vectors[:count], scores[:count]


def _chunks(
    spec: InputSpec, path: Path, *, windows: Windows, workers: int
) -> Iterator[tuple[int, DecodedClip, float | None]]:
    """Decode a film; yield the number of each chunk, its frames, and the length of the film as far as it is known."""
    options = index_options(spec)
    options = dataclasses.replace(options, max_seconds=max(options.max_seconds, windows.seconds + 1.0))
    task = Task(entry=WholeFile(path=path))
    for chunk in decode_chunks([task], windows=windows, options=options, workers=workers or cores()):
        if isinstance(chunk.clip, DecodeError):
            raise UserError(f"{path} cannot be read: {chunk.clip}")
        if chunk.clip is not None:
            yield chunk.number, chunk.clip, task.length_s


def _piece_seconds(path: Path, *, wanted: float) -> float:
    """Return the length nearest to `wanted` of which a film has a whole number, if its container states its length."""
    try:
        with open_media(path) as container:
            length = container.duration / 1e6 if container.duration else wanted
    except DecodeError as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    return (length + _PIECE_SLACK_S) / max(1, round(length / wanted))
