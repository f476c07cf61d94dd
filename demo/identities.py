"""Write `identities`, short generated clips of one shape each, for the verification of identity.

An identity is a combination of shape, texture and colour: 198 in all, each in one split only. Its clips differ in size,
place, motion, shade and background, and so do those of all others: none of these says who it is.
"""

import dataclasses
import functools
import itertools
from pathlib import Path

import numpy as np

from ..base.errors import UserError
from ..data.manifest import Clip, write_manifest
from .encode import encode_silent
from .render import COLOURS, MOTIONS, RADII, ROUND, SHAPES, TEXTURES, Event, render_clip
from .writing import Planned, check_video, claim, publish, write_missing

VERSION = 1
IDENTITIES = tuple(itertools.product(SHAPES, TEXTURES, COLOURS))
_SECONDS = (1.2, 2.0)  # shortest and longest clip
_SPLITS = ("test", "val", "train")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job(Planned):
    """One clip to write; `seed` is that of the background."""

    event: Event
    seed: int

    @property
    def identity(self) -> str:
        """Texture, colour and shape."""
        return f"{self.event.texture} {self.event.colour} {self.event.shape}"


def write(
    out: Path,
    *,
    seed: int = 0,
    test: int = 40,
    val: int = 20,
    clips: int = 16,
    size: int = 64,
    fps: float = 12,
    workers: int = 0,
    progress: bool = True,
) -> Path:
    """Write the clips and their manifest below `out`; calling it again writes what is missing.

    Args:
      out: folder to write; created if absent.
      seed: the same seed gives the same clips, and the same identities in each split.
      test: identities of the test split.
      val: identities of the val split; all others are in the train split.
      clips: of each identity.
      size: side of the square picture in pixels, even.
      fps: frames per second.
      workers: processes; 0 = one per core that this process may use.
      progress: whether to show a progress bar.

    Returns:
      The path of the manifest, `out/manifest.jsonl`.

    Raises:
      UserError: a number out of range, or `out` holds clips that were made with other numbers.
    """
    if min(test, val) < 0 or test + val > len(IDENTITIES) - 2 or clips < 2:
        raise UserError(
            f"test={test}, val={val} and clips={clips}: of the {len(IDENTITIES)} identities two must be left to train "
            "on, and each needs two clips"
        )
    check_video(size=size, fps=fps, workers=workers)
    made_with = {"version": VERSION, "seed": seed, "test": test, "val": val, "clips": clips, "size": size, "fps": fps}
    claim(out, name="identities", made_with=made_with)
    jobs = plan(seed=seed, test=test, val=val, clips=clips, fps=fps)
    one = functools.partial(_write_clip, out=out, size=size, fps=fps)
    write_missing(jobs, out=out, write=one, name="identities", workers=workers, progress=progress)
    manifest = out / "manifest.jsonl"
    write_manifest(manifest, clips=(_clip(job) for job in jobs))
    return manifest


def plan(*, seed: int, test: int, val: int, clips: int, fps: float) -> list[Job]:
    """Draw every clip, as a pure function of the arguments."""
    order = np.random.default_rng(seed).permutation(len(IDENTITIES)).tolist()
    ends = np.cumsum([0, test, val, len(IDENTITIES) - test - val])
    jobs = []
    for split, begin, end in zip(_SPLITS, ends[:-1], ends[1:], strict=True):
        for number, which in itertools.product(order[begin:end], range(clips)):
            rng = np.random.default_rng([seed, number, which])
            event = _event(IDENTITIES[number], fps=fps, rng=rng)
            name = f"{split}_{number:03d}_{which:02d}"
            jobs.append(Job(clip_id=name, split=split, event=event, seed=int(rng.integers(2**31))))
    return jobs


def _event(identity: tuple[str, str, str], *, fps: float, rng: np.random.Generator) -> Event:
    shape, texture, colour = identity
    return Event(
        shape=shape,
        colour=colour,
        size=str(rng.choice(list(RADII))),
        texture=texture,
        motion=str(rng.choice([name for name in MOTIONS if name != "turns" or shape not in ROUND])),
        frames=round(rng.uniform(*_SECONDS) * fps),
        seed=int(rng.integers(2**31)),
    )


def _write_clip(job: Job, *, out: Path, size: int, fps: float) -> None:
    publish(out / job.path, encode_silent(render_clip([job.event], size=size, seed=job.seed), fps=fps))


def _clip(job: Job) -> Clip:
    """Return the manifest's line: the identity as label, and in `meta` what differs among its clips."""
    return Clip(
        clip_id=job.clip_id,
        path=job.path,
        split=job.split,
        labels=(job.identity,),
        meta={"size": job.event.size, "motion": job.event.motion},
    )
