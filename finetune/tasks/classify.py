"""Classification: a video tower with a head, one label per clip; the other kinds of labels lie in `grade.py`."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from ...base.section import section
from ...encode.predict.predictor import Predictor
from ...engine.sharding.mesh import check_batch_size
from ...evaluate.reports.pictures import write_thumbnails
from ...losses.classification import soft_cross_entropy, softmax_cross_entropy
from ...models.heads.classifier import Classifier
from ...models.shapes import Scalar
from ...zoo.spec import ModelSpec
from ..examples.context import TaskContext
from ..examples.splits import Splits, choose_splits
from ..examples.targets import balanced
from ..inputs.feed import Batch, Feed
from ..inputs.mixing import Mixing, mixed_batch
from ..kinds.incremental import (
    Known,
    check_new,
    checkpoint_classes,
    extension_figures,
    kept_divergence,
    known_by,
    replayed,
    with_known,
)
from ..kinds.labelled import LabelledTask
from ..kinds.objective import HeadObjective, scores_of, split_keys
from ..kinds.task import VALIDATION, Task
from ..options.classify import ClassifyOptions
from ..reports.classification import classification_report, write_report
from ..reports.terminal import print_classification

PICTURES = 12
"""How many mistakes the report shows as thumbnails."""


class ClassifyObjective(HeadObjective):
    """Cross-entropy over the classes."""

    def __init__(
        self, *, spec: ModelSpec, options: ClassifyOptions, context: TaskContext, weights: np.ndarray | None = None
    ):
        """Describe the model and the loss; see `objective.HeadObjective`. `weights`: of the classes, float32 [K]."""
        super().__init__(spec=spec, options=options, context=context)
        self._label_smoothing, self._options = options.label_smoothing, options
        self._mixing, self._weights = Mixing(mixup=options.mixup, cutmix=options.cutmix), weights

    def loss(
        self, model: Classifier, batch: dict[str, jax.Array], *, rngs: nnx.Rngs | None
    ) -> tuple[Scalar, dict[str, Scalar]]:
        """Return the cross-entropy in nats over the rows that take part, and their accuracy (0..1)."""
        mixes = rngs is not None and bool(self._mixing)
        key, keys = split_keys(rngs, rows=batch["label"].shape[0])
        if not mixes and self._weights is None:
            logits = scores_of(model, batch, keys=keys, frozen=self.frozen)
            how = {"label": batch["label"], "valid": batch["valid"], "label_smoothing": self._label_smoothing}
            return self._keeping(*softmax_cross_entropy(logits=logits, **how), logits=logits, batch=batch)
        classes = len(self.spec.heads["classify"]["labels"])
        target = jax.nn.one_hot(batch["label"], classes)
        if mixes:
            assert key is not None
            batch, target = mixed_batch(batch, target=target, mixing=self._mixing, key=key)
        logits = scores_of(model, batch, keys=keys, frozen=self.frozen)
        _, metrics = softmax_cross_entropy(logits=logits, label=batch["label"], valid=batch["valid"])
        target = (1 - self._label_smoothing) * target + self._label_smoothing / classes
        weights = None if self._weights is None else jax.numpy.asarray(self._weights)
        loss = soft_cross_entropy(logits=logits, target=target, valid=batch["valid"], weights=weights)
        return self._keeping(loss, metrics, logits=logits, batch=batch)

    def _keeping(
        self, loss: Scalar, metrics: dict[str, Scalar], *, logits: jax.Array, batch: dict[str, jax.Array]
    ) -> tuple[Scalar, dict[str, Scalar]]:
        """Return the loss with that of scores which are to stay as the checkpoint's, if there are any."""
        if "known" not in batch:
            return loss, metrics
        given = {"known": batch["known"], "valid": batch["valid"], "temperature": self._options.keep_temperature}
        kept = kept_divergence(logits, **given)
        return loss + self._options.keep_weight * kept, metrics | {"kept": kept}


