"""The tf.data graph from step numbers to batches: rows, encoded clips, decoded clips."""

import os
from collections.abc import Callable
from typing import Any

import numpy as np

from ...configs.errors import UserError
from ..options import ClipData
from ..tf_cpu import keep_freed_memory, tf
from .clip_graph import ClipGraph
from .order import Rows
from .reading import Reader, Wanted

READ_AT_ONCE = 32  # records per call into Python; more would only take memory
ENDLESS = int(np.iinfo(np.int64).max)
_ROW = {"source": tf.int32, "clip_index": tf.int64, "epoch": tf.int64, "valid": tf.bool, "caption": tf.int32}
_READ = {
    **{"window": tf.float32, "uniforms": tf.float32, "ok": tf.bool},
    **{"jpegs": tf.string, "height": tf.int32, "width": tf.int32},
    **{"audio": tf.int16, "audio_mask": tf.bool},
}
_as_is = tf.autograph.experimental.do_not_convert  # the functions are graphs already: tracing takes half the time


class Flow:
    """Where batches come from.

    Attributes:
      error: what went wrong inside the graph, if that is known.
    """

    def __init__(
        self,
        reader: Reader,
        *,
        graph: ClipGraph,
        data: ClipData,
        rows: Callable[[int], tuple[Rows, np.ndarray]],
        steps: tuple[int, int],
        shuffle_frames_seed: int | None,
    ):
        """Set up; nothing is read yet.

        Args:
          reader: reads rows.
          graph: decodes and transforms clips.
          data: `config.data`.
          rows: k -> the rows of batch k, and the numbers int32 [b,C] of their captions.
          steps: the first k, and the one after the last.
          shuffle_frames_seed: puts the frames of each clip in a random order.
        """
        self.error: UserError | None = None
        self._reader, self._graph, self._data = reader, graph, data
        self._rows, self._steps, self._shuffle = rows, steps, shuffle_frames_seed

    def encoded(self) -> tf.data.Dataset:
        """Return a data set of rows as dicts: the fields of `Rows` and `Read`, the caption and the features."""
        rows = tf.data.Dataset.range(*self._steps).map(_as_is(self._rows_of), name="rows").unbatch()
        # One call into Python for many records. The next ones are read while the present ones are decoded.
        return rows.batch(READ_AT_ONCE).map(_as_is(self._read), name="read").prefetch(1).unbatch()

    def decoded(self, *, batch_size: int) -> tf.data.Dataset:
        """Decode and transform the clips and make batches of them."""
        keep_freed_memory()
        dataset = self.encoded().batch(batch_size)
        # Two batches at once: while the last clips of one are decoded, no thread waits for the next.
        dataset = dataset.map(_as_is(self._decode), num_parallel_calls=2, deterministic=True, name="decode")
        dataset = dataset.prefetch(self._data.prefetch)
        options = tf.data.Options()
        options.deterministic = True
        options.autotune.enabled = False  # the sizes are known
        options.threading.private_threadpool_size = 4  # these only wait for the decoding threads
        options.threading.max_intra_op_parallelism = 1
        return dataset.with_options(options)

    def _rows_of(self, k: tf.Tensor) -> dict[str, tf.Tensor]:
        columns = tf.numpy_function(self._rows_now, [k], list(_ROW.values()))
        row = dict(zip(_ROW, columns, strict=True))
        for name, column in row.items():
            column.set_shape([None, self._data.captions_per_clip] if name == "caption" else [None])
        return row

    def _rows_now(self, k: np.int64) -> list[np.ndarray]:
        rows, caption = self._guarded(self._rows, int(k))
        return [rows.source, rows.record, rows.epoch, rows.first, caption]

    @property
    def _columns(self) -> dict[str, tuple[tf.DType, list[int]]]:
        """Type and shape per row of what is read. Not what has no elements: such tensors crash `unbatch` (TF 2.21)."""
        graph = self._graph
        shapes = {
            "jpegs": [graph.windows * graph.num_frames],
            "uniforms": [graph.draws],
            "window": [2],
            "audio": [graph.audio_samples],
        }
        left_out = [] if graph.num_frames else ["jpegs", "height", "width"]
        left_out += [] if graph.audio_samples else ["audio", "audio_mask"]
        columns = {name: (dtype, shapes.get(name, [])) for name, dtype in _READ.items() if name not in left_out}
        for name, n in self._data.features.items():
            columns[f"features_{name}"] = (tf.float32, [n, self._reader.width(name)])
            columns[f"features_{name}_mask"] = (tf.bool, [n])
        return columns

    def _read(self, row: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        columns = self._columns
        types = [dtype for dtype, _ in columns.values()]
        read = tf.numpy_function(self._read_now, [row["source"], row["clip_index"], row["epoch"]], types)
        for column, (_, shape) in zip(read, columns.values(), strict=True):
            column.set_shape([None, *shape])
        return row | dict(zip(columns, read, strict=True))

    def _read_now(self, *wanted: np.ndarray) -> list[np.ndarray]:
        read, features = self._guarded(self._reader.read, Wanted(*wanted), shuffle_frames_seed=self._shuffle)
        found = read._asdict() | features
        return [found[name] for name in self._columns]

    def _decode(self, row: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Decode and transform the clips of a batch."""
        ok, uniforms = row.pop("ok"), row.pop("uniforms")
        row = row | {"valid": row["valid"] & ok}
        if self._graph.num_frames:
            threads = self._data.num_threads or cores()
            files = (row.pop("jpegs"), row.pop("height"), row.pop("width"), uniforms)
            row["video"] = self._graph.pixels_of_rows(*files, threads=threads)
        return row

    def _guarded(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call; tf.data would turn the error into text, so keep it."""
        try:
            return function(*args, **kwargs)
        except UserError as error:
            self.error = self.error or error
            raise


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
