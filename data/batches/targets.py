"""What a task asks of a batch besides clip and caption: windows, times, further texts, spans, labels. No tensorflow."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...base.errors import UserError, unknown
from ..text.clean import text_cleaner
from ..text.tokenizer import Tokenizer
from .draws import below, numbers
from .table import Table

STREAMS = ("caption", "question", "answer", "span", "transcript")
"""Where the text of a stream may come from."""
_QUESTION, _ANSWER, _SPAN = 4, 5, 6  # what a number is drawn for; 1 and 2 are of `texts`, 3 is of `reading`


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stream:
    """A further text of each row, tokenized.

    Attributes:
      source: a name of `STREAMS`: the row's caption (such as a decoder's input, with a tokenizer of its own); a
        question of the clip; an answer to that question; the text of one of the spans within the window; or what is
        said in the window.
      context_length: tokens L; longer texts are cut.
      tokenizer: None = the model's.
    """

    source: str
    context_length: int
    tokenizer: Tokenizer | None = None

    def __post_init__(self):
        if self.source not in STREAMS:
            raise unknown("source of a text stream:", self.source, STREAMS)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Targets:
    """What a task asks of its batches; each field adds the keys that it names.

    Attributes:
      window: `window_s float32 [b,2]`, start and end of the drawn window in seconds from the clip's start; [b,V,2] with
        V windows.
      frame_times: `frame_times_s float32 [b,T]`, when each drawn frame begins, seconds from the clip's start; [b,V,T].
      streams: key -> `Stream`: `KEY int32 [b,L]`, `KEY_mask bool [b,L]` and `KEY_index int32 [b]`, the number of the
        caption, question, answer or span in its list, -1 = there is none (the text is empty).
      spans: M, at most so many spans: `spans_s float32 [b,M,2]`, start and end in seconds from the window's start and
        cut to it, in order of their start, `spans_mask bool [b,M]`, `spans_score float32 [b,M]` (NaN = unknown) and
        `spans_index int32 [b,M]`, the number of each in the clip's list (-1 = padding). Of a row with a stream from
        "span" only those with the same text as the chosen one. More than M are an error.
      span_labels: names of classes: `spans_label int32 [b,M]`, -1 for another label or none.
      labels: names of classes: `labels bool [b,K]`, all labels of the clip.
    """

    window: bool = False
    frame_times: bool = False
    streams: Mapping[str, Stream] = dataclasses.field(default_factory=dict)
    spans: int = 0
    span_labels: Sequence[str] = ()
    labels: Sequence[str] = ()

    def times(self) -> tuple[str, ...]:
        """Return the names of what the reader adds."""
        return ("window_s",) * self.window + ("frame_times_s",) * self.frame_times


@dataclasses.dataclass(frozen=True, kw_only=True)
class Drawn:
    """The rows of a batch for which targets are made.

    Attributes:
      source: int32 [b].
      record: int64 [b].
      epoch: int64 [b].
      caption: int32 [b] or [b,C], the captions that the rows have.
      window: float32 [b,2], seconds from the clip's start.
    """

    source: np.ndarray
    record: np.ndarray
    epoch: np.ndarray
    caption: np.ndarray
    window: np.ndarray


class TargetMaker:
    """Makes the targets of batches; each choice is a function of (seed, epoch, record).

    Attributes:
      times: names of the arrays that the reader adds.
    """

    def __init__(self, rows: Sequence[Table], *, targets: Targets, tokenizer: Tokenizer, text: str, seed: int):
        """Set up; nothing is read yet.

        Args:
          rows: the lines of clips.jsonl of each source.
          targets: what is asked for.
          tokenizer: of the model, for streams without one.
          text: text cleaning, as `InputSpec.text`.
          seed: of the run; -1 = evaluation: the first question, answer and span.
        """
        self.times = targets.times()
        self._rows, self._targets, self._tokenizer, self._seed = rows, targets, tokenizer, seed
        self._clean = text_cleaner(text)
        self._span_label = {name: i for i, name in enumerate(targets.span_labels)}
        self._label = {name: i for i, name in enumerate(targets.labels)}

    def make(self, drawn: Drawn) -> dict[str, np.ndarray]:
        """Return the arrays that the targets name, except windows and times, which the reader knows."""
        rows = [self._rows[s][r] for s, r in zip(drawn.source.tolist(), drawn.record.tolist(), strict=True)]
        chosen = self._choose(drawn, rows)
        made: dict[str, np.ndarray] = {}
        for key, stream in self._targets.streams.items():
            made |= self._stream(key, stream, rows=rows, chosen=chosen, window=drawn.window)
        if self._targets.spans:
            asked = any(stream.source == "span" for stream in self._targets.streams.values())
            made |= self._spans(rows, window=drawn.window, only=chosen["span"] if asked else None)
        if self._targets.labels:
            made["labels"] = np.array([[name in row["labels"] for name in self._label] for row in rows], bool)
        return made

    def _choose(self, drawn: Drawn, rows: list[dict[str, Any]]) -> dict[str, np.ndarray]:
        """Return which caption, question, answer and span each row has, int32 [b], -1 = none."""
        caption = drawn.caption if drawn.caption.ndim == 1 else drawn.caption[:, 0]
        question = self._draw(drawn, [len(row["questions"]) for row in rows], what=_QUESTION)
        answers = [len(row["questions"][q]["answers"]) if q >= 0 else 0 for row, q in zip(rows, question, strict=True)]
        answer = self._draw(drawn, answers, what=_ANSWER)
        seen = [
            [i for i in _overlapping(row, window) if row["spans"][i]["text"]]
            for row, window in zip(rows, drawn.window.tolist(), strict=True)
        ]
        place = self._draw(drawn, list(map(len, seen)), what=_SPAN)
        span = np.array([spans[p] if p >= 0 else -1 for spans, p in zip(seen, place, strict=True)], np.int32)
        return {"caption": caption, "question": question, "answer": answer, "span": span}

    def _draw(self, drawn: Drawn, counts: list[int], *, what: int) -> np.ndarray:
        """Return int32 [b] below the counts, -1 where there is nothing to choose."""
        count = np.array(counts, np.int32)
        if self._seed < 0:
            return np.where(count > 0, 0, -1).astype(np.int32)
        rows = {"epoch": drawn.epoch, "source": drawn.source, "record": drawn.record}
        return below(count, numbers(seed=self._seed, what=what, **rows))

    def _stream(
        self,
        key: str,
        stream: Stream,
        *,
        rows: list[dict[str, Any]],
        chosen: dict[str, np.ndarray],
        window: np.ndarray,
    ) -> dict[str, np.ndarray]:
        texts, index = [], np.full(len(rows), -1, np.int32)
        for i, row in enumerate(rows):
            numbered = {name: int(value[i]) for name, value in chosen.items()}
            text = _text(row, stream.source, numbered=numbered, window=(float(window[i, 0]), float(window[i, 1])))
            index[i] = numbered.get(stream.source, 0) if text else -1
            texts.append(self._clean(text) if text else "")
        tokenizer = stream.tokenizer or self._tokenizer
        ids, mask, _ = tokenizer.encode(texts, context_length=stream.context_length)
        return {key: ids, f"{key}_mask": mask, f"{key}_index": index}

    def _spans(
        self, rows: list[dict[str, Any]], *, window: np.ndarray, only: np.ndarray | None
    ) -> dict[str, np.ndarray]:
        b, most = len(rows), self._targets.spans
        times, index = np.zeros((b, most, 2), np.float32), np.full((b, most), -1, np.int32)
        score = np.full((b, most), np.nan, np.float32)
        label = np.full((b, most), -1, np.int32)
        for i, row in enumerate(rows):
            start, end = float(window[i, 0]), float(window[i, 1])
            found = _overlapping(row, (start, end))
            if only is not None:
                found = [j for j in found if only[i] >= 0 and row["spans"][j]["text"] == row["spans"][only[i]]["text"]]
            if len(found) > most:
                raise UserError(
                    f"clip {row['clip_id']!r} has {len(found)} spans within {start:.2f} to {end:.2f} s, the task takes "
                    f"{most} at most; raise that number, or shorten config.data.window_seconds"
                )
            for place, j in enumerate(found):
                span = row["spans"][j]
                times[i, place] = max(span["start_s"], start) - start, min(span["end_s"], end) - start
                index[i, place] = j
                label[i, place] = self._span_label.get(span["label"], -1)
                score[i, place] = np.nan if span["score"] is None else span["score"]
        made = {"spans_s": times, "spans_mask": index >= 0, "spans_score": score, "spans_index": index}
        return made | ({"spans_label": label} if self._targets.span_labels else {})


def _overlapping(row: Mapping[str, Any], window: Sequence[float]) -> list[int]:
    """Return the numbers of the spans that share time with the window, in order of their start."""
    start, end = window
    found = [i for i, span in enumerate(row["spans"]) if span["start_s"] < end and span["end_s"] > start]
    return sorted(found, key=lambda i: (row["spans"][i]["start_s"], row["spans"][i]["end_s"], i))


def _text(row: Mapping[str, Any], source: str, *, numbered: Mapping[str, int], window: tuple[float, float]) -> str:
    """Return the text of a stream, "" where there is none."""
    if source == "transcript":
        start, end = window
        said = [s["text"] for s in row["sentences"] if s["start_s"] < end and s["end_s"] > start]
        return " ".join(said) if row["sentences"] else row["transcript"]
    number = numbered[source]
    if number < 0:
        return ""
    if source == "caption":
        return row["captions"][number]
    if source == "span":
        return row["spans"][number]["text"]
    question = row["questions"][numbered["question"]]
    return question["question"] if source == "question" else question["answers"][number]
