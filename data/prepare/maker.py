"""Shards made one after another: their clips decoded in processes, then written as records."""

import contextlib
import dataclasses
from collections.abc import Callable, Generator, Iterator, Sequence

from ..manifest import REFUSED, Clip
from ..media.decode import DecodedClip, DecodeError, DecodeOptions
from ..media.limits import Limits
from ..media.workers import Job, decode_in_order
from ..paths import PathLike, join
from ..tf_cpu import keep_freed_memory
from .features import add_features, no_video
from .record import example, row_of, serialize
from .shards import BuildFolder, Shard, ShardReport


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShardMaker:
    """Makes shards: decodes their clips and writes records and reports to the build folder.

    Attributes:
      work: where the shards are put.
      root: folder to which the clips' paths are relative.
      options: what to keep of each clip.
      limits: time and memory that a clip may take.
      workers: decoding processes.
    """

    work: BuildFolder
    root: PathLike
    options: DecodeOptions
    limits: Limits
    workers: int

    def make(self, shards: Sequence[Shard], *, advance: Callable[[], None]) -> Generator[ShardReport]:
        """Make the shards one after another and yield their reports; `advance` is called after each clip."""
        keep_freed_memory()  # blocks of records come and go: fresh pages for each would take a third of the time here
        jobs = (_job(clip, root=self.root, options=self.options) for shard in shards for clip in shard.clips)
        with contextlib.closing(decode_in_order(jobs, workers=self.workers, limits=self.limits)) as results:
            for shard in shards:
                report = ShardReport(key=shard.key)
                self.work.put(shard, report=report, records=_records(shard, results, report, advance, root=self.root))
                yield report


@dataclasses.dataclass(frozen=True, kw_only=True)
class BeamRunner:
    """The Apache Beam runner that makes the shards: its name, and its options as on a command line (`--name=value`)."""

    name: str
    options: tuple[str, ...] = ()


def _records(
    shard: Shard,
    results: Iterator[DecodedClip | DecodeError],
    report: ShardReport,
    advance: Callable[[], None],
    *,
    root: PathLike,
) -> Iterator[bytes]:
    """Yield the records of a shard and fill its report."""
    for clip in shard.clips:
        decoded, stored = add_features(clip, next(results), root=root)
        advance()
        if isinstance(decoded, DecodeError):
            line = {"clip_id": clip.clip_id, "path": clip.path, "split": clip.split, "reason": str(decoded)}
            report.rejects.append(line)
            report.reasons[decoded.reason] += 1
            continue
        report.rows.append(row_of(clip, decoded, stored=stored, index=len(report.rows)))
        report.notes.update(decoded.notes)
        yield serialize(example(clip, decoded, stored=stored))


def _job(clip: Clip, *, root: PathLike, options: DecodeOptions) -> Job | DecodedClip | DecodeError:
    if refused := clip.meta.get(REFUSED):
        reason, _, detail = str(refused).partition(": ")
        return DecodeError(reason, detail)
    if not clip.captions and not clip.questions:
        return DecodeError("no caption")
    if not clip.path:
        return no_video()
    return Job(path=join(root, clip.path), options=options, start_s=clip.start_s, end_s=clip.end_s)
