"""Write `films`, longer MP4 files that are joined from the clips of `moving_shapes`, with importance from annotators.

A film shows clips of one split, each clip in one film only. Its annotators score every half second from 1 to 5. They
share a taste for colours and motions that is drawn from the seed and stands nowhere in the film; each has a mind of his
own besides. `meta.shot_changes` are the times at which another event begins, `meta.joins` those of another clip.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..base.errors import UserError
from ..data.manifest import Clip, read_manifest, write_manifest
from ..data.media.cut import Part, join
from .render import COLOURS, MOTIONS
from .writing import Planned, claim, write_missing

VERSION = 1
ANNOTATORS = 5
PART_S = 0.5
"""Length of the parts that are scored."""
_NOISE = 0.15  # standard deviation of an annotator's opinion of an event, of a taste from 0 to 1


@dataclass(frozen=True, kw_only=True)
class Film(Planned):
    """One film to write, of some clips in their order."""

    clips: tuple[Clip, ...]


def write(
    out: Path,
    *,
    manifest: Path,
    seed: int = 0,
    films: int = 240,
    fewest: int = 6,
    most: int = 10,
    workers: int = 0,
    progress: bool = True,
) -> Path:
    """Write films and their manifest below `out`; calling it again writes what is missing.

    Args:
      out: folder to write; created if absent.
      manifest: of `moving_shapes.write`.
      seed: of the order of clips, and of the annotators.
      films: of each split at most; fewer where the clips run out.
      fewest: clips of a film at least.
      most: clips of a film at most.
      workers: processes; 0 = one per core.
      progress: whether to show a progress bar.

    Returns:
      The path of the manifest, `out/manifest.jsonl`.

    Raises:
      UserError: clips of another kind, no film, or `out` holds films that were made with other numbers.
    """
    if not (films >= 1 and 1 <= fewest <= most):
        raise UserError(f"films={films} of {fewest} to {most} clips; wanted at least 1, and the second no less")
    clips = read_manifest(manifest)
    if any("events" not in clip.meta for clip in clips):
        raise UserError(f"{manifest} has clips without meta.events; give the manifest of the demo's videos")
    planned = plan(clips, seed=seed, films=films, fewest=fewest, most=most)
    made_with = {"seed": seed, "films": films, "fewest": fewest, "most": most, "clips": len(clips)}
    claim(out, name="films", made_with={"version": VERSION, **made_with})
    one = functools.partial(_write_film, out=out, source=manifest.parent)
    write_missing(planned, out=out, write=one, name="films", workers=workers, progress=progress)
    taste = _taste(seed)
    write_manifest(out / "manifest.jsonl", clips=(_clip(film, taste=taste, seed=seed) for film in planned))
    return out / "manifest.jsonl"


def plan(clips: Sequence[Clip], *, seed: int, films: int, fewest: int, most: int) -> list[Film]:
    """Choose the clips of each film, as a pure function of the arguments; each clip is in one film at most."""
    made = []
    for split in dict.fromkeys(clip.split for clip in clips):
        own = [clip for clip in clips if clip.split == split]
        rng = np.random.default_rng([seed, len(own)])
        order, place = rng.permutation(len(own)), 0
        for number in range(films):
            chosen = order[place : place + int(rng.integers(fewest, most + 1))]
            place += len(chosen)
            if len(chosen) < fewest:
                break
            found = tuple(own[i] for i in chosen)
            made.append(Film(clip_id=f"film_{split}_{number:04d}", split=str(split), clips=found))
    if not made:
        raise UserError(f"{len(clips)} clips are too few for a film of at least {fewest} of one split")
    return made


def _events(film: Film) -> list[dict[str, Any]]:
    """Return the events of all clips of a film, with times in the film."""
    found, begin = [], 0.0
    for clip in film.clips:
        for event in clip.meta["events"]:
            times = {key: round(begin + event[key], 4) for key in ("start_s", "end_s")}
            found.append({**event, **times})
        begin = found[-1]["end_s"]
    return found


def _taste(seed: int) -> dict[str, float]:
    """Draw how much each colour and each motion is liked, evenly from 0 to 1."""
    rng, taste = np.random.default_rng([seed, 7]), {}
    for names in (list(COLOURS), list(MOTIONS)):
        taste |= dict(zip(rng.permutation(names).tolist(), np.linspace(0, 1, len(names)).tolist(), strict=True))
    return taste


def _clip(film: Film, *, taste: dict[str, float], seed: int) -> Clip:
    """Return the manifest's line for a film."""
    events, numbers = _events(film), [ord(c) for c in film.clip_id]
    rng = np.random.default_rng([seed, *numbers])
    liked = np.array([(taste[event["colour"]] + taste[event["motion"]]) / 2 for event in events])
    opinions = liked + rng.normal(0, _NOISE, (ANNOTATORS, len(events)))
    length = events[-1]["end_s"]
    parts = max(1, round(length / PART_S))
    ends = np.array([event["end_s"] for event in events])
    place = np.minimum(np.searchsorted(ends, (np.arange(parts) + 0.5) * length / parts, side="right"), len(events) - 1)
    scores = np.clip(np.round(1 + 4 * opinions), 1, 5).astype(int)[:, place]
    joins = np.cumsum([clip.meta["events"][-1]["end_s"] for clip in film.clips])[:-1]
    meta = {
        "importance": scores.tolist(),
        "shot_changes": [event["start_s"] for event in events[1:]],
        "joins": joins.round(4).tolist(),
        "events": events,
    }
    captions = (f"a film of {len(film.clips)} clips: {film.clips[0].captions[0]}",)
    return Clip(clip_id=film.clip_id, path=film.path, captions=captions, split=film.split, meta=meta)


def _write_film(film: Film, *, out: Path, source: Path) -> None:
    parts = [
        Part(source=source / clip.path, start_s=0.0, end_s=float(clip.meta["events"][-1]["end_s"]))
        for clip in film.clips
    ]
    join(parts, out=out / film.path)
