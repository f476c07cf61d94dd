"""The batches of a task: clips decoded from the records, or the features of a frozen tower computed once."""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import jax
import numpy as np

from ...encode.devices.rows import rounded_up
from ..examples.clips import DROPPED, LabelledClips
from .features import Features, compute_features

if TYPE_CHECKING:
    from flax import nnx

    from ...data.batches.block_order import BlockOrder
    from ...data.batches.order import Order
    from ...data.batches.targets import Targets
    from ...data.options import DataOptions
    from ..examples.context import TaskContext

Batch = dict[str, np.ndarray]
SOUND = ("audio", "audio_mask", "audio_samples")
"""Keys of batches that hold the clips' sound."""


class Feed:
    """Gives this process's rows of the batches of labelled clips."""

    def __init__(
        self, context: "TaskContext", *, targets: "Targets | None" = None, bags: bool = False, sound: bool = False
    ):
        """Remember where the clips come from; nothing is read.

        Args:
          context: of the run.
          targets: what the batches bring besides the clip and its label; features are cached only without any.
          bags: whether a clip is trained on as a bag of `config.data.train_clips` windows.
          sound: whether the batches of `examples` and `evaluation` bring the clips' sound, too (keys of `SOUND`).
        """
        self._context, self._targets, self._bags, self._sound = context, targets, bags, sound
        self._features: dict[str, Features] = {}
        self._sets: list[LabelledClips] = []

    @property
    def trains_as_evaluated(self) -> bool:
        """Whether a clip looks the same in every epoch: no augmentation, no random sampling, no random window."""
        from ...data.batches.clip_graph import ClipGraph

        graph = ClipGraph.of(self._context.data, train=True)
        random_window = graph.window_seconds and graph.windows == 1
        return not (graph.sampler.random or graph.transform.draws or random_window)

    def train(self, clips: LabelledClips, *, start_step: int) -> Iterator[Batch]:
        """Return the endless train batches from `start_step` on.

        Returns:
          An iterator of `video uint8 [b,T,H,W,3]` or `tokens [b,T,D]` (of bags `[b,V,…]`), `label int32 [b]`, `valid
          bool [b]`, `clip_index int64 [b]`. The rows of a step are the same with and without features.

        Raises:
          UserError: a fault in the data or the options, before anything is read.
        """
        from ...data.batches.pipeline import train_batches

        data, seed = self._context.data, self._context.config["seed"]
        found = self._features.get(_name(clips, train=True))
        if found is not None:
            return clips.attach(_cached_train(found, clips=clips, context=self._context, start_step=start_step))
        return clips.attach(
            train_batches(
                data,
                tokenizer=self._context.tokenizer,
                seed=seed,
                start_step=start_step,
                process_index=jax.process_index(),
                process_count=jax.process_count(),
                label_names=clips.labels,
                targets=self._targets,
                only=clips.indices,
                bags=self._bags,
            )
        )

    def examples(self, clips: LabelledClips, *, record: np.ndarray, start_step: int) -> Iterator[Batch]:
        """Return the endless train batches of examples of which a clip may have several, from `start_step` on.

        Args:
          clips: the clips that take part.
          record: int64 [q], the clip of each example, ascending.
          start_step: number of the first batch.

        Returns:
          An iterator as of `train`, with `example int64 [b]`, the number of each row's example, for the label. An epoch
          has each example once.
        """
        from ...data.batches.pipeline import train_batches

        context, count = self._context, jax.process_count()
        found = self._features.get(_name(clips, train=True))
        order = _order(record, split=clips.split, context=context)

        def decoded(data: "DataOptions") -> Iterator[Batch]:
            return train_batches(
                data,
                tokenizer=context.tokenizer,
                seed=context.config["seed"],
                start_step=start_step,
                process_index=jax.process_index(),
                process_count=count,
                label_names=(),
                only=record,
            )

        if found is not None:
            batches = _cached_examples(
                found, indices=clips.indices, record=record, order=order, context=context, start_step=start_step
            )
            return self._with_sound(batches, sound=decoded)
        mine, kept = rows_of(context), DROPPED.difference(SOUND if self._sound else ())
        return (
            {key: value for key, value in batch.items() if key not in kept} | {"example": order.rows(step).record[mine]}
            for step, batch in zip(itertools.count(start_step), decoded(context.data), strict=False)
        )

    def evaluation(self, clips: LabelledClips, *, cached: bool = True) -> Iterator[Batch]:
        """Return batches with every clip once, in record order; the last one is padded with rows that are not valid.

        Args:
          clips: which ones.
          cached: take the features of a frozen tower where they were computed; else frames in any case.

        Returns:
          An iterator as of `train`; with several windows or views `video` is [b,V,T,H,W,3] and `tokens` [b,V,T,D].
        """
        size = rounded_up(self._context.data.feed.batch_size, mesh=self._context.mesh)
        found, among = self._cached(clips) if cached else (None, clips)
        decoded = functools.partial(_evaluation, self._context, clips=clips, size=size, targets=self._targets)
        if found is not None:
            batches = clips.attach(_cached_evaluation(found, clips=clips, among=among, batch_size=size))
            return self._with_sound(batches, sound=decoded)
        if not self._sound:
            return clips.attach(decoded(self._context.data))
        return (
            batch | {key: own[key] for key in SOUND}
            for own in decoded(self._context.data)
            for batch in clips.attach(iter([own]))
        )

    def features(self, clips: LabelledClips, *, joined: bool, chunk: int = 1024) -> tuple[np.ndarray, np.ndarray]:
        """Return a vector of each clip of an evaluated set whose features `cache` has computed.

        Args:
          clips: the set.
          joined: all time tokens side by side, T D wide, instead of their mean.
          chunk: clips at a time.

        Returns:
          float32 [n,D], zeros for a clip whose record is damaged; and bool [n], False for such a clip. The same on
          every process.
        """
        found, means, read = self._features[_name(clips, train=False)], [], []
        for begin in range(0, len(clips), chunk):
            tokens, ok = found.read(np.arange(begin, min(begin + chunk, len(clips))))
            tokens = tokens.astype(np.float32)
            means.append(tokens.reshape(len(ok), -1) if joined else tokens.mean(axis=1))
            read.append(ok)
        return np.concatenate(means), np.concatenate(read)

    def evaluated(self, split: str) -> "list[tuple[Features, LabelledClips]]":
        """Return the features that `cache` has computed of evaluated sets of a split, each with its set."""
        return [(self._features[_name(clips, train=False)], clips) for clips in self._sets if clips.split == split]

    def _cached(self, clips: LabelledClips) -> tuple[Features | None, LabelledClips]:
        """Return the features of an evaluated set of clips, None if there are none, and the set that they are of."""
        return self._features.get(_name(clips, train=False)), clips

    def _with_sound(
        self, batches: Iterator[Batch], *, sound: "Callable[[DataOptions], Iterator[Batch]]"
    ) -> Iterator[Batch]:
        """Add the sound of the same rows, read without their frames, if it is wanted."""
        if not self._sound:
            return batches
        data = self._context.data
        only = dataclasses.replace(data, input=dataclasses.replace(data.input, num_frames=0))
        both = zip(batches, sound(only), strict=False)
        return (batch | {key: own[key] for key in SOUND} for batch, own in both)

    def cache(
        self,
        *,
        train: LabelledClips,
        evaluated: list[LabelledClips],
        model: "Callable[[], nnx.Module]",
        folder: Path,
    ) -> None:
        """Compute the features of all clips that are shown without augmentation, unless `folder` has them.

        Args:
          train: the clips that are trained on; left out where training draws at random.
          evaluated: the sets that are evaluated.
          model: builds the model whose frozen video tower computes them.
          folder: where they are kept.
        """
        if self._targets is not None:
            return
        data, built = _silent(self._context.data), model()
        self._sets = list(evaluated)
        jobs = [(clips, False, data) for clips in evaluated]
        if self.trains_as_evaluated:
            jobs.insert(0, (train, True, _as_trained(data)))
        for clips, is_train, shown in jobs:
            name = _name(clips, train=is_train)
            if name not in self._features:
                self._features[name] = compute_features(
                    clips,
                    context=self._context,
                    data=shown,
                    batches=lambda part, size, shown=shown: _evaluation(self._context, shown, clips=part, size=size),
                    model=built,
                    root=folder,
                )


