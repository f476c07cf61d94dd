"""Clips to a folder of ArrayRecord shards that TFDS reads, fed by decoding processes or by a fleet of Beam workers.

    DIR/twinreel_clips/2.0.0/   dataset_info.json, features.json, twinreel_clips-<split>.array_record-0000i-of-0000n
    DIR/clips.jsonl             one line per record, in record order within each split
    DIR/rejects.jsonl           one line per clip that could not be used, with the reason
    DIR/duplicates.jsonl        one line per pair of clips that are the same, or nearly

While it is made, shards lie in `DIR/.building`, each finished for good (shards.py), so that a build that is interrupted
goes on where it was. TFDS's GeneratorBasedBuilder cannot do that: it holds all records back until the last clip is
decoded, and draws the borders of the shards by their bytes, which are known only then. So the shards are written here,
with TFDS's features and format, and its metadata by its own `write_metadata` (assemble.py).
"""

import contextlib
import dataclasses
import functools
import json
import shutil
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from rich.progress import Progress

from ...base.errors import UserError
from ..manifest import REFUSED, Clip, write_jsonl
from ..media.decode import DecodedClip, DecodeError, DecodeOptions
from ..media.workers import Job, Limits, decode_in_order
from ..paths import PathLike, join
from ..tf_cpu import keep_freed_memory, tf
from .assemble import assemble, take_back
from .features import Features, add_features, no_video
from .layout import BUILDING, NAME, RECORDS_VERSION, RESULTS, SETTINGS
from .settle import Treatment, settle
from .shards import Book, Shard, Workplace, plan
from .summary import SplitCount, Summary, check, progress_bar


def features() -> tfds.features.FeaturesDict:
    """Return the features of a record (names, types and units: see `example`)."""
    return tfds.features.FeaturesDict(
        {
            "clip_id": tf.string,
            "frames": tfds.features.Sequence(tf.string),
            "timestamps_s": tfds.features.Sequence(tf.float32),
            "height": tf.int32,
            "width": tf.int32,
            "audio": tf.string,
            "has_audio": tf.bool,
            "captions": tfds.features.Sequence(tf.string),
            "labels": tfds.features.Sequence(tf.string),
            "transcript": tf.string,
            "sentences": tf.string,
            "feature_names": tfds.features.Sequence(tf.string),
            "feature_data": tfds.features.Sequence(tf.string),
            "group": tf.string,
            "start_s": tf.float32,
            "end_s": tf.float32,
            "meta": tf.string,
        }
    )


def example(clip: Clip, decoded: DecodedClip, *, stored: Mapping[str, Features]) -> dict[str, Any]:
    """Return the features of one record.

    `frames` n JPEG files; `timestamps_s` [n] seconds from the clip's start; `height`, `width` pixels of the frames;
    `audio` little-endian int16 samples, 16 kHz mono, b"" without sound; `sentences` JSON, see `sentences`;
    `feature_names`, `feature_data` precomputed features by modality, a `.npy` file each ([n,D] float32, float16 or
    uint8; of uint8, value = byte * scale + offset, as `features_scale` of `meta` and of the line of clips.jsonl say);
    `start_s`, `end_s` the window in the file; `meta` JSON. A clip without video has no frames, height and width 0.
    """
    start = clip.start_s or 0.0
    return {
        "clip_id": clip.clip_id,
        "frames": decoded.jpegs,
        "timestamps_s": decoded.timestamps_s,
        "height": decoded.height,
        "width": decoded.width,
        "audio": b"" if decoded.audio is None else decoded.audio.astype("<i2").tobytes(),
        "has_audio": decoded.audio is not None,
        "captions": list(clip.captions),
        "labels": list(clip.labels),
        "transcript": clip.transcript,
        "sentences": json.dumps(sentences(clip, duration_s=decoded.duration_s), ensure_ascii=False),
        "feature_names": list(stored),
        "feature_data": [part.npy for part in stored.values()],
        "group": clip.group,
        "start_s": start,
        "end_s": start + decoded.duration_s,
        "meta": json.dumps(clip.meta, ensure_ascii=False, sort_keys=True),
    }


def sentences(clip: Clip, *, duration_s: float) -> list[dict[str, Any]]:
    """Return the sentences that overlap the clip's window, cut to it: `start_s`, `end_s` from its start, `text`."""
    start = clip.start_s or 0.0
    return [
        {
            "start_s": round(max(sentence.start_s - start, 0.0), 4),
            "end_s": round(min(sentence.end_s - start, duration_s), 4),
            "text": sentence.text,
        }
        for sentence in clip.sentences
        if sentence.start_s - start < duration_s and sentence.end_s > start
    ]


