"""Finished shards to a prepared folder: final names, TFDS's metadata, clips.jsonl with its index, rejects.jsonl."""

import collections
import contextlib
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from etils import epath

from ...base.errors import UserError
from ..index.parts import Parts
from ..index.write import write_clips
from ..layout import NAMES
from ..manifest import write_jsonl
from .shards import BuildFolder, Shard, ShardReport, writing


def assemble(
    shards: Sequence[Shard],
    *,
    work: BuildFolder,
    out: Path,
    name: str,
    version: str,
    features: tfds.features.FeaturesDict,
) -> list[dict[str, Any]]:
    """Move the finished shards to their final place in `out` and write what describes them.

    Shards without a record are left out of the numbering. A build that is killed here goes on, see `take_back`.

    Args:
      shards: all of the build, finished.
      work: where they are.
      out: the prepared folder.
      name: of the TFDS data set.
      version: likewise.
      features: of a record.

    Returns:
      Per record file: `name`, `split`, `records`, `bytes`, `sha256`, `notes`.

    Raises:
      UserError: a split has no record, or the disk cannot be written to.
    """
    home = out / name / version
    files = _numbered(shards, work=work, name=name)
    with writing(home):
        home.mkdir(parents=True)
        work.move([(shard, file["name"]) for shard, file in files], out=out, home=f"{name}/{version}")
    listed = [file for _, file in files]
    with writing(home / "dataset_info.json"):
        describe(home, files=listed, version=version, features=features)
    counts: dict[str, int] = {}
    for file in listed:
        counts[file["split"]] = counts.get(file["split"], 0) + file["records"]
    with writing(out / "clips.jsonl"):
        write_clips(out, shards=_listed(files, work=work, home=home), counts=counts)
    with writing(out / "rejects.jsonl"):
        write_jsonl(out / "rejects.jsonl", lines=rejects(shards, work=work))
    return listed


def take_back(work: BuildFolder, *, out: Path) -> None:
    """Undo the moves of an `assemble` that did not come to its end."""
    try:
        moved = json.loads((work.folder / NAMES).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
    for final, name in moved["names"].items():
        with contextlib.suppress(FileNotFoundError):  # not moved yet
            (out / moved["folder"] / final).replace(work.folder / name)
    (work.folder / NAMES).unlink()


def rejects(shards: Sequence[Shard], *, work: BuildFolder) -> Iterator[dict[str, Any]]:
    """Yield the lines of rejects.jsonl of those shards that are finished, in the order of the clips."""
    for shard in shards:
        if (report := _read(work, shard)) is not None:
            yield from report.rejects
            yield from (entry["line"] for entry in report.dropped)


def _listed(
    files: Sequence[tuple[Shard, dict[str, Any]]], *, work: BuildFolder, home: Path
) -> Iterator[tuple[int, list[dict[str, Any]], Parts]]:
    """Yield of each record file its number, the lines of clips.jsonl, whose `index` counts the split, and the parts."""
    numbers, index = collections.Counter(), collections.Counter()
    for shard, file in files:
        report = _read(work, shard)
        assert report is not None, shard.name
        first = index[shard.split]
        rows = [row | {"index": first + i} for i, row in enumerate(report.rows)]
        yield numbers[shard.split], rows, work.parts(shard, report=report, records=home / file["name"])
        numbers[shard.split] += 1
        index[shard.split] += len(rows)


def _numbered(shards: Sequence[Shard], *, work: BuildFolder, name: str) -> list[tuple[Shard, dict[str, Any]]]:
    """Give the shards that have records their final names, by split."""
    by_split: dict[str, list[tuple[Shard, ShardReport]]] = {shard.split: [] for shard in shards}
    for shard in shards:
        report = _read(work, shard)
        assert report is not None, shard.name
        if report.rows:
            by_split[shard.split].append((shard, report))
    files = []
    for split, members in by_split.items():
        if not members:
            count = sum(len(shard.clips) for shard in shards if shard.split == split)
            raise UserError(
                f"none of the {count} clips of split {split!r} can be used (rejects.jsonl says why); "
                "fix them, or leave the split out with --splits"
            )
        for number, (shard, report) in enumerate(members):
            file = {
                "name": f"{name}-{split}.array_record-{number:05d}-of-{len(members):05d}",
                "split": split,
                "records": len(report.rows),
                "bytes": report.bytes,
                "sha256": report.sha256,
                "notes": dict(sorted(report.notes.items())),
            }
            files.append((shard, file))
    return files


def _read(work: BuildFolder, shard: Shard) -> ShardReport | None:
    return work.report(shard, moved=True)


def describe(home: Path, *, files: Sequence[dict[str, Any]], version: str, features: Any) -> None:
    """Have TFDS write the metadata of a data set: dataset_info.json and features.json.

    Args:
      home: folder of its shards.
      files: of each shard, at least `name`, `split`, `records`, `bytes`, in order.
      version: of the data set.
      features: of a record.
    """
    template = tfds.core.ShardedFileTemplate(
        data_dir=epath.Path(home), dataset_name=files[0]["name"].split("-")[0], filetype_suffix="array_record"
    )
    splits = []
    for split in dict.fromkeys(file["split"] for file in files):
        members = [file for file in files if file["split"] == split]
        info = tfds.core.SplitInfo(
            name=split,
            shard_lengths=[file["records"] for file in members],
            num_bytes=sum(file["bytes"] for file in members),
            filename_template=template.replace(split=split),
        )
        splits.append(info)
    quiet = contextlib.redirect_stdout(io.StringIO())  # what TFDS would say is for notebooks
    with _present(home / file["name"] for file in files), quiet:
        tfds.folder_dataset.write_metadata(
            data_dir=home,
            features=features,
            split_infos=splits,
            version=version,
            check_data=False,  # it would read with tf.data, which cannot read ArrayRecord
            description="Clips prepared by twinreel: JPEG frames with timestamps, 16 kHz mono sound, captions, labels.",
            disable_shuffling=True,
        )


@contextlib.contextmanager
def _present(shards: Iterable[Path]) -> Iterator[None]:
    """Let TFDS find shards, of which it takes only the names; empty files stand in for those that lie elsewhere."""
    missing = [path for path in shards if not path.is_file()]
    try:
        for path in missing:
            path.touch()
        yield
    finally:
        for path in missing:
            path.unlink(missing_ok=True)