def _evaluation(
    context: "TaskContext", data: "DataOptions", *, clips: LabelledClips, size: int, targets: "Targets | None" = None
) -> Iterator[Batch]:
    """Return this process's rows of batches of the clips, decoded from the records."""
    from ...data.batches.pipeline import eval_batches

    return eval_batches(
        data,
        tokenizer=context.tokenizer,
        split=clips.split,
        batch_size=size,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        label_names=clips.labels,
        targets=targets,
        only=clips.indices,
    )


def _order(record: np.ndarray, *, split: str, context: "TaskContext") -> "Order | BlockOrder":
    """Return the order in which `train_batches` goes through these records."""
    from ...data.batches.run_order import make_run_order
    from ...data.batches.source import Source

    data, count = context.data, jax.process_count()
    source = Source(data.feed.dir, split=split, field="config.data.train_split", data=data, records=context.records)
    return make_run_order(data, sources=[source], seed=context.config["seed"], process_count=count, only=record)


def rows_of(context: "TaskContext") -> slice:
    """Return this process's rows of a global batch."""
    share = context.data.feed.batch_size // jax.process_count()
    return slice(jax.process_index() * share, (jax.process_index() + 1) * share)


def _cached_examples(
    features: Features,
    *,
    indices: np.ndarray,
    record: np.ndarray,
    order: "Order | BlockOrder",
    context: "TaskContext",
    start_step: int,
) -> Iterator[Batch]:
    """Yield the rows that `train_batches` yields, with features for frames, and the number of each row's example."""
    mine = rows_of(context)
    for step in itertools.count(start_step):
        rows = order.rows(step)
        example = rows.record[mine]
        tokens, ok = features.read(np.searchsorted(indices, record[example]))
        valid = ok & rows.first[mine]
        yield {"tokens": tokens, "clip_index": record[example], "valid": valid, "example": example}