def serialize(fields: dict[str, Any]) -> bytes:
    """Return the record of the features that `example` returns, as TFDS serializes them (tf.train.Example).

    Written here for its speed, and because protobuf's own order of the features changes from process to process.
    """
    specs = _specs()
    if fields.keys() != specs.keys():
        raise KeyError(f"features of records: {sorted(specs)}, got {sorted(fields)}")
    made = {}
    for name, value in fields.items():
        values = value if specs[name].shape.rank else [value]
        if specs[name].dtype == tf.string:
            encoded = [item.encode() if isinstance(item, str) else item for item in values]
            made[name] = tf.train.Feature(bytes_list=tf.train.BytesList(value=encoded))
        elif specs[name].dtype.is_floating:
            made[name] = tf.train.Feature(float_list=tf.train.FloatList(value=values))
        else:
            made[name] = tf.train.Feature(int64_list=tf.train.Int64List(value=list(map(int, values))))
    return tf.train.Example(features=tf.train.Features(feature=made)).SerializeToString(deterministic=True)


@functools.cache
def _specs() -> Any:
    return features().get_tensor_spec()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Crew:
    """Makes shards: decodes their clips and puts records and books into the workplace.

    Attributes:
      work: where the shards are put.
      root: folder to which the clips' paths are relative.
      options: what to keep of each clip.
      limits: what a clip may cost.
      workers: decoding processes.
    """

    work: Workplace
    root: PathLike
    options: DecodeOptions
    limits: Limits
    workers: int

    def make(self, shards: Sequence[Shard], *, advance: Callable[[], None]) -> Generator[Book]:
        """Make the shards one after another and yield their books; `advance` is called after each clip."""
        keep_freed_memory()  # blocks of records come and go: fresh pages for each would take a third of the time here
        jobs = (_job(clip, root=self.root, options=self.options) for shard in shards for clip in shard.clips)
        with contextlib.closing(decode_in_order(jobs, workers=self.workers, limits=self.limits)) as results:
            for shard in shards:
                book = Book(key=shard.key)
                self.work.put(shard, book=book, records=_records(shard, results, book, advance, root=self.root))
                yield book


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fleet:
    """The Beam runner that makes the shards: its name, and its options as on a command line (`--name=value`)."""

    runner: str
    options: tuple[str, ...] = ()


def build(
    clips: Sequence[Clip],
    *,
    sizes: Mapping[str, int],
    root: PathLike,
    out: Path,
    options: DecodeOptions,
    limits: Limits,
    workers: int,
    max_bad_fraction: float,
    shard_clips: int = 0,
    fleet: Fleet | None = None,
    progress: bool = True,
    treatment: Treatment | None = None,
) -> Summary:
    """Decode the clips and write their records to `out`; what an interrupted build has finished is not made again.

    Args:
      clips: clips with a split each; those without a caption are rejected.
      sizes: bytes of the file at each clip's path: a file that has changed is known by them.
      root: folder to which their paths are relative.
      out: folder for the result.
      options: what to keep of each clip.
      limits: what a clip may cost.
      workers: decoding processes (of each shard that the fleet makes at a time).
      max_bad_fraction: share of all clips that may be rejected.
      shard_clips: clips of a shard; 0 = `clips_per_shard`.
      fleet: who makes the shards; None = this process and its decoding processes.
      progress: whether to show a progress bar.
      treatment: what is done about duplicates; None = they are reported.

    Raises:
      TooManyRejects: more than `max_bad_fraction` of the clips were rejected; rejects.jsonl lists them.
      UserError: no clip of some split can be used, or the disk cannot be written to. What is finished is kept.
    """
    work = Workplace(out / BUILDING)
    take_back(work, out=out)
    _remove(out, names=RESULTS)
    shards = plan_build(clips, sizes=sizes, options=options, shard_clips=shard_clips)
    work.clear(shards, also=[SETTINGS])
    summary = Summary(total=len(clips), splits={shard.split: SplitCount() for shard in shards})
    crew = Crew(work=work, root=root, options=options, limits=limits, workers=workers)
    try:
        with progress_bar(shown=progress) as bar:
            _make_all(shards, crew=crew, fleet=fleet, summary=summary, bar=bar, max_bad_fraction=max_bad_fraction)
        check(summary, max_bad_fraction=max_bad_fraction, least=0)
        rule = treatment or Treatment()
        summary.duplicates = settle(shards, work=work, out=out, treatment=rule, summary=summary)
        summary.shards = assemble(shards, work=work, out=out, name=NAME, version=RECORDS_VERSION, features=features())
    except UserError:
        with contextlib.suppress(OSError):  # a full disk may be what the error is about
            write_jsonl(out / "rejects.jsonl", lines=summary.rejects + summary.dropped)
        raise
    return summary


