"""Further classes for a fine-tuned classifier: its classes, the clips that are replayed, and the scores it had."""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from ...base.errors import UserError
from ...data.batches.identity import contents
from ...encode.predict.predictor import Predictor
from ...engine.start.processes import everywhere
from ..examples.clips import LabelledClips
from ..examples.context import TaskContext
from ..inputs.feed import Batch, Feed
from .predictions import predict_clips

FILE = "checkpoint_scores.npz"
"""In the workdir, and of one in an object store there, too: what the checkpoint says of the train clips, and how well
it knows its classes. A run that is resumed needs it, also on another machine."""


def checkpoint_classes(context: TaskContext, *, head: str) -> tuple[str, ...]:
    """Return the classes of the classifier that a run begins with.

    Args:
      context: of the run.
      head: `config.task.head`.

    Raises:
      UserError: the checkpoint is no such classifier, or has another head.
    """
    given = context.heads.get("classify")
    kind = (given or {}).get("decode", {}).get("kind", "single")
    if given is None or kind != "single":
        found = f"a classifier of kind {kind!r}" if given else f"with the heads {list(context.heads)}"
        raise UserError(
            f"config.task.extends=True takes over the classes of a classifier of kind 'single', and --init is {found}; "
            "give --init a run of `finetune` with the task classify, or leave extends out"
        )
    if given["kind"] != head:
        raise UserError(
            f"config.task.head={head!r}, but the classifier that is extended has the head {given['kind']!r}; set it to "
            "that"
        )
    return tuple(given["labels"])


def replayed(clips: LabelledClips, *, old: int, count: int, seed: int) -> LabelledClips:
    """Return clips with at most `count` of each of the first `old` classes, drawn by the seed; -1 = all of them."""
    if count < 0:
        return clips
    taken, rng = clips.label >= old, np.random.default_rng([seed, old])
    for number in range(old):
        own = np.flatnonzero(clips.label == number)
        taken[rng.permutation(own)[:count]] = True
    return clips.only(taken)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Known:
    """What the checkpoint said, before the run.

    Attributes:
      log_probability: float32 [n,K] of its classes, of every record of the train split; 0 where it was not asked.
      accuracy: of the clips of the report that have one of its classes, among these classes, in percent; NaN if none.
    """

    log_probability: np.ndarray
    accuracy: float


def known_by(
    predictor: Callable[[], Predictor],
    *,
    train: LabelledClips | None,
    report: LabelledClips,
    feed: Feed,
    context: TaskContext,
    file: Path,
) -> Known:
    """Ask the checkpoint about the clips, or read what an earlier start has written; all processes must call.

    What was written of another checkpoint, of other clips or of clips that were shown in another way is not read.

    Args:
      predictor: loads the checkpoint.
      train: the clips that are trained on; None = only the report's are asked about.
      report: the clips of the report; their labels begin with the checkpoint's classes.
      feed: where the clips come from.
      context: of the run.
      file: where it is kept.
    """
    about = _about(context, sets=(train, report))
    kept = _kept(file, about=about)
    if everywhere(kept is not None):
        assert kept is not None
        return kept
    model = predictor()
    scores = np.zeros((len(train.label) if train is not None else 0, len(model.labels)), np.float32)
    if train is not None:
        found = predict_clips(model, clips=train, feed=feed, progress=True)
        scores[found.index] = np.log(np.maximum(found.probability, 1e-30))
    own, accuracy = report.only(report.label < len(model.labels)), float("nan")
    if len(own):
        tested = predict_clips(model, clips=own, feed=feed)
        accuracy = 100.0 * float((tested.probability.argmax(axis=1) == tested.label).mean())
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.name}.{jax.process_index()}.npz")  # workdirs may be of each process
    np.savez(partial, log_probability=scores, accuracy=accuracy, about=about)
    partial.replace(file)
    return Known(log_probability=scores, accuracy=accuracy)


def _about(context: TaskContext, *, sets: Sequence[LabelledClips | None]) -> str:
    """Return a hash of all that the answers of the checkpoint depend on."""
    shown, feed = context.data.input, context.data.feed
    clips = [(one.split, hashlib.sha256(one.label.tobytes()).hexdigest()) if one is not None else None for one in sets]
    how = [shown.num_frames, shown.eval_sampling, shown.eval_video, feed.eval_clips, feed.window_seconds]
    text = json.dumps([context.config["init"], contents(feed), clips, how], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _kept(file: Path, *, about: str) -> Known | None:
    if not file.is_file():
        return None
    with np.load(file, allow_pickle=False) as kept:
        if str(kept["about"]) != about:
            return None
        return Known(log_probability=kept["log_probability"], accuracy=float(kept["accuracy"]))


def with_known(batches: Iterator[Batch], *, known: Callable[[], Known | None]) -> Iterator[Batch]:
    """Yield batches with `known float32 [b,K]`, what the checkpoint said; asked for with the first batch."""
    for batch in batches:
        found = known()
        assert found is not None
        yield {**batch, "known": found.log_probability[batch["clip_index"]]}


def kept_divergence(
    logits: Float[Array, "B classes"], *, known: Float[Array, "B K"], valid: Bool[Array, "B"], temperature: float
) -> Float[Array, ""]:
    """Return the divergence of the scores of the first K classes from what the checkpoint said, in nats.

    `T^2 KL(known || scores)` of softmaxes at temperature T (Li & Hoiem 2016, arXiv:1606.09282; the factor as Hinton et
    al. 2015), the mean over the valid rows.
    """
    t = jnp.float32(temperature)
    log_p = jax.nn.log_softmax(known / t, axis=1)
    log_q = jax.nn.log_softmax(logits[:, : known.shape[1]].astype(jnp.float32) / t, axis=1)
    each = jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=1)
    weight = valid.astype(jnp.float32) / jnp.maximum(jnp.sum(valid, dtype=jnp.float32), jnp.float32(1))
    return t * t * jnp.sum(weight * each)


def extension_figures(
    probability: np.ndarray, *, label: np.ndarray, old: int, before: float | None
) -> Mapping[str, Any]:
    """Return the accuracy in percent of the old classes, of the new ones and of all, and what the checkpoint had.

    Args:
      probability: [n,classes].
      label: int [n].
      old: how many classes are the checkpoint's, the first ones.
      before: accuracy of the checkpoint on the old classes, among these alone; None = not measured.
    """
    right, is_old = probability.argmax(axis=1) == label, label < old

    def share(taken: np.ndarray) -> float | None:
        return 100.0 * float(right[taken].mean()) if taken.any() else None

    return {
        "old_classes": old,
        "old": share(is_old),
        "new": share(~is_old),
        "all": share(np.ones(len(label), bool)),
        "old_before": before,
    }


def check_new(labels: Sequence[str], *, old: Sequence[str]) -> None:
    """Raise UserError unless there are classes that the checkpoint lacks."""
    if len(labels) == len(old):
        raise UserError(
            f"config.task.extends=True, but there is no class besides the {len(old)} of the checkpoint "
            f"({', '.join(old)}) with at least config.task.min_count clips; leave extends out to train on"
        )
