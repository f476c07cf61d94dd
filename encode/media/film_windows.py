"""Films as a stream of windows: cut in the order of time, with a bounded number of frames at hand."""

import dataclasses
from collections.abc import Generator, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from ...base.errors import UserError
from ...data.machine import cores
from ...data.media.clip import DecodedClip
from ...data.media.place import DecodeError
from ...data.options import InputSpec
from .chunks import Task, WholeFile, decode_chunks
from .files import decode_options
from .windows import Windows, part_of

_CHUNKS = Windows(seconds=30.0, overlap=0.0)  # what is decoded at a time
_SLACK_S = 0.01  # a remainder that is shorter gives no window of its own


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class FilmWindow:
    """A stretch of a film.

    Attributes:
      film: number of the film.
      start_s: seconds from the film's first picture.
      fresh_s: end of the window before; the last window of a film reaches back, so that it is as long as the others.
      end_s: end of the window.
      clip: its frames, with times from `start_s`.
      last: whether the film ends with it.
      share: how much of its film has been seen with it, 0..1; 0 where that is unknown.
    """

    film: int
    start_s: float
    fresh_s: float
    end_s: float
    clip: DecodedClip
    last: bool
    share: float = 0.0


class Cutter:
    """Cuts one film, which comes in contiguous stretches, into windows; keeps the frames of two windows at most.

    Windows follow each other without overlap or gap. What is left at the end becomes a window that reaches back; a film
    that is shorter than a window is one window. The windows do not depend on where the stretches begin.
    """

    def __init__(self, *, film: int, seconds: float):
        """Begin a film; `seconds` is the length of a window."""
        self._film, self._seconds = film, seconds
        self._clip: DecodedClip | None = None  # the frames at hand
        self._origin = 0.0  # where they begin
        self._next = 0.0  # start of the next window
        self._held: FilmWindow | None = None  # may be the last one

    def add(self, clip: DecodedClip, *, share: float = 0.0) -> Iterator[FilmWindow]:
        """Add the stretch that follows; yield the windows that are complete and not the last."""
        self._clip = clip if self._clip is None else _joined(self._clip, clip)
        while self._end >= self._next + self._seconds - _SLACK_S:
            if self._held is not None:
                yield self._held
            self._held = self._window(self._next, end_s=self._next + self._seconds, share=share)
            self._next += self._seconds
        self._forget()

    def finish(self) -> Iterator[FilmWindow]:
        """Yield the last windows."""
        if self._clip is not None and (self._held is None or self._end > self._next + _SLACK_S):
            if self._held is not None:
                yield self._held
            start = max(0.0, self._end - self._seconds)
            self._held = self._window(start, end_s=self._end, share=1.0)
        if self._held is not None:
            yield dataclasses.replace(self._held, last=True, share=1.0)

    @property
    def _end(self) -> float:
        assert self._clip is not None
        return self._origin + self._clip.duration_s

    def _window(self, start_s: float, *, end_s: float, share: float) -> FilmWindow:
        assert self._clip is not None
        part = part_of(self._clip, start_s=start_s - self._origin, end_s=end_s - self._origin)
        times = {"start_s": start_s, "fresh_s": self._next, "end_s": end_s}
        return FilmWindow(film=self._film, **times, clip=part, last=False, share=share)

    def _forget(self) -> None:
        """Drop what no window can reach back to."""
        keep = self._next - self._seconds
        if self._clip is not None and keep > self._origin:
            self._clip = part_of(self._clip, start_s=keep - self._origin, end_s=self._clip.duration_s)
            self._origin = keep


def film_windows(
    paths: Sequence[str | Path], *, spec: InputSpec, seconds: float, workers: int = 0
) -> Generator[FilmWindow]:
    """Decode files and yield their windows, those of each file in the order of time.

    At most a few stretches of 60 s for each process are decoded and not consumed yet, however long the films are.

    Args:
      paths: the films.
      spec: how their frames are decoded.
      seconds: length of a window.
      workers: processes that decode; 0 = one per core.

    Raises:
      UserError: a file that cannot be decoded; names it, the reason and where.
    """
    tasks = [Task(entry=WholeFile(path=path)) for path in paths]
    number, cutters = {task: i for i, task in enumerate(tasks)}, dict[Task, Cutter]()
    processes = workers or cores()
    for chunk in decode_chunks(tasks, windows=_CHUNKS, options=decode_options(spec), workers=processes, in_order=True):
        task, (begin, _) = chunk.task, _CHUNKS.chunk(chunk.number)
        if isinstance(chunk.clip, DecodeError):
            where = f" from {begin:g} s on" if chunk.number else ""
            raise UserError(f"{task.entry.path} cannot be decoded{where}: {chunk.clip}") from chunk.clip
        cutter = cutters.setdefault(task, Cutter(film=number[task], seconds=seconds))
        if chunk.clip is not None:
            share = min((begin + chunk.clip.duration_s) / task.length_s, 1.0) if task.length_s else 0.0
            yield from cutter.add(chunk.clip, share=share)
        if chunk.last:
            yield from cutters.pop(task).finish()


def clip_windows(clips: Iterable[tuple[int, DecodedClip]], *, seconds: float) -> Iterator[FilmWindow]:
    """Yield the windows of whole clips, such as those of prepared records, which come with their numbers."""
    for film, clip in clips:
        cutter = Cutter(film=film, seconds=seconds)
        yield from cutter.add(clip)
        yield from cutter.finish()


def _joined(first: DecodedClip, second: DecodedClip) -> DecodedClip:
    """Return two stretches of one film as one."""
    times = np.concatenate([first.timestamps_s, second.timestamps_s + np.float32(first.duration_s)])
    duration = first.duration_s + second.duration_s
    return dataclasses.replace(
        first, encoded=[*first.encoded, *second.encoded], timestamps_s=times, duration_s=duration, audio=None
    )
