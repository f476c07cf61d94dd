"""`config.task` for classification, in all its kinds."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from ...base.errors import UserError, unknown
from ...base.section import arguments
from ...encode.predict.predictor import AVERAGES, KINDS
from ...losses.classification import NUMBER_LOSSES
from ...losses.distillation import DISTANCES
from ...models.heads.classifier import HEADS
from ..examples.splits import LabelOptions
from ..examples.targets import check_target
from ..kinds.task import TowerOptions

CHOICES = {
    **{"kind": KINDS, "class_weights": ("none", "balanced"), "view_average": AVERAGES},
    **{"number_loss": NUMBER_LOSSES, "scale": ("", "mosi", "sims")},
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassifyOptions(LabelOptions, TowerOptions):
    """`config.task` for classification; the fields of both bases belong to it.

    Attributes:
      name: "classify".
      kind: one of `encode.predict.predictor.KINDS`: one class, several labels, a level of an ordered scale, a number.
      target: where they stand: "labels", or "meta.NAME" for a field of the clips' meta; "labels" of kind "single".
      head: a name of `models.heads.classifier.HEADS`.
      heads: attention heads of the heads that attend; divides the width of the video tower.
      positions: the heads that attend know the place of each token, see `models.heads.classifier`.
      patch_grid: 0 = the head sees one token for each time step; else the tokens of its patches, averaged over a grid
        of so many cells a side (the side of the tower's own grid = every patch).
      dropout: rate before the last layer.
      label_smoothing: share of the target that is spread over all classes, 0 to below 1.
      class_weights: "none", or "balanced": a class (of several labels, its positives) counts in inverse proportion to
        its train clips.
      mixup: alpha of mixup, 0 = none; see `mixing.Mixing`.
      cutmix: alpha of CutMix, 0 = none.
      view_average: one of `encode.predict.predictor.AVERAGES`, over the views and windows of a clip in evaluation.
      extends: the checkpoint is a classifier of some of the classes: its head is taken over, and `labels` names further
        classes (() = all others of the train split).
      replay: with `extends`, how many train clips of each class of the checkpoint are trained on; -1 = all.
      keep_weight: with `extends`, weight of the loss that keeps the scores of the checkpoint's classes as they were
        (learning without forgetting, Li & Hoiem 2016); 0 = none.
      keep_temperature: divides the scores in it.
      number_loss: of kind "regression", one of `losses.classification.NUMBER_LOSSES`.
      scale: of kind "regression", "mosi" (-3 to 3) or "sims" (-1 to 1) for the figures of sentiment; "" = none.
    """

    name: str = "classify"
    kind: str = "single"
    target: str = "labels"
    head: str = "attentive"
    heads: int = 4
    positions: bool = True
    patch_grid: int = 0
    dropout: float = 0.0
    label_smoothing: float = 0.0
    class_weights: str = "none"
    mixup: float = 0.0
    cutmix: float = 0.0
    view_average: str = "probability"
    extends: bool = False
    replay: int = -1
    keep_weight: float = 0.0
    keep_temperature: float = 2.0
    number_loss: str = "l1"
    scale: str = ""

    def __post_init__(self):
        super().__post_init__()
        for field, known in CHOICES.items():
            if getattr(self, field) not in known:
                raise unknown(f"config.task.{field}:", getattr(self, field), known)
        check_target(self.target)
        self._check_extension()
        self._check_grid()
        if self.kind == "single" and self.target != "labels":
            raise UserError("config.task.kind='single' takes the first of the clips' labels; set target='labels'")
        for field in ("dropout", "label_smoothing"):
            if not 0 <= getattr(self, field) < 1:
                raise UserError(f"config.task.{field} must be at least 0 and below 1, got {getattr(self, field)}")

    def head_spec(self, *, labels: Sequence[str]) -> dict[str, Any]:
        """Return the head in a spec, with the fields of `config.task` that its class takes."""
        takes = arguments(HEADS[self.head]) if self.head in HEADS else ()
        fields = {"heads": self.heads, "positions": self.positions, "dropout": self.dropout}
        own = {name: value for name, value in fields.items() if name in takes}
        seen = {"patch_grid": self.patch_grid} if self.patch_grid else {}
        return {"kind": self.head, "labels": list(labels), **own, **seen}

    def _check_grid(self) -> None:
        if self.patch_grid < 0:
            raise UserError(f"config.task.patch_grid must be at least 0, got {self.patch_grid}")
        if self.patch_grid and self.head == "statistics":
            raise UserError(
                "config.task.head='statistics' takes one token for each time step; set config.task.patch_grid=0, or "
                "head='attentive'"
            )

    def _check_extension(self) -> None:
        if self.extends and self.kind != "single":
            raise UserError(
                f"config.task.extends=True is for kind='single', got kind={self.kind!r}: its old clips do not say "
                "whether further labels hold. Set extends=False and train a new head on clips that have them all"
            )
        if not self.extends and (self.replay != -1 or self.keep_weight):
            raise UserError("config.task.replay and keep_weight are for further classes; set config.task.extends=True")
        if self.keep_weight and (self.mixup or self.cutmix):
            raise UserError("config.task.keep_weight compares scores of single clips; set mixup and cutmix to 0")
        if self.replay < -1 or self.keep_weight < 0 or not self.keep_temperature > 0:
            raise UserError(
                f"config.task.replay={self.replay} must be at least -1, keep_weight={self.keep_weight} at least 0 and "
                f"keep_temperature={self.keep_temperature} above 0"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class FewLabelOptions(ClassifyOptions):
    """`config.task` for classification with few labels; the fields of the base belong to it.

    Attributes:
      labelled: share of the train clips with labels, by source file, whose labels are used.
      pseudo_weight: weight of the loss on clips without a label, whose pseudo-labels the model gives itself (FixMatch,
        Sohn et al. 2020); 0 = labels alone.
      pseudo_threshold: probability from which a pseudo-label counts.
      pseudo_ratio: clips without a label for each one with a label, in the batches.
      strength: of the view that learns from pseudo-labels, 0 to 1; see `finetune.inputs.strong`.
    """

    name: str = "few_labels"
    labelled: float = 1.0
    pseudo_weight: float = 0.0
    pseudo_threshold: float = 0.95
    pseudo_ratio: float = 3.0
    strength: float = 0.5

    def __post_init__(self):
        super().__post_init__()
        for field in ("labelled", "pseudo_threshold", "strength"):
            if not 0 < getattr(self, field) <= 1:
                raise UserError(f"config.task.{field} must be above 0 and at most 1, got {getattr(self, field)}")
        if self.pseudo_weight < 0 or not self.pseudo_ratio > 0:
            raise UserError(
                f"config.task.pseudo_weight={self.pseudo_weight} must be at least 0 and pseudo_ratio="
                f"{self.pseudo_ratio} above 0"
            )
        others = {"kind": "single", "mixup": 0.0, "cutmix": 0.0, "class_weights": "none", "extends": False}
        for field, value in others.items():
            if getattr(self, field) != value:
                raise UserError(
                    f"config.task.{field}={getattr(self, field)!r} does not go with few labels (config.task.labelled, "
                    f"pseudo_weight); set it to {value!r}"
                )


@dataclasses.dataclass(frozen=True, kw_only=True)
class DistilOptions(ClassifyOptions):
    """`config.task` for classification with a teacher; the fields of the base belong to it.

    Attributes:
      teacher: a dual tower: a run, a checkpoint, a bundle or public weights.
      label_weight: weight of the loss of the labels; 0 = the teacher alone.
      embedding: weight of the distance of each clip, mapped to the teacher's space, from the teacher's embedding.
      similarity: weight of the divergence of the similarities among the clips of a batch.
      distance: one of `losses.distillation.DISTANCES`.
      temperature: divides the cosines before the softmax, of both models.
    """

    name: str = "distil"
    teacher: str = ""
    label_weight: float = 1.0
    embedding: float = 1.0
    similarity: float = 1.0
    distance: str = "cosine"
    temperature: float = 0.1

    def __post_init__(self):
        super().__post_init__()
        if not self.teacher:
            raise UserError("config.task.teacher must name a dual tower: a run, a bundle or public weights")
        if self.kind != "single" or self.mixup or self.cutmix:
            raise UserError(
                f"config.task.name='distil' is for kind='single' and whole clips, got kind={self.kind!r}, mixup="
                f"{self.mixup:g}, cutmix={self.cutmix:g}"
            )
        if self.distance not in DISTANCES:
            raise unknown("config.task.distance:", self.distance, DISTANCES)
        weights = (self.label_weight, self.embedding, self.similarity)
        if min(weights) < 0 or not (self.embedding or self.similarity) or not self.temperature > 0:
            raise UserError(
                "config.task.label_weight, embedding and similarity must be at least 0, one of the last two above, and "
                f"temperature above 0; got {weights} and {self.temperature:g}"
            )
