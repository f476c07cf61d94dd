"""Random access to the records of a folder that `twinreel prepare` made."""

import io
import json
import os
import weakref
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...base.errors import UserError, unknown
from ..layout import FORMAT, INDEX, NAME, home_of
from ..options import SAMPLE_RATE
from ..paths import PathLike
from ..tf_cpu import tf
from ..transforms.units import drawable
from .far_table import FarTable
from .open_shards import OpenShards
from .shards_cache import Mirror
from .table import Table, read_summaries, read_tables

_NEEDED = ("frames", "timestamps_s", "height", "width", "audio", "has_audio")  # of the features of a record
_open = OpenShards()


class Records:
    """An opened prepared folder.

    Attributes:
      folder: the folder; of one behind a URL, its local copy.
      url: from where its shards come; "" of a local one.
      splits: number of records by split.
      options: those of `twinreel prepare` with which it was made (fps, short_side, frames_as, audio ...).
      segment: frames of a record from one that is decoded by itself to the next; 1 = each is.
    """

    def __init__(self, folder: PathLike, *, cache_dir: str = "", cache_gb: float = 0.0):
        """Open a folder.

        Args:
          folder: local, or a URL; see `shards_cache.Mirror`, also for the other two.
          cache_dir: folder for local copies of remote data; "" = in the user's cache folder.
          cache_gb: gigabytes that these may take; 0 = no limit.

        Raises:
          UserError: it does not exist, is empty or unfinished, or its parts do not fit each other.
        """
        self._mirror = Mirror(folder, cache_dir=cache_dir, cache_gb=cache_gb)
        self.folder, self.url = self._mirror.folder, self._mirror.url
        prepared = read_prepared(self.folder)
        self.options: dict[str, Any] = prepared["options"]
        self.segment = int(self.options.get("segment", 1))
        self._mirror.checksums = {shard["name"]: shard["sha256"] for shard in prepared["shards"]}
        self._sizes = {shard["name"]: int(shard["bytes"]) for shard in prepared["shards"]}
        self._shards, self._rows = self._open(self._sizes)
        self.splits = {split: len(rows) for split, rows in self._rows.items()}
        counted = {name: shard.size for name, shard in self._shards.items()}
        if counted != self.splits:
            raise self._damaged(f"clips.jsonl lists {self.splits}, the shards hold {counted}")

    def rows(self, split: str) -> Table:
        """Return the rows of a split, in record order.

        Raises:
          UserError: there is no such split.
        """
        self._check_split(split)
        return self._rows[split]

    def read(self, split: str, indices: Sequence[int]) -> list[bytes]:
        """Read serialized records (`tf.train.Example`) by their index in the split; any thread may call.

        Raises:
          UserError: there is no such split, or a record is damaged (split and index are named).
          IndexError: an index is out of range.
        """
        self._check_split(split)
        shards = self._shards[split]
        return [shards.read(int(index)) for index in indices]

    def fetch(self, split: str) -> None:
        """Fetch all shards of a split that are not on the local disk yet; without it, each is at its first use.

        Raises:
          UserError: there is no such split, one cannot be fetched, or there is no room.
        """
        self._check_split(split)
        shards = self._shards[split]
        self._mirror.fetch([shards.path(number) for number in range(len(shards.files))] if self.url else [])

    def hold(self, split: str, *, shards: Collection[int]) -> None:
        """Fetch these shards of a split and keep them on the local disk until the next call; see `Mirror.hold`.

        Raises:
          UserError: there is no such split, one cannot be fetched, or there is no room.
        """
        self._check_split(split)
        self._shards[split].hold(shards)

    def shard_ends(self, split: str) -> np.ndarray:
        """Return how many records of a split there are up to the end of each shard, int64 [S].

        Raises:
          UserError: there is no such split.
        """
        self._check_split(split)
        return self._shards[split].ends

    def shard_url(self, split: str, *, index: int) -> str:
        """Return the URL of the shard that holds a record."""
        path = self._shards[split].path_of(index)
        return f"{self.url}/{path.relative_to(self.folder).as_posix()}"

    def shard_bytes(self, split: str) -> float:
        """Return the mean size of the shards of a split, bytes.

        Raises:
          UserError: there is no such split.
        """
        self._check_split(split)
        files = self._shards[split].files
        return sum(self._sizes[file] for file in files) / len(files)

    def _check_split(self, split: str) -> None:
        if split not in self.splits:
            raise unknown(f"split in {str(self.folder)!r}:", split, self.splits)

    def _open(self, sizes: dict[str, int]) -> tuple[dict[str, "_Shards"], dict[str, Table]]:
        """Find the shards, and open the rows: where they are too large to be copied, behind the URL."""
        shards, far = self._read_shards(sizes), self._mirror.far
        if "clips.jsonl" not in far:
            return shards, read_tables(self.folder)
        paths = sorted((self.folder / INDEX).glob("*.json"))
        summaries = read_summaries(paths, clips_bytes=far["clips.jsonl"])
        if summaries is None or summaries.keys() - shards.keys():
            raise self._damaged(f"the index in {INDEX!r} is not that of clips.jsonl")
        samples = {split: far.get(f"{INDEX}/{split}.sample.jsonl", 0) for split in summaries}
        return shards, {
            split: FarTable(self.url, split=split, summary=one, ends=shards[split].ends, sample_bytes=samples[split])
            for split, one in summaries.items()
        }

    def _read_shards(self, sizes: dict[str, int]) -> dict[str, "_Shards"]:
        """Find the shards of each split, of `sizes` bytes: those of each TFDS data set of the folder in turn.

        The dataset_info.json of each says how many records its shards have.
        """
        files, lengths = dict[str, list[str]](), dict[str, list[int]]()
        for part in dict.fromkeys([NAME, *(file.partition("-")[0] for file in sizes)]):
            for split, counts in self._read_part(part).items():
                named = [f"{part}-{split}.array_record-{i:05d}-of-{len(counts):05d}" for i in range(len(counts))]
                self._check_shards(self.folder / home_of(part), files=named, sizes=sizes)
                files.setdefault(split, []).extend(named)
                lengths.setdefault(split, []).extend(counts)
        return {
            split: _Shards(self.folder, files=named, lengths=lengths[split], split=split, mirror=self._mirror)
            for split, named in files.items()
        }

    def _read_part(self, part: str) -> dict[str, list[int]]:
        """Return by split how many records the shards of a TFDS data set have."""
        home = self.folder / home_of(part)
        try:
            info = json.loads((home / "dataset_info.json").read_text(encoding="utf-8"))
            features = json.loads((home / "features.json").read_text(encoding="utf-8"))
            stored = set(features["featuresDict"]["features"])
        except (OSError, json.JSONDecodeError, KeyError) as error:
            raise self._damaged(f"{error}") from error
        if missing := sorted(set(_NEEDED) - stored):
            raise self._damaged(f"its records have no {', '.join(missing)}")
        return {split["name"]: [int(n) for n in split["shardLengths"]] for split in info.get("splits", [])}

    def _check_shards(self, home: Path, *, files: Sequence[str], sizes: dict[str, int]) -> None:
        with os.scandir(home) as entries:
            present = {entry.name: entry.stat().st_size for entry in entries}
        for file in files:
            wanted, found = sizes.get(file), present.get(file)
            if found is None and self._mirror.has(home / file):  # it is yet to be fetched
                continue
            if found is None:
                raise self._damaged(f"the shard {file} is missing")
            if found != wanted:
                raise self._damaged(f"the shard {file} has {found} bytes instead of {wanted}")

    def _damaged(self, what: str) -> UserError:
        return UserError(
            f"data folder {str(self.folder)!r} is damaged or of another version: {what}; "
            "remove it and run `twinreel prepare` again"
        )


