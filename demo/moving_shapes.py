"""Write `moving_shapes`, the demo data set: short MP4 files (H.264, AAC) of coloured shapes that do one thing after
another while a tone plays, with captions that describe the events in their order.

Train and val consist of order twins: two clips with the same events in opposite order, captioned in the same words.
Half of the test clips are twins. No combination of events occurs in two splits. Train and test clips have foils, which
are negatives in training and make minimal pairs of the test: captions that differ from the first one in a single
attribute, and that a clip of the data set could have.
"""

import functools
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from ..base.errors import UserError
from ..data.manifest import Clip, Span, write_manifest
from .captions import Wording, wordings
from .encode import encode_clip
from .questions import questions
from .render import (
    COLOURS,
    MOTIONS,
    PITCHES,
    RADII,
    ROUND,
    SHAPES,
    TEXTURES,
    TONE_MOTIONS,
    Event,
    Tone,
)
from .writing import Planned, check_video, claim, publish, write_missing

VERSION = 6
FOILS = ("colour", "order", "size", "texture", "motion", "shape")
"""What a foil changes. A train clip has a foil of each, a test clip of every other one in turn."""
_TRIPLE_SHARE = 0.45  # of the groups that have three events
_SECONDS = {2: (1.2, 1.5), 3: (0.85, 1.0)}  # shortest and longest event, by number of events
_CAPTION_COUNTS = (0.2, 0.4, 0.4)  # chances of one, two and three captions


@dataclass(frozen=True, kw_only=True)
class Job(Planned):
    """One clip to write."""

    group: str  # "" = the clip has no twin
    events: tuple[Event, ...]
    tone: Tone
    background: int  # seed
    captions: tuple[str, ...]
    phrases: tuple[str, ...]  # one for each event, in the words of the first caption
    foils: dict[str, str]  # attribute of FOILS -> the first caption with another value of it


def write(
    out: Path,
    *,
    seed: int = 0,
    train: int = 4000,
    val: int = 200,
    test: int = 500,
    size: int = 64,
    fps: float = 12,
    workers: int = 0,
    progress: bool = True,
) -> Path:
    """Write the clips and their manifest below `out`; calling it again after an interruption writes the missing clips.

    Args:
      out: folder to write; created if absent.
      seed: the same seed gives the same bytes (with one version of PyAV).
      train: number of clips in the train split, even.
      val: number of clips in the val split, even.
      test: number of clips in the test split.
      size: side of the square picture in pixels, even.
      fps: frames per second.
      workers: processes; 0 = one per core that this process may use.
      progress: whether to show a progress bar.

    Returns:
      The path of the manifest, `out/manifest.jsonl`.

    Raises:
      UserError: a number out of range, or `out` holds clips that were made with other numbers.
    """
    _check(train=train, val=val, test=test, size=size, fps=fps, workers=workers)
    made_with = {"version": VERSION, "seed": seed, "train": train, "val": val, "test": test, "size": size, "fps": fps}
    claim(out, name="moving_shapes", made_with=made_with)
    jobs = plan(seed=seed, train=train, val=val, test=test, fps=fps)
    one = functools.partial(_write_clip, out=out, size=size, fps=fps)
    write_missing(jobs, out=out, write=one, name="moving_shapes", workers=workers, progress=progress)
    manifest = out / "manifest.jsonl"
    write_manifest(manifest, clips=(_clip(job, fps=fps) for job in jobs))
    return manifest


