"""Captions of moving-shapes clips; every caption states the order of the events."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from .render import Event, Tone

SHAPE_WORDS = {
    "disc": ("disc", "circle"),
    "ring": ("ring", "hoop"),
    "square": ("square", "box"),
    "triangle": ("triangle",),
    "star": ("star",),
    "cross": ("cross", "plus sign"),
}
SIZE_WORDS = {"small": ("small", "little"), "large": ("large", "big")}
TEXTURE_WORDS = {"plain": ("", "", "", "plain"), "striped": ("striped",), "dotted": ("dotted",)}
TEXTURE_TAILS = {"striped": "with stripes", "dotted": "with dots"}
MOTION_WORDS = {
    "slides left": ("slides left", "moves left", "slides to the left", "goes to the left"),
    "slides right": ("slides right", "moves right", "slides to the right", "goes to the right"),
    "falls": ("falls", "drops", "moves down", "sinks"),
    "rises": ("rises", "goes up", "moves up", "climbs"),
    "turns": ("turns", "spins", "rotates", "turns around"),
    "grows": ("grows", "gets bigger", "swells"),
    "shrinks": ("shrinks", "gets smaller", "dwindles"),
    "fades": ("fades", "fades away", "slowly vanishes"),
}
TONE_WORDS = {
    "rises": ("tone rises", "tone goes up"),
    "falls": ("tone falls", "tone goes down"),
    "beeps": ("tone beeps", "beep repeats"),
    "stays": ("tone stays the same", "steady tone plays"),
}

PAIRS = (  # two events, mentioned in the order in which they happen
    "{0}, then {1}",
    "first {0}, then {1}",
    "{0} and then {1}",
    "{0} before {1}",
    "first {0}, after that {1}",
    "{0}; next, {1}",
    "after {0}, {1}",
    "{0}, and afterwards {1}",
)
REVERSED = ("{1} after {0}", "before {1}, {0}")  # the later event is mentioned first
TRIPLES = (
    "{0}, then {1}, then {2}",
    "first {0}, then {1}, and at last {2}",
    "{0}; next, {1}; after that {2}",
    "first {0}, after that {1}, finally {2}",
)
_REVERSED_SHARE = 0.04


@dataclass(frozen=True, kw_only=True)
class Phrase:
    """The words for one event: "a {size} {texture} {colour} {shape} {tail} {motion}", each of which may be empty."""

    size: str
    texture: str
    colour: str
    shape: str
    tail: str
    motion: str

    def __str__(self) -> str:
        noun = " ".join(word for word in (self.size, self.texture, self.colour, self.shape, self.tail) if word)
        article = "an" if noun[0] in "aeiou" else "a"
        return f"{article} {noun} {self.motion}"

    def with_attribute(self, name: str, value: str, *, rng: np.random.Generator) -> "Phrase":
        """Return the phrase with another value of one attribute of `Event`, in words drawn at random."""
        if name == "texture":
            if self.tail and value in TEXTURE_TAILS:
                return replace(self, tail=TEXTURE_TAILS[value])
            return replace(self, texture=value, tail="")
        words = {"size": SIZE_WORDS, "shape": SHAPE_WORDS, "motion": MOTION_WORDS}
        return replace(self, **{name: _pick(words[name][value], rng) if name in words else value})


@dataclass(frozen=True, kw_only=True)
class Wording:
    """One way to describe a clip: a template for the order, one phrase per event, and optionally the tone."""

    template: str
    phrases: tuple[Phrase, ...]
    tone: str

    def caption(self, order: Sequence[int]) -> str:
        """Return the caption of the clip whose events happen in `order` (indices into `phrases`)."""
        text = self.template.format(*[self.phrases[i] for i in order])
        return f"{text} {self.tone}".strip()

    def with_attribute(self, name: str, value: str, *, event: int, rng: np.random.Generator) -> "Wording":
        """Return the wording in which one attribute of one event has another value; all else stays word for word."""
        phrases = list(self.phrases)
        phrases[event] = phrases[event].with_attribute(name, value, rng=rng)
        return replace(self, phrases=tuple(phrases))


def wordings(events: Sequence[Event], *, tone: Tone, count: int, rng: np.random.Generator) -> list[Wording]:
    """Draw `count` wordings of the same facts.

    The first one names every attribute and mentions the events in their order; later ones may omit the size and,
    rarely, mention the later event first. One `Wording` serves a clip and its order twin.
    """
    result: list[Wording] = []
    while len(result) < count:
        i = len(result)
        pool = PAIRS if len(events) == 2 else TRIPLES
        if len(events) == 2 and i > 0 and rng.random() < _REVERSED_SHARE:
            pool = REVERSED
        phrases = tuple(_phrase(event, with_size=i == 0 or rng.random() < 0.85, rng=rng) for event in events)
        tone_phrase = f"while a {tone.pitch} {_pick(TONE_WORDS[tone.motion], rng)}" if rng.random() < 0.4 else ""
        wording = Wording(template=_pick(pool, rng), phrases=phrases, tone=tone_phrase)
        if wording not in result:
            result.append(wording)
    return result


def _phrase(event: Event, *, with_size: bool, rng: np.random.Generator) -> Phrase:
    size = _pick(SIZE_WORDS[event.size], rng) if with_size else ""
    texture, tail = _pick(TEXTURE_WORDS[event.texture], rng), ""
    if event.texture in TEXTURE_TAILS and rng.random() < 0.3:
        texture, tail = "", TEXTURE_TAILS[event.texture]
    shape, motion = _pick(SHAPE_WORDS[event.shape], rng), _pick(MOTION_WORDS[event.motion], rng)
    return Phrase(size=size, texture=texture, colour=event.colour, shape=shape, tail=tail, motion=motion)


def _pick(options: Sequence[str], rng: np.random.Generator) -> str:
    return options[int(rng.integers(len(options)))]
