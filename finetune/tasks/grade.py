"""Classification with several labels per clip, a level of an ordered scale, or a number."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from ...base.section import section
from ...engine.sharding.mesh import check_batch_size
from ...evaluate.reports.pictures import write_thumbnails
from ...losses.classification import multilabel_cross_entropy, number_loss, ordinal_cross_entropy
from ...models.heads.classifier import Classifier
from ...models.shapes import Scalar
from ...zoo.spec import ModelSpec
from ..examples.context import TaskContext
from ..examples.targets import TargetClips, TargetSplits, choose_targets
from ..figures.grades import check_finite, level_figures, multilabel_figures, number_figures
from ..inputs.feed import Feed
from ..inputs.mixing import Mixing, mixed_batch
from ..kinds.labelled import LabelledTask
from ..kinds.objective import HeadObjective, scores_of, split_keys
from ..kinds.task import VALIDATION
from ..options.classify import ClassifyOptions
from ..reports.classification import classification_report, write_report
from ..reports.grades import print_grades, write_grades
from ..reports.terminal import print_classification

PICTURES = 12
"""How many of the largest errors the report shows."""


class GradeObjective(HeadObjective):
    """Sigmoid cross-entropy of labels or of the bounds between levels, or the error of a standardised number."""

    def __init__(self, *, spec: ModelSpec, options: ClassifyOptions, context: TaskContext, weights: np.ndarray | None):
        """Describe the model and the loss; see `objective.HeadObjective`. `weights`: of the positives of labels."""
        super().__init__(spec=spec, options=options, context=context)
        self._options, self._weights = options, weights
        self._mixing = Mixing(mixup=options.mixup, cutmix=options.cutmix)

    def loss(
        self, model: Classifier, batch: dict[str, jax.Array], *, rngs: nnx.Rngs | None
    ) -> tuple[Scalar, dict[str, Scalar]]:
        """Return the loss over the rows that take part."""
        options, target, valid = self._options, batch["target"], batch["valid"]
        key, keys = split_keys(rngs, rows=valid.shape[0])
        if key is not None and self._mixing:
            batch, target = mixed_batch(batch, target=target, mixing=self._mixing, key=key)
        logits = scores_of(model, batch, keys=keys, frozen=self.frozen)
        if options.kind == "multi":
            weights = None if self._weights is None else jax.numpy.asarray(self._weights)
            how = {"weights": weights, "label_smoothing": options.label_smoothing}
            return multilabel_cross_entropy(logits=logits, target=target, valid=valid, **how), {}
        if options.kind == "ordinal":
            return ordinal_cross_entropy(logits=logits, level=target[:, 0], valid=valid), {}
        decode = self.spec.heads["classify"]["decode"]
        truth = (target[:, 0] - decode["mean"]) / decode["std"]
        return number_loss(predicted=logits[:, 0], truth=truth, valid=valid, kind=options.number_loss), {}


class Grade(LabelledTask):
    """The task `classify` of the kinds "multi", "ordinal" and "regression"; see `task.Task`."""

    def __init__(self, context: TaskContext):
        """Choose classes and clips; reads `clips.jsonl` but no record."""
        self._context, self.feed = context, Feed(context)
        self.options = options = section(ClassifyOptions, context.config["task"], name="task")
        check_batch_size(context.data.feed.batch_size, mesh=context.mesh)
        how = {"kind": options.kind, "target": options.target}
        self.splits: TargetSplits = choose_targets(context, options=options, **how)
        names, train = self.splits.names, self.splits.train
        values = train.target[train.indices]
        head = options.head_spec(labels=names)
        head |= {"outputs": {"multi": len(names), "ordinal": len(names) - 1, "regression": 1}[options.kind]}
        decode: dict[str, Any] = {"kind": options.kind, "average": options.view_average}
        if options.kind == "regression":
            decode |= {"mean": float(values.mean()), "std": float(values.std()) or 1.0}
        spec = context.tower_spec("video").replace(heads={"classify": head | {"decode": decode}})
        positive = np.maximum(values.sum(axis=0), 1)
        balanced = options.kind == "multi" and options.class_weights == "balanced"
        weights = ((len(values) - positive) / positive).astype(np.float32) if balanced else None
        self.objective = GradeObjective(spec=spec, options=options, context=context, weights=weights)

    @property
    def metric(self) -> str:
        """`mAP`, or of levels and numbers the error below 0, so that the highest is the best."""
        if self.splits.validation is None:
            return ""
        return f"{VALIDATION}/{'mAP' if self.options.kind == 'multi' else 'minus_error'}"

    def settled(self) -> dict[str, Any]:
        """Return `config.task` with the classes that the data gave."""
        return dataclasses.asdict(self.options) | {"labels": self.splits.names}

    def evaluate(self, model: nnx.Module, step: int) -> dict[str, float]:
        """Return `mAP` and `GAP` in percent; of levels and numbers `minus_error`, the mean error below 0."""
        del step
        assert self.splits.validation is not None
        found, target, _, _ = self._predict(model, clips=self.splits.validation)
        if self.options.kind == "multi":
            figures = multilabel_figures(found, targets=target, names=self.splits.names)
            return {"mAP": figures["mAP"], "GAP": figures["GAP"]}
        if self.options.kind == "ordinal":
            return {"minus_error": -level_figures(found, level=target[:, 0].astype(int))["level_error"]}
        return {"minus_error": -float(np.abs(found[:, 0] - target[:, 0]).mean())}

    def report(self, model: nnx.Module, *, out: Path, protocol: dict[str, Any]) -> dict[str, Any]:
        """Measure the model on the test split (or on the validation clips), write the report, print its table."""
        clips, records, options = self.splits.report, self._context.records, self.options
        found, target, index, views = self._predict(model, clips=clips, progress=True)
        rows, names = records.rows(clips.split), self.splits.names
        ids = [rows[i]["clip_id"] for i in index.tolist()]
        check_finite(found, clip_ids=ids)
        shown = {key: value for key, value in self._context.protocol(clips).items() if key != "classes"}
        whole = protocol | shown | {"kind": options.kind, "target": options.target, "head": options.head}
        whole |= {"views": views, "trained": list(self.objective.trainable)}
        first = jax.process_index() == 0
        if options.kind == "ordinal":
            level = target[:, 0].astype(int)
            figures = classification_report(found, label=level, labels=names, clip_ids=ids)
            figures |= level_figures(found, level=level)
            if first:
                title = f"{whole['dataset']} · {clips.split}"
                print_classification(figures, page=write_report(figures, out=out, title=title, protocol=whole))
            return {"protocol": whole, **figures}
        if options.kind == "multi":
            figures = multilabel_figures(found, targets=target, names=names)
        else:
            train = self.splits.train
            usual = float(np.median(train.target[train.indices]))
            figures = number_figures(found[:, 0], truth=target[:, 0], usual=usual, scale=options.scale)
        if first:
            listed = [_listed(*row, names=names) for row in zip(ids, found, target, strict=True)]
            worst = sorted(range(len(listed)), key=lambda i: -listed[i]["error"])[:PICTURES]
            chosen = {ids[i]: int(index[i]) for i in worst}
            pictures = write_thumbnails(out / "clips", records=records, split=clips.split, clips=chosen)
            print_grades(figures, page=write_grades(figures, out=out, protocol=whole, clips=listed, pictures=pictures))
        return {"protocol": whole, **figures}

    def _predict(
        self, model: nnx.Module, *, clips: TargetClips, progress: bool = False
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
        """Return predictions [n,K], targets [n,K] and records [n] of the clips that can be read, and the views."""
        found = self.predictions(model, clips=clips, progress=progress)
        return found.probability, clips.target[found.index].astype(np.float64), found.index, found.views


def _listed(clip_id: str, found: np.ndarray, target: np.ndarray, *, names: tuple[str, ...]) -> dict[str, Any]:
    """Return a clip's truth and prediction as words, and how wrong it is."""
    if not names:
        error = abs(float(found[0] - target[0]))
        return {"clip_id": clip_id, "truth": f"{target[0]:.4g}", "predicted": f"{found[0]:.4g}", "error": error}
    truth, predicted = (", ".join(names[i] for i in np.flatnonzero(row >= 0.5)) for row in (target, found))
    error = float(np.abs(found - target).sum())
    return {"clip_id": clip_id, "truth": truth, "predicted": predicted, "error": error}