def _cached_train(
    features: Features, *, clips: LabelledClips, context: "TaskContext", start_step: int
) -> Iterator[Batch]:
    """Yield the rows that `train_batches` yields, with features for frames."""
    indices = clips.indices
    order = _order(indices, split=clips.split, context=context)
    given = {"order": order, "context": context, "start_step": start_step}
    batches = _cached_examples(features, indices=indices, record=indices, **given)
    return ({key: value for key, value in batch.items() if key != "example"} for batch in batches)


def _cached_evaluation(
    features: Features, *, clips: LabelledClips, among: LabelledClips, batch_size: int
) -> Iterator[Batch]:
    """Yield batches of the clips, which are `among` those that the features are of."""
    indices, share = clips.indices, batch_size // jax.process_count()
    places = np.searchsorted(among.indices, indices)
    for begin in range(0, len(indices), batch_size):
        place = np.arange(share) + begin + jax.process_index() * share
        there = place < len(indices)
        tokens, ok = features.read(places[np.where(there, place, len(indices) - 1)])
        yield {
            "tokens": tokens,
            "clip_index": np.where(there, indices[np.minimum(place, len(indices) - 1)], -1),
            "valid": ok & there,
        }


def _silent(data: "DataOptions") -> "DataOptions":
    """Return the options without sound, for what looks at frames alone."""
    return dataclasses.replace(data, input=dataclasses.replace(data.input, audio_seconds=0.0))


def _as_trained(data: "DataOptions") -> "DataOptions":
    """Return the options by which evaluation shows clips as training does."""
    sampling = data.augment.train_sampling or data.input.eval_sampling
    video = data.augment.train_video or data.input.eval_video
    shown = dataclasses.replace(data.input, eval_sampling=sampling, eval_video=video)
    return dataclasses.replace(data, input=shown, feed=dataclasses.replace(data.feed, eval_clips=data.feed.train_clips))


def _name(clips: LabelledClips, *, train: bool) -> str:
    kind = "train" if train else "evaluation"
    return f"{kind}/{clips.split}/{hash(clips.label.tobytes())}"
