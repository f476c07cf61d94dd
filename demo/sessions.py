"""Write sessions of imagined users of the demo's clips, each of whom has a hidden taste: a colour and a motion.

Most clips of a session have an event in the user's colour and motion, such as something red that falls; the others are
any. Clips differ in popularity. Clips of the test split are new: no session of training has them.
"""

import dataclasses
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..base.errors import UserError
from ..data.manifest import read_manifest
from .render import COLOURS, MOTIONS
from .writing import publish

_NEW = "test"
"""Split of the data set whose clips are new."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Choices:
    """The clips that may be drawn for a session, and how often."""

    ids: Sequence[str]
    weight: np.ndarray
    fits: np.ndarray  # bool [colours * motions, clips]


def write(
    out: Path,
    *,
    manifest: Path,
    seed: int = 0,
    sessions: int = 4000,
    val: int = 200,
    test: int = 400,
    shortest: int = 5,
    longest: int = 12,
    loyalty: float = 0.9,
    new: float = 0.3,
    skew: float = 0.5,
) -> Path:
    """Write `out`, a file of JSON lines: `session`, `clips`, `times` and `split`.

    Args:
      out: the file.
      manifest: of `moving_shapes`, whose meta has the events.
      seed: the same seed gives the same sessions.
      sessions: how many.
      val: of these, to validate on.
      test: of these, to report on.
      shortest: clips of a session at least.
      longest: clips of a session at most.
      loyalty: share of the clips of a session that fit the taste.
      new: share of new clips in the sessions of val and test.
      skew: exponent of popularity; the clip of popularity rank r weighs r to the power of -skew.

    Returns:
      `out`.

    Raises:
      UserError: a number out of range, or a manifest without events.
    """
    if not 2 <= shortest <= longest or min(val, test) < 0 or val + test >= sessions:
        raise UserError(
            f"shortest={shortest}, longest={longest}, sessions={sessions}, val={val}, test={test}: sessions need at "
            "least two clips, and some must be left to train on"
        )
    if not (0 <= loyalty <= 1 and 0 <= new <= 1):
        raise UserError(f"loyalty={loyalty:g} and new={new:g} are shares from 0 to 1")
    clips = [clip for clip in read_manifest(manifest) if "events" in clip.meta]
    if not clips:
        raise UserError(f"{manifest} has no clips with events in their meta; make it with `twinreel demo`")
    tastes = list(itertools.product(COLOURS, MOTIONS))
    groups = {is_new: _choices([c for c in clips if (c.split == _NEW) == is_new], tastes, skew=skew, seed=seed)
              for is_new in (False, True)}  # fmt: skip
    lines = []
    for number in range(sessions):
        rng = np.random.default_rng([seed, number])
        split = "test" if number < test else "val" if number < test + val else "train"
        share = new if split != "train" and len(groups[True].ids) else 0.0
        how = {"loyalty": loyalty, "new": share, "count": int(rng.integers(shortest, longest + 1))}
        own = _session(groups, taste=int(rng.integers(len(tastes))), rng=rng, **how)
        times = np.cumsum(rng.integers(1, 90, len(own))).tolist()
        lines.append(json.dumps({"session": f"u{number:05d}", "clips": own, "times": times, "split": split}))
    out.parent.mkdir(parents=True, exist_ok=True)
    publish(out, ("\n".join(lines) + "\n").encode())
    return out


def _choices(clips: Sequence[Any], tastes: Sequence[tuple[str, str]], *, skew: float, seed: int) -> Choices:
    rank = np.random.default_rng([seed, len(clips)]).permutation(len(clips)) + 1
    having = [{(event["colour"], event["motion"]) for event in clip.meta["events"]} for clip in clips]
    fits = np.array([[taste in own for own in having] for taste in tastes], bool).reshape(len(tastes), len(clips))
    return Choices(ids=[clip.clip_id for clip in clips], weight=rank.astype(float) ** -skew, fits=fits)


def _session(
    groups: dict[bool, Choices], *, taste: int, loyalty: float, new: float, count: int, rng: np.random.Generator
) -> list[str]:
    own: list[str] = []
    while len(own) < count:
        group = groups[bool(rng.random() < new)]
        weight = group.weight.copy()
        if rng.random() < loyalty and group.fits[taste].any():
            weight *= group.fits[taste]
        clip = group.ids[int(rng.choice(len(weight), p=weight / weight.sum()))]
        if clip not in own or rng.random() < 0.01:  # a way out where few clips fit
            own.append(clip)
    return own
