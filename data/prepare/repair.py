"""Repair a prepared folder: turn it back into a build that lacks only the shards that are lost or out of date."""

import collections
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..layout import BUILDING, NAME, NAMES, RECORDS_VERSION, SETTINGS
from ..manifest import write_whole
from .folder import COMPARED, KEPT
from .shards import BuildFolder, Shard, ShardReport


def repair(out: Path, *, shards: Sequence[Shard], before: Sequence[Shard], wanted: dict[str, Any]) -> list[str]:
    """Turn a folder with lost or outdated shards into an interrupted build that has all the others.

    The clips are known from clips.jsonl and rejects.jsonl. A call that is killed changes either nothing or everything.

    Args:
      out: the prepared folder.
      shards: all that the build is to make.
      before: the same as they were when the folder was made; shards with another key are out of date.
      wanted: the settings of the build.

    Returns:
      Names of the shards to make again; none if nothing in the folder can be used, which is then unchanged.
    """
    try:
        done = json.loads((out / "prepare.json").read_text(encoding="utf-8"))
        if {key: done[key] for key in COMPARED} != {key: wanted[key] for key in COMPARED}:
            return []
        outdated = {new.name for new, old in zip(shards, before, strict=True) if new.key != old.key}
        reports = _reports(out, shards=shards, files=done["shards"])
        home = out / NAME / RECORDS_VERSION
        lost = {file["name"] for file in done["shards"] if _size(home / file["name"]) != file["bytes"]}
        again = {shard.name: name or shard.name for shard, name, _ in reports if name in lost or shard.name in outdated}
    except (OSError, ValueError, KeyError, TypeError):
        return []
    if len(again) in (0, len(shards)):
        return []
    work = BuildFolder(out / BUILDING)
    work.folder.mkdir(exist_ok=True)
    work.clear([])
    names = {}
    for shard, name, report in reports:
        if shard.name not in again:
            work.write(shard, report=report)
            if name:
                names[name] = work.records(shard).name
    moved = {"folder": f"{NAME}/{RECORDS_VERSION}", "names": names}
    write_whole(work.folder / NAMES, parts=[json.dumps(moved)])
    write_whole(work.folder / SETTINGS, parts=[json.dumps({key: wanted[key] for key in KEPT}, indent=2), "\n"])
    (out / "prepare.json").unlink()
    return list(again.values())


def _reports(
    out: Path, *, shards: Sequence[Shard], files: Sequence[dict[str, Any]]
) -> list[tuple[Shard, str, ShardReport]]:
    """Reconstruct the reports of all shards; each comes with the name of its record file, "" if it has none.

    Raises:
      ValueError: clips.jsonl and rejects.jsonl do not list the clips of the shards.
    """
    rows, rejects = _by_clip(out / "clips.jsonl"), _by_clip(out / "rejects.jsonl")
    left = {split: [file for file in files if file["split"] == split] for split in {shard.split for shard in shards}}
    reports = []
    for shard in shards:
        known = [(shard.split, clip.clip_id) for clip in shard.clips]
        report = ShardReport(key=shard.key)
        report.rows = [rows.pop(clip) | {"index": 0} for clip in known if clip in rows]
        report.rejects = [rejects.pop(clip) for clip in known if clip in rejects]
        report.reasons = collections.Counter(line["reason"].split(": ")[0] for line in report.rejects)
        file = left[shard.split].pop(0) if report.rows else {"name": "", "bytes": 0, "sha256": "", "records": 0}
        report.bytes, report.sha256 = file["bytes"], file["sha256"]
        report.notes = collections.Counter(file["notes"] if report.rows else {})
        # A clip that was left out later, as a duplicate, stands in rejects.jsonl, but its row is gone.
        if (
            len(report.rows) != file["records"]
            or len(report.rows) + len(report.rejects) != len(known)
            or any(line["reason"].startswith("duplicate") for line in report.rejects)
        ):
            raise ValueError(shard.name)
        reports.append((shard, file["name"], report))
    if rows or rejects or any(left.values()):
        raise ValueError("clips of no shard")
    return reports


def _by_clip(path: Path) -> dict[tuple[str, str], dict[str, Any]]:
    with path.open(encoding="utf-8") as lines:
        found = map(json.loads, lines)
        return {(line["split"], line["clip_id"]): line for line in found}


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else -1
