"""A model that scores the time steps of films, as a stream: anomalies in files of any length, in bounded memory."""

import concurrent.futures
import dataclasses
import functools
import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from ...base.errors import UserError
from ...data.machine import cores
from ...models.heads.steps import reach_of
from ..devices.placed import PlacedModel
from ..devices.rows import padded
from ..media.files import frames_graph, frames_of, listed
from ..media.film_windows import FilmWindow, film_windows
from .timeline import video_tokens

BLOCK = 64
"""Time steps whose scores are computed together, besides those that they look back and ahead to."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class FilmScores:
    """The time steps of a film, or of a part of it.

    Attributes:
      film: its number.
      edges: float64 [n+1], where the steps begin, and the end of the last; seconds.
      scores: float64 [n], 0..1.
      changes: float64 [n], mean absolute difference of neighbouring frames that the model saw, 0..1: what can be known
        without a model.
    """

    film: int
    edges: np.ndarray
    scores: np.ndarray
    changes: np.ndarray

    def at(self, times: np.ndarray, *, values: np.ndarray | None = None) -> np.ndarray:
        """Return the scores (or other `values` of the steps) at some times in seconds, float64 [m]."""
        place = np.searchsorted(self.edges, times, side="right") - 1
        return (self.scores if values is None else values)[np.clip(place, 0, len(self.scores) - 1)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class WindowTokens:
    """What the video tower says of a window; for the times see `film_windows.FilmWindow`.

    Attributes:
      tokens: [T,D].
      changes: float64 [T], see `FilmScores`.
    """

    film: int
    start_s: float
    fresh_s: float
    end_s: float
    last: bool
    tokens: np.ndarray
    changes: np.ndarray


class StepPredictor(PlacedModel):
    """A video tower and a head that scores the time steps of windows of a film, and the input of both.

    In a run of several processes each decodes the films, and each device computes its share.

    Attributes:
      labels: names of what can be abnormal, as the train clips had them; not told apart.
      seconds: length of the windows.
      threshold: of the scores within spans, unless another is asked for.
    """

    def _read_spec(self) -> None:
        head = self.spec.heads["anomaly"]
        self.labels: tuple[str, ...] = tuple(head["labels"])
        self.seconds: float = head["decode"]["window_seconds"]
        self.threshold: float = head["decode"]["threshold"]
        self._reach = reach_of(head["dilations"], smooth=head["smooth"])

    def predict(
        self,
        paths: Iterable[str | Path],
        *,
        threshold: float | None = None,
        batch_size: int = 16,
        workers: int = 0,
        progress: bool = False,
    ) -> Iterator[dict[str, Any]]:
        """Score files of any length as they are decoded: memory does not grow with their length, but for the scores.

        Args:
          paths: n files of any format that PyAV decodes.
          threshold: of the scores within spans, 0..1; None = that of the model.
          batch_size: windows at a time.
          workers: processes that decode; 0 = one per core.
          progress: draw a progress bar on standard error.

        Returns:
          For each file, as it is done: `path`, `duration_s`, `score` (the highest), `spans` (`start_s`, `end_s`,
          `score`: stretches of steps with a score of at least `threshold`, and their highest score) in the order of
          time, and `moments`: `start_s`, `end_s`, `score` of each time step.

        Raises:
          UserError: a threshold that is none, or a file that cannot be decoded.
        """
        files, limit = listed(paths, method="predict"), self.threshold if threshold is None else threshold
        if not 0 <= limit <= 1:
            raise UserError(f"the threshold must be a score from 0 to 1, got {limit}")
        return self._predict(files, limit=limit, batch_size=batch_size, workers=workers, progress=progress)

    def _predict(
        self, files: Sequence[Path], *, limit: float, batch_size: int, workers: int, progress: bool
    ) -> Iterator[dict[str, Any]]:
        columns = (TextColumn("score"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"), TimeRemainingColumn())
        hidden = not progress or jax.process_index() != 0
        with Progress(*columns, console=Console(stderr=True), disable=hidden, transient=True) as bar:
            shown = bar.add_task("", total=len(files))

            def watched() -> Iterator[FilmWindow]:
                windows = film_windows(files, spec=self.spec.input, seconds=self.seconds, workers=workers)
                for window in windows:
                    bar.update(shown, completed=window.film + window.share)
                    yield window

            for found in self.films(self.tokens(watched(), batch_size=batch_size)):
                named = {"path": str(files[found.film]), "duration_s": round(float(found.edges[-1]), 3)}
                yield named | _named(found, limit=limit)

    def tokens(self, windows: Iterable[FilmWindow], *, batch_size: int = 16) -> Iterator[WindowTokens]:
        """Apply the video tower to windows, `batch_size` at a time; see `scores`."""
        size = self.global_batch(batch_size, total=batch_size)
        with concurrent.futures.ThreadPoolExecutor(cores()) as threads:
            for part in _batched(windows, size=batch_size):
                tokens, changes = self._tokens(part, size=size, threads=threads)
                for window, own, change in zip(part, tokens, changes, strict=True):
                    kept = {name: getattr(window, name) for name in ("film", "start_s", "fresh_s", "end_s", "last")}
                    yield WindowTokens(**kept, tokens=own, changes=change)

    def scores(
        self, windows: Iterable[WindowTokens], *, block: int = BLOCK, blocks_at_once: int = 8
    ) -> Iterator[tuple[FilmScores, bool]]:
        """Yield the scores of parts of films as soon as they are known.

        The scores do not depend on the size of the parts: a step sees as far around it as in the whole film.

        Args:
          windows: those of a film in the order of time; films may alternate. Where they end without the last window
            of a film, as those of a live stream, the film ends there.
          block: steps of a part; few for a live stream, whose scores wait for a block.
          blocks_at_once: parts that are computed together.

        Yields:
          The steps of a part, in the order of time within its film, and whether the film ends with it.
        """
        waiting: dict[int, _Steps] = {}
        blocks: list[_Block] = []
        rows = self.global_batch(blocks_at_once, total=blocks_at_once)
        for window in windows:
            steps = waiting.setdefault(window.film, _Steps(film=window.film, reach=self._reach, block=block))
            blocks += steps.add(window)
            if window.last:
                del waiting[window.film]
            while len(blocks) >= blocks_at_once:
                yield from self._scored(blocks[:blocks_at_once], rows=rows)
                del blocks[:blocks_at_once]
        blocks += [block for steps in waiting.values() for block in steps.finish()]
        for begin in range(0, len(blocks), rows):
            yield from self._scored(blocks[begin : begin + rows], rows=rows)

    def warm_up(self, *, batch_size: int, block: int, blocks_at_once: int) -> None:
        """Compile what `tokens` and `scores` run with these arguments, so that a live stream does not wait for it."""
        shape, size = frames_graph(self.spec.input).shape, self.global_batch(batch_size, total=batch_size)
        rows = {"video": np.zeros((size, *shape), np.uint8), "change": np.zeros((size, shape[0]), np.float32)}
        made = self.apply_local(rows, function=video_tokens)["tokens"]
        many, steps = self.global_batch(blocks_at_once, total=blocks_at_once), block + 2 * self._reach
        rows = {"tokens": np.zeros((many, steps, made.shape[2]), made.dtype), "mask": np.ones((many, steps), bool)}
        self.apply_local(rows, function=_scores)

    def films(self, windows: Iterable[WindowTokens]) -> Iterator[FilmScores]:
        """Yield the scores of each film once it has ended; see `scores`."""
        parts: dict[int, list[FilmScores]] = {}
        for part, ended in self.scores(windows):
            parts.setdefault(part.film, []).append(part)
            if ended:
                whole = parts.pop(part.film)
                edges = np.concatenate([one.edges[:-1] for one in whole] + [whole[-1].edges[-1:]])
                scores, changes = (np.concatenate([getattr(one, k) for one in whole]) for k in ("scores", "changes"))
                yield FilmScores(film=part.film, edges=edges, scores=scores, changes=changes)

    def _tokens(
        self, part: Sequence[FilmWindow], *, size: int, threads: concurrent.futures.ThreadPoolExecutor
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the time tokens of windows [n,T,D], and the changes of the frames within them [n,T]."""
        share = size // jax.process_count()
        begin = jax.process_index() * share
        clips = [window.clip for window in part[begin : begin + share]]
        made = list(threads.map(functools.partial(_frames, spec=self.spec.input), clips))
        shape = (0, *frames_graph(self.spec.input).shape)
        video = padded(np.stack(made) if made else np.zeros(shape, np.uint8), size=share)
        rows = {"video": video, "change": np.stack([frame_changes(one) for one in video])}
        got = self.apply_local(rows, function=video_tokens)
        tokens, change = got["tokens"][: len(part)], got["change"][: len(part)].astype(np.float64)
        steps = [one.mean(axis=1) for one in np.array_split(change, tokens.shape[1], axis=1)]
        return tokens, np.stack(steps, axis=1)

    def _scored(self, blocks: "Sequence[_Block]", *, rows: int) -> Iterator[tuple[FilmScores, bool]]:
        """Apply the head to at most `rows` blocks."""
        share = rows // jax.process_count()
        mine = slice(jax.process_index() * share, (jax.process_index() + 1) * share)
        given = {"tokens": np.stack([one.tokens for one in blocks]), "mask": np.stack([one.mask for one in blocks])}
        given = {key: padded(value, size=rows)[mine] for key, value in given.items()}
        got = self.apply_local(given, function=_scores)
        for block, scores in zip(blocks, got["scores"].astype(np.float64), strict=False):
            own = scores[self._reach : self._reach + len(block.changes)]
            yield (
                FilmScores(film=block.film, edges=block.edges, scores=own, changes=block.changes),
                block.ends,
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Block:
    """A block of steps or fewer, and those around them: tokens [reach+block+reach,D], of which `mask` are real."""

    film: int
    tokens: np.ndarray
    mask: np.ndarray
    edges: np.ndarray
    changes: np.ndarray
    ends: bool


class _Steps:
    """The steps of one film whose scores are not asked for yet, and those before them that they look back to."""

    def __init__(self, *, film: int, reach: int, block: int):
        self._film, self._reach, self._size = film, reach, block
        self._before = 0  # steps at the front that have their scores
        self._tokens: np.ndarray | None = None
        self._edges, self._changes = np.zeros(1), np.zeros(0)

    def add(self, window: WindowTokens) -> Iterator[_Block]:
        """Add the steps of a window beyond the one before; yield the blocks that are complete."""
        tokens, changes = window.tokens, window.changes
        edges = np.linspace(window.start_s, window.end_s, len(tokens) + 1)
        fresh = edges[1:] > window.fresh_s + 1e-6
        self._tokens = tokens[fresh] if self._tokens is None else np.concatenate([self._tokens, tokens[fresh]])
        self._edges = np.concatenate([self._edges, edges[1:][fresh]])
        self._changes = np.concatenate([self._changes, changes[fresh]])
        while self._waiting >= self._size + max(self._reach, 1):  # a step at least is left, with which the film ends
            yield self._block(self._size, ends=False)
        if window.last:
            yield from self.finish()

    def finish(self) -> Iterator[_Block]:
        """Yield the blocks of what is left."""
        while self._waiting:
            yield self._block(min(self._size, self._waiting), ends=self._waiting <= self._size)

    @property
    def _waiting(self) -> int:
        return len(self._changes)

    def _block(self, count: int, *, ends: bool) -> _Block:
        """Take the next steps."""
        assert self._tokens is not None
        size = self._size + 2 * self._reach
        real = self._tokens[: self._before + count + self._reach]
        left = self._reach - self._before
        tokens = np.zeros((size, real.shape[1]), real.dtype)
        mask = np.zeros(size, bool)
        tokens[left : left + len(real)], mask[left : left + len(real)] = real, True
        block = _Block(
            film=self._film,
            tokens=tokens,
            mask=mask,
            edges=self._edges[: count + 1],
            changes=self._changes[:count],
            ends=ends,
        )
        kept = min(self._reach, self._before + count)
        self._tokens = self._tokens[self._before + count - kept :]
        self._before, self._edges, self._changes = kept, self._edges[count:], self._changes[count:]
        return block


def frame_changes(video: np.ndarray) -> np.ndarray:
    """Return the mean absolute difference of each frame from the one before, float32 [T], 0..1.

    The first frame has the value of the second.

    Args:
      video: uint8 [T,H,W,3].
    """
    if len(video) < 2:
        return np.zeros(len(video), np.float32)
    change = np.abs(np.diff(video.astype(np.int16), axis=0)).mean(axis=(1, 2, 3), dtype=np.float64) / 255
    return np.concatenate([change[:1], change]).astype(np.float32)


def spans_above(edges: np.ndarray, *, scores: np.ndarray, limit: float) -> list[tuple[float, float, float]]:
    """Return the runs of steps with a score of at least `limit`: start and end in seconds, and the highest score.

    >>> spans_above(np.array([0.0, 1.0, 2.0, 3.0]), scores=np.array([0.9, 0.6, 0.1]), limit=0.5)
    [(0.0, 2.0, 0.9)]
    """
    turns = np.flatnonzero(np.diff(np.concatenate([[False], scores >= limit, [False]]).astype(int)))
    return [
        (float(edges[begin]), float(edges[end]), float(scores[begin:end].max()))
        for begin, end in turns.reshape(-1, 2).tolist()
    ]


def _named(found: FilmScores, *, limit: float) -> dict[str, Any]:
    steps = zip(found.edges[:-1].tolist(), found.edges[1:].tolist(), found.scores.tolist(), strict=True)
    spans = spans_above(found.edges, scores=found.scores, limit=limit)
    return {
        "score": float(found.scores.max()),
        "spans": [_span(*span) for span in spans],
        "moments": [_span(*step) for step in steps],
    }


def _span(start: float, end: float, score: float) -> dict[str, float]:
    return {"start_s": round(start, 3), "end_s": round(end, 3), "score": round(score, 5)}


def _batched(windows: Iterable[FilmWindow], *, size: int) -> Iterator[list[FilmWindow]]:
    windows = iter(windows)
    while part := list(itertools.islice(windows, size)):
        yield part


def _frames(clip: Any, *, spec: Any) -> np.ndarray:
    return frames_of(spec, clip=clip)


def _scores(model: Any, rows: dict[str, jax.Array]) -> dict[str, jax.Array]:
    return {"scores": jax.nn.sigmoid(model.head(rows["tokens"], mask=rows["mask"]).logits)}