class Classify(LabelledTask):
    """The task `classify`; see `task.Task`.

    A task of one's own may take its place with other options or another loss:

    Attributes:
      options_class: of `config.task`; a subclass of `ClassifyOptions`.
      objective_class: of the model and its loss; takes what `ClassifyObjective` takes.
    """

    options_class = ClassifyOptions
    objective_class = ClassifyObjective

    def __init__(self, context: TaskContext):
        """Choose classes and clips; reads `clips.jsonl` but no record."""
        self._context, self.feed = context, Feed(context)
        self.options = options = section(self.options_class, context.config["task"], name="task")
        check_batch_size(context.data.feed.batch_size, mesh=context.mesh)
        self._old = checkpoint_classes(context, head=options.head) if options.extends else ()
        self._known: Known | None = None
        self.splits: Splits = self.choose()
        head = options.head_spec(labels=self.splits.labels)
        head |= {"decode": {"kind": "single", "average": options.view_average}}
        spec = context.tower_spec("video").replace(heads={"classify": head | self.more_of_head()})
        train = self.splits.train
        weights = (
            balanced(train.label[train.indices], classes=len(train.labels)) if options.class_weights != "none" else None
        )
        self.objective = self.objective_class(spec=spec, options=options, context=context, weights=weights)

    def more_of_head(self) -> dict[str, Any]:
        """Return further fields of the head in the spec."""
        return {}

    def choose(self) -> Splits:
        """Choose classes and clips."""
        context, splits = self._context, choose_splits(self._context, options=self.options, known=self._old)
        if not self._old:
            return splits
        check_new(splits.labels, old=self._old)
        kept = replayed(splits.train, old=len(self._old), count=self.options.replay, seed=context.config["seed"])
        context.say(f"{len(self._old)} classes are known; {len(kept)} clips are trained on")
        return dataclasses.replace(splits, train=kept)

    @property
    def parts(self) -> tuple[str, ...]:
        """The tower comes from the checkpoint, and the head that is given further classes."""
        return ("video/.*", "head/.*") if self._old else ("video/.*",)

    def ask_checkpoint(self, predictor: Callable[[], Predictor], *, file: Path) -> None:
        """Ask the classifier that is given further classes, or read from `file` what it said; see `known_by`."""
        if self._old:
            train = self.splits.train if self.options.keep_weight else None
            given = {"report": self.splits.report, "feed": self.feed, "context": self._context}
            self._known = known_by(predictor, train=train, file=file, **given)

    def batches(self, start_step: int) -> Iterator[Batch]:
        """Return this process's rows of the train batches, with `known [b,K]` where scores are to be kept."""
        batches = super().batches(start_step)
        return with_known(batches, known=lambda: self._known) if self.options.keep_weight else batches

    @property
    def metric(self) -> str:
        """Validation accuracy, if there is anything to validate on."""
        return f"{VALIDATION}/accuracy" if self.splits.validation is not None else ""

    def settled(self) -> dict[str, Any]:
        """Return `config.task` with the classes that the data gave."""
        return dataclasses.asdict(self.options) | {"labels": self.splits.labels}

    def evaluate(self, model: nnx.Module, step: int) -> dict[str, float]:
        """Return `loss` (nats, not smoothed), `accuracy` and `balanced_accuracy` (0..1)."""
        del step
        assert self.splits.validation is not None
        return self.predictions(model, clips=self.splits.validation).results()

    def report(self, model: nnx.Module, *, out: Path, protocol: dict[str, Any]) -> dict[str, Any]:
        """Measure the model on the test split (or on the validation clips), write the report, print its table."""
        clips, records = self.splits.report, self._context.records
        rows = records.rows(clips.split)
        found = self.predictions(model, clips=clips, progress=True)
        names = [rows[i]["clip_id"] for i in found.index.tolist()]
        report = classification_report(found.probability, label=found.label, labels=self.splits.labels, clip_ids=names)
        if self._old:
            before = None if self._known is None or np.isnan(self._known.accuracy) else self._known.accuracy
            report["extension"] = extension_figures(
                found.probability, label=found.label, old=len(self._old), before=before
            )
        whole = protocol | self._context.protocol(clips) | {"views": found.views, "head": self.options.head}
        whole |= {"trained": list(self.objective.trainable)}
        if jax.process_index() == 0:
            place = dict(zip(names, found.index.tolist(), strict=True))
            shown = {clip["clip_id"]: place[clip["clip_id"]] for clip in report["mistakes"][:PICTURES]}
            pictures = write_thumbnails(out / "clips", records=records, split=clips.split, clips=shown)
            title = f"{whole['dataset']} · {clips.split}"
            page = write_report(report, out=out, title=title, protocol=whole, pictures=pictures)
            print_classification(report, page=page)
        return {"protocol": whole, **report}


def make(context: TaskContext) -> Task:
    """Build the task: of kind "single" here, of the other kinds in `grade.py`."""
    if context.config["task"].get("kind", "single") == "single":
        return Classify(context)
    from .grade import Grade

    return Grade(context)
