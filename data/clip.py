"""What a clip is: the fields of one line of a manifest."""

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class Word:
    """A word of a sentence: its times as those of the sentence, and its text."""

    start_s: float
    end_s: float
    text: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sentence:
    """What is said, or happens, in a stretch of time.

    Attributes:
      start_s: seconds from the first picture of the file (in a prepared folder: from the clip's start).
      end_s: the same, exclusive.
      text: unchanged as given.
      words: its words with their times, in order of `start_s`, where speech recognition gave them; () where unknown.
    """

    start_s: float
    end_s: float
    text: str
    words: tuple[Word, ...] = ()

    def moved(self, seconds: float) -> "Sentence":
        """Return the sentence so many seconds later."""
        words = tuple(
            dataclasses.replace(word, start_s=word.start_s + seconds, end_s=word.end_s + seconds) for word in self.words
        )
        return dataclasses.replace(self, start_s=self.start_s + seconds, end_s=self.end_s + seconds, words=words)

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values; `words` as `[start_s, end_s, text]` each, left out if there are none."""
        fields: dict[str, Any] = {"start_s": self.start_s, "end_s": self.end_s, "text": self.text}
        words = [[word.start_s, word.end_s, word.text] for word in self.words]
        return fields | ({"words": words} if words else {})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Span:
    """An annotated stretch of time: an action, an event, or the moment that a query means.

    Attributes:
      start_s: seconds from the first picture of the file. In a prepared folder (clips.jsonl): seconds from the clip's
        own start, cut to the clip; spans outside the clip's window are left out.
      end_s: the same, exclusive.
      label: class name, "" if the span has none.
      text: what happens, or the query, unchanged as given; "" if the span has none. A span has a label or a text, or
        both.
      score: how well the span fits, in the unit of the source; None where unknown.
    """

    start_s: float
    end_s: float
    label: str = ""
    text: str = ""
    score: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Question:
    """A question about the clip.

    Attributes:
      question: unchanged as given; "" of a choice among texts that asks nothing else.
      answers: accepted answers, the first one is the main one; () where they are unknown.
      options: two texts or more to choose among; () of an open question.
      correct: place of the right one among the options, from 0; None where it is unknown.
      type: kind of the question as its source names it ("colour", "yes/no"); "" where unknown.
    """

    question: str = ""
    answers: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    correct: int | None = None
    type: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Clip:
    """One clip: a media file or a window of it, with its texts.

    Attributes:
      clip_id: unique name of the clip within its manifest.
      path: the media file, relative to the manifest's folder, with forward slashes; `ARCHIVE.tar::MEMBER` names a
        member of a tar archive; "" for a clip that has precomputed features only.
      captions: texts of the clip, unchanged as given (UTF-8, any length).
      split: `train`, `val`, `test`, … (lower case letters, digits, `_`); "" where the source names none.
      start_s: start of the window in seconds from the first picture of the file; None = from the first picture.
      end_s: end of the window in seconds (exclusive); None = to the last picture.
      labels: class names, the first one is the main one.
      spans: annotated stretches of time, in order of `start_s`; times count from the first picture of the file, as
        `start_s` does.
      questions: questions about the clip, with their answers, or with options of which one is right.
      transcript: what is said in the clip, "" where unknown.
      sentences: the same with times, in order of `start_s`; those outside the window are left out of the record.
      features: precomputed features by modality (`rgb`, `audio`, ...): a `.npy` file each, [n,D] in order of time,
        relative to the manifest; like `path`, it may be a member of a tar archive.
      meta: anything else (JSON values); `meta["group"]` names clips that belong together, such as order twins;
        `meta["foils"]` holds wrong captions for minimal pairs: what is changed -> the first caption with that change;
        `meta["refused"]` is the reason why a clip that its source lists cannot be used: it is rejected with that
        reason.
    """

    clip_id: str
    path: str
    captions: tuple[str, ...] = ()
    split: str = ""
    start_s: float | None = None
    end_s: float | None = None
    labels: tuple[str, ...] = ()
    spans: tuple[Span, ...] = ()
    questions: tuple[Question, ...] = ()
    transcript: str = ""
    sentences: tuple[Sentence, ...] = ()
    features: dict[str, str] = dataclasses.field(default_factory=dict)
    meta: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def group(self) -> str:
        """The name of the group of clips to which this one belongs, "" if it stands alone."""
        return self.meta.get("group") or ""

    @property
    def foils(self) -> dict[str, str]:
        """Wrong captions, each the first caption with one thing changed, by the name of what is changed."""
        return self.meta.get("foils") or {}


NOT_FETCHED = "no media in the archive"  # a reason that is counted, but is no fault of what is there
REFUSED = "refused"  # key in `Clip.meta`: why a clip of the source cannot be used
FIELDS = tuple(field.name for field in dataclasses.fields(Clip))