class _Shards:
    """The shards of one split, fetched and opened at their first use."""

    def __init__(self, folder: Path, *, files: list[str], lengths: list[int], split: str, mirror: Mirror):
        self.files, self._folder, self._split, self._mirror = files, folder, split, mirror
        self.ends = np.cumsum(lengths, dtype=np.int64)
        self.size = int(self.ends[-1]) if lengths else 0
        self._held: set[int] = set()
        self._owner = object()
        weakref.finalize(self, _open.forget, self._owner)

    def path_of(self, index: int) -> Path:
        return self.path(int(np.searchsorted(self.ends, index, side="right")))

    def path(self, number: int) -> Path:
        file = self.files[number]
        return self._folder / home_of(file) / file  # made here: those of a hundred thousand shards would take seconds

    def hold(self, shards: Collection[int]) -> None:
        for number in self._held - set(shards):
            _open.close(self._owner, number=number)  # an open file would take room after it is removed
        self._held = set(shards)
        self._mirror.hold([self.path(number) for number in shards], owner=self._split)

    def read(self, index: int) -> bytes:
        if not 0 <= index < self.size:
            raise IndexError(f"record {index} of split {self._split!r}, which has {self.size}")
        shard = int(np.searchsorted(self.ends, index, side="right"))
        begin = int(self.ends[shard - 1]) if shard else 0
        path = self.path(shard)
        for last in (False, False, True):
            try:
                self._mirror.fetch([path], shown=False)
                reader = _open.get(path, owner=self._owner, number=shard)
                return reader.read([index - begin])[0]
            except (RuntimeError, ValueError, IndexError) as error:
                if last or not self._mirror.url or path.exists():
                    raise damaged_record(self._split, index, f"{path.name}: {error}") from error
                # It has made room for another shard, of another thread or process, before it was opened.
        raise AssertionError("the loop returns or raises")


