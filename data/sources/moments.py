"""Moment retrieval: Charades-STA and QVHighlights. A clip per query, with the moments it means in seconds."""

import collections
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ...base.errors import UserError
from ..manifest import Clip
from .files import Folder, expect, member, number, parse_json, read_lines, read_table
from .source import Annotations, Source
from .windows import cut_from, mended, trimmed_name

_CHARADES = {"train": (12408, "charades_sta_train.txt"), "test": (3720, "charades_sta_test.txt")}
_QVHIGHLIGHTS = {
    "train": (7218, "highlight_train_release.jsonl"),
    "val": (1550, "highlight_val_release.jsonl"),
    "test": (1542, "highlight_test_release.jsonl"),
}


def read_charades_sta(folder: Path) -> Annotations:
    """Read Charades-STA: a clip per query, of the whole video, with `meta.moments` [[start, end]] in seconds.

    Args:
      folder: that has one or both of the files which `--list charades_sta` names.

    Raises:
      UserError: files that are missing or at fault.
    """
    files, found = Folder(folder), Annotations()
    for split, (count, name) in _CHARADES.items():
        path = files.find(name)
        if path is None:
            found.notes[f"split {split} left out, because --annotations has no {name}"] += 1
            continue
        found.expected[f"{split} clips"] = count
        durations = _durations(files, f"Charades_v1_{split}.csv")
        seen: collections.Counter[str] = collections.Counter()
        for where, line in read_lines(path):
            head, marks, query = line.partition("##")
            parts = head.split()
            if not marks or len(parts) != 3:
                raise UserError(f"{where}: is {line!r}, wanted `VIDEO START END##sentence`")
            start, end = (number(text, what="a time", where=where) for text in parts[1:])
            video = parts[0]
            window = mended(start, end, duration_s=durations.get(video), found=found)
            if window is None:
                continue
            fields = {"clip_id": f"{video}#{seen[video]}", "path": video, "captions": [query.strip()], "split": split}
            seen[video] += 1
            found.add(fields | {"meta": {"video": video, "moments": [list(window)]}}, where=where)
    if not found.clips:
        files.lacks(*(name for _, name in _CHARADES.values()))
    return found


def _durations(files: Folder, name: str) -> dict[str, float]:
    """The videos' lengths in seconds, from the owners' table of Charades; {} where it is not there."""
    path = files.find(name)
    rows = read_table(path, columns=["id", "length"]) if path else ()
    return {row["id"].strip(): number(row["length"], what="length", where=where) for where, row in rows}


def read_qvhighlights(folder: Path) -> Annotations:
    """Read QVHighlights: a clip per query, of the whole 150 s video.

    `meta.moments` are the relevant windows [[start, end], ...] in seconds, `meta.saliency` the annotators' scores of
    the 2 s pieces that `meta.relevant_clip_ids` names.

    Args:
      folder: that has one or more of the files which `--list qvhighlights` names.

    Raises:
      UserError: files that are missing or at fault, such as a window that ends after the video.
    """
    files, found = Folder(folder), Annotations()
    for split, (count, name) in _QVHIGHLIGHTS.items():
        path = files.find(name)
        if path is None:
            found.notes[f"split {split} left out, because --annotations has no {name}"] += 1
            continue
        found.expected[f"{split} clips"] = count
        for where, line in read_lines(path):
            found.add(_query(parse_json(line, where=where, kind=dict), where=where) | {"split": split}, where=where)
    if not found.clips:
        files.lacks(*(name for _, name in _QVHIGHLIGHTS.values()))
    return found


def _query(record: dict[str, Any], *, where: str) -> dict[str, Any]:
    video = member(record, "vid", str, where=where)
    qid = member(record, "qid", int, where=where)
    duration = member(record, "duration", float, where=where)
    meta: dict[str, Any] = {"video": video, "qid": qid, "duration_s": duration}
    if "relevant_windows" in record:  # the test file has none
        windows = member(record, "relevant_windows", list, where=where)
        meta["moments"] = [_moment(window, duration=duration, where=where) for window in windows]
        meta["relevant_clip_ids"] = member(record, "relevant_clip_ids", list, where=where)
        meta["saliency"] = member(record, "saliency_scores", list, where=where)
        if len(meta["saliency"]) != len(meta["relevant_clip_ids"]):
            raise UserError(
                f"{where}: has {len(meta['saliency'])} saliency_scores for {len(meta['relevant_clip_ids'])} "
                "relevant_clip_ids; wanted one each"
            )
    captions = [member(record, "query", str, where=where)]
    return {"clip_id": f"{video}#{qid}", "path": video, "captions": captions, "meta": meta}


def _moment(window: Any, *, duration: float, where: str) -> list[float]:
    times = [
        expect(time, float, what="a time of relevant_windows", where=where)
        for time in expect(window, list, what="a window of relevant_windows", where=where)
    ]
    if len(times) != 2 or not 0 <= times[0] < times[1] <= duration:
        raise UserError(
            f"{where}: relevant_windows has {window!r}, wanted [start, end] with 0 <= start < end <= duration="
            f"{duration:g}; mend the line"
        )
    return times


def _qvhighlights_alternatives(clip: Clip) -> Iterable[Clip]:
    if parts := trimmed_name(clip.path):
        yield cut_from(clip, path=parts[0], start_s=parts[1], end_s=parts[2])


SOURCES = (
    Source(
        name="charades_sta",
        title="Charades-STA: 16,128 sentences with the moment that each means, in 6,670 home videos",
        layout="""\
charades_sta_train.txt, charades_sta_test.txt   `VIDEO START END##sentence` per line; one is enough
Charades_v1_train.csv, Charades_v1_test.csv     optional: columns id, length, ...; moments are cut there""",
        videos="VIDEO.mp4 (Charades, any size)",
        published_at="https://github.com/jiyanggao/TALL",
        licence="annotations: see the owners' repository; the videos: Charades, non-commercial use",
        notes=(
            "A clip per sentence, of the whole video: meta.moments holds [[start, end]] in seconds. Moments that run "
            "backwards in the published file are turned round, those after the video's end cut, and those without "
            "length left out; all are counted."
        ),
        read=read_charades_sta,
    ),
    Source(
        name="qvhighlights",
        title="QVHighlights: 10,310 queries with relevant moments and highlight scores, in videos of 150 s",
        layout="""\
highlight_train_release.jsonl, highlight_val_release.jsonl, highlight_test_release.jsonl   one is enough; per line
{qid, query, duration, vid, relevant_windows, relevant_clip_ids, saliency_scores} (the test file ends with vid)""",
        videos="youtubeid_60.0_210.0.mp4; or the whole youtubeid.mp4, from which the window is cut",
        published_at="https://github.com/jayleicn/moment_detr",
        licence="annotations CC BY-NC-SA 4.0; the videos belong to their uploaders",
        notes=(
            "A clip per query, of the whole 150 s: meta.moments holds the relevant windows in seconds from its start, "
            "meta.saliency the three annotators' scores (0 to 4) of each 2 s piece in meta.relevant_clip_ids."
        ),
        read=read_qvhighlights,
        alternatives=_qvhighlights_alternatives,
    ),
)
