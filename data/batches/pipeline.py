"""Prepared records to batches (design, sections 2.3 and 2.4): a batch is a pure function of data, seed and step."""

import atexit
import functools
import itertools
import os
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from ...configs.errors import UserError, unknown
from ..options import ClipData
from ..text.clean import text_cleaner
from ..text.tokenizer import Tokenizer
from ..tf_cpu import keep_freed_memory, tf
from .captions import TokenizedCaptions
from .clip_graph import ClipGraph, uniforms_of
from .order import Rows, make_order
from .records import Records, damaged_record, parse_example, pick

__all__ = ["Batches", "ClipData", "cores", "encode_frames", "eval_batches", "make_tokenizer", "train_batches"]

_READ_AT_ONCE = 32  # records per call into Python; more would only take memory
_as_is = tf.autograph.experimental.do_not_convert  # the functions are graphs already: tracing takes half the time


class _Facts(NamedTuple):
    """What clips.jsonl says of a record, int32 scalars; height and width in pixels."""

    num_captions: tf.Tensor
    num_frames: tf.Tensor
    height: tf.Tensor
    width: tf.Tensor


class _Chosen(NamedTuple):
    """All that is random about a row, drawn before anything is read.

    `record` int64, `first` bool (see `Rows`), `caption` int32 (-1 = none), `frames` int32 [T], `window_start` int32 (a
    frame), `uniforms` float32 [draws].
    """

    record: tf.Tensor
    first: tf.Tensor
    caption: tf.Tensor
    frames: tf.Tensor
    window_start: tf.Tensor
    uniforms: tf.Tensor


def train_batches(
    data: ClipData,
    *,
    tokenizer: Tokenizer,
    seed: int,
    start_step: int,
    process_index: int = 0,
    process_count: int = 1,
    label_names: Sequence[str] | None = None,
) -> "Batches":
    """Yield this process's rows of the global batches `start_step`, `start_step + 1`, ... without end.

    Global batch k is a pure function of `(data, seed, k)`: it does not depend on `start_step` or on the number of
    processes. Where a batch spans the end of an epoch, a record may come twice; its second row is not valid.

    Args:
      data: `config.data`.
      tokenizer: turns captions into ids.
      seed: of the run, 0 to 2**31 - 1.
      start_step: number of the first batch.
      process_index: p of P: rows p * B / P to (p + 1) * B / P.
      process_count: P.
      label_names: gives the batch a `label`: the place of the record's first label in this list; -1 (and not valid) if
        it is not in it.

    Returns:
      An iterator of batches: `video uint8 [b,T,H,W,3]`, `text int32 [b,L]`, `text_mask bool [b,L]`, `valid bool [b]`,
      `clip_index int64 [b]` (record in the split), `caption_index int32 [b]` (-1 = the record has none), with
      `audio_seconds` also `audio int16 [b,S]`, `audio_mask bool [b]`, with `label_names` also `label int32 [b]`.

    Raises:
      UserError: a fault in the folder or the options, before any record is read; or a damaged record.
    """
    graph = ClipGraph.of(data, train=True)
    split = _Split(data, split=data.train_split, field="config.data.train_split", tokenizer=tokenizer, graph=graph)
    order = make_order(
        [row["group"] for row in split.rows],
        group_size=data.group_size,
        batch_size=data.batch_size,
        seed=seed,
        process_index=process_index,
        process_count=process_count,
    )
    rows = tf.data.Dataset.range(start_step, np.iinfo(np.int64).max).map(order.rows)

    def choose(this: Rows) -> _Chosen:
        facts = split.facts(this.record)
        uniforms = uniforms_of(seed=seed, epoch=this.epoch, record=this.record, count=graph.draws)
        drawn = graph.draw(num_available=facts.num_frames, uniforms=uniforms)
        caption = graph.choose_caption(uniforms, count=facts.num_captions)
        return _Chosen(this.record, this.first, caption, drawn.frames, drawn.window_start, uniforms)

    return Batches(
        split,
        encoded=split.encoded(rows, choose=choose),
        batch_size=order.num_rows,
        labels=split.labels(label_names),
        records_of=lambda k: order.rows(tf.constant(start_step + k, tf.int64)).record.numpy(),
    )


