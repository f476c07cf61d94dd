"""Classification with few labels: clips without one learn from what the model itself is sure of (FixMatch)."""

import dataclasses
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ...base.errors import UserError
from ...data.batches.share import records_of_share
from ...data.batches.table import Table
from ...losses.pseudo import pseudo_label_loss
from ...models.heads.classifier import Classifier
from ...models.shapes import Scalar
from ..examples.clips import LabelledClips
from ..examples.context import TaskContext
from ..examples.splits import Splits
from ..inputs.feed import Batch
from ..inputs.shared import mixed_records
from ..inputs.strong import strong_view
from ..kinds.objective import scores_of, split_keys
from ..options.classify import FewLabelOptions
from .classify import Classify, ClassifyObjective


@dataclasses.dataclass(frozen=True, kw_only=True)
class PartlyLabelled(LabelledClips):
    """Clips that take part, of which some are shown without their label.

    Attributes:
      known: bool, one per record of the split: its label is shown.
    """

    known: np.ndarray

    def attach(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Yield batches as `LabelledClips.attach` does; `label` is -1 where it is not shown, and the row valid."""
        for batch in super().attach(batches):
            yield {**batch, "label": np.where(self.known[batch["clip_index"]], batch["label"], -1).astype(np.int32)}

    def part(self, *, known: bool) -> LabelledClips:
        """Return the clips whose label is shown, or the others."""
        return self.only(self.known == known)


class FewLabelObjective(ClassifyObjective):
    """Cross-entropy of the labels, and of pseudo-labels in a strongly changed view of the clips without one."""

    def loss(
        self, model: Classifier, batch: dict[str, jax.Array], *, rngs: nnx.Rngs | None
    ) -> tuple[Scalar, dict[str, Scalar]]:
        """Return the sum of both; `pseudo` and `pseudo_share` besides what classification gives."""
        options = self._options
        assert isinstance(options, FewLabelOptions)
        if not options.pseudo_weight or rngs is None:
            return super().loss(model, batch, rngs=rngs)
        key = rngs()
        loss, metrics = super().loss(model, batch, rngs=nnx.Rngs(key))
        rows, unknown = batch["label"].shape[0], batch["valid"] & (batch["label"] < 0)
        weak = scores_of(model, batch, keys=None, frozen=self.frozen)
        name = "tokens" if "tokens" in batch else "video"
        changed = strong_view(batch[name], key=jax.random.fold_in(key, 1), strength=options.strength)
        _, keys = split_keys(nnx.Rngs(jax.random.fold_in(key, 2)), rows=rows)
        strong = scores_of(model, {**batch, name: changed}, keys=keys, frozen=self.frozen)
        pseudo, more = pseudo_label_loss(strong, weak=weak, taken=unknown, threshold=options.pseudo_threshold)
        return loss + jnp.float32(options.pseudo_weight) * pseudo, metrics | more | {"pseudo": pseudo}


class FewLabels(Classify):
    """The task `few_labels`; see `task.Task`. Its model is one of `classify`."""

    options_class = FewLabelOptions
    objective_class = FewLabelObjective
    options: FewLabelOptions

    def choose(self) -> Splits:
        """Choose classes and clips, and the train clips whose labels are used."""
        context, options, splits = self._context, self.options, super().choose()
        train, rows = splits.train, context.records.rows(splits.train.split)
        known = train.label >= 0
        if options.labelled < 1:
            known &= records_of_share(rows, share=options.labelled, seed=context.config["seed"])
        found = np.unique(train.label[known])
        if len(found) < len(splits.labels):
            missing = [name for i, name in enumerate(splits.labels) if i not in found]
            raise UserError(
                f"config.task.labelled={options.labelled:g} leaves no labelled clip of {', '.join(missing)}; set it "
                "higher"
            )
        others = np.where(self._may_train(splits, rows=rows), 0, -1) if options.pseudo_weight else -1
        label = np.where(known, train.label, others)
        made = PartlyLabelled(split=train.split, labels=train.labels, label=label.astype(np.int32), known=known)
        context.say(f"{known.sum()} train clips with labels, {len(made) - known.sum()} without")
        return dataclasses.replace(splits, train=made)

    def batches(self, start_step: int) -> Iterator[Batch]:
        """Return this process's rows of the train batches; those without a label are mixed in by `pseudo_ratio`."""
        train = self.splits.train
        assert isinstance(train, PartlyLabelled)
        parts = [part for part in (train.part(known=True), train.part(known=False)) if len(part)]
        record = mixed_records(parts, shares=[1.0, self.options.pseudo_ratio][: len(parts)])
        stream = self.feed.examples(train, record=record, start_step=start_step)
        return train.attach({key: x for key, x in batch.items() if key != "example"} for batch in stream)

    def _may_train(self, splits: Splits, *, rows: Table) -> np.ndarray:
        """Return which records of the train split may be trained on without a label.

        All of `config.data.share` may, but those that are measured on, and others of their source files and groups.
        """
        measured = [clips.label >= 0 for clips in splits.sets() if clips.split == splits.train.split]
        taken = np.logical_or.reduce([np.zeros(len(splits.train.label), bool), *measured])
        given, seed = self._context.data.feed.share, self._context.config["seed"]
        may = ~apart(rows, taken=taken)
        return may & records_of_share(rows, share=given, seed=seed) if given < 1 else may


def apart(rows: Table, *, taken: np.ndarray) -> np.ndarray:
    """Return which records, bool [n], are of a source file or group of the taken ones, bool [n]; those are, too."""
    found = taken
    for name in ("file", "group"):
        column = rows.column(name)
        found = found | np.isin(column, column[taken & (column != 0)])
    return found


def make(context: TaskContext) -> FewLabels:
    """Build the task."""
    return FewLabels(context)
