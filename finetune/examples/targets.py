"""Clips whose target is more than one class: several labels, a level of an ordered scale, or a number."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ...base.errors import UserError, unknown
from ...data.holdout import held_out
from .clips import LabelledClips, Row
from .context import TaskContext
from .splits import LabelOptions


@dataclasses.dataclass(frozen=True, kw_only=True)
class TargetClips(LabelledClips):
    """The clips of a split that take part (label 0), with their targets.

    Attributes:
      target: float32 [n,K], of every record of the split: 0 or 1 for each class, or one number; 0 for those that do
        not take part.
    """

    target: np.ndarray

    def attach(self, batches: Iterator[dict[str, np.ndarray]]) -> Iterator[dict[str, np.ndarray]]:
        """Yield batches as `LabelledClips.attach` does, with `target float32 [b,K]`."""
        for batch in super().attach(batches):
            yield {**batch, "target": self.target[batch["clip_index"]]}


@dataclasses.dataclass(frozen=True, kw_only=True)
class TargetSplits:
    """Three sets of clips; for the attributes see `splits.Splits`. `names`: of the classes; () of numbers."""

    names: tuple[str, ...]
    train: TargetClips
    validation: TargetClips | None
    report: TargetClips
    validated_on: str

    def sets(self) -> list[LabelledClips]:
        """Return the sets that are evaluated."""
        return [clips for clips in (self.validation, self.report) if clips is not None]


def value_of(row: Row, *, target: str) -> Any:
    """Return a clip's target: its labels, or a field of its meta ("meta.NAME"); None if it has none."""
    if target == "labels":
        return row["labels"] or None
    value: Any = row.get("meta") or {}
    for name in target.removeprefix("meta.").split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def check_target(target: str) -> None:
    """Raise UserError unless a target is "labels" or "meta.NAME"."""
    if target != "labels" and not (target.startswith("meta.") and len(target) > len("meta.")):
        raise UserError(
            f"config.task.target={target!r}; wanted 'labels', or 'meta.NAME' for a field of the clips' meta"
        )


def choose_targets(context: TaskContext, *, options: LabelOptions, kind: str, target: str) -> TargetSplits:
    """Choose classes and clips, and print what was chosen; reads `clips.jsonl` only.

    Args:
      context: of the run.
      options: `config.task`.
      kind: "multi", "ordinal" or "regression".
      target: see `value_of`.

    Raises:
      UserError: a split, label or target that does not exist, a target of another form, or no clip to report on.
    """
    split, records = context.data.feed.train_split, context.records
    for name, field in ((split, "config.data.train_split"), (options.test_split, "config.task.test_split")):
        if name and name not in records.splits:
            raise unknown(f"split in {field}:", name, records.splits)
    rows = records.rows(split)
    names = _names(rows, options=options, kind=kind, target=target)

    def read(name: str) -> TargetClips:
        return _clips(records.rows(name), split=name, names=names, kind=kind, target=target)

    train, validation, validated_on = _divide(read(split), rows=rows, read=read, context=context, options=options)
    taken = context.in_share(split)
    train = train if taken is None else train.only(taken)
    report = read(options.test_split) if options.test_split else validation
    if report is None or not len(report) or not len(train):
        raise UserError(
            f"there is no clip with a {target!r} to train on, or to report on: config.task.test_split="
            f"{options.test_split!r} (splits: {', '.join(sorted(records.splits))}), config.task.target={target!r}"
        )
    context.say(f"{kind}: {', '.join(names) or target}")
    for clips in (train, *([validation] if validation else []), report):
        left = len(records.rows(clips.split)) - len(clips)
        context.say(f"  split {clips.split!r}: {len(clips)} clips, {left} others")
    return TargetSplits(names=names, train=train, validation=validation, report=report, validated_on=validated_on)