def eval_batches(
    data: ClipData,
    *,
    tokenizer: Tokenizer,
    split: str,
    batch_size: int,
    shuffle_frames_seed: int | None = None,
    label_names: Sequence[str] | None = None,
) -> "Batches":
    """Yield every clip of a split once, in record order, with the `eval_*` options and its first caption.

    The last batch is padded: rows with `valid` False, `clip_index` -1, black frames and the empty caption.

    Args:
      data: `config.data`; `eval_sampling` and `eval_video` apply.
      tokenizer: turns captions into ids.
      split: name of the split.
      batch_size: rows of a batch.
      shuffle_frames_seed: permute the T frames of each clip, at random but the same at every call with this seed.
      label_names: as in `train_batches`.

    Returns:
      An iterator of batches as in `train_batches`.

    Raises:
      UserError: a fault in the folder or the options, before any record is read; or a damaged record.
    """
    if batch_size < 1:
        raise UserError(f"batch_size={batch_size} must be at least 1")
    graph = ClipGraph.of(data, train=False)
    opened = _Split(data, split=split, field="split", tokenizer=tokenizer, graph=graph)
    indices = tf.data.Dataset.range(len(opened.rows)).batch(_READ_AT_ONCE)
    rows = indices.map(lambda i: Rows(record=i, epoch=tf.zeros_like(i), first=tf.ones_like(i, tf.bool)))

    def choose(this: Rows) -> _Chosen:
        facts = opened.facts(this.record)
        uniforms = tf.zeros([graph.draws])
        drawn = graph.draw(num_available=facts.num_frames, uniforms=uniforms)
        frames = drawn.frames
        if shuffle_frames_seed is not None:
            key = tf.stack([tf.constant(shuffle_frames_seed, tf.int64), this.record])
            frames = tf.random.experimental.stateless_shuffle(frames, seed=key)  # pyright: ignore
        caption = tf.minimum(facts.num_captions, 1) - 1
        return _Chosen(this.record, this.first, caption, frames, drawn.window_start, uniforms)

    return Batches(
        opened,
        encoded=opened.encoded(rows, choose=choose),
        batch_size=batch_size,
        labels=opened.labels(label_names),
        records_of=lambda k: np.arange(k * batch_size, min((k + 1) * batch_size, len(opened.rows))),
        pad=True,
    )


def make_tokenizer(data: ClipData) -> Tokenizer:
    """Make the tokenizer that `config.data.tokenizer` names: train it on the train captions, or load its file."""
    if data.tokenizer != "train":
        return Tokenizer.load(data.tokenizer)
    clean = text_cleaner(data.text)
    rows = Records(data.dir).rows(data.train_split)
    return Tokenizer.train((clean(c) for row in rows for c in row["captions"]), vocab_size=data.vocab_size)


def encode_frames(data: ClipData, clip: Any) -> np.ndarray:
    """Draw, decode and transform the frames of one decoded clip exactly as evaluation does.

    Args:
      data: `eval_sampling`, `eval_video` and `num_frames` apply.
      clip: a `decode.DecodedClip`: JPEG frames and their height and width.

    Returns:
      uint8 [T,H,W,3].

    Raises:
      UserError: the frames are too small for a crop.
    """
    graph, function = _frames_function(data)
    graph.transform.check(height=clip.height, width=clip.width, example="the given clip")
    return function(tf.constant(clip.jpegs), tf.constant(clip.height), tf.constant(clip.width)).numpy()


@functools.lru_cache(maxsize=8)
def _frames_function(data: ClipData) -> tuple[ClipGraph, Callable[..., tf.Tensor]]:
    graph = ClipGraph.of(data, train=False)
    return graph, graph.frames_function()


