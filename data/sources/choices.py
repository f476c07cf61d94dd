"""Multiple choice: the right text for a clip among several (MSR-VTT-MC, SSv2-MC), or all right ones (Charades-MC)."""

import functools
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from ...base.errors import UserError
from ..clip_fields import short
from .files import Folder, expect, member, parse_json, read_json, read_lines, whole
from .kinds import VIDEO_SUFFIXES
from .source import Annotations, Source

_VIDEO, _OPTIONS = ("image", "video", "clip_name"), ("caption", "option", "options")


def read_choices(folder: Path, *, names: tuple[str, ...], split: str) -> Annotations:
    """Read a file of questions, each with a clip, its options and the place of the right one.

    Args:
      folder: that has one of the files.
      names: of the files; `.jsonl` has an entry per line, `.json` a list of them.
      split: to which all clips belong.

    Raises:
      UserError: no such file, or an entry at fault.
    """
    files, found = Folder(folder), Annotations()
    clips: dict[str, tuple[str, dict[str, Any]]] = {}
    for where, record in _records(files.require(*names)):
        name = _first(record, _VIDEO, where=where)
        video = _without_suffix(expect(record[name], str, what=repr(name), where=where))
        key = _first(record, _OPTIONS, where=where)
        options = expect(record[key], list, what=repr(key), where=where)
        question = {"options": options, "correct": _answer(record, where=where)}
        fields = {"clip_id": video, "path": video, "split": split, "questions": []}
        clips.setdefault(video, (where, fields))[1]["questions"].append(question)
    for where, fields in clips.values():
        found.add(fields, where=where)
    return found


def read_several_right(folder: Path, *, names: tuple[str, ...], split: str) -> Annotations:
    """Read a file of questions that all have the same options, of which several may be right: they become labels.

    Args:
      folder: that has one of the files.
      names: as in `read_choices`; `answer` has 0 or 1 for each option.
      split: to which all clips belong.

    Raises:
      UserError: no such file, or an entry at fault: other options than the first entry's, a text that is twice among
        them, or an `answer` that does not say of each option whether it is right.
    """
    files, found = Folder(folder), Annotations()
    options: list[str] = []
    for where, record in _records(files.require(*names)):
        name, key = _first(record, _VIDEO, where=where), _first(record, _OPTIONS, where=where)
        own = [expect(text, str, what="an option", where=where) for text in member(record, key, list, where=where)]
        if len(set(own)) != len(own):
            twice = next(text for text in own if own.count(text) > 1)
            raise UserError(f"{where}: {key!r} has {twice!r} twice; remove one of the two")
        if own != (options := options or own):
            raise UserError(f"{where}: {key!r} are not the {len(options)} options of the first entry; wanted the same")
        right = member(record, "answer", list, where=where)
        if len(right) != len(own) or any(one not in (0, 1) for one in right):
            raise UserError(f"{where}: 'answer' is {short(right)}; wanted 0 or 1 for each of the {len(own)} options")
        video = _without_suffix(member(record, name, str, where=where))
        labels = [text for text, one in zip(own, right, strict=True) if one]
        found.add({"clip_id": video, "path": video, "split": split, "labels": labels}, where=where)
    found.expected["labels"] = len(options)
    return found


def _records(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    if path.suffix.lower() == ".jsonl":
        for where, line in read_lines(path):
            yield where, parse_json(line, where=where, kind=dict)
        return
    for index, record in enumerate(read_json(path, kind=list)):
        where = f"{path}, entry {index}"
        yield where, expect(record, dict, what="the entry", where=where)


def _first(record: dict[str, Any], keys: tuple[str, ...], *, where: str) -> str:
    for key in keys:
        if key in record:
            return key
    there = ", ".join(map(repr, list(record)[:8])) or "nothing"
    raise UserError(f"{where}: has none of {', '.join(map(repr, keys))} (found: {there})")


def _answer(record: dict[str, Any], *, where: str) -> int:
    answer = record.get("answer")
    if isinstance(answer, str):
        return whole(answer, what="'answer'", where=where)
    return expect(answer, int, what="'answer'", where=where)


def _without_suffix(name: str) -> str:
    path = PurePosixPath(name)
    return path.stem if path.suffix.lower() in VIDEO_SUFFIXES else path.name


_LAYOUT = """\
{file}    [{{image|video, {key}: [...], answer}}, ...], as in the code of Singularity, VindLU and InternVideo2
{other}    {{clip_name, options: [...], answer}} per line, as in that of All-in-one and TVTS
One of them; `answer` is the place of the right text, from 0."""

SOURCES = (
    Source(
        name="msrvtt_mc",
        title="MSR-VTT-MC: clips of MSR-VTT, each with five captions of which one is its own",
        layout=_LAYOUT.format(file="msrvtt_mc_test.json ", other="msrvtt_mc_test.jsonl", key="caption"),
        videos="video0.mp4 ... video9999.mp4",
        published_at="https://github.com/jayleicn/singularity",
        licence="research use; the videos belong to their uploaders",
        notes="Measured by `twinreel evaluate MODEL --benchmark msrvtt-mc`.",
        read=functools.partial(read_choices, names=("msrvtt_mc_test.json", "msrvtt_mc_test.jsonl"), split="test"),
    ),
    Source(
        name="ssv2_mc",
        title="SSv2-MC: clips of Something-Something v2, each with 174 actions of which one is its own",
        layout=_LAYOUT.format(file="ssv2_mc_val.json", other="val.jsonl       ", key="option"),
        videos="ID.webm",
        published_at="https://github.com/OpenGVLab/InternVideo",
        licence="research use, on acceptance of the owners' terms",
        notes="Measured by `twinreel evaluate MODEL --benchmark ssv2-mc`.",
        read=functools.partial(read_choices, names=("ssv2_mc_val.json", "val.jsonl"), split="val"),
    ),
    Source(
        name="charades_mc",
        title="Charades-MC: home videos of Charades, each with 157 actions of which several may be its own",
        layout="""\
charades_mc_test.json   [{image|video, option: [...], answer: [0, 1, ...]}, ...], as in the code of InternVideo2; or a
charades_mc_test.jsonl  line per entry
The options are the same in all entries; `answer` says of each one whether it is right.""",
        videos="VIDEO.mp4 (Charades, any size)",
        published_at="https://github.com/OpenGVLab/InternVideo",
        licence="the videos: Charades, non-commercial use",
        notes=(
            "The right options are the labels of a clip. Measured by `twinreel evaluate MODEL --benchmark charades-mc`."
        ),
        read=functools.partial(
            read_several_right, names=("charades_mc_test.json", "charades_mc_test.jsonl"), split="test"
        ),
    ),
)
