"""Video question answering: MSRVTT-QA, MSVD-QA, ActivityNet-QA and NExT-QA. A clip per video with all its questions."""

import functools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from ...base.errors import UserError
from ..manifest import Clip
from .files import Folder, expect, member, read_json, read_lines, read_table, whole
from .source import Annotations, Source
from .windows import cut_from

_SPLITS = ("train", "val", "test")
_ACTIVITYNET_TYPES = ("motion", "spatial", "temporal", "yes/no", "color", "object", "location", "number", "other")
_OPTIONS = ("a0", "a1", "a2", "a3", "a4")

Asked = tuple[str, str, dict[str, Any]]
"""Place, video and question (a value of `questions` in a manifest)."""


def _gather(
    folder: Path,
    *,
    names: Callable[[str], tuple[str, ...]],
    ask: Callable[[Folder, str, Path], Iterator[Asked]],
    clips: tuple[int, int, int],
    fields_of: Callable[[Folder, str], dict[str, Any]] = lambda _, video: {"path": video},
) -> Annotations:
    """Read the splits that are there; each video becomes a clip with its questions in the order of the file.

    Args:
      folder: of the annotation files.
      names: split -> names of its file, the first that is there is read.
      ask: reads a file of a split.
      clips: what the protocol counts in train, val and test.
      fields_of: further fields of a video's clip.

    Raises:
      UserError: no file at all, or a fault in one.
    """
    files, found = Folder(folder), Annotations()
    for split, count in zip(_SPLITS, clips, strict=True):
        path = files.find(*names(split))
        if path is None:
            found.notes[f"split {split} left out, because --annotations has no {names(split)[0]}"] += 1
            continue
        found.expected[f"{split} clips"] = count
        videos: dict[str, tuple[str, list[dict[str, Any]]]] = {}
        for where, video, question in ask(files, split, path):
            videos.setdefault(video, (where, []))[1].append(question)
        for video, (where, questions) in videos.items():
            found.add({"clip_id": video, "split": split, "questions": questions} | fields_of(files, video), where=where)
    if not found.clips:
        files.lacks(*(names(split)[0] for split in _SPLITS))
    return found