def plan_build(
    clips: Sequence[Clip], *, sizes: Mapping[str, int], options: DecodeOptions, shard_clips: int = 0
) -> list[Shard]:
    """Return the shards of a build; for the arguments see `build`."""
    settings = {"records": RECORDS_VERSION, "options": dataclasses.asdict(options)}
    return plan(clips, sizes=sizes, settings=settings, shard_clips=shard_clips)


def begin(out: Path) -> None:
    """Remove what an earlier build left in `out`, whole or not; prepare.json, which vouches for the rest, first."""
    (out / "prepare.json").unlink(missing_ok=True)
    (out / BUILDING).mkdir(exist_ok=True)  # if the rest is cut short, this tells whose it was
    _remove(out, names=RESULTS)
    _remove(out / BUILDING, names=[path.name for path in (out / BUILDING).iterdir()])


def end(out: Path) -> None:
    """Remove the folder in which the shards were made: the build is whole."""
    shutil.rmtree(out / BUILDING, ignore_errors=True)


def _remove(folder: Path, *, names: Sequence[str]) -> None:
    for path in (folder / name for name in names):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _make_all(
    shards: Sequence[Shard],
    *,
    crew: Crew,
    fleet: Fleet | None,
    summary: Summary,
    bar: Progress,
    max_bad_fraction: float,
) -> None:
    """Make the shards that are not finished, and fill the summary."""
    todo = []
    for shard in shards:
        if (book := crew.work.book(shard)) is None:
            todo.append(shard)
        else:
            summary.add(book)
    if summary.seen:
        bar.console.print(f"going on: {summary.seen:,} of {summary.total:,} clips are done")
    task = bar.add_task("decoding", total=summary.total, completed=summary.seen)
    if fleet is None:
        books = crew.make(todo, advance=lambda: bar.advance(task))
    else:
        from ..prepare import beam  # here, because not everyone has Beam

        books = beam.make(todo, crew=crew, fleet=fleet, advance=lambda count: bar.advance(task, count))
    with contextlib.closing(books):
        for book in books:
            summary.add(book)
            check(summary, max_bad_fraction=max_bad_fraction)


def _records(
    shard: Shard,
    results: Iterator[DecodedClip | DecodeError],
    book: Book,
    advance: Callable[[], None],
    *,
    root: PathLike,
) -> Iterator[bytes]:
    """Yield the records of a shard and keep its book."""
    for clip in shard.clips:
        decoded, stored = add_features(clip, next(results), root=root)
        advance()
        if isinstance(decoded, DecodeError):
            line = {"clip_id": clip.clip_id, "path": clip.path, "split": clip.split, "reason": str(decoded)}
            book.rejects.append(line)
            book.reasons[decoded.reason] += 1
            continue
        book.rows.append(_row(clip, decoded, stored=stored, index=len(book.rows)))
        book.notes.update(decoded.notes)
        yield serialize(example(clip, decoded, stored=stored))


def _job(clip: Clip, *, root: PathLike, options: DecodeOptions) -> Job | DecodedClip | DecodeError:
    if refused := clip.meta.get(REFUSED):
        reason, _, detail = str(refused).partition(": ")
        return DecodeError(reason, detail)
    if not clip.captions:
        return DecodeError("no caption")
    if not clip.path:
        return no_video()
    return Job(path=join(root, clip.path), options=options, start_s=clip.start_s, end_s=clip.end_s)


def _row(clip: Clip, decoded: DecodedClip, *, stored: Mapping[str, Features], index: int) -> dict[str, Any]:
    return {
        "split": clip.split,
        "index": index,
        "clip_id": clip.clip_id,
        "captions": list(clip.captions),
        "labels": list(clip.labels),
        "transcript": clip.transcript,
        "sentences": sentences(clip, duration_s=decoded.duration_s),
        "features": {name: list(part.shape) for name, part in stored.items()},
        "features_scale": {name: list(part.scale) for name, part in stored.items() if part.scale},
        "group": clip.group or None,
        "duration_s": round(decoded.duration_s, 4),
        "num_frames": len(decoded.jpegs),
        "has_audio": decoded.audio is not None,
        "silent": decoded.silent,
        "height": decoded.height,
        "width": decoded.width,
        "source": decoded.source,
        **({} if decoded.fingerprint is None else dataclasses.asdict(decoded.fingerprint)),
    }
