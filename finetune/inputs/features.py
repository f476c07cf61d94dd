"""The features of a frozen video tower, computed once for each clip and kept as ArrayRecord files."""

import bisect
import hashlib
import itertools
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from flax import nnx

from ...base.errors import UserError
from ...encode.devices.rows import Rows, apply_to_rows, placed_on, rounded_up
from ...encode.predict.timeline import video_tokens
from ...engine.keeping.files import write_atomically
from ...engine.remote.place import url_of
from ...engine.start.processes import everywhere, of_all
from ...engine.step.state import split_model
from ..examples.clips import LabelledClips

if TYPE_CHECKING:
    from ...data.options import DataOptions
    from ..examples.context import TaskContext

VERSION = 1
"""Of the files."""
CHUNK = 1024
"""Clips of a file; a change needs another `VERSION`."""
IN_MEMORY = 1 << 30
"""Bytes up to which the features of a set are held in memory."""
ABOUT = "features.json"
"""Written last: what the features were computed from, their shape and their files."""


class Features:
    """Features on disk, read by the place of a clip in its set; any thread may read.

    A set of at most `IN_MEMORY` bytes is read once, at the start; of a larger one, clips are read as they are needed.
    """

    def __init__(self, folder: Path):
        """Open what `compute_features` has written."""
        from array_record.python.array_record_module import ArrayRecordReader

        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        self.shape, self.dtype = tuple(about["shape"]), np.dtype(about["dtype"])
        options = "readahead_buffer_size:0,max_parallelism:0"  # for random access
        self._begins = about["begins"]
        self._readers = [ArrayRecordReader(str(folder / name), options=options) for name in about["files"]]
        counts = [reader.num_records() for reader in self._readers]
        fits = sum(counts) * math.prod(self.shape) * self.dtype.itemsize <= IN_MEMORY
        raw = (row for reader, n in zip(self._readers, counts, strict=True) for row in reader.read(0, n))
        self._all = self._arrays(raw, count=sum(counts)) if fits else None

    def read(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the features of clips.

        Args:
          places: int [b], places of the clips in the set.

        Returns:
          [b,T,D] (of several windows or views [b,V,T,D]) in the tower's dtype; and bool [b], False for a clip whose
          record is damaged, with zeros.
        """
        if self._all is not None:
            tokens, ok = self._all
            return tokens[places], ok[places]
        return self._arrays(map(self._stored, places.tolist()), count=len(places))

    def _stored(self, place: int) -> bytes:
        file = bisect.bisect_right(self._begins, place) - 1
        [raw] = self._readers[file].read([place - self._begins[file]])
        return raw

    def _arrays(self, stored: Iterable[bytes], *, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Return what `read` does, of the records of `count` clips; that of a damaged clip is empty."""
        tokens, ok = np.zeros((count, *self.shape), self.dtype), np.zeros(count, bool)
        for i, raw in enumerate(stored):
            if raw:
                tokens[i] = np.frombuffer(raw, self.dtype).reshape(self.shape)
                ok[i] = True
        return tokens, ok


def compute_features(
    clips: LabelledClips,
    *,
    context: "TaskContext",
    data: "DataOptions",
    batches: Callable[[LabelledClips, int], Iterator[Rows]],
    model: Any,
    root: Path,
) -> Features:
    """Compute the features of a set of clips, or open them if `root` has them.

    Each device computes its share, each process decodes its share. Files that an interrupted start has left are kept.

    Args:
      clips: the set.
      context: of the run.
      data: how the clips are shown; nothing in it is random.
      batches: (clips, batch size) -> this process's rows of batches with every clip once, in record order.
      model: its `video` tower computes the features, without dropout: those that its head sees.
      root: gets one folder for each set, whose name is a hash of all that the features depend on.

    Raises:
      UserError: a clip that cannot be read, or a full disk.
    """
    source = _sources(clips, context=context, data=data, model=model)
    folder = root / hashlib.sha256(json.dumps(source, sort_keys=True).encode()).hexdigest()[:16]
    if not everywhere((folder / ABOUT).is_file()):
        context.say(
            f"the tower is frozen: computing the features of {len(clips):,} clips of split {clips.split!r} once, into "
            f"{folder} (config.task.cache_features)"
        )
        size = rounded_up(data.feed.batch_size, mesh=context.mesh)
        _write(
            folder,
            source=source,
            indices=clips.indices,
            tokens=lambda indices: _tokens(batches(_only(clips, indices), size), model=model, context=context),
        )
        everywhere(True)  # no process reads before all have written
    return Features(folder)


def _sources(clips: LabelledClips, *, context: "TaskContext", data: "DataOptions", model: Any) -> dict[str, Any]:
    """Return what the features depend on, as JSON values."""
    spec, feed = data.input, data.feed
    return {
        "version": VERSION,
        "tower": dict(context.spec.towers["video"]),
        "parameters": _parameters_sha256(model.video),
        "records": _records_sha256(context.records.folder, split=clips.split),
        "clips": hashlib.sha256(clips.indices.astype("<i8").tobytes()).hexdigest(),
        "num_frames": spec.num_frames,
        "sampling": spec.eval_sampling,
        "preprocessing": spec.eval_video,
        "pixels": [list(spec.pixel_mean), list(spec.pixel_std)],
        "windows": feed.eval_clips,
        "window_seconds": feed.window_seconds,
        **({"patch_grid": grid} if (grid := getattr(model, "patch_grid", 0)) else {}),
    }


def _write(
    folder: Path,
    *,
    source: dict[str, Any],
    indices: np.ndarray,
    tokens: Callable[[np.ndarray], Iterator[np.ndarray | None]],
) -> None:
    """Compute and write the files that are missing, then `ABOUT`.

    `tokens` gives the features of records, one after another; None for a damaged one. All processes must call.
    """
    from ...data.prepare.shards import write_records

    # Which clips a file holds must not depend on batch size or devices: another start may complete the folder.
    begins = list(range(0, len(indices), CHUNK))
    parts = {f"{number:05d}.array_record": indices[begin : begin + CHUNK] for number, begin in enumerate(begins)}
    # Of a workdir behind a URL each process has a stage of its own; any other folder is one for all.
    own, shape, dtype = url_of(folder) is not None, (), ""
    writes = own or jax.process_index() == 0
    if writes:
        folder.mkdir(parents=True, exist_ok=True)
    found_by = of_all(np.array([[(folder / name).is_file() for name in parts]]))  # [processes, files]
    there = {name: all(one) if own else bool(one[0]) for name, one in zip(parts, found_by.T, strict=True)}
    # The first file is computed in any case: it tells the shape.
    missing = {name: part for number, (name, part) in enumerate(parts.items()) if not (number and there[name])}
    stream = tokens(np.concatenate(list(missing.values())))
    for name, part in missing.items():
        found = list(itertools.islice(stream, len(part)))
        real = next((row for row in found if row is not None), None)
        if len(found) != len(part) or (real is None and not shape):
            raise UserError(
                f"features of {sum(row is not None for row in found)} of {len(part)} clips could be computed; the "
                "records are damaged: prepare the data set again"
            )
        if real is not None:
            shape, dtype = real.shape, real.dtype.name
        if writes and not there[name]:
            write_records(folder / name, records=(b"" if row is None else row.tobytes() for row in found))
    if writes:
        about = {"shape": shape, "dtype": dtype, "files": list(parts), "begins": begins, "source": source}
        write_atomically(folder / ABOUT, text=json.dumps(about, indent=2) + "\n")


def _tokens(batches: Iterator[Rows], *, model: Any, context: "TaskContext") -> Iterator[np.ndarray | None]:
    """Yield the features of the clips of all processes' batches, in their order; None for a damaged record."""
    graph, state = nnx.split(model)
    state = placed_on(context.mesh, state)
    for batch in batches:
        several = batch["video"].ndim == 6
        views = batch["video"] if several else batch["video"][:, None]
        made: list[np.ndarray] = []
        got: Rows = {}
        for v in range(views.shape[1]):
            rows = {"video": np.ascontiguousarray(views[:, v])}
            rows |= {key: batch[key] for key in ("clip_index", "valid")}
            got = apply_to_rows(graph, state, rows, function=video_tokens, mesh=context.mesh)
            made.append(got["tokens"])
        tokens = np.stack(made, axis=1) if several else made[0]
        for index, valid, row in zip(got["clip_index"].tolist(), got["valid"].tolist(), tokens, strict=True):
            if index >= 0:
                yield row if valid else None


def _only(clips: LabelledClips, indices: np.ndarray) -> LabelledClips:
    label = np.full(len(clips.label), -1, np.int32)
    label[indices] = clips.label[indices]
    return LabelledClips(split=clips.split, labels=clips.labels, label=label)


def _parameters_sha256(tower: nnx.Module) -> str:
    digest = hashlib.sha256()
    for path, value in sorted(split_model(tower).items()):
        array = np.asarray(value)
        digest.update(f"{path} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _records_sha256(folder: str | os.PathLike[str], *, split: str) -> str:
    """Return a hash of the content of a split's records, from the hashes that `prepare` has computed of its files."""
    prepared = json.loads((Path(folder) / "prepare.json").read_text(encoding="utf-8"))
    found = sorted((shard["name"], shard["sha256"]) for shard in prepared["shards"] if shard["split"] == split)
    return hashlib.sha256(json.dumps(found).encode()).hexdigest()
