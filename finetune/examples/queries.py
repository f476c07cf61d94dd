"""What tasks along time look for: moments of a text, of classes, or the highlights of a clip; one example each."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, Self, TypeVar

import numpy as np

from ...base.errors import UserError, unknown
from ...data.holdout import held_out
from .annotators import FIELDS
from .clips import LabelledClips, Row
from .context import TaskContext

Batch = dict[str, np.ndarray]
QUERIES = ("text", "label", "clip", "annotated")
"""What an example of a clip is: each text of its spans; all its labelled spans together; the clip by itself, if it has
spans; or if annotators have summarised it (`annotators.FIELDS`)."""

_WANTED = {
    **{"text": "a span with a text (`spans`)", "label": "a span with a label (`spans`)", "clip": "a span (`spans`)"},
    "annotated": "annotators' scores or summaries (`meta.importance` or `meta.summaries`)",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Queries:
    """The examples of a split, q in all.

    Attributes:
      split: its name.
      labels: names of the classes of the spans; () where a text asks.
      record: int64 [q], the clip of each, ascending.
      texts: what is to be found, "" without a text.
      spans: of each float64 [m,2], start and end in seconds from the clip's start, in order of time.
      span_labels: of each int32 [m], the class of each span; 0 where a text asks.
      span_scores: of each float64 [m], NaN = unknown.
      duration: float64 [q], seconds.
      size: clips of the split.
    """

    split: str
    labels: tuple[str, ...]
    record: np.ndarray
    texts: tuple[str, ...]
    spans: tuple[np.ndarray, ...]
    span_labels: tuple[np.ndarray, ...]
    span_scores: tuple[np.ndarray, ...]
    duration: np.ndarray
    size: int

    def __len__(self) -> int:
        return len(self.record)

    @property
    def clips(self) -> LabelledClips:
        """The clips that take part, without classes of their own."""
        label = np.full(self.size, -1, np.int32)
        label[self.record] = 0
        return LabelledClips(split=self.split, labels=(), label=label)

    def only(self, chosen: np.ndarray) -> "Queries":
        """Return the examples of some numbers, int [n], ascending."""
        fields = ("texts", "spans", "span_labels", "span_scores")
        parts = {name: tuple(getattr(self, name)[i] for i in chosen) for name in fields}
        return dataclasses.replace(self, record=self.record[chosen], duration=self.duration[chosen], **parts)

    def padded_spans(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return spans float32 [q,M,2] as fractions of the clip, their mask bool [q,M] and classes int32 [q,M]."""
        most = max(1, *(len(spans) for spans in self.spans))
        times, mask = np.zeros((len(self), most, 2), np.float32), np.zeros((len(self), most), bool)
        label = np.zeros((len(self), most), np.int32)
        for i, spans in enumerate(self.spans):
            count = len(spans)
            times[i, :count], mask[i, :count] = spans / self.duration[i], True
            label[i, :count] = self.span_labels[i]
        return times, mask, label

    def attach(
        self, batches: Iterator[Batch], *, encode: Callable[[Sequence[str]], tuple[np.ndarray, np.ndarray]] | None
    ) -> Iterator[Batch]:
        """Yield batches of clips with the query and the spans of each row's example.

        Args:
          batches: with `example` int64 [b], besides the clips.
          encode: texts -> token ids int32 [b,L] and mask bool [b,L]; None without texts.

        Yields:
          The clips with `spans float32 [b,M,2]` (fractions of the clip), `spans_mask`, `spans_label int32 [b,M]` and,
          with texts, `query int32 [b,L]` and `query_mask`.
        """
        times, mask, label = self.padded_spans()
        for batch in batches:
            example = batch["example"]
            made = {"spans": times[example], "spans_mask": mask[example], "spans_label": label[example]}
            if encode is not None:
                made["query"], made["query_mask"] = encode([self.texts[i] for i in example.tolist()])
            yield batch | made


