"""Which clips a probe is trained, validated and measured on, known before the model is read."""

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from ..base.errors import UserError, unknown
from ..data.holdout import held_out
from .measures.neighbours import one_hot
from .protocols.class_names import LABEL_RULES, ClassNames, classes_of_rows, targets_of_rows
from .protocols.probe import ProbeData
from .protocols.probe_data import ProbeSet, check_trainable
from .protocols.retrieval import split_coverage

if TYPE_CHECKING:
    from ..data.batches.records import Records


@dataclasses.dataclass(frozen=True, kw_only=True)
class SplitOptions:
    """Which clips take part.

    Attributes:
      split: is measured.
      train_split: is trained on.
      val_split: chooses what is to be chosen; where the data set lacks it, or it is `split`, clips are held out of
        `train_split`.
      hold_out: share of the training clips that is held out then, above 0 and below 1.
      labels: "all" of a clip, or its "first".
      allow_missing: measure although clips of the split are missing.
    """

    split: str = "test"
    train_split: str = "train"
    val_split: str = "val"
    hold_out: float = 0.1
    labels: str = "all"
    allow_missing: bool = False

    def __post_init__(self):
        if not 0 < self.hold_out < 1:
            raise UserError(f"--hold_out is {self.hold_out}; wanted a share above 0 and below 1")
        if self.split == self.train_split:
            raise UserError(f"--split and --train_split are both {self.split!r}; measure on other clips than you train")
        if self.labels not in LABEL_RULES:
            raise unknown("value of --labels", self.labels, LABEL_RULES)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
    """Clips of a split.

    Attributes:
      split: its name.
      rows: int64 [m], their places in it.
      targets: bool [m,c], their classes.
    """

    split: str
    rows: np.ndarray
    targets: np.ndarray

    def only(self, kept: np.ndarray) -> "Part":
        """Return some of the clips, by bool [m]."""
        return Part(split=self.split, rows=self.rows[kept], targets=self.targets[kept])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """The classes, and the clips of each part.

    Attributes:
      classes: the labels of all splits, in alphabetical order.
      several: some clip of any part has several of them.
      train: is trained on.
      validation: chooses what is to be chosen; None = there are none.
      test: is measured.
      validated_on: describes the validation clips.
      coverage: of the split that is measured.
      clip_ids: of the test clips.
      notes: what the reader of the figures must know.
    """

    classes: list[str]
    several: bool
    train: Part
    validation: Part | None
    test: Part
    validated_on: str
    coverage: dict[str, Any]
    clip_ids: list[str]
    notes: list[str]

    @property
    def used(self) -> list[str]:
        """The splits whose features are needed."""
        parts = [self.train, *([self.validation] if self.validation else []), self.test]
        return list(dict.fromkeys(part.split for part in parts))

    @classmethod
    def of(cls, records: "Records", *, splits: SplitOptions, tuned: bool) -> "Plan":
        """Choose the clips.

        Args:
          records: the opened folder.
          splits: which clips take part.
          tuned: the method needs validation clips.

        Raises:
          UserError: see `probe.probe`.
        """
        for name in ("train_split", "split"):
            if getattr(splits, name) not in records.splits:
                raise unknown(f"split (--{name})", getattr(splits, name), records.splits)
        rows = records.rows(splits.split)
        coverage = split_coverage(records.folder, split=splits.split, rows=rows, allow_missing=splits.allow_missing)
        every = (row for split in records.splits for row in records.rows(split))
        origin = f"{records.folder} (all splits)"
        classes = classes_of_rows(every, labels=splits.labels, names="as_is", origin=origin)
        parts = {name: _part(records, name, classes=classes, labels=splits.labels) for name in _splits(splits, records)}
        several = any((part.targets.sum(axis=1) > 1).any() for part in parts.values())
        train, validation, told, notes = _validation(records, parts=parts, splits=splits, tuned=tuned)
        test = parts[splits.split]
        nothing = np.zeros((len(train.rows), 0), np.float32)
        check_trainable(
            ProbeSet(features=nothing, targets=train.targets), classes=list(classes.labels), several=several
        )
        notes += _shared_files(records, train=train, test=test)
        return cls(
            classes=list(classes.labels),
            several=several,
            train=train,
            validation=validation,
            test=test,
            validated_on=told,
            coverage=coverage,
            clip_ids=[rows[number]["clip_id"] for number in test.rows.tolist()],
            notes=notes + _unlabelled(records, test=test),
        )

    def data(self, features: dict[str, dict[str, np.ndarray]], *, protocol: dict[str, Any]) -> ProbeData:
        """Return the clips with the features of their splits."""

        def of(part: Part) -> ProbeSet:
            arrays = {name: array[part.rows] for name, array in features[part.split].items()}
            return ProbeSet(targets=part.targets, **arrays)

        return ProbeData(
            train=of(self.train),
            validation=None if self.validation is None else of(self.validation),
            test=of(self.test),
            several=self.several,
            classes=self.classes,
            clip_ids=self.clip_ids,
            validated_on=self.validated_on,
            protocol=protocol,
            coverage=self.coverage,
            notes=self.notes,
        )


def _splits(splits: SplitOptions, records: "Records") -> list[str]:
    own = splits.val_split in records.splits and splits.val_split not in (splits.split, splits.train_split)
    return [splits.train_split, splits.split, *([splits.val_split] if own else [])]


def _part(records: "Records", split: str, *, classes: ClassNames, labels: str) -> Part:
    found = targets_of_rows(list(records.rows(split)), classes=classes, labels=labels, allow_missing=False)
    single = found.labels.dtype != bool
    targets = one_hot(found.labels, classes=len(classes.labels)) if single else found.labels
    return Part(split=split, rows=found.clips, targets=targets)


def _validation(
    records: "Records", *, parts: dict[str, Part], splits: SplitOptions, tuned: bool
) -> tuple[Part, Part | None, str, list[str]]:
    """Return the clips to train on, those to validate on, a description of the latter, and notes."""
    train = parts[splits.train_split]
    if not tuned:
        return train, None, "", []
    if splits.val_split in parts and splits.val_split not in (splits.split, splits.train_split):
        part = parts[splits.val_split]
        return train, part, f"split {splits.val_split!r} ({len(part.rows)} clips)", []
    rows = records.rows(splits.train_split)
    own = [rows[number] for number in train.rows.tolist()]
    out = held_out(own, targets=train.targets, share=splits.hold_out)
    if not out.any():
        return train, None, "", ["no class has training clips of two source files, so none can be held out"]
    told = f"{out.sum()} clips held out of split {splits.train_split!r} by source file"
    return train.only(~out), train.only(out), told, []


def _shared_files(records: "Records", *, train: Part, test: Part) -> list[str]:
    def files(part: Part) -> list[str | None]:
        rows = records.rows(part.split)
        return [rows[number].get("file") for number in part.rows.tolist()]

    known = {file for file in files(train) if file}
    shared = sum(file in known for file in files(test))
    if not shared:
        return []
    return [f"{shared} of {len(test.rows)} test clips come from files of which other clips are trained on"]


def _unlabelled(records: "Records", *, test: Part) -> list[str]:
    without = len(records.rows(test.split)) - len(test.rows)
    return [f"{without} clips of split {test.split!r} have no label and are not measured"] if without else []