def read_prepared(folder: Path) -> dict[str, Any]:
    """Read the prepare.json of a prepared folder.

    Raises:
      UserError: there is none, it cannot be read, or it is of another version.
    """
    remedy = f"make it with `twinreel prepare SOURCE --out {folder}`, or set config.data.dir to a prepared folder"
    name = repr(str(folder))
    if not folder.is_dir():
        raise UserError(f"data folder {name} does not exist; {remedy}")
    if not any(folder.iterdir()):
        raise UserError(f"data folder {name} is empty; {remedy}")
    file = folder / "prepare.json"
    if not file.is_file():
        raise UserError(
            f"data folder {name} has no prepare.json: it is not prepared, or the build was cut short; {remedy}"
        )
    try:
        prepared = json.loads(file.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise UserError(f"{str(file)!r} cannot be read ({error}); {remedy}") from error
    if prepared.get("version") != FORMAT:
        raise UserError(
            f"data folder {name} is of format {prepared.get('version')}, this version reads {FORMAT}; "
            f"run `twinreel prepare SOURCE --out {folder} --overwrite`"
        )
    return prepared


def damaged_record(split: str, index: int, reason: str) -> UserError:
    """Build the error for a record that cannot be read, parsed or decoded."""
    return UserError(
        f"record {index} of split {split!r} is damaged ({reason}); "
        "run `twinreel prepare` again (line `index` of clips.jsonl says which clip it is)"
    )


class Record:
    """A parsed record, whose parts are taken out one by one: frames that are not drawn are never copied."""

    def __init__(self, serialized: bytes):
        """Parse.

        Raises:
          google.protobuf.message.DecodeError: the bytes are no record.
        """
        # The protobuf library refers to the record's bytes; tf.io.parse_example would copy all frames, drawn or not.
        self._feature = tf.train.Example.FromString(serialized).features.feature

    @property
    def timestamps_s(self) -> np.ndarray:
        """When each frame begins, float32 [n], seconds from the clip's start."""
        return np.asarray(self._feature["timestamps_s"].float_list.value, np.float32)

    @property
    def meta(self) -> dict[str, Any]:
        """The field `meta` of the clip."""
        [text] = self._feature["meta"].bytes_list.value
        return json.loads(text)

    def frames(self, indices: Sequence[int]) -> list[bytes]:
        """Return all that decoding each of some frames takes; see `units.drawable`.

        Raises:
          IndexError: there is no such frame.
          ValueError: no key picture stands ahead of it.
        """
        stored = self._feature["frames"].bytes_list.value
        return [drawable(stored, i) for i in indices]

    def sound(self, *, start_s: float, end_s: float, samples: int) -> np.ndarray:
        """Return at most `samples` of the sound between two times (seconds), int16 [s]; [0] where there is none."""
        [raw] = self._feature["audio"].bytes_list.value
        start = round(start_s * SAMPLE_RATE)
        end = min(start + samples, max(round(end_s * SAMPLE_RATE), start))
        return np.frombuffer(raw[2 * start : 2 * end], "<i2")

    def features(self, name: str) -> np.ndarray | None:
        """Return the precomputed features of a modality, [n,D] as stored, or None."""
        names = [part.decode() for part in self._feature["feature_names"].bytes_list.value]
        if name not in names:
            return None
        stored = self._feature["feature_data"].bytes_list.value[names.index(name)]
        return np.load(io.BytesIO(stored), allow_pickle=False)
