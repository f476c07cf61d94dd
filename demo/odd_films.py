"""Write `odd_films`, generated films in which something odd may happen: MP4 files without sound, and their manifest.

A film shows six to nine events of moving shapes on one background. In a normal film nothing rises and the light is
steady. In an abnormal one, one or two neighbouring events are odd, all in the same way: the light flickers, or the
shape rises. The label says which; where it happens stands in the spans, which are for evaluation.
"""

import dataclasses
import functools
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from ..base.errors import UserError
from ..data.manifest import Clip, Span, write_manifest
from .encode import encode_silent
from .render import COLOURS, MOTIONS, RADII, ROUND, SHAPES, TEXTURES, Event, render_clip
from .writing import Planned, check_video, claim, publish, write_missing

VERSION = 1
NORMAL = "normal"
ODD = ("flickers", "rises")
_EVENTS = (6, 9)  # fewest and most events of a film
_SECONDS = (1.0, 1.5)  # shortest and longest event
_GAINS = (0.55, 0.8, 1.25, 1.6)  # of the light, drawn anew for each picture of a flicker
_SPLITS = ("train", "val", "test")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Film(Planned):
    """One film to write; `odd` are the numbers of the odd events, `kind` is their label, or `NORMAL`."""

    kind: str
    events: tuple[Event, ...]
    odd: tuple[int, ...]
    seed: int


def write(
    out: Path,
    *,
    seed: int = 0,
    train: int = 600,
    val: int = 60,
    test: int = 100,
    size: int = 64,
    fps: float = 12,
    workers: int = 0,
    progress: bool = True,
) -> Path:
    """Write the films and their manifest below `out`; calling it again writes what is missing.

    Args:
      out: folder to write; created if absent.
      seed: the same seed gives the same films.
      train: films of the train split, half of them normal.
      val: films of the val split.
      test: films of the test split.
      size: side of the square picture in pixels, even.
      fps: frames per second.
      workers: processes; 0 = one per core that this process may use.
      progress: whether to show a progress bar.

    Returns:
      The path of the manifest, `out/manifest.jsonl`.

    Raises:
      UserError: a number out of range, or `out` holds films that were made with other numbers.
    """
    counts = {"train": train, "val": val, "test": test}
    for name, count in counts.items():
        if count < 0:
            raise UserError(f"{name}={count}: the number of films cannot be negative; give a number from 0 up")
    check_video(size=size, fps=fps, workers=workers)
    claim(out, name="odd_films", made_with={"version": VERSION, "seed": seed, **counts, "size": size, "fps": fps})
    films = [_film(split, i, seed=seed, fps=fps) for split in _SPLITS for i in range(counts[split])]
    one = functools.partial(_write_film, out=out, size=size, fps=fps)
    write_missing(films, out=out, write=one, name="odd_films", workers=workers, progress=progress)
    manifest = out / "manifest.jsonl"
    write_manifest(manifest, clips=(_clip(film, fps=fps) for film in films))
    return manifest


def _film(split: str, number: int, *, seed: int, fps: float) -> Film:
    """Draw a film; every second one is odd, in each way in turn."""
    rng = np.random.default_rng([seed, _SPLITS.index(split), number])
    kind = NORMAL if number % 2 == 0 else ODD[number // 2 % len(ODD)]
    count, several = int(rng.integers(_EVENTS[0], _EVENTS[1] + 1)), int(rng.integers(1, 3))
    first = int(rng.integers(count - several + 1))
    odd = () if kind == NORMAL else tuple(range(first, first + several))
    events = tuple(_event(rises=kind == "rises" and i in odd, fps=fps, rng=rng) for i in range(count))
    return Film(
        clip_id=f"{split}_{number:04d}",
        split=split,
        kind=kind,
        events=events,
        odd=odd,
        seed=int(rng.integers(2**31)),
    )


def _event(*, rises: bool, fps: float, rng: np.random.Generator) -> Event:
    motion = "rises" if rises else str(rng.choice([name for name in MOTIONS if name not in ODD]))
    return Event(
        shape=str(rng.choice([shape for shape in SHAPES if motion != "turns" or shape not in ROUND])),
        colour=str(rng.choice(list(COLOURS))),
        size=str(rng.choice(list(RADII))),
        texture=str(rng.choice(TEXTURES)),
        motion=motion,
        frames=round(rng.uniform(*_SECONDS) * fps),
        seed=int(rng.integers(2**31)),
    )


def pictures_of(film: Film, *, size: int) -> UInt8[np.ndarray, "T H W 3"]:
    """Return the RGB pictures of a film."""
    parts = []
    for number, event in enumerate(film.events):
        pictures = render_clip([event], size=size, seed=film.seed)
        if film.kind == "flickers" and number in film.odd:
            gain = np.random.default_rng([film.seed, number]).choice(_GAINS, len(pictures))
            pictures = np.clip(pictures * gain[:, None, None, None], 0, 255).astype(np.uint8)
        parts.append(pictures)
    return np.concatenate(parts)


def _write_film(film: Film, *, out: Path, size: int, fps: float) -> None:
    publish(out / film.path, encode_silent(pictures_of(film, size=size), fps=fps))


def _clip(film: Film, *, fps: float) -> Clip:
    """Return the manifest's line for a film: its kind as label, and a span for its odd events together."""
    ends = np.cumsum([0, *(event.frames for event in film.events)]) / fps
    spans = ()
    if film.odd:
        start, end = round(float(ends[film.odd[0]]), 4), round(float(ends[film.odd[-1] + 1]), 4)
        spans = (Span(start_s=start, end_s=end, label=film.kind, text=""),)
    motions = [event.motion for event in film.events]
    return Clip(
        clip_id=film.clip_id,
        path=film.path,
        captions=(),
        split=film.split,
        start_s=None,
        end_s=None,
        labels=(film.kind,),
        spans=spans,
        transcript="",
        meta={"motions": motions},
    )
