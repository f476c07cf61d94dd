"""The clips on which a labelled task trains, validates and reports."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from ...base.errors import UserError, unknown
from .clips import LabelledClips, Row, hold_out, label_set, labelled_clips, shared_files
from .context import TaskContext


@dataclasses.dataclass(frozen=True, kw_only=True)
class Splits:
    """Three sets of clips.

    Attributes:
      train: to train on.
      validation: to choose the checkpoint on; None if there are no such clips.
      report: for the final report.
      validated_on: describes `validation`, for the protocol; "" if that is None.
    """

    train: LabelledClips
    validation: LabelledClips | None
    report: LabelledClips
    validated_on: str

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.train.labels

    def sets(self) -> list[LabelledClips]:
        """Return the sets that are evaluated."""
        return [self.report] if self.validation is None else [self.validation, self.report]


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelOptions:
    """The fields of `config.task` that choose classes and clips, for every task on labels.

    Attributes:
      labels: the classes; () for all first labels of the train split with at least `min_count` clips, sorted.
      min_count: see `labels`.
      val_split: split to validate on during training; "" = none.
      holdout: share of the train split to validate on, by source file, where there is no validation split; 0 = do not
        validate.
      test_split: split that is reported on; "" for the validation clips.
    """

    labels: tuple[str, ...] = ()
    min_count: int = 2
    val_split: str = "val"
    holdout: float = 0.15
    test_split: str = "test"

    def __post_init__(self):
        if not 0 <= self.holdout < 1:
            raise UserError(f"config.task.holdout must be at least 0 and below 1, got {self.holdout}")


def choose_splits(context: TaskContext, *, options: LabelOptions, known: Sequence[str] = ()) -> Splits:
    """Choose classes and clips, and print what was chosen; reads `clips.jsonl` only.

    Args:
      context: of the run.
      options: `config.task`.
      known: classes that the checkpoint tells apart; they come first.

    Raises:
      UserError: a split or a label that does not exist, fewer than two classes, or no clip to report on.
    """
    split = context.data.feed.train_split
    rows = _rows(context, split, field="config.data.train_split")
    names = label_set(rows, labels=options.labels, min_count=options.min_count, known=known)
    whole = labelled_clips(rows, split=split, labels=names)
    train, validation, validated_on = _divide(context, whole, rows=rows, options=options)
    taken = context.in_share(split)
    train = train if taken is None else train.only(taken)
    found, test_split = validation, options.test_split
    if test_split:
        tested = _rows(context, test_split, field="config.task.test_split")
        found = labelled_clips(tested, split=test_split, labels=names)
    if found is None or not len(found):
        raise UserError(
            f"there is no clip to report on: config.task.test_split={test_split!r} has none with a label of "
            f"{', '.join(names)}; set it to a split that has some (splits: "
            f"{', '.join(sorted(context.records.splits))}), or to '' for the validation clips"
        )
    splits = Splits(train=train, validation=validation, report=found, validated_on=validated_on)
    _print_counts(context, splits, others=(options.val_split, test_split))
    return splits


def _rows(context: TaskContext, split: str, *, field: str) -> Sequence[Row]:
    if split not in context.records.splits:
        raise unknown(f"split in {field}:", split, context.records.splits)
    return context.records.rows(split)


def _divide(
    context: TaskContext, whole: LabelledClips, *, rows: Sequence[Row], options: LabelOptions
) -> tuple[LabelledClips, LabelledClips | None, str]:
    """Return the clips to train on, those to validate on, and a description of the latter."""
    split, holdout = options.val_split, options.holdout
    if split and split in context.records.splits:
        found = labelled_clips(context.records.rows(split), split=split, labels=whole.labels)
        if len(found):
            return whole, found, f"split {split!r} ({len(found)} clips)"
    none = "no validation clips: no early stopping, and the last checkpoint is reported"
    if not holdout:
        context.say(none)
        return whole, None, ""
    train, held = hold_out(whole, rows=rows, share=holdout)
    if not len(held):
        context.say(
            f"{none}. None can be held out of split {whole.split!r}: no class has clips of two source files or groups; "
            "give the data set a validation split (config.task.val_split)"
        )
        return whole, None, ""
    why = f"there is no usable split {split!r}" if split else "config.task.val_split is ''"
    missing = [name for i, name in enumerate(whole.labels) if not (held.label == i).any()]
    note = f"; none of {', '.join(missing)}, whose clips come from one file or group" if missing else ""
    context.say(
        f"{why}: {len(held)} of {len(whole)} train clips are held out to validate on, by source file "
        f"(config.task.holdout={holdout:g}){note}"
    )
    return train, held, f"{len(held)} clips held out of split {held.split!r} by source file"


def _print_counts(context: TaskContext, splits: Splits, *, others: Sequence[str]) -> None:
    names, records = splits.labels, context.records
    context.say(f"{len(names)} classes: {', '.join(names)}")
    for split in dict.fromkeys([context.data.feed.train_split, *others]):
        if split not in records.splits:
            continue
        rows = records.rows(split)
        label = labelled_clips(rows, split=split, labels=names).label
        counts = np.bincount(label[label >= 0], minlength=len(names))
        context.say(
            f"  split {split!r}: {counts.sum()} of {len(rows)} clips carry one of them "
            f"({counts.min()} to {counts.max()} a class), {len(rows) - counts.sum()} are left out"
        )
    train_rows = records.rows(splits.train.split)
    for clips in {id(found): found for found in splits.sets()}.values():
        shared = shared_files(clips, rows=records.rows(clips.split), trained=splits.train, train_rows=train_rows)
        if shared:
            context.say(
                f"warning: {shared} of the {len(clips)} clips of split {clips.split!r} come from files of which other "
                "clips are trained on, so their accuracy is too high; divide the data set by file"
            )
