"""Prepared records to batches: a batch is a pure function of data, seed and step."""

import atexit
import functools
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from ...base.errors import UserError
from ..index.columns import SAMPLE
from ..options import DataOptions
from ..text.clean import text_cleaner
from ..text.pieces import SentencePieceTokenizer
from ..text.tokenizer import Tokenizer, load_tokenizer
from ..tf_cpu import tf
from .ahead import Ahead
from .clip_graph import ClipGraph
from .flow import ENDLESS, Flow
from .order import Order, Rows
from .reading import Reader
from .records import Records
from .run_order import describe, make_run_order
from .share import only_of_share
from .source import Source, open_sources
from .targets import Drawn, TargetMaker, Targets
from .texts import Chosen, Texts, texts_of

__all__ = ["Batches", "eval_batches", "make_tokenizer", "train_batches"]
_REMEMBERED = 8  # batches whose rows are worked out once, where single rows are asked for


def train_batches(
    data: DataOptions,
    *,
    tokenizer: Tokenizer,
    seed: int,
    start_step: int,
    process_index: int = 0,
    process_count: int = 1,
    label_names: Sequence[str] | None = None,
    targets: Targets | None = None,
    only: np.ndarray | None = None,
    in_order: bool = True,
    bags: bool = False,
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
        it is not in it. (): no label, and clips without a caption take part, too, which else are not valid.
      targets: what else the batches bring, see `targets.Targets`.
      only: int [m], the records that take part, where not all do (one source).
      in_order: False = the batches are for `Batches.at` alone: nothing is read ahead, and there is nothing to iterate.
      bags: whether a clip may be a bag of windows: with `train_clips` V above 1 `video` is [b,V,T,H,W,3].

    Returns:
      An iterator of batches: `video uint8 [b,T,H,W,3]`, `text int32 [b,L]`, `text_mask bool [b,L]`, `valid bool [b]`,
      `clip_index int64 [b]` (record in its split), `caption_index int32 [b]` (-1 = the record has none), with
      `mask_frames` also `video_mask bool [b,T]`, with `audio_seconds` also `audio int16 [b,S]`, `audio_mask bool [b]`,
      with `label_names` also `label int32 [b]`, with
      a mixture `source int32 [b]`, with `features` also `features_NAME float32 [b,n,D]`, `features_NAME_mask bool
      [b,n]`; with `captions_per_clip` C the texts are [b,C,L] and `caption_index` [b,C]; with `foils_per_clip` n also
      `foil int32 [b,n,L]`, `foil_mask bool [b,n,L]`, `foil_valid bool [b,n]`.

    Raises:
      UserError: a fault in the folder or the options, before any record is read; or too many damaged records.
    """
    if data.feed.train_clips > 1 and not bags:
        raise UserError(
            f"config.data.train_clips={data.feed.train_clips} makes a bag of windows of each clip, for tasks such as "
            "'anomaly'; set it to 1"
        )
    graph = ClipGraph.of(data, train=True)
    sources = open_sources(data)
    texts = Texts([source.rows for source in sources], data=data, tokenizer=tokenizer, seed=seed)
    only = only_of_share(data, sources=sources, seed=seed, only=only)
    order = make_run_order(data, sources=sources, seed=seed, process_count=process_count, only=only)
    table = None if only is None else np.asarray(only, np.int64)
    share = order.batch_size // process_count
    part = slice(process_index * share, (process_index + 1) * share)
    over_blocks = not isinstance(order, Order)
    ahead = Ahead(order, sources=sources, rows=part, data=data) if over_blocks and in_order else None

    def rows(k: int) -> tuple[Rows, np.ndarray]:
        if ahead is not None:
            ahead.begin(k)
        found = order.rows(k)
        if table is not None:
            found = found._replace(record=table[found.record])
        mine = Rows(*(column[part] for column in found))
        if not data.feed.unique_captions:
            return mine, texts.choose(mine.source, record=mine.record, epoch=mine.epoch)
        captions = texts.choose(found.source, record=found.record, epoch=found.epoch)
        captions = np.where(found.first[:, None], captions, -1)
        return mine, texts.let_each_stand_once(found.source, record=found.record, caption=captions)[part]

    return Batches(
        rows=rows if in_order else functools.lru_cache(maxsize=_REMEMBERED)(rows),
        steps=(start_step, ENDLESS),
        graph=graph,
        reader=Reader(sources, data=data, graph=graph, seed=seed, all_shards=not over_blocks),
        texts=texts,
        data=data,
        labels=_labels(sources, label_names),
        targets=_maker(sources, targets=targets, data=data, tokenizer=tokenizer, seed=seed),
        batch_size=share,
        ahead=ahead,
        in_order=in_order,
        order=describe(order, sources=sources),
        facts=lambda step: {
            f"epoch/{name}" if data.feed.mixture else "epoch": epochs for name, epochs in order.epochs(step).items()
        },
    )


def eval_batches(
    data: DataOptions,
    *,
    tokenizer: Tokenizer,
    split: str,
    batch_size: int,
    process_index: int = 0,
    process_count: int = 1,
    label_names: Sequence[str] | None = None,
    targets: Targets | None = None,
    only: np.ndarray | None = None,
    records: Records | None = None,
) -> "Batches":
    """Yield this process's rows of global batches that hold every clip of a split once, in record order.

    The `eval_*` options apply, and each clip has its first caption. The last batch is padded: rows with `valid` False,
    `clip_index` -1, black frames and the empty caption.

    Args:
      data: `config.data`; `eval_sampling` and `eval_video` apply.
      tokenizer: turns captions into ids.
      split: name of the split.
      batch_size: rows B of a global batch, a multiple of P.
      process_index: p of P: rows p * B / P to (p + 1) * B / P.
      process_count: P.
      label_names: as in `train_batches`.
      targets: likewise.
      only: int [m], the records that take part, rising; None = all.
      records: `config.data.dir`, opened; None = it is opened here.

    Returns:
      An iterator of batches as in `train_batches`; with `eval_clips` V above 1 `video` is [b,V,T,H,W,3].

    Raises:
      UserError: a fault in the folder or the options, before any record is read; or a damaged record.
    """
    if batch_size < 1 or batch_size % process_count:
        raise UserError(f"batch_size={batch_size} must be a multiple of the {process_count} processes, at least 1 each")
    graph = ClipGraph.of(data, train=False)
    share = batch_size // process_count
    sources = [Source(data.feed.dir, split=split, field="split", data=data, records=records)]
    texts = Texts([source.rows for source in sources], data=data, tokenizer=tokenizer, seed=-1)
    chosen = np.arange(len(sources[0].rows)) if only is None else np.asarray(only, np.int64)

    def rows(k: int) -> tuple[Rows, np.ndarray]:
        begin = k * batch_size + process_index * share
        record = chosen[begin : begin + share]
        same = {"source": np.zeros(len(record), np.int32), "epoch": np.zeros(len(record), np.int64)}
        found = Rows(record=record, first=np.ones(len(record), bool), **same)
        return found, texts.choose(found.source, record=found.record, epoch=found.epoch)

    return Batches(
        rows=rows,
        steps=(0, -(-len(chosen) // batch_size)),
        graph=graph,
        reader=Reader(sources, data=data, graph=graph, seed=-1),
        texts=texts,
        data=data,
        labels=_labels(sources, label_names),
        targets=_maker(sources, targets=targets, data=data, tokenizer=tokenizer, seed=-1),
        batch_size=share,
        pad=True,
    )


def make_tokenizer(data: DataOptions) -> Tokenizer:
    """Make the tokenizer that `config.data.tokenizer` names: load its file, or train it.

    It is trained on the texts of all train records, or of an even sample of `SAMPLE` if they are more.
    """
    if data.feed.tokenizer != "train":
        return load_tokenizer(data.feed.tokenizer)
    clean = text_cleaner(data.input.text)
    sources = open_sources(data)
    texts = (
        text
        for source in sources
        for row in source.rows.sample(SAMPLE // len(sources))
        for text in texts_of(row, data.feed.text_from)
    )
    return SentencePieceTokenizer.train(map(clean, texts), vocab_size=data.feed.vocab_size)


class Batches(Iterator[dict[str, np.ndarray]]):
    """An iterator of batches.

    Attributes:
      texts: the texts of the split; `texts.lengths` says how many are cut.
      order: how the records are ordered, in words; "" in evaluation.
    """

    def __init__(
        self,
        *,
        rows: Callable[[int], tuple[Rows, np.ndarray]],
        steps: tuple[int, int],
        graph: ClipGraph,
        reader: Reader,
        texts: Texts,
        data: DataOptions,
        labels: Sequence[np.ndarray] | None,
        targets: TargetMaker | None,
        batch_size: int,
        facts: Callable[[int], dict[str, float]] | None = None,
        pad: bool = False,
        ahead: Ahead | None = None,
        in_order: bool = True,
        order: str = "",
    ):
        """Begin to read ahead, if that is wanted.

        Args:
          rows: k -> the rows of batch k, and the numbers int32 [b,C] of their captions.
          steps: the first k, and the one after the last.
          graph: decodes and transforms clips.
          reader: reads rows.
          texts: gives them texts.
          data: `config.data`.
          labels: by source, int32 [c], the class of each label of its index, -1 = none; None for batches without.
          targets: makes what a task asks for besides; None = nothing.
          batch_size: rows of a batch.
          facts: step -> what is worth logging.
          pad: whether the last batch is filled up.
          ahead: fetches what lies behind a URL; `rows` announces the batches to it.
          in_order: whether there are batches to iterate over; else nothing is read ahead.
          order: how the records are ordered, in words.
        """
        self.texts, self.order, self._ahead = texts, order, ahead
        self._reader, self._data, self._labels, self._facts = reader, data, labels, facts
        self._targets, self._pad_to = targets, batch_size if pad else 0
        times = targets.times if targets is not None else ()
        self._flow = Flow(reader, graph=graph, data=data, rows=rows, steps=steps, targets=times)
        self._iterator: Iterator[Any] | None = self._flow.decoded().as_numpy_iterator() if in_order else None
        self._given = 0
        _OPEN.add(self)

    def close(self) -> None:
        """Stop reading ahead and give the buffers back; there is no next batch."""
        self._iterator = None
        if self._ahead is not None:
            self._ahead.close()

    def facts(self, step: int) -> dict[str, float]:
        """Return what is worth logging when `step` batches of the run are done: epochs of each source, damage met."""
        found = self._facts(step) if self._facts else {}
        return found | ({"damaged_records": float(len(self._reader.bad))} if self._reader.bad else {})

    def encoded_frames(self) -> Iterator[list[bytes]]:
        """Yield the T drawn frames of each clip from the first batch on, undecoded: for measurements."""
        for encoded in self._flow.encoded():
            yield encoded.tolist()

    def at(self, k: int, *, part: slice) -> dict[str, np.ndarray]:
        """Return some rows of batch k of this process, whichever were asked for before; any thread may call.

        Args:
          k: number of the batch.
          part: which of its rows.

        Raises:
          UserError: too many damaged records.
        """
        return self._finished(self._flow.at(k, part=part))

    def __next__(self) -> dict[str, np.ndarray]:
        if self._iterator is None:
            raise StopIteration
        try:
            batch: dict[str, np.ndarray] = next(self._iterator)
        except tf.errors.OpError as error:
            raise self._flow.error or error from error
        self._given += 1
        return _pad(self._finished(batch), size=self._pad_to)

    def _finished(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Add text and label, and take the validity of both into account."""
        source, epoch, window = batch.pop("source"), batch.pop("epoch"), batch.pop("window")
        record, caption = batch["clip_index"], batch.pop("caption")
        batch |= self.texts.encode(Chosen(source=source, record=record, epoch=epoch, caption=caption, window=window))
        if self._targets is not None:
            index = batch["caption_index"]
            drawn = Drawn(source=source, record=record, epoch=epoch, caption=index, window=window)
            batch |= self._targets.make(drawn)
        if self._data.feed.mixture:
            batch["source"] = source
        if self._labels == []:
            return batch
        if self._labels is None:
            index = batch["caption_index"]
            batch["valid"] = batch["valid"] & ((index if index.ndim == 1 else index[:, 0]) >= 0)
        else:
            batch["label"] = self._reader.labels(source, record=record, classes=self._labels)
            batch["valid"] = batch["valid"] & (batch["label"] >= 0)
        return batch


_OPEN: "weakref.WeakSet[Batches]" = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """Stop the threads that read ahead: one that enters Python while the interpreter ends would abort the process."""
    for batches in list(_OPEN):
        batches.close()


def _maker(
    sources: Sequence[Source], *, targets: Targets | None, data: DataOptions, tokenizer: Tokenizer, seed: int
) -> TargetMaker | None:
    if targets is None:
        return None
    rows = [source.rows for source in sources]
    return TargetMaker(rows, targets=targets, tokenizer=tokenizer, text=data.input.text, seed=seed)


def _labels(sources: Sequence[Source], names: Sequence[str] | None) -> list[np.ndarray] | None:
    """Return by source int32 [c]: the place in `names` of each label of its index, -1 if it is not there; [] of ()."""
    if names is None or not names:
        return None if names is None else []
    place = {name: i for i, name in enumerate(names)}
    return [np.array([place.get(name, -1) for name in source.rows.summary.labels], np.int32) for source in sources]


def _pad(batch: dict[str, np.ndarray], *, size: int) -> dict[str, np.ndarray]:
    """Fill a batch up to `size` rows with rows that are not valid; their text is the last row's: no mask is empty."""
    missing = size - len(batch["valid"])
    if missing <= 0:
        return batch
    padded = {k: np.concatenate([v, np.zeros((missing, *v.shape[1:]), v.dtype)]) for k, v in batch.items()}
    padded["clip_index"][-missing:] = -1
    for key in ("text", "text_mask") if len(batch["valid"]) else ():
        padded[key][-missing:] = batch[key][-1]
    return padded
