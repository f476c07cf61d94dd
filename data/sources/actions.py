"""Action recognition: Kinetics-400, -600 and -700, UCF101, HMDB51. The label is the class; captions come from it."""

import functools
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ...base.errors import UserError
from ..manifest import REFUSED, Clip
from .files import Folder, read_lines, read_table, whole
from .source import Annotations, Option, Source
from .windows import cut_from, trimmed_name

_KINETICS_FILES = {"train": ("train.csv",), "val": ("val.csv", "validate.csv", "validation.csv"), "test": ("test.csv",)}
_UCF_COUNTS = {1: (9537, 3783), 2: (9586, 3734), 3: (9624, 3696)}
_HMDB_COUNTS = {"train clips": 3570, "test clips": 1530, "labels": 51}
_HMDB_SPLITS = {"0": None, "1": "train", "2": "test"}
_FOLD = Option(name="fold", default=1, choices=(1, 2, 3), help="which of the three splits into train and test")


def read_kinetics(folder: Path, *, classes: int) -> Annotations:
    """Read the CSV files of a Kinetics release.

    Args:
      folder: that has files whose names end with train.csv, val.csv (or validate.csv), test.csv.
      classes: 400, 600 or 700, for the check of the labels.

    Raises:
      UserError: files that are missing or at fault, or several for one split.
    """
    files, found = Folder(folder), Annotations(expected={"labels": classes})
    for split, endings in _KINETICS_FILES.items():
        paths = files.ending(*endings)
        if len(paths) > 1:
            raise UserError(f"both {paths[0]} and {paths[1]} could be split {split!r}; keep one under --annotations")
        if paths:
            _add_kinetics(found, paths[0], split=split)
        else:
            found.notes[f"split {split} left out, because --annotations has no {endings[0]}"] += 1
    if not found.clips:
        files.lacks("train.csv", "val.csv", "test.csv")
    return found


def _add_kinetics(found: Annotations, path: Path, *, split: str) -> None:
    clips: dict[str, tuple[str, dict[str, Any]]] = {}
    for where, row in read_table(path, columns=["youtube_id", "time_start", "time_end"]):
        label = row.get("label", "").strip().strip('"')
        video = row["youtube_id"].strip()
        start, end = (whole(row[name], what=name, where=where) for name in ("time_start", "time_end"))
        clip_id = f"{video}_{start:06d}_{end:06d}"
        if not label:
            found.notes[f"clips of {path.name} without a label left out"] += 1
            continue
        fields = {"clip_id": clip_id, "path": clip_id, "labels": [label], "split": split}
        if not 0 <= start < end:
            place = where.rpartition("/")[2]
            reason = f"impossible window: time_end={end} is not after time_start={start} ({place})"
            fields["meta"] = {REFUSED: reason}
        _, first = clips.setdefault(clip_id, (where, fields))
        if first is not fields:
            found.notes[f"rows of {path.name} that name a clip again"] += 1
            first["labels"] += [label] if label not in first["labels"] else []
    for where, fields in clips.values():
        found.add(fields, where=where)


def _kinetics_alternatives(clip: Clip) -> Iterable[Clip]:
    if parts := trimmed_name(clip.clip_id):
        yield cut_from(clip, path=parts[0], start_s=parts[1], end_s=parts[2])


def read_ucf101(folder: Path, *, fold: int = 1) -> Annotations:
    """Read the split lists of UCF101.

    Args:
      folder: that has classInd.txt and trainlist0F.txt, testlist0F.txt.
      fold: 1, 2 or 3.

    Raises:
      UserError: files that are missing or at fault, a class that classInd.txt does not have, or another number for it.
    """
    files, found = Folder(folder), Annotations()
    counts = dict(zip(("train clips", "test clips"), _UCF_COUNTS[fold], strict=True))
    found.expected = counts | {"labels": 101}
    classes: dict[str, int] = {}
    for where, line in read_lines(files.require("classInd.txt")):
        parts = line.split()
        if len(parts) != 2:
            raise UserError(f"{where}: is {line!r}, wanted a number and a class, as `1 ApplyEyeMakeup`")
        classes[parts[1]] = whole(parts[0], what="the number", where=where)
    for split in ("train", "test"):
        for where, line in read_lines(files.require(f"{split}list0{fold}.txt")):
            name, *rest = line.split()
            label, slash, file = name.partition("/")
            if not slash or label not in classes:
                raise UserError(f"{where}: is {line!r}, wanted CLASS/FILE with a class of classInd.txt")
            if rest and whole(rest[0], what="the class number", where=where) != classes[label]:
                raise UserError(f"{where}: class number is {rest[0]}, classInd.txt gives {label!r} {classes[label]}")
            fields = {"clip_id": _without_suffix(file), "path": f"{label}/{_without_suffix(file)}", "split": split}
            found.add(fields | {"labels": [label], "captions": [words(label)]}, where=where)
    return found


