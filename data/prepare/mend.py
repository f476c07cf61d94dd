"""A finished folder that has lost a shard: back to where its build was before that shard, so that only it is made."""

import collections
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..manifest import write_whole
from .folder import COMPARED
from .layout import BUILDING, NAME, NAMES, RECORDS_VERSION, SETTINGS
from .shards import Book, Shard, Workplace


def mend(out: Path, *, shards: Sequence[Shard], told: dict[str, Any]) -> list[str]:
    """Make a folder, whose shards are not all as prepare.json says, the beginning of a build that has all the others.

    What is known of the clips is read from clips.jsonl and rejects.jsonl. A killed call changes nothing, or all.

    Args:
      out: the prepared folder.
      shards: all that the build is to make.
      told: with what it is begun.

    Returns:
      Names of the shards that are damaged; none if there is nothing of use in the folder, which is then as it was.
    """
    try:
        done = json.loads((out / "prepare.json").read_text(encoding="utf-8"))
        if {key: done[key] for key in COMPARED} != told:
            return []
        books = _books(out, shards=shards, files=done["shards"])
        home = out / NAME / RECORDS_VERSION
        damaged = [file["name"] for file in done["shards"] if _size(home / file["name"]) != file["bytes"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    if len(damaged) in (0, len(done["shards"])):
        return []
    work = Workplace(out / BUILDING)
    work.folder.mkdir(exist_ok=True)
    work.clear([])
    names = {}
    for shard, name, book in books:
        if name not in damaged:
            work.write(shard, book=book)
            if name:
                names[name] = work.records(shard).name
    moved = {"folder": f"{NAME}/{RECORDS_VERSION}", "names": names}
    write_whole(work.folder / NAMES, parts=[json.dumps(moved)])
    write_whole(work.folder / SETTINGS, parts=[json.dumps(told, indent=2), "\n"])
    (out / "prepare.json").unlink()
    return damaged


def _books(out: Path, *, shards: Sequence[Shard], files: Sequence[dict[str, Any]]) -> list[tuple[Shard, str, Book]]:
    """Write the books of all shards anew; beside each stands the name of its record file, "" if it has none.

    Raises:
      ValueError: clips.jsonl and rejects.jsonl do not list the clips of the shards.
    """
    rows, rejects = _by_clip(out / "clips.jsonl"), _by_clip(out / "rejects.jsonl")
    left = {split: [file for file in files if file["split"] == split] for split in {shard.split for shard in shards}}
    books = []
    for shard in shards:
        known = [(shard.split, clip.clip_id) for clip in shard.clips]
        book = Book(key=shard.key)
        book.rows = [rows.pop(clip) | {"index": 0} for clip in known if clip in rows]
        book.rejects = [rejects.pop(clip) for clip in known if clip in rejects]
        book.reasons = collections.Counter(line["reason"].split(": ")[0] for line in book.rejects)
        file = left[shard.split].pop(0) if book.rows else {"name": "", "bytes": 0, "sha256": "", "records": 0}
        book.bytes, book.sha256 = file["bytes"], file["sha256"]
        book.notes = collections.Counter(file["notes"] if book.rows else {})
        # A clip that was left out later, as a duplicate, stands in rejects.jsonl, but its row is gone.
        if (
            len(book.rows) != file["records"]
            or len(book.rows) + len(book.rejects) != len(known)
            or any(line["reason"].startswith("duplicate") for line in book.rejects)
        ):
            raise ValueError(shard.name)
        books.append((shard, file["name"], book))
    if rows or rejects or any(left.values()):
        raise ValueError("clips of no shard")
    return books


def _by_clip(path: Path) -> dict[tuple[str, str], dict[str, Any]]:
    with path.open(encoding="utf-8") as lines:
        found = map(json.loads, lines)
        return {(line["split"], line["clip_id"]): line for line in found}


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else -1