def plan(*, seed: int, train: int, val: int, test: int, fps: float) -> list[Job]:
    """Draw the events, sound and captions of every clip, as a pure function of the arguments; twins are adjacent.

    The splits are drawn in turn, test first, so that the test clips do not depend on the size of the others. Every
    combination (the events of a clip by their attributes, in any order) is drawn once only. Train clips come sorted by
    their colours, so that neighbours look alike: `config.data.group_size` keeps them together in a batch.
    """
    taken: set[tuple] = set()
    pairs = {"test": test // 4, "val": val // 2, "train": train // 2}
    singles = {"test": test - 2 * pairs["test"], "val": 0, "train": 0}
    jobs = {
        split: [
            job
            for number in range(pairs[split] + singles[split])
            for job in _group(split, number, twins=number < pairs[split], seed=seed, fps=fps, taken=taken)
        ]
        for split in ("test", "val", "train")
    }
    return sorted(jobs["train"], key=_colours) + jobs["val"] + jobs["test"]


def _colours(job: Job) -> tuple[int, list[str]]:
    """Return by what train clips are sorted; twins have equal keys and stay adjacent."""
    return len(job.events), sorted(event.colour for event in job.events)


def _group(split: str, number: int, *, twins: bool, seed: int, fps: float, taken: set[tuple]) -> Iterator[Job]:
    """Draw one pair of order twins, or one clip without a twin; add its combination to `taken`."""
    rng = np.random.default_rng([seed, ("train", "val", "test").index(split), number])
    while True:
        count = 3 if rng.random() < _TRIPLE_SHARE else 2
        events = tuple(_event(count=count, fps=fps, rng=rng) for _ in range(count))
        combination = tuple(sorted(event.attributes for event in events))
        if combination not in taken and _differ(events):
            break
    taken.add(combination)
    tone = Tone(pitch=_pick(list(PITCHES), rng), motion=_pick(TONE_MOTIONS, rng), seed=_seed(rng))
    background = _seed(rng)
    drawn = wordings(events, tone=tone, count=1 + int(rng.choice(3, p=_CAPTION_COUNTS)), rng=rng)
    name, foil_rng = f"{split}_{number:05d}", np.random.default_rng([_seed(rng), number])
    orders = (range(count), range(count)[::-1]) if twins else (range(count),)
    for place, order in enumerate(orders):
        foiled = {"train": FOILS, "val": (), "test": FOILS[(number + place) % 2 :: 2]}[split]
        yield Job(
            clip_id=name + ("ab"[place] if twins else ""),
            split=split,
            group=name if twins else "",
            events=tuple(events[i] for i in order),
            tone=tone,
            background=background,
            captions=tuple(wording.caption(order) for wording in drawn),
            phrases=tuple(str(drawn[0].phrases[i]) for i in order),
            foils={what: _foil(what, drawn[0], events=events, order=order, rng=foil_rng) for what in foiled},
        )


def _foil(
    what: str, wording: Wording, *, events: tuple[Event, ...], order: Sequence[int], rng: np.random.Generator
) -> str:
    """Return the caption with the events in the opposite order, or with another value of one attribute of one event.

    The value is drawn from those that a clip could have: a foil that no clip could have would be told from the text.
    """
    if what == "order":
        return wording.caption(order[::-1])
    values = {
        "colour": list(COLOURS),
        "size": list(RADII),
        "texture": TEXTURES,
        "motion": MOTIONS,
        "shape": list(SHAPES),
    }
    while True:
        place, value = int(rng.integers(len(events))), _pick(values[what], rng)
        changed = replace(events[place], **{what: value})
        others = [event for i, event in enumerate(events) if i != place]
        if changed != events[place] and _possible(changed) and _differ([*others, changed]):
            return wording.with_attribute(what, value, event=place, rng=rng).caption(order)


def _possible(event: Event) -> bool:
    """Return whether the motion is visible: round shapes do not turn."""
    return event.motion != "turns" or event.shape not in ROUND


def _event(*, count: int, fps: float, rng: np.random.Generator) -> Event:
    """Draw one event for a clip of `count` events."""
    motion = _pick(MOTIONS, rng)
    return Event(
        shape=_pick([shape for shape in SHAPES if motion != "turns" or shape not in ROUND], rng),
        colour=_pick(list(COLOURS), rng),
        size=_pick(list(RADII), rng),
        texture=_pick(TEXTURES, rng),
        motion=motion,
        frames=round(rng.uniform(*_SECONDS[count]) * fps),
        seed=_seed(rng),
    )


def _differ(events: Sequence[Event]) -> bool:
    """Return whether any two events differ in at least two of shape, colour and motion, so that order is visible."""
    return all(
        (a.shape != b.shape) + (a.colour != b.colour) + (a.motion != b.motion) >= 2
        for a, b in itertools.combinations(events, 2)
    )


def _pick(options: Sequence[str], rng: np.random.Generator) -> str:
    return options[int(rng.integers(len(options)))]


def _seed(rng: np.random.Generator) -> int:
    return int(rng.integers(2**31))


def _clip(job: Job, *, fps: float) -> Clip:
    """Return the manifest's line for one clip.

    Its label is the colour of the first event, which depends on the order. Each event is a span, with its motion as
    label and its phrase as text. `meta` has the events in full, and `attributes`: all their shapes, colours, sizes,
    textures and motions, as labels of the clip. Its questions (`questions.questions`) are about events and tone.
    """
    starts = np.cumsum([0, *(event.frames for event in job.events)]) / fps
    events = [
        {key: value for key, value in asdict(event).items() if key not in ("frames", "seed")}
        | {"start_s": round(float(start), 4), "end_s": round(float(end), 4)}
        for event, start, end in zip(job.events, starts[:-1], starts[1:], strict=True)
    ]
    meta: dict = {"group": job.group} if job.group else {}
    meta |= {"foils": job.foils} if job.foils else {}
    meta |= {"events": events, "tone": {"pitch": job.tone.pitch, "motion": job.tone.motion}}
    meta["attributes"] = sorted({name for event in job.events for name in event.attributes})
    spans = tuple(
        Span(start_s=float(told["start_s"]), end_s=float(told["end_s"]), label=event.motion, text=phrase)
        for told, event, phrase in zip(events, job.events, job.phrases, strict=True)
    )
    return Clip(
        clip_id=job.clip_id,
        path=job.path,
        captions=job.captions,
        split=job.split,
        start_s=None,
        end_s=None,
        labels=(job.events[0].colour,),
        spans=spans,
        questions=questions(job.events, tone=job.tone, clip_id=job.clip_id),
        transcript="",
        meta=meta,
    )


def _check(*, train: int, val: int, test: int, size: int, fps: float, workers: int) -> None:
    for name, count in (("train", train), ("val", val)):
        if count < 0 or count % 2:
            raise UserError(f"{name}={count}: the {name} clips are pairs of order twins; give an even number from 0 up")
    if test < 0:
        raise UserError(f"test={test}: the number of test clips cannot be negative; give a number from 0 up")
    check_video(size=size, fps=fps, workers=workers)


def _write_clip(job: Job, *, out: Path, size: int, fps: float) -> None:
    publish(out / job.path, encode_clip(job.events, tone=job.tone, background=job.background, size=size, fps=fps))
