"""The classes of zero-shot classification: their labels, the names that fill the templates, and the clips' classes."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...base.errors import UserError, nearest, unknown
from ...data.manifest import ids_sha256

NAME_RULES = ("as_is", "words")
LABEL_RULES = ("all", "first")
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


@dataclass(frozen=True, kw_only=True)
class ClassNames:
    """Classes in their order.

    Attributes:
      labels: as the data name them.
      texts: what fills the templates, one per label.
      origin: where they come from, for protocols.
    """

    labels: tuple[str, ...]
    texts: tuple[str, ...]
    origin: str

    def __post_init__(self):
        if not self.labels:
            raise UserError(f"{self.origin} has no class; give --classes FILE with one class per line")
        first: dict[str, str] = {}
        for label, text in zip(self.labels, self.texts, strict=True):
            if text in first:
                raise UserError(
                    f"{self.origin}: classes {first[text]!r} and {label!r} are both read {text!r}, so no model can "
                    "tell them apart; give them different names: --classes FILE with lines LABEL<TAB>NAME"
                )
            first[text] = label


@dataclass(frozen=True, kw_only=True)
class Targets:
    """The classes of the clips that are measured.

    Attributes:
      clips: int64 [m], the rows that are measured.
      labels: int64 [m], the class of each, or bool [m,c] where clips have several.
      unlabelled: clips without a label, which are not measured.
      other: label -> clips with this label, which is no class; they are not measured under it.
    """

    clips: np.ndarray
    labels: np.ndarray
    unlabelled: int
    other: dict[str, int]


def to_words(name: str) -> str:
    """Return the words of a class name: underscores become spaces; one word in camel case is split and lower-cased.

    >>> [to_words(name) for name in ("brush_hair", "ApplyEyeMakeup", "TVShow", "Archery", "playing the violin")]
    ['brush hair', 'apply eye makeup', 'tv show', 'archery', 'playing the violin']
    """
    spaced = " ".join(name.replace("_", " ").split())
    return spaced if " " in name.strip() else _CAMEL.sub(" ", spaced).lower()


def names_sha256(names: Iterable[str]) -> str:
    """Return the SHA-256 (hex) of class names as words in lower case, sorted, one per line.

    >>> names_sha256(["brush_hair", "ApplyEyeMakeup"]) == names_sha256(["Apply Eye Makeup", "brush hair"])
    True
    """
    return ids_sha256(to_words(name).lower() for name in names)


def name_classes(labels: Sequence[str], *, names: str, origin: str) -> ClassNames:
    """Return classes whose names are their labels.

    Args:
      labels: distinct, in their order.
      names: "as_is", or "words" as `to_words`.
      origin: for protocols and messages.

    Raises:
      UserError: no label, an unknown rule, or two classes that read the same.
    """
    if names not in NAME_RULES:
        raise unknown("value of --class_names", names, NAME_RULES)
    texts = labels if names == "as_is" else [to_words(label) for label in labels]
    return ClassNames(labels=tuple(labels), texts=tuple(texts), origin=origin)


def classes_of_rows(rows: Iterable[Mapping[str, Any]], *, labels: str, names: str, origin: str) -> ClassNames:
    """Return the classes that occur among clips, in alphabetical order.

    Args:
      rows: lines of `clips.jsonl`.
      labels: "all" of each clip, or its "first".
      names: as in `name_classes`.
      origin: for protocols and messages.

    Raises:
      UserError: no clip has a label.
    """
    found = sorted({label for row in rows for label in _labels(row, rule=labels)})
    if not found:
        raise UserError(f"no clip of {origin} has a label, so there is no class; give 'labels' in the manifest")
    return name_classes(found, names=names, origin=origin)


def read_classes(path: Path, *, names: str) -> ClassNames:
    """Read a file of classes: one LABEL, or LABEL<TAB>NAME where another name fills the templates, per line.

    Args:
      path: of the file, UTF-8; empty lines are ignored.
      names: as in `name_classes`, for the lines without a name.

    Raises:
      UserError: no such file, no class in it, an empty label or name, a label twice, or two classes that read the same.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--classes: {path} cannot be read as UTF-8 text: {error}") from error
    if names not in NAME_RULES:
        raise unknown("value of --class_names", names, NAME_RULES)
    found: dict[str, str] = {}
    place: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        label, text = line.partition("\t")[0].strip(), line.partition("\t")[2].strip()
        if not label or ("\t" in line and not text):
            raise UserError(f"--classes: line {number} of {path} is {line!r}; wanted LABEL or LABEL<TAB>NAME")
        if label in found:
            raise UserError(
                f"--classes: line {number} of {path} repeats class {label!r} of line {place[label]}; remove one"
            )
        place[label] = number
        found[label] = text or (to_words(label) if names == "words" else label)
    return ClassNames(labels=tuple(found), texts=tuple(found.values()), origin=f"--classes {path}")


def targets_of_rows(
    rows: Sequence[Mapping[str, Any]], *, classes: ClassNames, labels: str, allow_missing: bool
) -> Targets:
    """Return which clips are measured, and their classes.

    Args:
      rows: lines of `clips.jsonl`.
      classes: all classes.
      labels: "all" of each clip, or its "first".
      allow_missing: leave labels that are no class out, instead of refusing them.

    Raises:
      UserError: a label that is no class, or no clip with a class.
    """
    place = {label: number for number, label in enumerate(classes.labels)}
    clips, found, unlabelled = [], [], 0
    other: dict[str, int] = {}
    for number, row in enumerate(rows):
        own = list(dict.fromkeys(_labels(row, rule=labels)))
        for label in own:
            if label not in place:
                other[label] = other.get(label, 0) + 1
        if other and not allow_missing:
            raise _no_class(row, classes=classes, label=next(iter(other)))
        unlabelled += not own
        if known := [place[label] for label in own if label in place]:
            clips.append(number)
            found.append(known)
    if not clips:
        raise UserError(
            f"none of the {len(rows)} clips has a label among the {len(classes.labels)} classes of {classes.origin}"
        )
    if max(map(len, found)) == 1:
        targets = np.array([one for (one,) in found], np.int64)
    else:
        targets = np.zeros((len(found), len(classes.labels)), bool)
        for number, known in enumerate(found):
            targets[number, known] = True
    return Targets(clips=np.array(clips, np.int64), labels=targets, unlabelled=unlabelled, other=other)


def _labels(row: Mapping[str, Any], *, rule: str) -> list[str]:
    if rule not in LABEL_RULES:
        raise unknown("value of --labels", rule, LABEL_RULES)
    found = list(row.get("labels") or [])
    return found if rule == "all" else found[:1]


def _no_class(row: Mapping[str, Any], *, classes: ClassNames, label: str) -> UserError:
    close = nearest(label, classes.labels)
    hint = f" (did you mean {close!r}?)" if close else ""
    return UserError(
        f"clip {row['clip_id']!r} has label {label!r}, which is none of the {len(classes.labels)} classes of "
        f"{classes.origin}{hint}; add the class, or leave such clips out with --allow_missing"
    )
