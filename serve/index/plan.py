"""What a run of `twinreel index` has to do: files that are new, changed, moved, copied or gone."""

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path

from ...encode.media.chunks import Task
from .database import ModelRow
from .forgetting import Forgotten, read_forgotten
from .listing import Entry
from .store import FileRow, Store, sentences_json

_BLOCK = 2**20


@dataclasses.dataclass(kw_only=True)
class Plan:
    """What has to be done, and what was done by reading no more than file names.

    Attributes:
      tasks: files to decode.
      copies: new files with the content of an indexed one: the entry, and the id of that file.
      unchanged: how many files are indexed already.
      added: how many files the index does not have.
      changed: how many files were written anew since they were indexed.
      moved: how many files have another name.
      removed: how many files are gone.
      forgotten: how many files were deleted by example, and are left out.
      failed_before: files that could not be indexed and are still the same.
      hashes: SHA-256 in hex of the files that were read for it, by path.
    """

    tasks: list[Task] = dataclasses.field(default_factory=list)
    copies: list[tuple[Entry, int]] = dataclasses.field(default_factory=list)
    unchanged: int = 0
    added: int = 0
    changed: int = 0
    moved: int = 0
    removed: int = 0
    forgotten: int = 0
    failed_before: list[Entry] = dataclasses.field(default_factory=list)
    hashes: dict[str, str] = dataclasses.field(default_factory=dict)


def content_sha256(path: str) -> str:
    """Return the SHA-256 of a file in hex; "" if it cannot be read."""
    digest = hashlib.sha256()
    try:
        with Path(path).open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    except OSError:
        return ""
    return digest.hexdigest()


def make_plan(
    store: Store, *, model: ModelRow, entries: Sequence[Entry], roots: Sequence[str], retry: bool = False
) -> Plan:
    """Compare a listing with the index; write to the index what needs no decoding.

    A file whose size and time are the same counts as unchanged. Otherwise its content decides: if that is the same,
    only names and times are written. Files of these roots that are no longer listed leave the index, unless a new file
    has their content: it was moved, and keeps its moments.

    Args:
      store: the index.
      model: which is to embed them.
      entries: what there is.
      roots: the sources that were listed.
      retry: decode files again that could not be decoded before.
    """
    plan, rows = Plan(), store.files()
    listed = {entry.key for entry in entries}
    gone = {row.id: row for key, row in rows.items() if row.root in roots and key not in listed}
    finished, chunks, failures = store.finished(model), store.chunks(model), store.failures()
    deleted = [one for one in read_forgotten(store.connection) if one.sha256]
    new: list[Entry] = []
    for entry in entries:
        row, failed = rows.get(entry.key), failures.get(entry.key)
        if entry.refused:
            if row is not None:  # it was readable once: the index keeps no moments that nobody can play
                gone[row.id] = row
            store.add_failure(entry, reason=entry.refused, detail="")
            plan.failed_before.append(entry)
        elif row is not None and _same(store, row, entry, plan=plan):
            if row.id in finished:
                plan.unchanged += 1
            else:
                task = Task(entry=entry, file=row.id, done=chunks.get(row.id, set()), length_s=row.duration_s)
                plan.tasks.append(task)
                plan.added += 1
        elif row is not None:
            store.remove_files([row.id])
            if not _was_deleted(entry, deleted=deleted, plan=plan):
                plan.tasks.append(Task(entry=entry))
                plan.changed += 1
        elif failed is not None and not retry and failed[:2] == (entry.size, entry.mtime_ns):
            plan.failed_before.append(entry)
        elif not _was_deleted(entry, deleted=deleted, plan=plan):
            new.append(entry)
    _place(store, new, rows=[row for row in rows.values() if row.id in finished], gone=gone, plan=plan)
    plan.removed = len(gone)
    store.remove_files(gone)
    store.remove_failures(roots=roots, except_keys=listed)
    return plan


def _was_deleted(entry: Entry, *, deleted: Sequence[Forgotten], plan: Plan) -> bool:
    """Whether a file shows what was deleted by example; it is counted then."""
    alike = {one.sha256 for one in deleted if one.size == entry.size and one.covers(entry)}
    found = bool(alike) and _hash(entry.path, plan=plan) in alike
    plan.forgotten += found
    return found


def _same(store: Store, row: FileRow, entry: Entry, *, plan: Plan) -> bool:
    """Whether a file's moments stay as they are; its names and texts are updated then."""
    if row.sentences != sentences_json(entry.sentences):
        return False
    state = (row.size, row.mtime_ns)
    if state != (entry.size, entry.mtime_ns) and (
        row.size != entry.size or _hash(entry.path, plan=plan) != row.sha256 or not row.sha256
    ):
        return False
    store.update_file(row.id, entry=entry)
    return True


def _place(
    store: Store, new: Sequence[Entry], *, rows: Sequence[FileRow], gone: dict[int, FileRow], plan: Plan
) -> None:
    """Find out which new files have the content of an indexed one; queue the others."""
    sizes: dict[int, list[FileRow]] = {}
    for row in rows:
        sizes.setdefault(row.size, []).append(row)
    for entry in new:
        alike = [row for row in sizes.get(entry.size, ()) if _alike(row, entry, plan=plan)]
        moved = next((row for row in alike if row.id in gone), None)
        if moved is not None:
            store.update_file(moved.id, entry=entry)
            del gone[moved.id]
            plan.moved += 1
        elif alike:
            plan.copies.append((entry, alike[0].id))
            plan.added += 1
        else:
            plan.tasks.append(Task(entry=entry))
            plan.added += 1


def _alike(row: FileRow, entry: Entry, *, plan: Plan) -> bool:
    """Whether a new file gives the same moments as an indexed one."""
    window, said = (row.start_s, row.end_s), sentences_json(entry.sentences)
    if window != (entry.start_s, entry.end_s) or row.sentences != said or not row.sha256:
        return False
    return _hash(entry.path, plan=plan) == row.sha256


def _hash(path: str, *, plan: Plan) -> str:
    if path not in plan.hashes:
        plan.hashes[path] = content_sha256(path)
    return plan.hashes[path]
