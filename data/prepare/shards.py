"""The units of work of a build: runs of consecutive clips, each with one record file, finished one by one.

The boundaries are arithmetic over the list of clips. So the files do not depend on which process made them, in which
order, or how often the build was interrupted. While a build lasts, its folder holds for each finished unit

    NAME.array_record   the records
    NAME-HASH.parts     where the parts of its records lie; HASH is of the record file
    NAME.json           its report (`ShardReport`), written last: where it stands and fits, the unit is finished
"""

import collections
import contextlib
import dataclasses
import hashlib
import json
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

from ...base.errors import UserError
from ..index.parts import Parts, find_parts, load_parts, save_parts
from ..layout import NAMES
from ..manifest import Clip, to_json, write_whole
from .inputs import contents_of

# One record per chunk, for random access. Not compressed: zstd at its quickest makes files of JPEG frames and sound
# 15 % smaller, but a third of the time to read a record, each time that it is read, goes into undoing that.
_WRITER = "group_size:1,uncompressed"
_PARTS = ".parts"
_LEAST, _MOST = 64, 1024  # clips of a shard
_SHARDS = 1024  # per split, as long as no shard needs more than _MOST clips: a reader holds all of them open


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shard:
    """One unit of work.

    Attributes:
      split: of all its clips.
      number: its place among the shards of the split, from 0.
      clips: consecutive clips of the split, at least one.
      key: SHA-256 of all that its records are made from: clips, contents of their files, options.
    """

    split: str
    number: int
    clips: Sequence[Clip]
    key: str

    @property
    def name(self) -> str:
        """The name of its files while the build lasts."""
        return f"{self.split}-{self.number:05d}"


@dataclasses.dataclass(kw_only=True)
class ShardReport:
    """The outcome of a shard.

    Attributes:
      key: of the shard.
      bytes: size of the record file; 0 if there is none, because no clip could be used.
      sha256: of the record file, hex; "" if there is none.
      rows: lines of clips.jsonl; `index` counts from the shard's first record.
      rejects: lines of rejects.jsonl.
      dropped: duplicates, which do not count as bad: `line` of rejects.jsonl, and `row` as it was.
      reasons: rejected clips by reason.
      notes: clips by how they differ from their files (`DecodedClip.notes`).
    """

    key: str
    bytes: int = 0
    sha256: str = ""
    rows: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    rejects: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    dropped: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    reasons: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    notes: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)