def queries_of(rows: Sequence[Row], *, split: str, query: str, labels: Sequence[str] = ()) -> Queries:
    """Read the examples of a split.

    Args:
      rows: lines of `clips.jsonl`.
      split: their split.
      query: one of `QUERIES`.
      labels: the classes, for "label"; spans of others are left out, but their clips take part.

    Raises:
      UserError: an unknown `query`.
    """
    if query not in QUERIES:
        raise unknown("config.task.query:", query, QUERIES)
    place = {name: i for i, name in enumerate(labels)}
    found: list[tuple[int, str, list, float]] = []
    for number, row in enumerate(rows):
        spans = sorted(row.get("spans") or (), key=lambda span: (span["start_s"], span["end_s"]))
        spans = [span for span in spans if span["end_s"] > span["start_s"]]
        if query == "text":
            texts = dict.fromkeys(span["text"] for span in spans if span["text"])
            parts = [(text, [span for span in spans if span["text"] == text]) for text in texts]
        elif query == "label":
            named = [span for span in spans if span["label"]]
            parts = [("", [span for span in named if span["label"] in place])] if named else []
        elif query == "clip":
            parts = [("", spans)] if spans else []
        else:
            parts = [("", [])] if any(field in (row.get("meta") or {}) for field in FIELDS) else []
        found += [(number, text, own, row["duration_s"]) for text, own in parts]
    return Queries(
        split=split,
        labels=tuple(labels) if query == "label" else (),
        record=np.array([number for number, *_ in found], np.int64),
        texts=tuple(text for _, text, *_ in found),
        spans=tuple(np.array([(s["start_s"], s["end_s"]) for s in own]).reshape(-1, 2) for *_, own, _ in found),
        span_labels=tuple(np.array([place.get(s["label"], 0) for s in own], np.int32) for *_, own, _ in found),
        span_scores=tuple(
            np.array([np.nan if s["score"] is None else s["score"] for s in own], float) for *_, own, _ in found
        ),
        duration=np.array([duration for *_, duration in found], np.float64),
        size=len(rows),
    )


def span_label_set(rows: Sequence[Row], *, labels: Sequence[str], min_count: int) -> tuple[str, ...]:
    """Choose the classes of spans: `labels`, or () for all with at least `min_count` spans, sorted.

    Raises:
      UserError: a label that no span has (the nearest is named), or no class.
    """
    counts = Counter(span["label"] for row in rows for span in row.get("spans") or () if span["label"])
    for label in labels:
        if label not in counts:
            raise unknown("label in config.task.labels:", label, counts)
    chosen = tuple(dict.fromkeys(labels)) or tuple(sorted(name for name, n in counts.items() if n >= min_count))
    if not chosen:
        raise UserError(
            f"no label stands on at least config.task.min_count={min_count} spans of the train split (labels: "
            f"{', '.join(counts) or 'none'}); the field `spans` of the manifest has them: docs/data.md"
        )
    return chosen