def words(label: str) -> str:
    """Return a class name in words.

    >>> words("ApplyEyeMakeup"), words("YoYo"), words("brush_hair")
    ('apply eye makeup', 'yo yo', 'brush hair')
    """
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", label).replace("_", " ").lower()


def read_hmdb51(folder: Path, *, fold: int = 1) -> Annotations:
    """Read the split lists of HMDB51.

    Args:
      folder: that has CLASS_test_splitF.txt for each class.
      fold: 1, 2 or 3.

    Raises:
      UserError: files that are missing or at fault.
    """
    files, found = Folder(folder), Annotations(expected=dict(_HMDB_COUNTS))
    ending = f"_test_split{fold}.txt"
    paths = files.ending(ending)
    if not paths:
        files.lacks(f"CLASS{ending}")
    for path in paths:
        label = path.name[: -len(ending)]
        for where, line in read_lines(path):
            name, _, mark = line.strip().rpartition(" ")
            if mark not in _HMDB_SPLITS or not name.strip():
                raise UserError(f"{where}: is {line!r}, wanted a file and 0 (unused), 1 (train) or 2 (test)")
            stem, split = _without_suffix(name.strip()), _HMDB_SPLITS[mark]
            if split is None:
                found.notes["clips that this fold does not use"] += 1
                continue
            fields = {"clip_id": f"{label}/{stem}", "path": f"{label}/{stem}", "labels": [label], "split": split}
            found.add(fields | {"captions": [words(label)]}, where=where)
    return found


def _without_suffix(name: str) -> str:
    return name.removesuffix(".avi")


def _kinetics(classes: int) -> Source:
    return Source(
        name=f"kinetics{classes}",
        title=f"Kinetics-{classes}: YouTube clips of 10 s, one of {classes} human actions each",
        layout="""\
train.csv, val.csv, test.csv   label,youtube_id,time_start,time_end,split[,is_cc]; names may have more before train,
                               val (or validate), test, as kinetics-400_train.csv
One of the files is enough; clips without a label (of a test file without that column) are left out.""",
        videos="youtubeid_000012_000022.mp4, in a folder per class or not; or the whole youtubeid.mp4, which is cut",
        published_at="https://github.com/cvdfoundation/kinetics-dataset",
        licence="annotations CC BY 4.0; the videos belong to their uploaders",
        notes="Many videos are no longer online: compare numbers on one subset id only.",
        read=functools.partial(read_kinetics, classes=classes),
        alternatives=_kinetics_alternatives,
    )


SOURCES = (
    *(_kinetics(classes) for classes in (400, 600, 700)),
    Source(
        name="ucf101",
        title="UCF101: 13,320 YouTube clips of 101 actions, three folds",
        layout="""\
classInd.txt                      `1 ApplyEyeMakeup` per line
trainlist01.txt, testlist01.txt   `ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 1` per line (fold 1; 02, 03 likewise)""",
        videos="v_ApplyEyeMakeup_g08_c01.avi, in a folder per class or not",
        published_at="https://www.crcv.ucf.edu/data/UCF101.php",
        licence="research use; the videos belong to their uploaders",
        notes="The caption is the class in words: apply eye makeup.",
        options=(_FOLD,),
        read=read_ucf101,
    ),
    Source(
        name="hmdb51",
        title="HMDB51: 6,766 clips of films and web videos, 51 actions, three folds",
        layout="CLASS_test_split1.txt (51 files a fold)   `FILE.avi MARK` per line; 0 = unused, 1 = train, 2 = test",
        videos="FILE.avi in a folder per class",
        published_at="https://serre-lab.clps.brown.edu/resource/hmdb-a-large-human-motion-database/",
        licence="CC BY 4.0, says the owners' page; the videos belong to their makers",
        notes="The caption is the class in words. The clips with mark 0 belong to no split of the fold.",
        options=(_FOLD,),
        read=read_hmdb51,
    ),
)