class Batches(Iterator[dict[str, np.ndarray]]):
    """An iterator of batches.

    Attributes:
      captions: the tokenized captions of the split; `captions.truncated` of `captions.total` were cut.
    """

    def __init__(
        self,
        split: "_Split",
        *,
        encoded: tf.data.Dataset,
        batch_size: int,
        labels: np.ndarray | None,
        records_of: Callable[[int], np.ndarray],
        pad: bool = False,
    ):
        self.captions = split.captions
        self._split, self._labels, self._records_of = split, labels, records_of
        self._pad_to = batch_size if pad else 0
        self._encoded = encoded
        dataset = split.decoded(encoded, batch_size=batch_size)
        self._iterator: Iterator[Any] | None = dataset.as_numpy_iterator()
        self._given = 0
        _OPEN.add(self)

    def close(self) -> None:
        """Stop reading ahead and give the buffers back; there is no next batch."""
        self._iterator = None

    def encoded_frames(self) -> Iterator[list[bytes]]:
        """Yield the T JPEG files of each clip from the first batch on, undecoded: for measurements."""
        for jpegs, _, _ in self._encoded.as_numpy_iterator():
            yield jpegs.tolist()

    def __next__(self) -> dict[str, np.ndarray]:
        if self._iterator is None:
            raise StopIteration
        try:
            batch: dict[str, np.ndarray] = next(self._iterator)
        except tf.errors.OpError as error:
            raise self._explain(error) from error
        self._given += 1
        return _pad(self._with_text(batch), size=self._pad_to)

    def _with_text(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Add text and label, and take the validity of both into account."""
        record, caption = batch["clip_index"], batch["caption_index"]
        batch["text"], batch["text_mask"] = self.captions.lookup(record, caption)
        if self._labels is None:
            batch["valid"] = batch["valid"] & (caption >= 0)
        else:
            batch["label"] = self._labels[record]
            batch["valid"] = batch["valid"] & (batch["label"] >= 0)
        return batch

    def _explain(self, error: Exception) -> Exception:
        """Find the record over which the batch failed: read, parse and decode them one by one."""
        rows, ahead = 0, _READ_AT_ONCE * 2  # records are read ahead of the batch that is being made
        for k in itertools.count(self._given):
            indices = self._records_of(k).tolist()
            for index in indices:
                self._split.check_record(index)
            rows += len(indices)
            if not indices or rows > ahead:
                return error
        raise AssertionError


_OPEN: "weakref.WeakSet[Batches]" = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """Stop the threads that read ahead: one that enters Python while the interpreter ends would abort the process."""
    for batches in list(_OPEN):
        batches.close()


class _Split:
    """An opened split and what its batches are made of."""

    def __init__(self, data: ClipData, *, split: str, field: str, tokenizer: Tokenizer, graph: ClipGraph):
        self._records, self._name, self._data, self._graph = Records(data.dir), split, data, graph
        if split not in self._records.splits:
            raise unknown(f"split ({field}) in {data.dir!r}:", split, self._records.splits)
        self.rows = self._records.rows(split)
        sizes = {(row["height"], row["width"]): row["clip_id"] for row in self.rows}
        for (height, width), clip_id in sorted(sizes.items()):
            graph.transform.check(height=height, width=width, example=f"clip {clip_id!r}")
        self.captions = TokenizedCaptions(
            self.rows, tokenizer=tokenizer, context_length=data.context_length, clean=text_cleaner(data.text)
        )
        facts = [
            (count, row["num_frames"], row["height"], row["width"])
            for count, row in zip(self.captions.counts, self.rows, strict=True)
        ]
        # Eager, so that tf.data takes the table as an input; a constant would be copied into each graph.
        self._facts = tf.constant(np.asarray(facts, np.int32))

    def facts(self, record: tf.Tensor) -> _Facts:
        """Look a record (int64 scalar) up, in a graph."""
        return _Facts(*tf.unstack(tf.gather(self._facts, record), num=4))

    def labels(self, names: Sequence[str] | None) -> np.ndarray | None:
        """Return int32 [n]: the place of each record's first label in `names`, -1 if it is not there."""
        if names is None:
            return None
        place = {name: i for i, name in enumerate(names)}
        return np.array([place.get(row["labels"][0], -1) if row["labels"] else -1 for row in self.rows], np.int32)

    def encoded(self, rows: tf.data.Dataset, *, choose: Callable[[Rows], _Chosen]) -> tf.data.Dataset:
        """Return a data set of clips: (T drawn JPEG files, raw sound, what was chosen).

        Args:
          rows: `Rows`, in batches of any size.
          choose: draws everything random of one row.
        """
        # One call into Python for many records. The next ones are read while the present ones are decoded.
        chosen = rows.unbatch().map(_as_is(choose), name="choose").batch(_READ_AT_ONCE)
        return chosen.map(_as_is(self._read), name="read").prefetch(1).unbatch()

    def decoded(self, encoded: tf.data.Dataset, *, batch_size: int) -> tf.data.Dataset:
        """Decode and transform the clips and make batches of them."""
        keep_freed_memory()
        threads = self._data.num_threads or cores()
        dataset = encoded.map(_as_is(self._decode), num_parallel_calls=threads, deterministic=True, name="decode")
        dataset = dataset.batch(batch_size).prefetch(self._data.prefetch)
        options = tf.data.Options()
        options.deterministic = True
        options.autotune.enabled = False  # the sizes are known: as many decoders as cores, each with one thread
        options.threading.private_threadpool_size = threads
        options.threading.max_intra_op_parallelism = 1
        return dataset.with_options(options)

    def _read(self, chosen: _Chosen) -> tuple[tf.Tensor, tf.Tensor, _Chosen]:
        where = [chosen.record, chosen.frames, chosen.window_start]
        jpegs, sound = tf.numpy_function(self._read_now, where, [tf.string, tf.string])
        return tf.ensure_shape(jpegs, [None, self._graph.num_frames]), tf.ensure_shape(sound, [None]), chosen

    def _read_now(self, record: np.ndarray, frames: np.ndarray, start: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        jpegs, sound = np.empty(frames.shape, object), np.empty(len(record), object)
        for i, serialized in enumerate(self._records.read(self._name, record.tolist())):
            jpegs[i], sound[i] = pick(
                serialized, frames=frames[i].tolist(), window_start=int(start[i]), samples=self._graph.audio_samples
            )
        return jpegs, sound

    def _decode(self, jpegs: tf.Tensor, sound: tf.Tensor, chosen: _Chosen) -> dict[str, tf.Tensor]:
        facts = self.facts(chosen.record)
        video = self._graph.pixels(jpegs, height=facts.height, width=facts.width, uniforms=chosen.uniforms)
        row = {"video": video, "valid": chosen.first, "clip_index": chosen.record, "caption_index": chosen.caption}
        return row | (self._graph.sound(sound) if self._graph.audio_samples else {})

    def check_record(self, index: int) -> None:
        """Read, parse and decode all of a record.

        Raises:
          UserError: it is damaged; split and index are named.
        """
        [serialized] = self._records.read(self._name, [index])
        row = self.rows[index]
        size = [row["height"], row["width"], 3]
        try:
            frames = parse_example(tf.constant(serialized))["frames"]
            if len(frames) != row["num_frames"]:
                raise damaged_record(self._name, index, f"{len(frames)} frames instead of {row['num_frames']}")
            for jpeg in frames:
                if (got := tf.io.decode_jpeg(jpeg, channels=3).shape.as_list()) != size:
                    raise damaged_record(self._name, index, f"a frame of {got[:2]} instead of {size[:2]} pixels")
        except tf.errors.OpError as error:
            raise damaged_record(self._name, index, error.message.splitlines()[0]) from error


def _pad(batch: dict[str, np.ndarray], *, size: int) -> dict[str, np.ndarray]:
    """Fill a batch up to `size` rows with rows that are not valid; their text is the last row's: no mask is empty."""
    missing = size - len(batch["valid"])
    if missing <= 0:
        return batch
    padded = {k: np.concatenate([v, np.zeros((missing, *v.shape[1:]), v.dtype)]) for k, v in batch.items()}
    padded["clip_index"][-missing:] = -1
    for key in ("text", "text_mask"):
        padded[key][-missing:] = batch[key][-1]
    return padded


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
