"""Control rows: retrieval measured again with part of the input taken away, which shows what a model uses.

A model that scores the same with its frames in a random order does not use their order. Each control changes one thing
and leaves everything else as it is. Random draws are a function of (seed, clip) or of (seed, text), never of the order
of batches.
"""

import dataclasses
import hashlib
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np

from ...base.errors import UserError, unknown
from .words import ENGLISH, NOUNS, VERBS, shuffle_words, tagger_missing, tagger_name, tagger_of, without_words

ALL = "all"
SHUFFLED = "shuffled_frames"
SWAPPED = "swapped_sound"
MUTED = "muted"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Control:
    """One control.

    Attributes:
      about: what it changes, for the protocol.
      changes: "frames", "sound" or "words".
      order: of frames: (count T, generator) -> int [T], the frame that stands at each place.
      text: of words: (text, generator) -> text.
      without: of words: parts of speech to take out, for which a tagger is needed.
    """

    about: str
    changes: str
    order: Callable[[int, np.random.Generator], np.ndarray] | None = None
    text: Callable[[str, np.random.Generator], str] | None = None
    without: tuple[str, ...] = ()

    @property
    def side(self) -> str:
        """Whose embeddings are made again: "text" [n,E] or "video" [m,E]."""
        return "text" if self.changes == "words" else "video"


