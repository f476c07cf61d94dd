"""Write `moving_shapes`, the demo data set: short MP4 files (H.264, AAC) of coloured shapes that do one thing after
another while a tone plays, with captions that say what happens in which order.

Train and val consist of order twins: two clips whose events are the same and happen in the other order, told in the
same words. Half of the test clips are twins. No combination of events stands in two splits.
"""

import functools
import io
import itertools
import json
import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from jaxtyping import UInt8
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ..base.errors import UserError
from ..data.machine import cores
from ..data.manifest import Clip, write_manifest
from .captions import wordings
from .render import (
    COLOURS,
    MOTIONS,
    PITCHES,
    RADII,
    ROUND,
    SAMPLE_RATE,
    SHAPES,
    TEXTURES,
    TONE_MOTIONS,
    Event,
    Tone,
    render_clip,
    render_tone,
)

VERSION = 4
_TRIPLE_SHARE = 0.45  # of the groups that have three events
_SECONDS = {2: (1.2, 1.5), 3: (0.85, 1.0)}  # shortest and longest event, by number of events
_CAPTION_COUNTS = (0.2, 0.4, 0.4)  # chances of one, two and three captions
# One thread and no CPU-bound short cuts: without `cpu-independent`, a few files in a hundred differ from run to run
# (x264's macroblock tree).
_X264 = {"preset": "veryfast", "crf": "16", "threads": "1", "x264-params": "cpu-independent=1:me=dia:subme=1"}
_AAC_FRAME = 1024  # samples in a packet
_POOL_FROM = 64  # fewer clips are written sooner than a second process starts


@dataclass(frozen=True, kw_only=True)
class Job:
    """One clip to write."""

    clip_id: str
    split: str
    group: str  # "" = the clip has no twin
    events: tuple[Event, ...]
    tone: Tone
    background: int  # seed
    captions: tuple[str, ...]

    @property
    def path(self) -> str:
        """Where the clip lies, relative to the manifest."""
        return f"clips/{self.split}/{self.clip_id}.mp4"


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
    """Write the clips and their manifest below `out`; an interrupted call is taken up where it stopped.

    Arguments:
      out: folder to write; made if absent.
      seed: same seed, same bytes (for one version of PyAV).
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
      UserError: a number that cannot be, or `out` holds clips that were made with other numbers.
    """
    _check(train=train, val=val, test=test, size=size, fps=fps, workers=workers)
    made_with = {"version": VERSION, "seed": seed, "train": train, "val": val, "test": test, "size": size, "fps": fps}
    _claim(out, made_with=made_with)
    jobs = plan(seed=seed, train=train, val=val, test=test, fps=fps)
    todo = [job for job in jobs if not (out / job.path).is_file()]
    _write_clips(todo, out=out, size=size, fps=fps, workers=workers, progress=progress)
    manifest = out / "manifest.jsonl"
    write_manifest(manifest, clips=(_clip(job, fps=fps) for job in jobs))
    return manifest


def plan(*, seed: int, train: int, val: int, test: int, fps: float) -> list[Job]:
    """Settle what every clip shows and says, as a pure function of the arguments; twins stand side by side.

    The splits are drawn one after another, test first, so that the test clips do not depend on the size of the
    others; a combination (the events of a clip by their attributes, in any order) that was drawn once is not drawn
    again.
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
    return jobs["train"] + jobs["val"] + jobs["test"]


def _group(split: str, number: int, *, twins: bool, seed: int, fps: float, taken: set[tuple]) -> Iterator[Job]:
    """Draw one pair of order twins, or one clip that has no twin; adds its combination to `taken`."""
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
    told = wordings(events, tone=tone, count=1 + int(rng.choice(3, p=_CAPTION_COUNTS)), rng=rng)
    name = f"{split}_{number:05d}"
    for suffix, order in zip("ab" if twins else ("",), (range(count), range(count)[::-1]), strict=False):
        yield Job(
            clip_id=name + suffix,
            split=split,
            group=name if twins else "",
            events=tuple(events[i] for i in order),
            tone=tone,
            background=background,
            captions=tuple(wording.tell(order) for wording in told),
        )


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
    """Whether any two events differ in at least two of shape, colour and motion, so that their order can be seen."""
    return all(
        (a.shape != b.shape) + (a.colour != b.colour) + (a.motion != b.motion) >= 2
        for a, b in itertools.combinations(events, 2)
    )


def _pick(options: Sequence[str], rng: np.random.Generator) -> str:
    return options[int(rng.integers(len(options)))]


def _seed(rng: np.random.Generator) -> int:
    return int(rng.integers(2**31))


def _clip(job: Job, *, fps: float) -> Clip:
    """Return the manifest's line for one clip; its label is the colour of the first event, which takes time to tell."""
    starts = np.cumsum([0, *(event.frames for event in job.events)]) / fps
    events = [
        {key: value for key, value in asdict(event).items() if key not in ("frames", "seed")}
        | {"start_s": round(float(start), 4), "end_s": round(float(end), 4)}
        for event, start, end in zip(job.events, starts[:-1], starts[1:], strict=True)
    ]
    meta: dict = {"group": job.group} if job.group else {}
    meta |= {"events": events, "tone": {"pitch": job.tone.pitch, "motion": job.tone.motion}}
    return Clip(
        clip_id=job.clip_id,
        path=job.path,
        captions=job.captions,
        split=job.split,
        start_s=None,
        end_s=None,
        labels=(job.events[0].colour,),
        transcript="",
        meta=meta,
    )


