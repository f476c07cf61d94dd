"""Anomaly detection: UCF-Crime, whose test videos have the frames at which something is abnormal."""

from pathlib import Path, PurePosixPath
from typing import Any

from ...base.errors import UserError
from .files import Folder, read_lines, whole
from .source import Annotations, Option, Source

_TIMES = ("Temporal_Anomaly_Annotation_for_Testing_Videos.txt", "Temporal_Anomaly_Annotation.txt")
_TRAIN = "Anomaly_Train.txt"
_NORMAL = "Normal"


def read_ucf_crime(folder: Path, *, fps_of_annotation: float = 30.0) -> Annotations:
    """Read UCF-Crime: the class of a video is its label, `Normal` where nothing happens; its events are spans.

    Args:
      folder: that has the temporal annotation of the test videos, the list of the training videos, or both.
      fps_of_annotation: frames per second of the videos, by which the frames of the annotation become seconds.

    Raises:
      UserError: files that are missing or at fault.
    """
    if not fps_of_annotation > 0:
        raise UserError(
            f"--fps_of_annotation is {fps_of_annotation:g}; wanted the frames per second of the videos, above 0"
        )
    files, found = Folder(folder), Annotations(expected={"labels": 14})
    if (path := files.find(_TRAIN)) is None:
        found.notes[f"split train left out, because --annotations has no {_TRAIN}"] += 1
    else:
        found.expected["train clips"] = 1610
        for where, line in read_lines(path):
            found.add(_listed(line.strip(), where=where), where=where)
    if (path := files.find(*_TIMES)) is None:
        found.notes[f"split test left out, because --annotations has no {_TIMES[0]}"] += 1
    else:
        found.expected["test clips"] = 290
        for where, line in read_lines(path):
            found.add(_timed(line, fps=fps_of_annotation, where=where), where=where)
    if not found.clips:
        files.lacks(*_TIMES, _TRAIN)
    return found


def _listed(line: str, *, where: str) -> dict[str, Any]:
    """A video of the training list, `CLASS/FILE`."""
    path = PurePosixPath(line)
    if len(path.parts) != 2:
        raise UserError(f"{where}: is {line!r}, wanted CLASS/FILE.mp4, as Abuse/Abuse001_x264.mp4")
    label = _NORMAL if _NORMAL in path.parts[0] else path.parts[0]
    return {"clip_id": path.stem, "path": path.stem, "labels": [label], "split": "train"}


def _timed(line: str, *, fps: float, where: str) -> dict[str, Any]:
    """A test video: its file, class, and first and last frame of up to two events, -1 for none."""
    parts = line.split()
    if len(parts) != 6:
        raise UserError(f"{where}: is {line!r}, wanted FILE CLASS START END START END, with -1 for no event")
    stem, label = PurePosixPath(parts[0]).stem, parts[1]
    numbers = [whole(text, what="a frame", where=where) for text in parts[2:]]
    events = [pair for pair in zip(numbers[::2], numbers[1::2], strict=True) if pair != (-1, -1)]
    for first, last in events:
        if not 0 <= first <= last:
            raise UserError(f"{where}: event {first} {last} is none; wanted the first and the last frame, or -1 -1")
    if bool(events) == (label == _NORMAL):
        raise UserError(
            f"{where}: class {label!r} with {len(events)} events; wanted none of {_NORMAL!r}, else one or two"
        )
    spans = [{"start_s": max(0, first - 1) / fps, "end_s": last / fps, "label": label} for first, last in events]
    return {"clip_id": stem, "path": stem, "labels": [label], "split": "test", "spans": spans}


SOURCES = (
    Source(
        name="ucf_crime",
        title="UCF-Crime: 1,900 surveillance videos, normal ones and 13 kinds of anomalies",
        layout="""\
Temporal_Anomaly_Annotation_for_Testing_Videos.txt   `FILE CLASS START END START END` per line, -1 for no event
Anomaly_Train.txt                                    `CLASS/FILE` per line
One of them is enough.""",
        videos="Abuse001_x264.mp4, in a folder per class or not",
        published_at="https://www.crcv.ucf.edu/projects/real-world/",
        licence="see the owners' page; the videos belong to their uploaders",
        notes=(
            "The events of test videos are spans with the class as label; frames are counted from 1. Training videos "
            "have labels only. For `twinreel finetune` set config.task.normal to ('Normal',)."
        ),
        options=(
            Option(name="fps_of_annotation", default=30.0, help="frames per second by which events become seconds"),
        ),
        read=read_ucf_crime,
    ),
)
