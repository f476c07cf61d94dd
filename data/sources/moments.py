"""Moment retrieval: Charades-STA and QVHighlights. A clip per query, with the moments that it means as spans."""

import collections
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ...base.errors import UserError
from ..manifest import REFUSED, Clip
from .files import Folder, expect, member, parse_json, read_lines, read_table, seconds
from .source import Annotations, Source
from .windows import cut_from, mended, trimmed_name

_CHARADES = {"train": (12408, "charades_sta_train.txt"), "test": (3720, "charades_sta_test.txt")}
_QVHIGHLIGHTS = {
    "train": (7218, "highlight_train_release.jsonl"),
    "val": (1550, "highlight_val_release.jsonl"),
    "test": (1542, "highlight_test_release.jsonl"),
}


def read_charades_sta(folder: Path) -> Annotations:
    """Read Charades-STA: a clip per query, of the whole video.

    The moment that the query means is the clip's one span; `meta.moments` has it as [[start, end]] in seconds.

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
            start, end = (seconds(text, what="a time", where=where) for text in parts[1:])
            video = parts[0]
            window = mended(start, end, duration_s=durations.get(video), found=found)
            if window is None:
                continue
            fields = {"clip_id": f"{video}#{seen[video]}", "path": video, "captions": [query.strip()], "split": split}
            seen[video] += 1
            meta = {"video": video, "moments": [list(window)]}
            found.add(fields | {"spans": _spans(meta["moments"], query), "meta": meta}, where=where)
    if not found.clips:
        files.lacks(*(name for _, name in _CHARADES.values()))
    return found


def _durations(files: Folder, name: str) -> dict[str, float]:
    """The videos' lengths in seconds, from the owners' table of Charades; {} where it is not there."""
    path = files.find(name)
    rows = read_table(path, columns=["id", "length"]) if path else ()
    return {row["id"].strip(): seconds(row["length"], what="length", where=where) for where, row in rows}


def read_qvhighlights(folder: Path) -> Annotations:
    """Read QVHighlights: a clip per query, of the whole 150 s video.

    The spans are the relevant windows; `meta.moments` has them as [[start, end], ...] in seconds from the clip's start.
    `meta.saliency` has the annotators' scores of the 2 s pieces that `meta.relevant_clip_ids` names.

    Args:
      folder: that has one or more of the files which `--list qvhighlights` names.

    Raises:
      UserError: files that are missing or at fault. A query with a window that ends after the video is refused.
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
    query = member(record, "query", str, where=where)
    meta: dict[str, Any] = {"video": video, "qid": qid, "duration_s": duration}
    spans: list[dict[str, Any]] = []
    if "relevant_windows" in record:  # the test file has none
        windows = member(record, "relevant_windows", list, where=where)
        meta["moments"] = [_moment(window, where=where) for window in windows]
        impossible = [window for window in meta["moments"] if not 0 <= window[0] < window[1] <= duration]
        if impossible:
            bounds = f"wanted 0 <= start < end <= duration={duration:g}"
            meta[REFUSED] = f"impossible window: relevant_windows has {impossible[0]}, {bounds}"
        else:
            spans = _spans(meta["moments"], query)
        meta["relevant_clip_ids"] = member(record, "relevant_clip_ids", list, where=where)
        meta["saliency"] = member(record, "saliency_scores", list, where=where)
        if len(meta["saliency"]) != len(meta["relevant_clip_ids"]):
            raise UserError(
                f"{where}: has {len(meta['saliency'])} saliency_scores for {len(meta['relevant_clip_ids'])} "
                "relevant_clip_ids; wanted one each"
            )
    return {"clip_id": f"{video}#{qid}", "path": video, "captions": [query], "spans": spans, "meta": meta}


def _spans(moments: list[list[float]], query: str) -> list[dict[str, Any]]:
    """The moments of a query as spans of a manifest."""
    return [{"start_s": start, "end_s": end, "text": query.strip()} for start, end in moments] if query.strip() else []


def _moment(window: Any, *, where: str) -> list[float]:
    times = [
        seconds(time, what="a time of relevant_windows", where=where)
        for time in expect(window, list, what="a window of relevant_windows", where=where)
    ]
    if len(times) != 2:
        raise UserError(f"{where}: relevant_windows has {window!r}, wanted [start, end]; correct the line")
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
            "A clip per sentence, of the whole video, with the moment as its span. Moments that run backwards in the "
            "published file are turned round, those after the video's end cut, and those without length left out; "
            "all are counted."
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
            "A clip per query, of the whole 150 s, with the relevant windows as its spans; meta.saliency holds the "
            "three annotators' scores (0 to 4) of each 2 s piece in meta.relevant_clip_ids."
        ),
        read=read_qvhighlights,
        alternatives=_qvhighlights_alternatives,
    ),
)