def _check(*, train: int, val: int, test: int, size: int, fps: float, workers: int) -> None:
    for name, count in (("train", train), ("val", val)):
        if count < 0 or count % 2:
            raise UserError(f"{name}={count}: the {name} clips are pairs of order twins; give an even number from 0 up")
    if test < 0:
        raise UserError(f"test={test}: the number of test clips cannot be negative; give a number from 0 up")
    if size < 16 or size % 2:
        raise UserError(f"size={size}: H.264 in 4:2:0 needs an even side; give an even number from 16 up, such as 64")
    if not 4 <= fps <= 60:
        raise UserError(f"fps={fps}: the motions need 4 to 60 frames per second; give a rate in that range, such as 12")
    if workers < 0:
        raise UserError(f"workers={workers}: give the number of processes, or 0 for one per core")


def _claim(out: Path, *, made_with: dict) -> None:
    """Record in `out` what its clips are made with; refuse a folder whose clips are made with something else."""
    note = out / "moving_shapes.json"
    if note.is_file():
        found = json.loads(note.read_text())
        if found != made_with:
            wrong = [f"{k}={found.get(k)!r} (wanted {v!r})" for k, v in made_with.items() if found.get(k) != v]
            raise UserError(
                f"{out} holds moving_shapes clips made with {', '.join(wrong) or 'other settings'}; "
                "give another folder, or delete this one"
            )
        return
    if (out / "clips").exists():
        raise UserError(f"{out} holds a folder clips/ but no moving_shapes.json; give another folder")
    out.mkdir(parents=True, exist_ok=True)
    _publish(note, (json.dumps(made_with) + "\n").encode())


def _publish(path: Path, data: bytes) -> None:
    """Write a file that is either whole or absent."""
    partial = path.with_name(f".{path.name}.part")
    partial.write_bytes(data)
    partial.replace(path)


def _write_clips(jobs: list[Job], *, out: Path, size: int, fps: float, workers: int, progress: bool) -> None:
    for folder in {(out / job.path).parent for job in jobs}:
        folder.mkdir(parents=True, exist_ok=True)
    workers = workers or cores()
    one = functools.partial(_write_clip, out=out, size=size, fps=fps)
    columns = (
        TextColumn("moving_shapes"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("clips"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, disable=not progress or not jobs) as bar:
        task = bar.add_task("", total=len(jobs))
        if workers == 1 or len(jobs) < _POOL_FROM:
            for _ in map(one, jobs):
                bar.advance(task)
            return
        # spawn: a fork of a process that holds TensorFlow's or JAX's threads can hang
        with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
            for _ in pool.map(one, jobs, chunksize=16):
                bar.advance(task)


def _write_clip(job: Job, *, out: Path, size: int, fps: float) -> None:
    pictures = np.concatenate([_draw(event, size=size, background=job.background) for event in job.events])
    _publish(out / job.path, _encode(pictures, fps=fps, sound=_encode_tone(job.tone, seconds=len(pictures) / fps)))


@functools.lru_cache(maxsize=8)  # order twins show the same events and are written one after the other
def _draw(event: Event, *, size: int, background: int) -> UInt8[np.ndarray, "n h W"]:
    """Return the pictures of one event as yuv420p planes, h = 3/2 of the height.

    They are converted all at once, as one tall picture: a call per picture takes three times as long.
    """
    frames = render_clip([event], size=size, seed=background)  # [n,H,W,3]
    tall = av.VideoFrame.from_ndarray(frames.reshape(-1, size, 3), format="rgb24")
    planes = tall.reformat(format="yuv420p", interpolation="AREA").to_ndarray().reshape(-1)
    area = len(frames) * size * size
    y, u, v = np.split(planes, [area, area * 5 // 4])
    return np.concatenate([plane.reshape(len(frames), -1) for plane in (y, u, v)], axis=1).reshape(
        -1, size * 3 // 2, size
    )


def _encode(pictures: UInt8[np.ndarray, "T h W"], *, fps: float, sound: tuple[tuple[int, bytes], ...]) -> bytes:
    """Return an MP4 file: H.264 of the yuv420p pictures, and the encoded sound of `_encode_tone`."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        video = container.add_stream(
            "libx264",
            rate=Fraction(fps).limit_denominator(1001),
            options=_X264,
            width=pictures.shape[2],
            height=pictures.shape[1] * 2 // 3,
            pix_fmt="yuv420p",
        )
        audio = container.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
        for picture in pictures:
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="yuv420p")))
        container.mux(video.encode(None))
        for start, data in sound:
            packet = av.Packet(data)
            packet.stream, packet.time_base = audio, Fraction(1, SAMPLE_RATE)
            packet.pts = packet.dts = start
            packet.duration = _AAC_FRAME
            container.mux(packet)
    return file.getvalue()


@functools.lru_cache(maxsize=2)  # order twins sound alike, too
def _encode_tone(tone: Tone, *, seconds: float) -> tuple[tuple[int, bytes], ...]:
    """Return the tone as AAC packets with the sample at which each begins (the first one lies before 0: priming)."""
    encoder = av.AudioCodecContext.create("aac", "w")
    encoder.sample_rate, encoder.layout, encoder.format = SAMPLE_RATE, "mono", "fltp"
    encoder.bit_rate = 16_000
    encoder.options = {"aac_coder": "fast"}
    block = av.AudioFrame.from_ndarray(render_tone(tone, seconds=seconds)[None], format="s16", layout="mono")
    block.sample_rate = SAMPLE_RATE
    block.pts, block.time_base = 0, Fraction(1, SAMPLE_RATE)  # without them every packet is stamped 0
    packets = [*encoder.encode(block), *encoder.encode(None)]
    return tuple((int(packet.pts or 0), bytes(packet)) for packet in packets)