_REMOVED = "left out (text towers for retrieval are trained without a mask token)"
CONTROLS = {
    SHUFFLED: Control(
        about="the frames of each clip in a random order",
        changes="frames",
        order=lambda count, draw: draw.permutation(count),
    ),
    "reversed_frames": Control(
        about="the frames from last to first", changes="frames", order=lambda count, draw: np.arange(count)[::-1]
    ),
    "one_frame": Control(
        about="the middle frame, repeated", changes="frames", order=lambda count, draw: np.full(count, count // 2)
    ),
    "half_fps": Control(
        about="every second frame, shown twice", changes="frames", order=lambda count, draw: np.arange(count) // 2 * 2
    ),
    "first_half": Control(
        about="the first half of the frames, each shown twice",
        changes="frames",
        order=lambda count, draw: np.arange(count) // 2,
    ),
    SWAPPED: Control(about="the sound of another clip, drawn at random", changes="sound"),
    MUTED: Control(about="no sound: masked, as for a clip that has none", changes="sound"),
    "shuffled_words": Control(
        about="the words of each text in a random order; punctuation keeps its place", changes="words",
        text=shuffle_words,
    ),
    "masked_nouns": Control(about=f"nouns {_REMOVED}", changes="words", without=NOUNS),
    "masked_verbs": Control(about=f"verbs, auxiliaries among them, {_REMOVED}", changes="words", without=VERBS),
}  # fmt: skip
"""Name -> control."""


def check_names(names: Collection[str], *, tagger: str = ENGLISH) -> None:
    """Raise UserError for a control that does not exist, or one that needs a tagger which is not installed."""
    for name in names:
        if name not in (*CONTROLS, ALL):
            raise unknown("--control", name, [*CONTROLS, ALL])
        if name != ALL and CONTROLS[name].without and (reason := tagger_missing(tagger)):
            raise UserError(f"--control {name} {reason}")


def choose(
    names: Collection[str], *, frames: int, heard: bool, with_sound: int, tagger: str = ENGLISH
) -> tuple[tuple[str, ...], dict[str, str]]:
    """Choose the controls to measure.

    Args:
      names: as given; "all" stands for those that apply.
      frames: T that the model takes of a clip.
      heard: whether the side that stands for a clip has sound.
      with_sound: clips of the split that have sound.
      tagger: spaCy model that finds parts of speech.

    Returns:
      Names in the order of `CONTROLS`, and with "all" those that do not apply with the reason.

    Raises:
      UserError: a control that was named does not exist or does not apply.

    >>> choose(["muted", "half_fps"], frames=4, heard=True, with_sound=1)
    (('half_fps', 'muted'), {})
    >>> choose(["all"], frames=4, heard=False, with_sound=0)[1]["muted"]
    'what stands for a clip has no sound in it (--clip_side)'
    """
    check_names(names, tagger=tagger)
    unfit = {}
    for name, control in CONTROLS.items():
        reason = _unfit(name, control, frames=frames, heard=heard, with_sound=with_sound)
        reason = reason or (tagger_missing(tagger) if control.without else "")
        if reason and name in names:
            raise UserError(f"--control {name} does not apply: {reason}; leave it out")
        if reason and ALL in names:
            unfit[name] = reason
    return tuple(name for name in CONTROLS if (ALL in names or name in names) and name not in unfit), unfit


def _unfit(name: str, control: Control, *, frames: int, heard: bool, with_sound: int) -> str:
    """Return why a control does not apply; "" if it does."""
    if control.changes == "frames" and frames < 2:
        return "the model sees one frame of a clip"
    if control.changes == "sound" and not heard:
        return "what stands for a clip has no sound in it (--clip_side)"
    if control.changes == "sound" and with_sound < (2 if name == SWAPPED else 1):
        return f"too few clips of the split have sound ({with_sound})"
    return ""


def reorder_frames(video: np.ndarray, *, name: str, key: tuple[int, int], real: np.ndarray | None = None) -> np.ndarray:
    """Put frames in the order of a control.

    Args:
      video: frames [T,H,W,3], or those of each view [V,T,H,W,3]; or features [T,C].
      name: a control of frames.
      key: (seed, clip), of which alone the draws are a function.
      real: bool [T], or that of each view [V,T]: padding (False) stays where it is, behind the others. None = all are
        real.

    >>> clip = np.arange(5)[:, None]
    >>> {name: reorder_frames(clip, name=name, key=(0, 0)).ravel().tolist() for name in ("one_frame", "half_fps")}
    {'one_frame': [2, 2, 2, 2, 2], 'half_fps': [0, 0, 2, 2, 4]}
    """
    order, draw = CONTROLS[name].order, _generator(*key)
    assert order is not None, name
    views = video if video.ndim == 5 else video[None]
    counts = np.full(len(views), views.shape[1]) if real is None else np.sum(np.atleast_2d(real), axis=1)
    parts = zip(views, counts.tolist(), strict=True)
    made = [np.concatenate([view[:count][order(count, draw)], view[count:]]) for view, count in parts]
    return np.stack(made).reshape(video.shape)


def change_texts(texts: Sequence[str], *, name: str, seed: int, tagger: str = ENGLISH) -> list[str]:
    """Return texts as a control of words has them; equal texts stay equal.

    Args:
      texts: any number.
      name: a control of words.
      seed: of the draws; that of a text is a function of (seed, text).
      tagger: spaCy model that finds parts of speech.

    Raises:
      UserError: there is no such tagger.

    >>> change_texts(["a dog runs", "a dog runs"], name="shuffled_words", seed=3)
    ['dog a runs', 'dog a runs']
    """
    control, distinct = CONTROLS[name], list(dict.fromkeys(texts))
    if control.without:
        changed = without_words(distinct, parts=control.without, tagger=tagger_of(tagger))
    else:
        assert control.text is not None, name
        changed = [control.text(text, _generator(seed, _number(text))) for text in distinct]
    made = dict(zip(distinct, changed, strict=True))
    return [made[text] for text in texts]


def other_sounds(has_sound: np.ndarray, *, seed: int) -> np.ndarray:
    """Draw for each clip another one, whose sound it gets: int64 [m]; a clip without sound, or alone, keeps its own.

    Args:
      has_sound: bool [m].
      seed: of the draws; that of a clip is a function of (seed, clip) and of which clips have sound.

    >>> other_sounds(np.array([True, False, True]), seed=0).tolist()
    [2, 1, 0]
    """
    partner = np.arange(len(has_sound))
    sounding = np.flatnonzero(has_sound)
    for place, clip in enumerate(sounding.tolist()) if len(sounding) > 1 else ():
        step = 1 + _generator(seed, clip).integers(len(sounding) - 1)
        partner[clip] = sounding[(place + step) % len(sounding)]
    return partner


def mute(sound: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the sound of a batch with every row masked: `audio_mask` is False, `audio_samples` 0.

    What is masked does not matter to a model; it is zero so that equal frames are equal input.
    """
    return {key: np.zeros_like(value) for key, value in sound.items()}


def _generator(*key: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=np.array(key, np.uint64)))


def _number(text: str) -> int:
    """Return a number below 2**64 that the text alone decides."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def about_controls(
    names: Sequence[str], *, seed: int | None, unfit: dict[str, str], tagger: str = ENGLISH
) -> dict[str, Any]:
    """Return what the protocol says: rules, seed, the tagger if there is one, and why other controls were left out."""
    made: dict[str, Any] = {"rules": {name: CONTROLS[name].about for name in names}}
    made |= {"seed": seed, "not_applicable": unfit}
    tagged = seed is not None and any(CONTROLS[name].without for name in names)
    return made | ({"tagger": tagger_name(tagger)} if tagged else {})
