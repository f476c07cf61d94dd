"""Clips to ArrayRecord shards: the TFDS builder, fed by decoding processes, and the folder that it leaves.

    DIR/twinreel_clips/2.0.0/   dataset_info.json, features.json, twinreel_clips-<split>.array_record-0000i-of-0000n
    DIR/clips.jsonl             one line per record, in record order within each split
    DIR/rejects.jsonl           one line per clip that could not be used, with the reason

Everything is written to `DIR/.building` first and renamed when it is whole.
"""

import collections
import contextlib
import dataclasses
import io
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
from rich.text import Text
from tensorflow_datasets.core.writer import ExampleWriter

from ...configs.errors import UserError
from ..manifest import Clip, write_jsonl
from ..media.decode import DecodedClip, DecodeError, DecodeOptions
from ..media.workers import Job, Limits, decode_in_order
from ..tf_cpu import tf

NAME = "twinreel_clips"
RECORDS_VERSION = "2.0.0"
BUILDING = ".building"  # prepare.py knows it too: its presence tells an interrupted build
RESULTS = (NAME, "clips.jsonl", "rejects.jsonl")  # what a build leaves, beside prepare.json
_ENOUGH = 20  # rejects to have seen before a hopeless build is broken off: one run should show most of what is wrong


@dataclasses.dataclass(kw_only=True)
class Summary:
    """What a build found, filled while it runs.

    Attributes:
      total: clips given.
      rows: lines of clips.jsonl.
      rejects: lines of rejects.jsonl.
      reasons: rejected clips by reason.
      notes: clips by what was left out of them (`DecodedClip.notes`).
      bytes: size of the shards.
    """

    total: int
    rows: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    rejects: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    reasons: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    notes: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    bytes: int = 0

    def counts(self) -> dict[str, dict[str, int]]:
        """Return `{split: {"clips": n, "rejected": m}}`."""
        splits = dict.fromkeys([line["split"] for line in self.rows + self.rejects])
        return {
            split: {
                "clips": sum(line["split"] == split for line in self.rows),
                "rejected": sum(line["split"] == split for line in self.rejects),
            }
            for split in splits
        }


class TooManyRejects(UserError):
    """More clips than allowed could not be used; `summary` lists them."""

    def __init__(self, message: str, summary: Summary):
        super().__init__(message)
        self.summary = summary


class TwinreelClips(tfds.core.GeneratorBasedBuilder):
    """Prepared clips: JPEG frames with times, 16 kHz sound, texts; records stand in the order of the manifest."""

    VERSION = tfds.core.Version(RECORDS_VERSION)
    RELEASE_NOTES = {RECORDS_VERSION: "Sentences with times, and precomputed features."}  # noqa: RUF012  (TFDS's own convention)
    # Checksums of downloads: there are none. TFDS would look for them beside this module, by way of the package
    # importlib_resources, which it does not install on the Pythons that we support.
    url_infos = {}  # noqa: RUF012  # pyright: ignore[reportAssignmentType]

    def __init__(self, *, examples: dict[str, Iterator[dict[str, Any]]], sizes: dict[str, int], **kwargs: Any):
        """Make the builder.

        Args:
          examples: features of each split's records, in order.
          sizes: an upper bound of the number of records per split.
          **kwargs: `data_dir`, `file_format` of TFDS.
        """
        self._examples, self._sizes = examples, sizes
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Clips prepared by twinreel: JPEG frames with timestamps, 16 kHz mono sound, captions, labels.",
            features=features(),
            disable_shuffling=True,
        )

    def _example_writer(self) -> ExampleWriter:
        assert self.info.file_format is not None
        return _SameBytesWriter(file_format=self.info.file_format)

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        del dl_manager  # nothing is downloaded
        return {split: self._generate_examples(split) for split in self._examples}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        # TFDS sorts large splits by key in 1000 buckets of the 128-bit key range and holds one bucket in memory at a
        # time. Keys spread over the range keep the order, and the buckets small.
        stride = 2**128 // (self._sizes[split] + 1)
        for index, example in enumerate(self._examples[split]):
            yield index * stride, example


class _SameBytesWriter(ExampleWriter):
    """Writes each record with its features in a fixed order; protobuf's own order changes from process to process."""

    def write(self, path: Any, examples: Any) -> Any:
        """Write `(key, serialized tf.train.Example)` pairs to one shard."""
        return super().write(path, ((key, _canonical(record)) for key, record in examples))


def _canonical(record: bytes) -> bytes:
    return tf.train.Example.FromString(record).SerializeToString(deterministic=True)


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