def clips_per_shard(count: int) -> int:
    """Return how many clips a shard of a split of `count` clips gets: 64, more where there would be too many shards."""
    return min(max(_LEAST, -(-count // _SHARDS)), _MOST)


def plan(
    clips: Sequence[Clip], *, contents: Mapping[str, str], settings: Mapping[str, Any], shard_clips: int = 0
) -> list[Shard]:
    """Divide the clips into shards, split by split, in the order of the clips.

    Args:
      clips: with a split each.
      contents: what stands for the contents of the file at each path of the clips (`Inputs.contents`).
      settings: all else that the records depend on (JSON values).
      shard_clips: clips of a shard; 0 = `clips_per_shard`.
    """
    by_split: dict[str, list[Clip]] = {}
    for clip in clips:
        by_split.setdefault(clip.split, []).append(clip)
    shards = []
    for split, members in by_split.items():
        each = shard_clips or clips_per_shard(len(members))
        for number, first in enumerate(range(0, len(members), each)):
            part = members[first : first + each]
            key = _key(part, contents=contents, settings=settings)
            shards.append(Shard(split=split, number=number, clips=part, key=key))
    return shards


def _key(clips: Sequence[Clip], *, contents: Mapping[str, str], settings: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for clip in clips:
        digest.update(json.dumps([to_json(clip), *contents_of(clip, contents)], sort_keys=True).encode())
    return digest.hexdigest()


@dataclasses.dataclass(frozen=True)
class BuildFolder:
    """The folder in which the shards of a build are made; any number of processes may put shards there at once."""

    folder: Path

    def records(self, shard: Shard) -> Path:
        """Return where the record file of a shard is put."""
        return self.folder / f"{shard.name}.array_record"

    def put(self, shard: Shard, *, report: ShardReport, records: Iterable[bytes]) -> None:
        """Write the records of a shard, then its report, which is filled while the records are made.

        Raises:
          UserError: the disk is full, or cannot be written to.
        """
        path = self.records(shard)
        report.bytes, report.sha256 = write_records(path, records=records)
        if report.bytes:
            with _new_file(self._parts(shard, report)) as temporary, writing(temporary):
                save_parts(temporary, parts=find_parts(path))  # now, as the file is still in memory
        else:
            path.unlink(missing_ok=True)  # what other options may have left
        self.write(shard, report=report)

    def write(self, shard: Shard, *, report: ShardReport) -> None:
        """Write the report of a shard, which is finished with it.

        Raises:
          UserError: the disk is full, or cannot be written to.
        """
        with _new_file(self._report(shard)) as temporary, writing(temporary):
            temporary.write_text(json.dumps(vars(report), ensure_ascii=False), encoding="utf-8")
            _sync(temporary)

    def report(self, shard: Shard, *, moved: bool = False) -> ShardReport | None:
        """Return the report of a shard that is finished, None if it is to be made (again).

        `moved`: the record file may stand elsewhere by now, and is not looked at.
        """
        try:
            fields = json.loads(self._report(shard).read_text(encoding="utf-8"))
            report = ShardReport(**fields)
            report.reasons, report.notes = collections.Counter(report.reasons), collections.Counter(report.notes)
            size = self.records(shard).stat().st_size if report.bytes and not moved else report.bytes
        except (OSError, ValueError, TypeError):
            return None
        return report if report.key == shard.key and size == report.bytes else None

    def parts(self, shard: Shard, *, report: ShardReport, records: Path) -> Parts:
        """Return where the parts of a shard's records lie; they are looked for in the record file if need be."""
        try:
            return load_parts(self._parts(shard, report))
        except (OSError, ValueError):
            return find_parts(records)

    @property
    def address(self) -> str:
        """Where any process finds the folder, see `far_build.open_build`."""
        return str(self.folder.absolute())

    def reported(self) -> set[str]:
        """Return the names of the shards that have a report: quick, for watching others at work."""
        return {path.stem for path in self.folder.glob("*.json")}

    def drop(self, shards: Iterable[Shard]) -> None:
        """Remove the reports of shards, which are then to be made again."""
        for shard in shards:
            self._report(shard).unlink(missing_ok=True)

    def refresh(self, shards: Iterable[Shard]) -> None:
        """Take notice of what other processes have put there; a folder that all share shows it by itself."""

    def publish(self, name: str) -> None:
        """Let the processes that work for the build read a file of the folder; all of them see this one."""

    @contextlib.contextmanager
    def opened(self, shard: Shard) -> Iterator[Path]:
        """Give the record file of a finished shard on the local disk."""
        yield self.records(shard)

    def move(self, files: Sequence[tuple[Shard, str]], *, out: Path, home: str) -> None:
        """Move record files to their final place; `assemble.take_back` undoes this.

        Args:
          files: shards with the final names of their record files.
          out: the prepared folder.
          home: their folder in it, which exists.

        Raises:
          OSError: the disk cannot be written to.
        """
        names = {name: self.records(shard).name for shard, name in files}
        write_whole(self.folder / NAMES, parts=[json.dumps({"folder": home, "names": names})])
        for shard, name in files:
            self.records(shard).replace(out / home / name)

    def clear(self, shards: Iterable[Shard], *, also: Iterable[str] = ()) -> None:
        """Remove all files but those of these shards and those named."""
        shards = list(shards)
        kept = {path.name for shard in shards for path in (self.records(shard), self._report(shard))} | set(also)
        names = {shard.name for shard in shards}
        for path in self.folder.iterdir():
            if path.name not in kept and not (path.suffix == _PARTS and path.name.rpartition("-")[0] in names):
                path.unlink()

    def _parts(self, shard: Shard, report: ShardReport) -> Path:
        return self.folder / f"{shard.name}-{report.sha256[:16]}{_PARTS}"

    def _report(self, shard: Shard) -> Path:
        return self.folder / f"{shard.name}.json"


def write_records(path: Path, *, records: Iterable[bytes]) -> tuple[int, str]:
    """Write an ArrayRecord file, whole or not at all; none if there is no record.

    Returns:
      Size in bytes and SHA-256 (hex) of the file; `(0, "")` if there is none.

    Raises:
      UserError: the disk is full, or cannot be written to.
    """
    with _new_file(path) as temporary:
        writer, count = None, 0
        try:
            for record in records:
                with writing(path):
                    writer = writer or ArrayRecordWriter(str(temporary), _WRITER)
                    writer.write(record)
                count += 1
            if writer is None:
                return 0, ""
            with writing(path):
                writer.close()
                _check_whole(temporary, count=count)
                _sync(temporary)
                with temporary.open("rb") as file:
                    return temporary.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest()
        except BaseException:
            if writer is not None:
                with contextlib.suppress(RuntimeError):  # it would say once more what was wrong
                    writer.close()
            raise


def _check_whole(path: Path, *, count: int) -> None:
    reader = ArrayRecordReader(str(path), options="readahead_buffer_size:0,max_parallelism:0")
    try:
        if reader.num_records() != count:
            raise OSError(f"{reader.num_records()} records are there of the {count} that were written")
    finally:
        reader.close()


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn a failure to write into a UserError that says how to resume."""
    try:
        yield
    except (OSError, RuntimeError) as error:  # ArrayRecord raises the latter
        what = error.strerror or str(error) if isinstance(error, OSError) else str(error).split(";")[0]
        raise UserError(
            f"cannot write {path.name} in {str(path.parent)!r}: {what}; what is finished is kept: "
            "free some space (or repair the disk) and run the same command again"
        ) from error


@contextlib.contextmanager
def _new_file(path: Path) -> Iterator[Path]:
    """Give a path to write to, which takes the place of `path` afterwards if there is a file, and no error."""
    # No two attempts share a path: a fleet may make a shard twice.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        if temporary.is_file():
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
