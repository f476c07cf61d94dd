"""Files to decoded chunks: several at a time, in limited processes, in whatever order they are ready."""

import collections
import concurrent.futures
import dataclasses
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from ...data.media.decode import DecodedClip, DecodeError, DecodeOptions
from ...data.media.workers import Decoders, Job, Limits
from .windows import Windows

_AHEAD = 3  # chunks per process that are decoded or queued ahead of the consumer; bounds the memory
_PAST_END = "window starts after the last picture"  # reason of `DecodeError`
_FIRST = concurrent.futures.FIRST_COMPLETED
_SLACK_S = 0.05  # a chunk that lacks no more than this is full


class Stretch(Protocol):
    """A file, or a window of it.

    Attributes:
      path: the media file.
      start_s: start of the window in seconds from the file's first picture; None = from the first picture.
      end_s: end of the window; None = to the last picture.
    """

    @property
    def path(self) -> str | Path:  # noqa: D102 - see the class
        ...

    @property
    def start_s(self) -> float | None:  # noqa: D102
        ...

    @property
    def end_s(self) -> float | None:  # noqa: D102
        ...


S = TypeVar("S", bound=Stretch)


@dataclasses.dataclass(frozen=True, kw_only=True)
class WholeFile:
    """A file from its first picture to its last; a `Stretch`."""

    path: str | Path
    start_s: float | None = None
    end_s: float | None = None


@dataclasses.dataclass(eq=False, kw_only=True)
class Task(Generic[S]):
    """A file that is to be decoded.

    Attributes:
      entry: the file, or a window of it.
      file: its id in the index; 0 = it has none yet.
      done: chunks that need not be decoded.
      length_s: length of the clip as stated; None = unknown.
      reached_s: end of the last picture, once it is known.
      failed: a chunk could not be decoded, so that no further ones are.
    """

    entry: S
    file: int = 0
    done: set[int] = dataclasses.field(default_factory=set)
    length_s: float | None = None
    reached_s: float | None = None
    failed: bool = False
    waiting: set[int] = dataclasses.field(default_factory=set)
    planned: int = 0  # chunks 0 .. planned - 1 are done, waiting or decoded


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chunk(Generic[S]):
    """A decoded chunk.

    Attributes:
      task: its file.
      number: its place in the file.
      clip: what was decoded; or why it cannot be. None: the file ends before it.
      last: no further chunk of this file follows.
    """

    task: Task[S]
    number: int
    clip: DecodedClip | DecodeError | None
    last: bool


def decode_chunks(
    tasks: Iterable[Task[S]],
    *,
    windows: Windows,
    options: DecodeOptions,
    workers: int,
    limits: Limits | None = None,
    in_order: bool = False,
) -> Generator[Chunk[S]]:
    """Decode files chunk by chunk; the chunks of a long file are decoded in parallel.

    A file's first chunk tells its length. Whatever a container states, a file ends where its pictures end: behind a
    full last chunk another one is looked for. Chunks come as they are ready; with `in_order` those of one file come in
    the order of time, and at most `_AHEAD` times `workers` of them are decoded and not taken yet.
    """
    todo, coming = iter(tasks), collections.deque[tuple[Task[S], int]]()
    running: dict[concurrent.futures.Future, tuple[Task[S], int]] = {}
    with Decoders(workers=workers, limits=limits) as decoders:
        while True:
            while len(running) < _AHEAD * workers:
                if not coming and not _take(todo, coming, windows=windows):
                    break
                task, number = coming.popleft()
                if task.failed:
                    task.waiting.discard(number)
                    continue
                start_s, end_s = _span(task, number, windows=windows)
                job = Job(path=task.entry.path, options=options, start_s=start_s, end_s=end_s)
                running[decoders.submit(job)] = (task, number)
            if not running:
                return
            ready = [next(iter(running))] if in_order else concurrent.futures.wait(running, return_when=_FIRST)[0]
            for future in ready:
                task, number = running.pop(future)
                task.waiting.discard(number)
                if not task.failed:
                    yield _settle(task, number, result=future.result(), coming=coming, windows=windows)


def _take(tasks: Iterable[Task], coming: collections.deque, *, windows: Windows) -> bool:
    """Queue the first chunks of the next file; False if there is none."""
    for task in tasks:
        task.planned = windows.chunks(task.length_s) if task.done and task.length_s else max(task.done, default=-1) + 2
        missing = [number for number in range(task.planned) if number not in task.done] or [task.planned]
        task.planned = max(task.planned, missing[-1] + 1)
        task.waiting.update(missing)
        coming.extend((task, number) for number in missing)
        return True
    return False


def _span(task: Task, number: int, *, windows: Windows) -> tuple[float, float]:
    """Return start and end of a chunk in seconds of the file."""
    origin, (start, end) = task.entry.start_s or 0.0, windows.chunk(number)
    until = float("inf") if task.entry.end_s is None else task.entry.end_s
    return origin + start, max(min(origin + end, until), origin + start + 1e-3)


def _settle(
    task: Task[S], number: int, *, result: DecodedClip | DecodeError, coming: collections.deque, windows: Windows
) -> Chunk[S]:
    """Note what a chunk says of its file, queue those that follow, and return it."""
    ended = isinstance(result, DecodeError) and result.reason == _PAST_END and number > 0
    if isinstance(result, DecodeError) and not ended:
        task.failed = True
        return Chunk(task=task, number=number, clip=result, last=True)
    start_s, end_s = _span(task, number, windows=windows)
    whole = task.entry.end_s is not None and end_s >= task.entry.end_s
    if isinstance(result, DecodedClip):
        origin = task.entry.start_s or 0.0
        full = not whole and result.duration_s >= end_s - start_s - _SLACK_S
        if not full:
            task.reached_s = start_s - origin + result.duration_s
        if number == 0:
            task.length_s = _length(task, result)
            if full and task.length_s:
                _extend(task, until=windows.chunks(task.length_s), coming=coming)
        if full and number + 1 == task.planned:
            _extend(task, until=task.planned + 1, coming=coming)
    clip = None if isinstance(result, DecodeError) else result
    return Chunk(task=task, number=number, clip=clip, last=not task.waiting)


def _length(task: Task, clip: DecodedClip) -> float | None:
    """Return the length of the task's clip, by what its file states."""
    start_s, end_s, stated = task.entry.start_s or 0.0, task.entry.end_s, clip.stated_s
    if end_s is not None:
        return min(end_s, stated or end_s) - start_s
    return None if stated is None else max(stated - start_s, clip.duration_s)


def _extend(task: Task, *, until: int, coming: collections.deque) -> None:
    """Queue further chunks, before those of other files."""
    more = [number for number in range(task.planned, until) if number not in task.done]
    task.planned = max(task.planned, until)
    task.waiting.update(more)
    coming.extendleft((task, number) for number in reversed(more))
