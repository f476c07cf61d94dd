"""The clips of identities: those of training are never among those that are validated or reported on."""

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from ...base.errors import UserError, unknown
from .clips import LabelledClips, Row, shared_files
from .context import TaskContext
from .targets import check_target, value_of


@dataclasses.dataclass(frozen=True, kw_only=True)
class IdentityClips(LabelledClips):
    """The clips of a split that take part; `label` is the place of their identity in `names`, and `labels` is ().

    Attributes:
      names: of the identities.
    """

    names: tuple[str, ...]

    def of(self, chosen: Sequence[int]) -> "IdentityClips":
        """Return the clips of these identities, numbered anew."""
        place = np.full(len(self.names) + 1, -1, np.int32)
        place[list(chosen)] = np.arange(len(chosen), dtype=np.int32)
        return dataclasses.replace(self, names=tuple(self.names[i] for i in chosen), label=place[self.label])


@dataclasses.dataclass(frozen=True, kw_only=True)
class IdentitySplits:
    """Three sets of clips, of which the first shares no identity with the others; see `splits.Splits`."""

    train: IdentityClips
    validation: IdentityClips | None
    report: IdentityClips
    validated_on: str

    def sets(self) -> list[IdentityClips]:
        """Return the sets that are evaluated."""
        return [clips for clips in (self.validation, self.report) if clips is not None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class IdentityOptions:
    """The fields of `config.task` that choose identities and clips.

    Attributes:
      identity: where it stands: "labels" for a clip's first label, or "meta.NAME" for a field of its meta.
      min_count: clips that an identity of training needs.
      val_split: split to validate on during training; "" = none.
      holdout: share of the identities of the train split to validate on where there is no validation split; 0 = do not
        validate.
      test_split: split that is reported on; "" for the validation clips.
    """

    identity: str = "labels"
    min_count: int = 2
    val_split: str = "val"
    holdout: float = 0.1
    test_split: str = "test"

    def __post_init__(self):
        try:
            check_target(self.identity)
        except UserError as error:
            raise UserError(str(error).replace("config.task.target", "config.task.identity")) from error
        if not 0 <= self.holdout < 1:
            raise UserError(f"config.task.holdout must be at least 0 and below 1, got {self.holdout}")
        if self.min_count < 1:
            raise UserError(f"config.task.min_count must be at least 1, got {self.min_count}")


def choose_identities(context: TaskContext, *, options: IdentityOptions) -> IdentitySplits:
    """Choose the clips to train, to validate and to report on, and print what was chosen; reads `clips.jsonl` only.

    Args:
      context: of the run.
      options: `config.task`.

    Raises:
      UserError: an unknown split, fewer than two identities, identities of training in another split, or nothing to
        report on.
    """
    train = _clips(context, context.data.feed.train_split, field="config.data.train_split", target=options.identity)
    taken = context.in_share(train.split)
    if taken is not None:
        train = dataclasses.replace(train, label=np.where(taken, train.label, -1).astype(np.int32))
    train = _frequent(train, options=options)
    validation, validated_on = None, ""
    if options.val_split and options.val_split in context.records.splits:
        validation = _clips(context, options.val_split, field="config.task.val_split", target=options.identity)
        validated_on = f"split {options.val_split!r} ({len(validation.names)} identities)"
    elif options.holdout:
        train, validation = _divided(train, share=options.holdout)
        validated_on = f"{len(validation.names)} identities held out of split {validation.split!r}"
        context.say(f"{validated_on} to validate on (config.task.holdout={options.holdout:g})")
    report = validation
    if options.test_split:
        report = _clips(context, options.test_split, field="config.task.test_split", target=options.identity)
    if report is None:
        raise UserError(
            "there is nothing to report on: config.task.test_split='' stands for the validation clips, and there are "
            "none; set it, config.task.val_split or config.task.holdout"
        )
    for clips, field in ((validation, "val_split"), (report, "test_split")):
        _check(clips, trained=train, field=f"config.task.{field}")
    splits = IdentitySplits(train=train, validation=validation, report=report, validated_on=validated_on)
    _say(context, splits)
    return splits


def _clips(context: TaskContext, split: str, *, field: str, target: str) -> IdentityClips:
    if split not in context.records.splits:
        raise unknown(f"split in {field}:", split, context.records.splits)
    rows = context.records.rows(split)
    found = [_identity(row, target=target) for row in rows]
    names = tuple(sorted({name for name in found if name is not None}))
    place = {name: i for i, name in enumerate(names)}
    label = np.array([-1 if name is None else place[name] for name in found], np.int32)
    if len(names) < 2:
        raise UserError(
            f"split {split!r} ({field}) has {len(names)} identities, and verification needs two or more; "
            f"config.task.identity={target!r} says where they stand: 'labels', or 'meta.NAME'"
        )
    return IdentityClips(split=split, labels=(), names=names, label=label)


def _identity(row: Row, *, target: str) -> str | None:
    value = value_of(row, target=target)
    if isinstance(value, (list, tuple)):
        value = value[0] if value else None
    return None if value is None else str(value)


def _frequent(train: IdentityClips, *, options: IdentityOptions) -> IdentityClips:
    count = np.bincount(train.label[train.indices], minlength=len(train.names))
    chosen = np.flatnonzero(count >= options.min_count).tolist()
    if len(chosen) < 2:
        raise UserError(
            f"{len(chosen)} identities of split {train.split!r} have at least config.task.min_count={options.min_count}"
            f" clips, and training needs two or more (the most frequent have {np.sort(count)[::-1][:5].tolist()})"
        )
    return train.of(chosen)


def _divided(train: IdentityClips, *, share: float) -> tuple[IdentityClips, IdentityClips]:
    """Hold identities out; which ones is a function of their names alone."""
    order = sorted(range(len(train.names)), key=lambda i: hashlib.sha256(train.names[i].encode()).digest())
    count = max(2, round(share * len(order)))
    if len(order) - count < 2:
        raise UserError(
            f"split {train.split!r} has {len(order)} identities; config.task.holdout={share:g} would hold {count} out, "
            "and two must be left to train on: set it to 0, or give a validation split (config.task.val_split)"
        )
    return train.of(sorted(order[count:])), train.of(sorted(order[:count]))


def _check(clips: IdentityClips | None, *, trained: IdentityClips, field: str) -> None:
    if clips is None:
        return
    both = sorted(set(clips.names) & set(trained.names))
    if both:
        raise UserError(
            f"{len(both)} identities are trained on and are in split {clips.split!r} ({field}), too: "
            f"{', '.join(both[:5])}{' …' if len(both) > 5 else ''}. Verification is measured on identities that the "
            "model has not seen: divide the data set by identity, or set val_split='' and test_split='' to hold some "
            "of the train split's out (config.task.holdout)"
        )
    most = max(Counter(clips.label[clips.indices].tolist()).values())
    if most < 2:
        raise UserError(
            f"no identity of split {clips.split!r} ({field}) has two clips, so that no pair shows the same one"
        )


def _say(context: TaskContext, splits: IdentitySplits) -> None:
    for clips in dict.fromkeys((splits.train.split, *(clips.split for clips in splits.sets()))):
        for own in (splits.train, *_distinct(splits)):
            if own.split == clips:
                rest = len(context.records.rows(clips)) - len(own)
                context.say(f"  split {clips!r}: {len(own)} clips of {len(own.names)} identities, {rest} others")
    trained, rows = splits.train, context.records.rows
    for clips in _distinct(splits):
        count = shared_files(clips, rows=rows(clips.split), trained=trained, train_rows=rows(trained.split))
        if count:
            context.say(
                f"warning: {count} of the {len(clips)} clips of split {clips.split!r} come from files of which other "
                "clips are trained on: place and light give their identities away"
            )


def _distinct(splits: IdentitySplits) -> Iterator[IdentityClips]:
    return iter({id(clips): clips for clips in splits.sets()}.values())