def _names(rows: Sequence[Row], *, options: LabelOptions, kind: str, target: str) -> tuple[str, ...]:
    if kind == "regression":
        if options.labels:
            raise UserError("config.task.labels names classes, and config.task.kind='regression' has none; set ()")
        return ()
    counts = Counter(str(name) for row in rows for name in dict.fromkeys(_listed(row, target=target)))
    if not counts:
        raise UserError(f"no clip of the train split has config.task.target={target!r}; 'labels' or 'meta.NAME'")
    for name in options.labels:
        if name not in counts:
            raise unknown("label in config.task.labels:", name, counts)
    if kind == "ordinal" and len(options.labels) < 2:
        raise UserError(
            "config.task.kind='ordinal' needs the levels in their order, lowest first: config.task.labels=('low', "
            f"'high') (found: {', '.join(list(counts)[:20])})"
        )
    chosen = tuple(options.labels) or tuple(sorted(name for name, n in counts.items() if n >= options.min_count))
    if not chosen or len(set(chosen)) != len(chosen):
        raise UserError(
            f"config.task.labels must name classes once each, got {', '.join(chosen) or 'none'} (with at least "
            f"config.task.min_count={options.min_count} clips)"
        )
    return chosen


def _listed(row: Row, *, target: str) -> list[Any]:
    value = value_of(row, target=target)
    if value is None:
        return []
    if isinstance(value, Mapping):
        raise UserError(f"{target!r} of clip {row['clip_id']!r} is {value!r:.60}; wanted a label or a list of labels")
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _clips(rows: Sequence[Row], *, split: str, names: tuple[str, ...], kind: str, target: str) -> TargetClips:
    place = {name: i for i, name in enumerate(names)}
    width = len(names) if kind == "multi" else 1
    values, taken = np.zeros((len(rows), width), np.float32), np.zeros(len(rows), bool)
    for i, row in enumerate(rows):
        listed = _listed(row, target=target)
        if kind == "multi":
            own = [place[str(name)] for name in listed if str(name) in place]
            taken[i], values[i, own] = bool(listed), 1.0
        elif kind == "ordinal":
            own = [place[str(name)] for name in listed[:1] if str(name) in place]
            taken[i], values[i, 0] = bool(own), own[0] if own else 0
        elif listed:
            taken[i], values[i, 0] = True, _number(listed[0], row=row, target=target)
    return TargetClips(split=split, labels=(), label=np.where(taken, 0, -1).astype(np.int32), target=values)


def _number(value: Any, *, row: Row, target: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if isinstance(value, bool) or not np.isfinite(number):
        raise UserError(
            f"{target!r} of clip {row['clip_id']!r} is {value!r:.60}; config.task.kind='regression' wants numbers"
        )
    return number


def _divide(
    whole: TargetClips,
    *,
    rows: Sequence[Row],
    read: Callable[[str], TargetClips],
    context: TaskContext,
    options: LabelOptions,
) -> tuple[TargetClips, TargetClips | None, str]:
    """Return the clips to train on, those to validate on, and a description of the latter."""
    split = options.val_split
    if split and split in context.records.splits and len(found := read(split)):
        return whole, found, f"split {split!r} ({len(found)} clips)"
    if not options.holdout or not len(whole):
        context.say("no validation clips: no early stopping, and the last checkpoint is reported")
        return whole, None, ""
    own = whole.indices
    classes = whole.target[own] > 0 if whole.target.shape[1] > 1 else np.ones((len(own), 1), bool)
    out = np.zeros(len(whole.label), bool)
    out[own] = held_out([rows[i] for i in own.tolist()], targets=classes, share=options.holdout)
    if not out.any():
        context.say("no validation clips: all come from one source file (config.task.val_split)")
        return whole, None, ""
    validation = whole.only(out)
    context.say(f"{len(validation)} train clips are held out to validate on, by source file (config.task.holdout)")
    return whole.only(~out), validation, f"{len(validation)} clips held out of split {whole.split!r} by source file"


def balanced(label: np.ndarray, *, classes: int) -> np.ndarray:
    """Return the weight of each class, float32: clips / (classes * its clips), as scikit-learn's "balanced"."""
    count = np.bincount(label, minlength=classes)
    return (len(label) / (classes * np.maximum(count, 1))).astype(np.float32)
