"""Questions about moving-shapes clips, with their answers, from the events and the tone of a clip."""

import zlib
from collections.abc import Sequence

import numpy as np

from ..data.manifest import Question
from .captions import MOTION_WORDS, SHAPE_WORDS
from .render import MOTIONS, ROUND, TONE_MOTIONS, Event, Tone

TYPES = ("count", "after", "colour", "motion", "is there", "tone", "sound", "pitch")
"""What questions ask for: how many events; the shape after an event; the colour or the motion of a shape; whether an
event is there; what the tone does; whether a tone of a kind is there; whether it is high or low."""
_TONES = {"rises": "a rising", "falls": "a falling", "beeps": "a beeping", "stays": "a steady"}


def questions(events: Sequence[Event], *, tone: Tone, clip_id: str) -> tuple[Question, ...]:
    """Return one question of each of `TYPES` that has one answer; the words are drawn by a hash of the clip's id.

    Captions and pictures do not depend on these draws. Two answers to a yes/no question are equally likely.

    Args:
      events: of the clip, in their order in time.
      tone: of the clip.
      clip_id: decides the draws.
    """
    rng = np.random.default_rng(zlib.crc32(clip_id.encode()))
    found = [Question(question=_count(rng), answers=(("two", "three")[len(events) - 2],), type="count")]
    found += _after(events, rng=rng)
    shapes, motions = [event.shape for event in events], [event.motion for event in events]
    pairs = [(event.colour, event.shape) for event in events]
    for event in _drawn(events, rng=rng):
        if motions.count(event.motion) == 1:
            noun = _pick(SHAPE_WORDS[event.shape], rng) if shapes.count(event.shape) == 1 else "shape"
            asked = f"what colour is the {noun} that {_pick(MOTION_WORDS[event.motion], rng)}?"
            found.append(Question(question=asked, answers=(event.colour,), type="colour"))
            break
    for event in _drawn(events, rng=rng):
        if pairs.count((event.colour, event.shape)) == 1:
            asked = f"what does the {event.colour} {_pick(SHAPE_WORDS[event.shape], rng)} do?"
            found.append(Question(question=asked, answers=(event.motion,), type="motion"))
            break
    return (*found, _is_there(events, rng=rng), *_of_tone(tone, rng=rng))


def _count(rng: np.random.Generator) -> str:
    return _pick(("how many shapes are there?", "how many things happen?", "how many shapes do you see?"), rng)


def _after(events: Sequence[Event], *, rng: np.random.Generator) -> list[Question]:
    """Ask for the shape after a colour and shape that only one event has."""
    pairs = [(event.colour, event.shape) for event in events]
    for place in rng.permutation(len(events) - 1).tolist():
        if pairs.count(pairs[place]) == 1:
            known, asked_for = events[place], events[place + 1]
            noun = f"{known.colour} {_pick(SHAPE_WORDS[known.shape], rng)}"
            motion = _pick(MOTION_WORDS[asked_for.motion], rng)
            asked = _pick((f"what {motion} after the {noun}?", f"which shape comes after the {noun}?"), rng)
            return [Question(question=asked, answers=(asked_for.shape,), type="after")]
    return []


def _is_there(events: Sequence[Event], *, rng: np.random.Generator) -> Question:
    """Ask for a shape with its motion: one of the clip, or the same shape with another motion."""
    event, yes = events[int(rng.integers(len(events)))], bool(rng.random() < 0.5)
    there = {one.motion for one in events if one.shape == event.shape}
    others = [name for name in MOTIONS if name not in there and (name != "turns" or event.shape not in ROUND)]
    motion = event.motion if yes else _pick(others, rng)
    asked = f"is there a {_pick(SHAPE_WORDS[event.shape], rng)} that {_pick(MOTION_WORDS[motion], rng)}?"
    return Question(question=asked, answers=("yes" if yes else "no",), type="is there")


def _of_tone(tone: Tone, *, rng: np.random.Generator) -> list[Question]:
    yes = bool(rng.random() < 0.5)
    motion = tone.motion if yes else _pick([name for name in TONE_MOTIONS if name != tone.motion], rng)
    asked = _pick(("is there", "can you hear", "do you hear"), rng)
    return [
        Question(question="what does the tone do?", answers=(tone.motion,), type="tone"),
        Question(question=f"{asked} {_TONES[motion]} tone?", answers=("yes" if yes else "no",), type="sound"),
        Question(question="is the tone high or low?", answers=(tone.pitch,), type="pitch"),
    ]


def _drawn(events: Sequence[Event], *, rng: np.random.Generator) -> list[Event]:
    return [events[i] for i in rng.permutation(len(events)).tolist()]


def _pick(options: Sequence[str], rng: np.random.Generator) -> str:
    return options[int(rng.integers(len(options)))]