@dataclasses.dataclass(frozen=True, kw_only=True)
class QueryOptions:
    """The fields of `config.task` that choose examples, for every task along time.

    Attributes:
      query: one of `QUERIES`.
      labels: the classes, where `query="label"`; () for all labels of spans with at least `min_count` of them.
      min_count: see `labels`.
      val_split: split to validate on during training; "" = none.
      holdout: share of the train split to validate on, by source file, where there is no validation split; 0 = do not
        validate.
      test_split: split that is reported on; "" for the validation clips.
    """

    query: str = "text"
    labels: tuple[str, ...] = ()
    min_count: int = 2
    val_split: str = "val"
    holdout: float = 0.15
    test_split: str = "test"

    def __post_init__(self):
        if self.query not in QUERIES:
            raise unknown("config.task.query:", self.query, QUERIES)
        if not 0 <= self.holdout < 1:
            raise UserError(f"config.task.holdout must be at least 0 and below 1, got {self.holdout}")
        if self.labels and self.query != "label":
            raise UserError(
                f"config.task.labels names classes, but config.task.query={self.query!r}; set query='label', or "
                "labels=()"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class QuerySplits:
    """Three sets of examples; for the attributes see `splits.Splits`."""

    train: Queries
    validation: Queries | None
    report: Queries
    validated_on: str


def choose_queries(context: TaskContext, *, options: QueryOptions) -> QuerySplits:
    """Choose classes and examples, and print what was chosen; reads `clips.jsonl` only.

    Raises:
      UserError: a split or a label that does not exist, or no example to train or to report on.
    """
    split, records = context.data.feed.train_split, context.records
    for name, field in ((split, "config.data.train_split"), (options.test_split, "config.task.test_split")):
        if name and name not in records.splits:
            raise unknown(f"split in {field}:", name, records.splits)
    rows, labels = records.rows(split), ()
    if options.query == "label":
        labels = span_label_set(rows, labels=options.labels, min_count=options.min_count)

    def read(name: str) -> Queries:
        return queries_of(records.rows(name), split=name, query=options.query, labels=labels)

    whole = read(split)
    if not len(whole):
        raise UserError(
            f"no clip of split {split!r} has {_WANTED[options.query]}, which config.task.query={options.query!r} "
            "needs; see the fields of the manifest in docs/data.md"
        )
    train, validation, validated_on = divide(whole, rows=rows, read=read, context=context, options=options)
    taken = context.in_share(split)
    train = train if taken is None else train.only(np.flatnonzero(taken[train.record]))
    report = read(options.test_split) if options.test_split else validation
    if report is None or not len(report):
        raise UserError(
            f"there is nothing to report on: config.task.test_split={options.test_split!r} has no such clips; set it "
            f"to a split that has some (splits: {', '.join(sorted(records.splits))}), or to '' for the validation clips"
        )
    for queries in (train, *([validation] if validation else []), report):
        moments = sum(len(spans) for spans in queries.spans)
        clips = len(np.unique(queries.record))
        context.say(f"  split {queries.split!r}: {len(queries)} queries with {moments} moments in {clips} clips")
    return QuerySplits(train=train, validation=validation, report=report, validated_on=validated_on)


class SplitExamples(Protocol):
    """Examples of a split, of which a clip may have several."""

    @property
    def split(self) -> str:
        """Its name."""
        ...

    @property
    def record(self) -> np.ndarray:
        """The clip of each example, int64 [q], ascending."""
        ...

    def __len__(self) -> int: ...

    def only(self, chosen: np.ndarray) -> Self:
        """Return the examples of some numbers, int [n], ascending."""
        ...


class SplitOptions(Protocol):
    """The fields of `config.task` that choose examples to validate on."""

    @property
    def val_split(self) -> str:
        """Split to validate on; "" = none."""
        ...

    @property
    def holdout(self) -> float:
        """Share of the train split to validate on where there is no such split."""
        ...


Examples = TypeVar("Examples", bound=SplitExamples)


def divide(
    whole: Examples,
    *,
    rows: Sequence[Row],
    read: Callable[[str], Examples],
    context: TaskContext,
    options: SplitOptions,
    noun: str = "queries",
) -> tuple[Examples, Examples | None, str]:
    """Return the examples to train on, those to validate on, and a description of the latter.

    Args:
      whole: the examples of the train split.
      rows: its lines of `clips.jsonl`.
      read: split -> its examples.
      context: of the run.
      options: `config.task`.
      noun: what an example is called.
    """
    split = options.val_split
    if split and split in context.records.splits and len(found := read(split)):
        return whole, found, f"split {split!r} ({len(found)} {noun})"
    none = "no validation clips: no early stopping, and the last checkpoint is reported"
    if not options.holdout:
        context.say(none)
        return whole, None, ""
    own = np.unique(whole.record)
    out = held_out([rows[i] for i in own], targets=np.ones((len(own), 1), bool), share=options.holdout)
    held = np.isin(whole.record, own[out])
    if not held.any():
        context.say(f"{none}. All clips come from one source file; give a validation split (config.task.val_split)")
        return whole, None, ""
    validation = whole.only(np.flatnonzero(held))
    context.say(
        f"{len(validation)} of {len(whole)} {noun} are held out to validate on, by source file "
        f"(config.task.holdout={options.holdout:g})"
    )
    described = f"{len(validation)} {noun} held out of split {whole.split!r} by source file"
    return whole.only(np.flatnonzero(~held)), validation, described
