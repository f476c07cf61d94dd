"""Something-Something v2: people doing things with objects; the label is a template, the caption has the objects."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...base.errors import UserError
from .files import Folder, expect, member, read_json, read_lines
from .source import Annotations, Source

_FILES = {"train": "train", "val": "validation", "test": "test"}
_COUNTS = {"train clips": 168913, "val clips": 24777, "test clips": 27157, "labels": 174}


def read_something(folder: Path) -> Annotations:
    """Read the annotation files of Something-Something v2.

    Args:
      folder: that has the files which `--list something_v2` names.

    Raises:
      UserError: files that are missing or at fault, or a template that labels.json does not have.
    """
    files, found = Folder(folder), Annotations(expected=dict(_COUNTS))
    labels = files.require("labels.json", "something-something-v2-labels.json")
    classes = set(read_json(labels, kind=dict))
    for split, name in _FILES.items():
        path = files.find(f"{name}.json", f"something-something-v2-{name}.json")
        answers = _answers(files) if split == "test" else {}
        if path is None or (split == "test" and not answers):
            missing = f"{name}.json" if path is None else "test-answers.csv"
            found.notes[f"split {split} left out, because --annotations has no {missing}"] += 1
            continue
        for where, record in _records(path):
            fields = _fields(record, answers=answers, where=where)
            label = fields["labels"][0]
            if label not in classes:
                raise UserError(f"{where}: label {label!r} does not stand in {labels}; are both of one release?")
            found.add(fields | {"split": split}, where=where)
    if not found.clips:
        files.lacks("train.json", "validation.json")
    return found


def _records(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for index, record in enumerate(read_json(path, kind=list)):
        where = f"{path}, entry {index}"
        yield where, expect(record, dict, what="the entry", where=where)


def _fields(record: dict[str, Any], *, answers: dict[str, str], where: str) -> dict[str, Any]:
    """The fields of a clip; test clips have an id alone, and their class among the answers."""
    name = member(record, "id", str, where=where)
    if "template" not in record:
        if name not in answers:
            raise UserError(f"{where}: id {name!r} has no `template`, and no answer in test-answers.csv")
        return {"clip_id": name, "path": name, "labels": [answers[name]], "captions": [answers[name].lower()]}
    template = member(record, "template", str, where=where)
    meta = {"template": template, "placeholders": record.get("placeholders") or []}
    label = template.replace("[", "").replace("]", "")
    caption = member(record, "label", str, where=where)
    return {"clip_id": name, "path": name, "labels": [label], "captions": [caption], "meta": meta}


def _answers(files: Folder) -> dict[str, str]:
    path = files.find("test-answers.csv", "something-something-v2-test-answers.csv")
    answers = {}
    for where, line in read_lines(path) if path else ():
        name, semicolon, label = line.partition(";")
        if not semicolon:
            raise UserError(f"{where}: is {line!r}, wanted `id;label`")
        answers[name.strip()] = label.strip()
    return answers


SOURCES = (
    Source(
        name="something_v2",
        title="Something-Something v2: 220,847 clips of 174 actions with objects",
        layout="""\
labels.json                    {template: number}
train.json, validation.json    [{id, label, template, placeholders}, ...]; one of them is enough
test.json, test-answers.csv    [{id}, ...] and `id;label` per line
All may be named something-something-v2-....json.""",
        videos="ID.webm",
        published_at="https://www.qualcomm.com/developer/software/something-something-v-2-dataset",
        licence="research use, on acceptance of the owners' terms",
        notes=(
            "The label is the template without brackets (Holding something next to something), the caption the "
            "sentence with its objects; a test clip has its label for a caption."
        ),
        read=read_something,
    ),
)
