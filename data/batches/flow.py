"""From step numbers to batches: rows, then clips that are read, decoded and transformed, each row by one thread."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from ...base.errors import UserError
from ..machine import cores
from ..options import DataOptions
from ..tf_cpu import keep_freed_memory, tf
from ..transforms.threads import in_threads, new_batch
from .clip_graph import ClipGraph
from .order import Rows
from .partial import PartialRecord
from .reading import Reader, Wanted

ENDLESS = int(np.iinfo(np.int64).max)
TARGETS = ("window_s", "frame_times_s", "audio_start_s")  # fields of `Read` that batches bring on request
_ROW = {"source": tf.int32, "clip_index": tf.int64, "epoch": tf.int64, "valid": tf.bool, "caption": tf.int32}
_as_is = tf.autograph.experimental.do_not_convert  # the functions are graphs already; this halves the time for tracing


class Flow:
    """Makes batches from step numbers.

    Attributes:
      error: the first error inside the graph, if it is one of ours.
    """

    def __init__(
        self,
        reader: Reader,
        *,
        graph: ClipGraph,
        data: DataOptions,
        rows: Callable[[int], tuple[Rows, np.ndarray]],
        steps: tuple[int, int],
        targets: Sequence[str] = (),
    ):
        """Set up; nothing is read yet.

        Args:
          reader: reads rows.
          graph: decodes and transforms clips.
          data: `config.data`.
          rows: k -> the rows of batch k, and the numbers int32 [b,C] of their captions.
          steps: the first k, and the one after the last.
          targets: further fields of `Read` to put into the batches, of `TARGETS`.
        """
        self.error: UserError | None = None
        self._reader, self._graph, self._data = reader, graph, data
        self._rows, self._steps, self._targets = rows, steps, targets
        self._threads = data.feed.num_threads or cores()

    def encoded(self) -> Iterator[np.ndarray]:
        """Yield the drawn frames of each row, object [V*T] of bytes, undecoded; a damaged row is left out."""
        for k in range(*self._steps):
            rows, _ = self._rows(k)
            wanted = Wanted(source=rows.source, record=rows.record, epoch=rows.epoch)
            read, _ = self._reader.read(wanted)
            yield from read.encoded[read.ok]

    def at(self, k: int, *, part: slice) -> dict[str, np.ndarray]:
        """Return rows of batch k as `decoded` would bring them; in any order, from any thread."""
        rows, caption = self._rows(k)
        rows = Rows(*(column[part] for column in rows))
        wanted = Wanted(source=rows.source, record=rows.record, epoch=rows.epoch)
        batch = dict(zip(self._columns, self._clips(wanted), strict=True))
        columns = dict(zip(_ROW, (rows.source, rows.record, rows.epoch, rows.first, caption[part]), strict=True))
        ok = batch.pop("ok")
        return columns | batch | {"valid": rows.first & ok}

    def decoded(self) -> tf.data.Dataset:
        """Return a data set of batches as dicts: the fields of `Rows`, the window, video, sound and features."""
        keep_freed_memory()
        dataset = tf.data.Dataset.range(*self._steps).map(_as_is(self._rows_of), name="rows")
        # Two batches at once: while the last clips of one are decoded, no thread waits for the next.
        dataset = dataset.map(_as_is(self._clips_of), num_parallel_calls=2, deterministic=True, name="clips")
        dataset = dataset.prefetch(self._data.feed.prefetch)
        options = tf.data.Options()
        options.deterministic = True
        options.autotune.enabled = False  # the sizes are known
        options.threading.private_threadpool_size = 4  # these only wait for the threads that decode
        options.threading.max_intra_op_parallelism = 1
        return dataset.with_options(options)

    def _rows_of(self, k: tf.Tensor) -> dict[str, tf.Tensor]:
        columns = tf.numpy_function(self._rows_now, [k], list(_ROW.values()))
        row = dict(zip(_ROW, columns, strict=True))
        for name, column in row.items():
            column.set_shape([None, self._data.feed.captions_per_clip] if name == "caption" else [None])
        return row

    def _rows_now(self, k: np.int64) -> list[np.ndarray]:
        rows, caption = self._guarded(self._rows, int(k))
        return [rows.source, rows.record, rows.epoch, rows.first, caption]

    @property
    def _columns(self) -> dict[str, tuple[Any, list[int]]]:
        """NumPy type and shape per row of what is read and decoded."""
        graph = self._graph
        several = [graph.windows] if graph.windows > 1 else []
        columns: dict[str, tuple[Any, list[int]]] = {"window": (np.float32, [2]), "ok": (np.bool_, [])}
        if graph.num_frames:
            columns["video"] = (np.uint8, list(graph.shape))
            columns |= {"video_mask": (np.bool_, list(graph.shape[:-3]))} if graph.mask_frames else {}
        if graph.audio_samples:
            columns["audio"] = (np.int16, [*several, graph.audio_samples])
            columns |= {"audio_mask": (np.bool_, several), "audio_samples": (np.int32, several)}
        shapes = {"window_s": [2], "frame_times_s": [graph.num_frames], "audio_start_s": []}
        columns |= {name: (np.float32, [*several, *shapes[name]]) for name in self._targets}
        for name, n in self._data.feed.features.items():
            columns[f"features_{name}"] = (np.float32, [n, self._reader.width(name)])
            columns[f"features_{name}_mask"] = (np.bool_, [n])
        return columns

    def _clips_of(self, row: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        columns = self._columns
        types = [tf.as_dtype(dtype) for dtype, _ in columns.values()]
        made = tf.numpy_function(self._clips_now, [row["source"], row["clip_index"], row["epoch"]], types)
        for column, (_, shape) in zip(made, columns.values(), strict=True):
            column.set_shape([None, *shape])
        batch = row | dict(zip(columns, made, strict=True))
        return batch | {"valid": batch["valid"] & batch.pop("ok")}

    def _clips_now(self, *wanted: np.ndarray) -> list[np.ndarray]:
        return self._guarded(self._clips, Wanted(*wanted))

    def _clips(self, wanted: Wanted) -> list[np.ndarray]:
        """Read, decode and transform the rows, each in one of the threads; it does not matter in which."""
        count = len(wanted.record)
        batch = {name: new_batch((count, *shape), dtype=dtype) for name, (dtype, shape) in self._columns.items()}
        fetched = self._reader.fetch(wanted)
        fill = lambda i: self._clip(wanted, i, batch=batch, fetched=fetched[i : i + 1])  # noqa: E731
        in_threads(fill, count=count, threads=self._threads)
        return list(batch.values())

    def _clip(
        self, wanted: Wanted, i: int, *, batch: dict[str, np.ndarray], fetched: "list[PartialRecord | None]"
    ) -> None:
        """Fill row i."""
        mine = Wanted(*(column[i : i + 1] for column in wanted))
        read, features = self._reader.read(mine, fetched=fetched)
        found = read._asdict() | features
        for name in batch.keys() - {"video"}:
            batch[name][i] = found[name][0]
        if "video" not in batch:
            return
        if batch["ok"][i]:
            size = {"height": int(read.height[0]), "width": int(read.width[0])}
            try:
                self._graph.decode(read.encoded[0], **size, uniforms=read.uniforms[0], out=batch["video"][i])
            except ValueError as error:
                self._reader.reject(int(mine.source[0]), int(mine.record[0]), reason=error)
                batch["ok"][i] = False
        if not batch["ok"][i]:
            batch["video"][i] = 0

    def _guarded(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call; tf.data would turn the error into text, so keep it."""
        try:
            return function(*args, **kwargs)
        except UserError as error:
            self.error = self.error or error
            raise