def example(clip: Clip, decoded: DecodedClip) -> dict[str, Any]:
    """Return the features of one record.

    `frames` n JPEG files; `timestamps_s` [n] seconds from the clip's start; `height`, `width` pixels of the frames;
    `audio` little-endian int16 samples, 16 kHz mono, b"" without sound; `sentences` JSON, see `sentences`;
    `feature_names`, `feature_data` precomputed features by modality, a `.npy` file each; `start_s`, `end_s` the window
    in the file; `meta` JSON.
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
        "feature_names": [],
        "feature_data": [],
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


def build(
    clips: Sequence[Clip],
    *,
    root: Path,
    out: Path,
    options: DecodeOptions,
    limits: Limits,
    workers: int,
    max_bad_fraction: float,
) -> Summary:
    """Decode the clips and write their records to `out`.

    Args:
      clips: clips with a split each; those without a caption are rejected.
      root: folder to which their paths are relative.
      out: folder for the result, which appears whole or not at all (`rejects.jsonl` excepted).
      options: what to keep of each clip.
      limits: what a clip may cost.
      workers: decoding processes.
      max_bad_fraction: share of all clips that may be rejected.

    Raises:
      TooManyRejects: more than `max_bad_fraction` of the clips were rejected; rejects.jsonl lists them.
      UserError: no clip of some split can be used.
    """
    by_split: dict[str, list[Clip]] = {}
    for clip in clips:
        by_split.setdefault(clip.split, []).append(clip)
    temporary = out / BUILDING
    shutil.rmtree(temporary, ignore_errors=True)
    summary = Summary(total=len(clips))
    try:
        with _progress() as progress:
            task = progress.add_task("decoding", total=len(clips))
            jobs = (_job(clip, root=root, options=options) for split in by_split for clip in by_split[split])
            with contextlib.closing(decode_in_order(jobs, workers=workers, limits=limits)) as results:
                step = _Step(results, summary, max_bad_fraction, lambda: progress.advance(task))
                examples = {split: step.examples(by_split[split]) for split in by_split}
                _write(examples, sizes={split: len(by_split[split]) for split in by_split}, data_dir=temporary)
        shards = (temporary / NAME / RECORDS_VERSION).glob("*.array_record*")
        summary.bytes = sum(path.stat().st_size for path in shards)
        write_jsonl(temporary / "clips.jsonl", lines=summary.rows)
        write_jsonl(temporary / "rejects.jsonl", lines=summary.rejects)
        _install(temporary, out)
    except UserError:
        write_jsonl(out / "rejects.jsonl", lines=summary.rejects)
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return summary


def remove(out: Path) -> None:
    """Remove what an earlier build left in `out`, whole or not; prepare.json, which vouches for the rest, first."""
    for name in ("prepare.json", *RESULTS, BUILDING):
        path = out / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


@dataclasses.dataclass
class _Step:
    """Pairs clips with their decoded results, in order, and keeps the books."""

    results: Iterator[DecodedClip | DecodeError]
    summary: Summary
    max_bad_fraction: float
    advance: Callable[[], None]

    def examples(self, clips: Sequence[Clip]) -> Iterator[dict[str, Any]]:
        """Yield the features of the clips of one split that can be used."""
        index = 0
        for clip in clips:
            decoded = next(self.results)
            self.advance()
            if isinstance(decoded, DecodeError):
                self._reject(clip, decoded)
                continue
            self.summary.rows.append(_row(clip, decoded, index=index))
            self.summary.notes.update(decoded.notes)
            yield example(clip, decoded)
            index += 1
        if index == 0 or len(self.summary.rows) + len(self.summary.rejects) == self.summary.total:
            self._check(least=0)
        if index == 0:
            split = clips[0].split
            raise UserError(
                f"none of the {len(clips)} clips of split {split!r} can be used (rejects.jsonl says why); "
                "mend them, or leave the split out with --splits"
            )

    def _reject(self, clip: Clip, error: DecodeError) -> None:
        line = {"clip_id": clip.clip_id, "path": clip.path, "split": clip.split, "reason": str(error)}
        self.summary.rejects.append(line)
        self.summary.reasons[error.reason] += 1
        self._check(least=_ENOUGH)

    def _check(self, *, least: int) -> None:
        rejected, total = len(self.summary.rejects), self.summary.total
        if rejected <= self.max_bad_fraction * total or rejected < least:
            return
        seen = rejected + len(self.summary.rows)
        stopped = f" (stopped after {seen} of {total})" if seen < total else ""
        raise TooManyRejects(
            f"{rejected} of {total} clips cannot be used{stopped}, more than "
            f"max_bad_fraction={self.max_bad_fraction:g} allows; rejects.jsonl lists them with their reasons. "
            "Mend or remove them, or raise --max_bad_fraction",
            self.summary,
        )


def _job(clip: Clip, *, root: Path, options: DecodeOptions) -> Job | DecodeError:
    if not clip.captions:
        return DecodeError("no caption")
    return Job(path=root / clip.path, options=options, start_s=clip.start_s, end_s=clip.end_s)


def _row(clip: Clip, decoded: DecodedClip, *, index: int) -> dict[str, Any]:
    return {
        "split": clip.split,
        "index": index,
        "clip_id": clip.clip_id,
        "captions": list(clip.captions),
        "labels": list(clip.labels),
        "transcript": clip.transcript,
        "sentences": sentences(clip, duration_s=decoded.duration_s),
        "features": {},  # {name: [n, D]}
        "group": clip.group or None,
        "duration_s": round(decoded.duration_s, 4),
        "num_frames": len(decoded.jpegs),
        "has_audio": decoded.audio is not None,
        "silent": decoded.silent,
        "height": decoded.height,
        "width": decoded.width,
    }


def _write(examples: dict[str, Iterator[dict[str, Any]]], *, sizes: dict[str, int], data_dir: Path) -> None:
    """Have TFDS write the shards and its metadata."""
    tfds.disable_progress_bar()  # ours counts clips and knows how many there are
    builder = TwinreelClips(examples=examples, sizes=sizes, data_dir=data_dir, file_format="array_record")
    config = tfds.download.DownloadConfig(try_download_gcs=False)
    with contextlib.redirect_stdout(io.StringIO()):  # TFDS announces a download, and there is none
        builder.download_and_prepare(download_dir=data_dir / "downloads", download_config=config)


def _install(temporary: Path, out: Path) -> None:
    """Move a whole result into its place, over what an interrupted build may have left there."""
    for name in RESULTS:
        if (out / name).is_dir():
            shutil.rmtree(out / name)
    for name in RESULTS:
        (temporary / name).replace(out / name)


class _Rate(ProgressColumn):
    """Clips per second."""

    def render(self, task: Any) -> Text:
        """Return the rate as text."""
        return Text(f"{task.finished_speed or task.speed or 0.0:.1f} clips/s", style="cyan")


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TextColumn("time left"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
