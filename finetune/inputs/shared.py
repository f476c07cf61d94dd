"""The batches of several tasks on one stream of clips: which clips it has, and each task's part of a batch."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..examples.clips import LabelledClips
from .feed import Batch, Feed, rows_of

if TYPE_CHECKING:
    from ..examples.context import TaskContext
    from .features import Features


class SharedFeed(Feed):
    """The feed of one of several tasks: it trains on the rows that `hand` gives, of a stream that all tasks share.

    A task's own `batches` then attach its targets, as where it is alone. Features of a frozen tower are those of the
    feed of all tasks.
    """

    def __init__(self, context: "TaskContext", *, whole: Feed):
        """Remember the feed of all tasks, `whole`; nothing is read."""
        super().__init__(context)
        self._whole, self._rows = whole, {}

    def hand(self, batch: Batch, *, draws: np.ndarray) -> None:
        """Give the rows of the next batch.

        Args:
          batch: `clip_index` and `valid`, among others.
          draws: float64 [b], 0 to below 1: chooses among the examples of a clip that has several.
        """
        self._rows = {key: batch[key] for key in ("clip_index", "valid")} | {"draws": draws}

    def train(self, clips: LabelledClips, *, start_step: int) -> Iterator[Batch]:
        """Return this task's part of the batches; rows of clips that it does not train on are not valid."""
        del start_step
        return clips.attach({key: rows[key] for key in ("clip_index", "valid")} for rows in self._handed())

    def examples(self, clips: LabelledClips, *, record: np.ndarray, start_step: int) -> Iterator[Batch]:
        """Return likewise batches with one example of each row's clip, `example int64 [b]`; see `Feed.examples`."""
        del clips, start_step
        for rows in self._handed():
            begin, end = (np.searchsorted(record, rows["clip_index"], side=side) for side in ("left", "right"))
            chosen = begin + np.floor(rows["draws"] * (end - begin)).astype(np.int64)
            there = end > begin
            example = np.where(there, chosen, 0)
            yield {"clip_index": record[example], "valid": rows["valid"] & there, "example": example}

    def _handed(self) -> Iterator[Batch]:
        while True:
            yield self._rows

    def _cached(self, clips: LabelledClips) -> "tuple[Features | None, LabelledClips]":
        for found, among in self._whole.evaluated(clips.split):
            if np.isin(clips.indices, among.indices).all():
                return found, among
        return None, clips


def united(sets: Sequence[LabelledClips]) -> list[LabelledClips]:
    """Return for each split of the sets the clips that are in any of them, without classes."""
    found = {}
    for clips in sets:
        taken = found.get(clips.split, np.zeros(len(clips.label), bool)) | (clips.label >= 0)
        found[clips.split] = taken
    return [
        LabelledClips(split=split, labels=(), label=np.where(taken, 0, -1).astype(np.int32))
        for split, taken in found.items()
    ]


def mixed_records(sets: Sequence[LabelledClips], *, shares: Sequence[float]) -> np.ndarray:
    """Return the records of an epoch that mixes the clips of several tasks, each as often as it is to be seen.

    A row is a clip of task k, each equally likely, with a probability in proportion to the task's share; a clip of
    several tasks is seen for all of them. The rarest clip stands in an epoch once, the others in proportion, rounded to
    whole numbers.

    Args:
      sets: clips of each task, of one split; none is empty.
      shares: of each task, above 0.

    Returns:
      int64 [q], ascending.
    """
    chance = np.zeros(len(sets[0].label), np.float64)
    for clips, share in zip(sets, shares, strict=True):
        chance[clips.indices] += share / len(clips)
    clips = np.flatnonzero(chance)
    times = chance[clips] / chance[clips].min()
    ends = np.floor(np.cumsum(times) + 0.5).astype(np.int64)
    return np.repeat(clips, np.diff(ends, prepend=0))


def row_draws(context: "TaskContext", *, step: int) -> np.ndarray:
    """Return this process's part of a number for each row of the batch of a step, float64 [b], 0 to below 1."""
    draws = np.random.default_rng([context.config["seed"], step]).random(context.data.feed.batch_size)
    return draws[rows_of(context)]


def shared_batches(
    stream: Iterator[Batch],
    *,
    parts: dict[str, tuple[SharedFeed, Iterator[Batch]]],
    context: "TaskContext",
    start_step: int,
) -> Iterator[Batch]:
    """Yield the batches of a stream of clips with the targets of all tasks.

    Args:
      stream: of `Feed.examples`, from `start_step` on.
      parts: name of a task -> its feed and its own batches.
      context: of the run.
      start_step: number of the first batch.

    Yields:
      `video` or `tokens`, `clip_index` and `valid` of the stream, and `NAME/KEY` for each array of a task.
    """
    for step, batch in enumerate(stream, start=start_step):
        draws = row_draws(context, step=step)
        made = {key: value for key, value in batch.items() if key not in ("example", "label")}
        for name, (feed, batches) in parts.items():
            feed.hand(batch, draws=draws)
            own = next(batches)
            made |= {f"{name}/{key}": value for key, value in own.items() if key not in ("clip_index", "example")}
        yield made
