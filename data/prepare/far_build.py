"""A build whose shards lie in an object store: each worker makes shards on its own disk and sends them there.

    URL/.building/plan.jsonl               the shards to make (beam.py)
                  NAME-HASH.array_record   the records of a shard; HASH is of this file
                  NAME-HASH.parts          where the parts of its records lie
                  NAME.json                its report, sent last

An object appears whole or not at all, and a shard is finished once its report is there. Two attempts at one shard do
not mix: files are named by their contents. The launching machine fetches reports and parts, and never a record (but
where duplicates are dropped from a shard). When the build is finished, the store itself copies the shards to their
final names (sending.py), and `.building` goes after prepare.json has come.
"""

import concurrent.futures
import contextlib
import dataclasses
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ...data import remote
from ..index.parts import Parts, load_parts
from ..paths import is_remote
from .elsewhere import AT_ONCE, delete_all, write_elsewhere
from .shards import BuildFolder, Shard, ShardReport


@dataclasses.dataclass(frozen=True)
class FarBuildFolder(BuildFolder):
    """The build folder behind `url`; `folder` has a copy of its reports and parts, as of the last `refresh`."""

    url: str

    @property
    def address(self) -> str:
        """The URL."""
        return self.url

    def put(self, shard: Shard, *, report: ShardReport, records: Iterable[bytes]) -> None:
        """Write the records of a shard to the local disk and send them, then its report.

        Raises:
          UserError: the disk is full, or the URL cannot be written to.
        """
        path = self.records(shard)
        try:
            super().put(shard, report=report, records=records)
            if report.bytes:
                remote.upload(path, url=f"{self.url}/{_records(shard, report)}")
                self.publish(self._parts(shard, report).name)
            self.publish(f"{shard.name}.json")
        finally:
            path.unlink(missing_ok=True)

    def report(self, shard: Shard, *, moved: bool = False) -> ShardReport | None:
        """Return the report of a shard that is finished, as of the last `refresh`; None if it is to be made."""
        del moved  # records are never here
        return super().report(shard, moved=True)

    def parts(self, shard: Shard, *, report: ShardReport, records: Path) -> Parts:
        """Return where the parts of a shard's records lie."""
        del records
        return load_parts(self._parts(shard, report))

    def reported(self) -> set[str]:
        """Return the names of the shards that have a report behind the URL."""
        return {name.removesuffix(".json") for name in remote.walk(self.url) if name.endswith(".json")}

    def drop(self, shards: Iterable[Shard]) -> None:
        """Remove the reports of shards, here and there."""
        shards = list(shards)
        super().drop(shards)
        delete_all(self.url, names={f"{shard.name}.json" for shard in shards} & set(remote.walk(self.url)))

    def refresh(self, shards: Iterable[Shard]) -> None:
        """Fetch the reports and parts of the shards that are finished.

        Raises:
          UserError: the URL cannot be read.
        """
        there = remote.walk(self.url)
        with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
            for _ in pool.map(lambda shard: self._fetch(shard, there=there), shards):
                pass

    def clear(self, shards: Iterable[Shard], *, also: Iterable[str] = ()) -> None:
        """Remove all files but those of these shards and those named, here and there."""
        shards, also = list(shards), set(also)
        super().clear(shards, also=also)
        names, there = {shard.name for shard in shards}, set(remote.walk(self.url))
        delete_all(self.url, names={name for name in there - also if _shard_of(name) not in names})

    def publish(self, name: str) -> None:
        """Send a file of the local folder."""
        remote.upload(self.folder / name, url=f"{self.url}/{name}")

    @contextlib.contextmanager
    def opened(self, shard: Shard) -> Iterator[Path]:
        """Fetch the record file of a finished shard for the time being."""
        report = self.report(shard)
        assert report is not None, shard.name
        path, place = self.records(shard), f"{self.url}/{_records(shard, report)}"
        try:
            remote.download(place, to=path, size=report.bytes, sha256=report.sha256)
            yield path
        finally:
            path.unlink(missing_ok=True)

    def move(self, files: Sequence[tuple[Shard, str]], *, out: Path, home: str) -> None:
        """Note the final names of the record files; the store gives them these when the folder is sent."""
        above, found = f"{self.url.rsplit('/', 1)[1]}/", {}
        for shard, name in files:
            report = self.report(shard)
            assert report is not None, shard.name
            found[f"{home}/{name}"] = (above + _records(shard, report), report.bytes)
        write_elsewhere(out, shards=found)

    def _fetch(self, shard: Shard, *, there: dict[str, int]) -> None:
        """Fetch the report and parts of a shard; remove the local report of one that is not finished."""
        name = f"{shard.name}.json"
        if name in there:
            remote.download(f"{self.url}/{name}", to=self.folder / name, size=there[name])
        report = self.report(shard) if name in there else None
        if report is not None and report.bytes:
            parts = self._parts(shard, report)
            if there.get(_records(shard, report)) == report.bytes and parts.name in there:
                remote.download(f"{self.url}/{parts.name}", to=parts, size=there[parts.name])
            else:
                report = None
        if report is None:
            super().drop([shard])


def make_build(folder: Path, *, url: str) -> BuildFolder:
    """Return the build folder of the launching machine; `url` is where the shards are made, "" = in the folder."""
    return FarBuildFolder(folder, url) if url else BuildFolder(folder)


@contextlib.contextmanager
def open_build(address: str) -> Iterator[BuildFolder]:
    """Open a build folder on a worker by its address; of one behind a URL, what is local goes at the end."""
    if not is_remote(address):
        yield BuildFolder(Path(address))
        return
    with tempfile.TemporaryDirectory(prefix="twinreel-") as folder:
        yield FarBuildFolder(Path(folder), address)


def _records(shard: Shard, report: ShardReport) -> str:
    return f"{shard.name}-{report.sha256[:16]}.array_record"


def _shard_of(name: str) -> str:
    """Return the name of the shard that a file belongs to."""
    stem, _, suffix = name.rpartition(".")
    return stem if suffix == "json" else stem.rpartition("-")[0]
