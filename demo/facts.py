"""What captions of moving-shapes clips say, read back as facts, and how many of the facts are right."""

import itertools
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..base.errors import UserError
from .captions import MOTION_WORDS, SHAPE_WORDS, SIZE_WORDS, TEXTURE_TAILS, TEXTURE_WORDS
from .render import COLOURS

ATTRIBUTES = ("size", "texture", "colour", "shape", "motion")
"""What a caption may say of an event."""

Facts = Sequence[Mapping[str, str]]
"""Attributes of each event of a clip, in the order in which they happen."""

_REVERSED = re.compile(r"^before |^(?!after ).* after (?!that\b)")  # templates that mention the later event first
_TONE = " while a "


def _pattern(words: Mapping[str, Iterable[str]]) -> re.Pattern[str]:
    """Return a pattern with a group for each value of an attribute; the longest words go first."""
    pairs = sorted(((word, name) for name, all in words.items() for word in all if word), key=lambda p: -len(p[0]))
    return re.compile("|".join(rf"(?P<{name.replace(' ', '_')}{n}>\b{word}\b)" for n, (word, name) in enumerate(pairs)))


_WORDS = {
    "size": _pattern(SIZE_WORDS),
    "texture": _pattern({name: (*words, TEXTURE_TAILS.get(name, "")) for name, words in TEXTURE_WORDS.items()}),
    "colour": _pattern({name: (name,) for name in COLOURS}),
    "shape": _pattern(SHAPE_WORDS),
    "motion": _pattern(MOTION_WORDS),
}


def read_facts(caption: str) -> list[dict[str, str]]:
    """Return what a caption says of each event, in the order in which they happen.

    An event is a shape and what follows up to its motion. What is not said is left out, but for the texture: a shape of
    which nothing is said is plain.

    >>> read_facts("a small red box with dots falls before a blue ring turns around")
    [{'size': 'small', 'texture': 'dotted', 'colour': 'red', 'shape': 'square', 'motion': 'falls'}, \
{'texture': 'plain', 'colour': 'blue', 'shape': 'ring', 'motion': 'turns'}]
    """
    events = caption.lower().split(_TONE)[0]
    shapes, ends = list(_WORDS["shape"].finditer(events)), []
    for shape, after in itertools.pairwise([*shapes, None]):
        assert shape is not None
        motion = _WORDS["motion"].search(events, shape.end(), after.start() if after else len(events))
        ends.append(motion.end() if motion else shape.end() if after else len(events))
    parts = [events[begin:end] for begin, end in itertools.pairwise([0, *ends])]
    said = [{"texture": "plain"} | dict(_values(part)) for part in parts]
    said = [{name: one[name] for name in ATTRIBUTES if name in one} for one in said]
    return said[::-1] if _REVERSED.search(events) else said


def _values(part: str) -> Iterable[tuple[str, str]]:
    for attribute, pattern in _WORDS.items():
        found = pattern.search(part)
        if found:
            assert found.lastgroup is not None
            yield attribute, found.lastgroup.rstrip("0123456789").replace("_", " ")


def right(said: Facts, *, true: Facts) -> int:
    """Return how many attributes of the true events are said of the event in the same place."""
    pairs = zip(said, true, strict=False)
    return sum(one.get(name) == event[name] for one, event in pairs for name in ATTRIBUTES)


def score(captions: Mapping[str, str], *, truth: Mapping[str, Facts], twins: Mapping[str, str]) -> dict[str, float]:
    """Compare captions with the events of their clips.

    Args:
      captions: clip id -> caption.
      truth: clip id -> its events.
      twins: clip id -> id of the clip with the same events in another order.

    Returns:
      `clips`; shares of them 0..1: `events`, with the right number of events, and `exact`, with all attributes of all
      events in the right order; shares of all events: `attributes`, the mean of the five, and each by its name; and
      `twins`, the share of clips with a twin whose captions fit their own order better than the twin's (a half for a
      caption that fits both), of `clips_with_twin`.

    Raises:
      UserError: no caption, or one of an unknown clip.
    """
    if not captions:
        raise UserError("there are no captions to read")
    for clip_id in captions:
        if clip_id not in truth:
            raise UserError(f"clip {clip_id!r} is none of the demo's; give captions of the demo's own clips")
    said = {clip_id: read_facts(caption) for clip_id, caption in captions.items()}
    events = sum(len(truth[clip_id]) for clip_id in said)
    hits = dict.fromkeys(ATTRIBUTES, 0)
    for clip_id, one in said.items():
        for given, true in zip(one, truth[clip_id], strict=False):
            for name in ATTRIBUTES:
                hits[name] += given.get(name) == true[name]
    pairs = [(right(one, true=truth[c]), right(one, true=truth[twins[c]])) for c, one in said.items() if c in twins]
    apart = sum(1.0 if own > other else 0.5 if own == other else 0.0 for own, other in pairs)
    return {
        "clips": len(said),
        "events": sum(len(one) == len(truth[c]) for c, one in said.items()) / len(said),
        "exact": sum(len(one) == len(truth[c]) and right(one, true=truth[c]) == 5 * len(one) for c, one in said.items())
        / len(said),
        "attributes": sum(hits.values()) / (events * len(ATTRIBUTES)),
        **{name: count / events for name, count in hits.items()},
        "twins": apart / max(len(pairs), 1),
        "clips_with_twin": len(pairs),
    }


def score_file(path: Path, *, manifest: Path) -> dict[str, float]:
    """Compare the captions that `twinreel caption --data DATA --out DIR` wrote with the events in the demo's manifest.

    Args:
      path: `captions.json`.
      manifest: of the demo's clips.

    Raises:
      UserError: a file that is none of these, or see `score`.
    """
    from ..data.manifest import read_manifest

    try:
        written = json.loads(path.read_text(encoding="utf-8"))
        captions = {one["clip_id"]: one["caption"] for one in written["clips"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is no captions.json of `twinreel caption --data DATA --out DIR`: {error}") from error
    clips = [clip for clip in read_manifest(manifest) if "events" in clip.meta]
    truth: dict[str, Any] = {clip.clip_id: clip.meta["events"] for clip in clips}
    groups: dict[str, list[str]] = {}
    for clip in clips:
        if clip.meta.get("group"):
            groups.setdefault(clip.meta["group"], []).append(clip.clip_id)
    twins = {a: b for pair in groups.values() if len(pair) == 2 for a, b in itertools.permutations(pair)}
    return score(captions, truth=truth, twins=twins)
