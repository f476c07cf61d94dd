"""What is known of a clip: the evidence that a language model is given, with its scores."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from ...data.clip import Sentence

_MOST_SPEECH = 6_000  # characters of a transcript that are sent


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scored:
    """A text with its cosine."""

    text: str
    score: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Neighbour:
    """A file of an index that looks like the clip.

    Attributes:
      path: of the file.
      score: cosine of the nearest moments.
      start_s: of the stretch that looks like it.
      end_s: its end.
      texts: its captions and labels.
    """

    path: str
    score: float
    start_s: float
    end_s: float
    texts: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evidence:
    """All that is known of a clip.

    Attributes:
      path: the file.
      captions: nearest captions of a bank, best first.
      labels: nearest class names, best first.
      neighbours: files of an index that look like it, best first.
      speech: what is said in it.
      speech_from: "subtitles", the name of a recogniser, or "" where nothing was looked for.
    """

    path: str
    captions: tuple[Scored, ...] = ()
    labels: tuple[Scored, ...] = ()
    neighbours: tuple[Neighbour, ...] = ()
    speech: tuple[Sentence, ...] = ()
    speech_from: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return JSON values, without what is empty."""
        fields: dict[str, Any] = {
            "captions": [dataclasses.asdict(one) for one in self.captions],
            "labels": [dataclasses.asdict(one) for one in self.labels],
            "neighbours": [dataclasses.asdict(one) | {"texts": list(one.texts)} for one in self.neighbours],
            "speech": [sentence.to_json() for sentence in self.speech],
            "speech_from": self.speech_from,
        }
        return {key: value for key, value in fields.items() if value}

    def lines(self) -> list[str]:
        """Return the evidence as text, as it is sent."""
        found: list[str] = []
        found += _listed("Captions nearest to the clip, with their cosine:", self.captions)
        found += _listed("Class names nearest to the clip, with their cosine:", self.labels)
        told = [one for one in self.neighbours if one.texts]  # the others say nothing in words
        if told:
            found.append("Clips of a collection that look most like it, with their cosine and their own texts:")
            found += [f"- {one.score:.3f} {' | '.join(one.texts)}" for one in told]
        if self.speech_from:
            found += _spoken(self.speech)
        return found


def _listed(title: str, scored: Sequence[Scored]) -> list[str]:
    return [title, *(f"- {one.score:.3f} {one.text}" for one in scored)] if scored else []


def _spoken(speech: Sequence[Sentence]) -> list[str]:
    if not speech:
        return ["Nothing is said in it."]
    lines = [f"[{one.start_s:.1f} s] {one.text}" for one in speech]
    kept, size = [], 0
    for line in lines:
        size += len(line)
        if size > _MOST_SPEECH:
            kept.append(f"[the remaining {len(lines) - len(kept)} of {len(lines)} sentences are left out]")
            break
        kept.append(line)
    return ["What is said in it:", *kept]