def _entries(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for index, record in enumerate(read_json(path, kind=list)):
        where = f"{path}, entry {index}"
        yield where, expect(record, dict, what="the entry", where=where)


def _one_word(files: Folder, split: str, path: Path, *, prefix: str) -> Iterator[Asked]:
    """Read [{question, answer, video_id}, ...] of MSRVTT-QA and MSVD-QA, whose videos are numbered."""
    del files, split
    for where, record in _entries(path):
        question, answer = (member(record, key, str, where=where) for key in ("question", "answer"))
        yield where, f"{prefix}{member(record, 'video_id', int, where=where)}", _open(question, answer)


def _open(question: str, answer: str, *, kind: str = "") -> dict[str, Any]:
    return {"question": question, "answers": [answer], "type": kind}


def read_msrvtt_qa(folder: Path) -> Annotations:
    """Read MSRVTT-QA (Xu et al. 2017).

    Args:
      folder: that has one or more of the files which `--list msrvtt_qa` names.

    Raises:
      UserError: files that are missing or at fault.
    """
    ask = functools.partial(_one_word, prefix="video")
    return _gather(folder, names=lambda split: (f"{split}_qa.json",), ask=ask, clips=(6513, 497, 2990))


def read_msvd_qa(folder: Path) -> Annotations:
    """Read MSVD-QA (Xu et al. 2017); `youtube_mapping.txt` names the videos.

    Args:
      folder: that has the files which `--list msvd_qa` names.

    Raises:
      UserError: files that are missing or at fault, or a video that the mapping does not have.
    """
    mapping: dict[str, str] = {}

    def fields_of(files: Folder, video: str) -> dict[str, Any]:
        if not mapping and (path := files.find("youtube_mapping.txt")):
            for where, line in read_lines(path):
                parts = line.split()
                if len(parts) != 2:
                    raise UserError(f"{where}: has {len(parts)} fields, wanted two: the clip and its number, as vid1")
                mapping[parts[1]] = parts[0]
        if mapping and video not in mapping:
            path = files.find("youtube_mapping.txt")
            raise UserError(f"{path} does not name {video!r}, of which questions are asked; complete it")
        return {"path": mapping.get(video, video), "meta": {"other_name": video}}

    ask = functools.partial(_one_word, prefix="vid")
    named = {"names": lambda split: (f"{split}_qa.json",), "fields_of": fields_of}
    return _gather(folder, ask=ask, clips=(1200, 250, 520), **named)


def read_activitynet_qa(folder: Path) -> Annotations:
    """Read ActivityNet-QA (Yu et al. 2019): questions and answers lie in two files of each split.

    Args:
      folder: that has both files of one or more splits, see `--list activitynet_qa`.

    Raises:
      UserError: files that are missing or at fault, or a question without its answer.
    """

    def ask(files: Folder, split: str, path: Path) -> Iterator[Asked]:
        answers, key = {}, "question_id"
        given = files.require(f"{split}_a.json")
        for where, record in _entries(given):
            kind = member(record, "type", int, where=where)
            if not 0 <= kind < len(_ACTIVITYNET_TYPES):
                raise UserError(f"{where}: 'type' is {kind}, wanted 0 to {len(_ACTIVITYNET_TYPES) - 1}")
            answer = member(record, "answer", str, where=where)
            answers[member(record, key, str, where=where)] = answer, _ACTIVITYNET_TYPES[kind]
        for where, record in _entries(path):
            name = member(record, key, str, where=where)
            if name not in answers:
                raise UserError(f"{where}: question {name!r} has no answer in {given}; are both of one release?")
            answer, kind = answers[name]
            question = member(record, "question", str, where=where)
            yield where, member(record, "video_name", str, where=where), _open(question, answer, kind=kind)

    return _gather(folder, names=lambda split: (f"{split}_q.json",), ask=ask, clips=(3200, 1800, 800))


def read_next_qa(folder: Path) -> Annotations:
    """Read the multiple choice of NExT-QA (Xiao et al. 2021).

    Args:
      folder: that has one or more of the files which `--list next_qa` names.

    Raises:
      UserError: files that are missing or at fault, or an answer that is none of the five options.
    """
    paths: dict[str, str] = {}

    def ask(files: Folder, split: str, path: Path) -> Iterator[Asked]:
        del files, split
        for where, row in read_table(path, columns=["video", "question", "answer", "type", *_OPTIONS]):
            options, answer = [row[name] for name in _OPTIONS], row["answer"]
            # The owners give the place of the answer, NExT-GQA its text.
            by_text = answer in options and answer.strip() not in "01234"
            place = options.index(answer) if by_text else whole(answer, what="answer", where=where)
            fields = {"question": row["question"], "options": options, "correct": place, "type": row["type"]}
            yield where, row["video"].strip(), fields

    def fields_of(files: Folder, video: str) -> dict[str, Any]:
        if not paths and (found := files.find("map_vid_vidorID.json")):
            paths.update(read_json(found, kind=dict))
        path = expect(paths.get(video, video), str, what=repr(video), where=str(files.find("map_vid_vidorID.json")))
        return {"path": PurePosixPath(path).name, "meta": {"other_name": video}}

    named = {"names": lambda split: (f"{split}.csv",), "fields_of": fields_of}
    return _gather(folder, ask=ask, clips=(3870, 570, 1000), **named)


def _by_other_name(clip: Clip) -> Iterable[Clip]:
    if clip.meta.get("other_name"):
        yield cut_from(clip, path=clip.meta["other_name"])


def _activitynet_names(clip: Clip) -> Iterable[Clip]:
    yield cut_from(clip, path=f"v_{clip.path}")


_QA_FILES = "train_qa.json, val_qa.json, test_qa.json   [{question, answer, video_id}, ...]; one is enough"
_TRAIN = "`twinreel finetune --config msvd_qa_clip_b32` trains and measures a model that answers."

SOURCES = (
    Source(
        name="msrvtt_qa",
        title="MSRVTT-QA: 243,680 questions about 10,000 clips, generated from captions; answers of one word",
        layout=_QA_FILES,
        videos="video0.mp4 ... video9999.mp4",
        published_at="https://github.com/xudejing/video-question-answering",
        licence="research use; the videos belong to their uploaders",
        notes=_TRAIN,
        read=read_msrvtt_qa,
    ),
    Source(
        name="msvd_qa",
        title="MSVD-QA: 50,505 questions about 1,970 clips, generated from captions; answers of one word",
        layout=f"{_QA_FILES}\nyoutube_mapping.txt                        `clip vid1` per line; optional if the videos "
        "are named vid1",
        videos="youtubeid_start_end.avi; or vid1.avi ...",
        published_at="https://github.com/xudejing/video-question-answering",
        licence="research use; the videos belong to their uploaders",
        notes=_TRAIN,
        read=read_msvd_qa,
        alternatives=_by_other_name,
    ),
    Source(
        name="activitynet_qa",
        title="ActivityNet-QA: 58,000 questions about 5,800 videos, written by people",
        layout="""\
train_q.json, val_q.json, test_q.json   [{video_name, question, question_id}, ...]; one is enough
train_a.json, val_a.json, test_a.json   [{answer, type, question_id}, ...], of the same splits""",
        videos="youtubeid.mp4 or v_youtubeid.mp4",
        published_at="https://github.com/MILVLG/activitynet-qa",
        licence="Apache-2.0 (annotations); the videos belong to their uploaders",
        notes=_TRAIN,
        read=read_activitynet_qa,
        alternatives=_activitynet_names,
    ),
    Source(
        name="next_qa",
        title="NExT-QA: 47,692 questions about 5,440 videos, each with five answers to choose among",
        layout="""\
train.csv, val.csv, test.csv   video,frame_count,width,height,question,answer,qid,type,a0,a1,a2,a3,a4; one is enough
map_vid_vidorID.json           optional: {video: FOLDER/VIDORID}, where the videos are named so""",
        videos="VIDORID.mp4 or VIDEO.mp4",
        published_at="https://github.com/doc-doc/NExT-QA",
        licence="see the owners' repository; the videos are of VidOR (YFCC100M)",
        notes="`answer` is the place of the right option from 0, or its text (NExT-GQA). " + _TRAIN,
        read=read_next_qa,
        alternatives=_by_other_name,
    ),
)
