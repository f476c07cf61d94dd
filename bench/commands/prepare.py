"""`twinreel bench prepare`: the rate of `prepare`, and that of a bare loop of PyAV and simplejpeg, in one run."""

import argparse
import collections
import concurrent.futures
import contextlib
import dataclasses
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from ...base.errors import UserError
from ...base.parser import Parser
from ...data.machine import cores
from ...data.manifest import Clip
from ...data.media.decode import DecodeOptions
from ...data.media.limits import Limits
from ...data.paths import PathLike, join
from ...data.prepare.inputs import read_inputs
from ...data.sources.captions import clean_captions
from ...data.sources.read import read_source

DESCRIPTION = """\
Measure how fast videos become records: the work of `twinreel prepare` up to the finished folder.

  twinreel bench prepare                             on 96 small films that it makes itself
  twinreel bench prepare clips.jsonl --clips 500 --workers 8

Prints clips/s, frames/s and CPU time per clip of `prepare` and of a bare loop, and two ratios: `ratio` is the bare
loop's time divided by that of `prepare` (1 = writing records costs nothing), `CPU ratio` the same in CPU seconds of all
processes, which other load on the machine affects less.

The bare loop is the least work that is possible: in as many processes, PyAV decodes every frame and the sound of the
same files, and simplejpeg compresses the frames to keep. It does not handle irregular files and writes nothing. The two
take turns."""
_STAGES = ("decode", "scale", "jpeg", "sound")


@dataclasses.dataclass
class _Usage:
    """Time that one side took over all rounds: wall time, CPU time of this process and of those that it started."""

    clips: int = 0
    frames: int = 0
    failed: int = 0
    wall_s: float = 0.0
    own_cpu_s: float = 0.0
    workers_cpu_s: float = 0.0
    stages_s: dict[str, float] = dataclasses.field(default_factory=lambda: dict.fromkeys(_STAGES, 0.0))

    @property
    def cpu_s(self) -> float:
        return self.own_cpu_s + self.workers_cpu_s

    @contextlib.contextmanager
    def clock(self) -> Iterator[None]:
        own, others = _cpu(resource.RUSAGE_SELF), _cpu(resource.RUSAGE_CHILDREN)
        begin = time.perf_counter()
        yield
        self.wall_s += time.perf_counter() - begin
        self.own_cpu_s += _cpu(resource.RUSAGE_SELF) - own
        self.workers_cpu_s += _cpu(resource.RUSAGE_CHILDREN) - others

    def result(self) -> dict[str, float]:
        return {
            "clips_per_s": self.clips / self.wall_s,
            "frames_per_s": self.frames / self.wall_s,
            "frames": self.frames,
            "failed": self.failed,
            "wall_s": self.wall_s,
            "cpu_s": self.cpu_s,
            "own_cpu_s": self.own_cpu_s,
            "workers_cpu_s": self.workers_cpu_s,
        }


def measure(
    source: Path | str,
    *,
    clips: int = 200,
    workers: int = 0,
    rounds: int = 3,
    fps: float = 8.0,
    short_side: int = 256,
    jpeg_quality: int = 92,
    audio: bool = True,
) -> dict[str, Any]:
    """Measure prepare and the bare loop on clips of a source.

    Args:
      source: manifest, CSV or folder.
      clips: number of its clips to use, evenly spread; 0 = all.
      workers: decoding processes of either side; 0 = one per core.
      rounds: measurements of each side.
      fps: frames per second to keep; 0 = every frame.
      short_side: pixels of the frames' shorter side; 0 = as in the file.
      jpeg_quality: 1 to 100.
      audio: whether to decode (and keep) the sound.

    Returns:
      `ratio` and `cpu_ratio` (bare over prepare); under `prepare` and `bare` the sums of all rounds (`clips_per_s`,
      `frames_per_s`, `wall_s`, `cpu_s`, of which `own_cpu_s` in the parent and `workers_cpu_s` in the decoding
      processes; `stages_s`, seconds by stage, of the bare loop); `bytes` written in a round; `import_s`, CPU seconds
      for loading tensorflow, which neither side includes; and the settings.

    Raises:
      UserError: a fault in the source or the options.
    """
    for name, value, least in (("clips", clips, 0), ("workers", workers, 0), ("rounds", rounds, 1)):
        if value < least:
            raise UserError(f"--{name} must be at least {least}, got {value}")
    root, chosen = _choose(source, clips=clips)
    options = DecodeOptions(fps=fps, short_side=short_side, jpeg_quality=jpeg_quality, audio=audio)
    workers = workers or cores()
    before = time.process_time()
    from ...data.prepare import builder  # noqa: F401  (loads tensorflow, outside the clock)

    loading = time.process_time() - before
    prepared, bare, size = _Usage(), _Usage(), 0
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        for _ in bar.track(range(rounds), description="measuring"):
            _run_bare(chosen, root=root, options=options, workers=workers, spent=bare)
            size = _run_prepare(chosen, root=root, options=options, workers=workers, spent=prepared)
    return {
        "ratio": bare.wall_s / prepared.wall_s,
        "cpu_ratio": bare.cpu_s / prepared.cpu_s,
        "prepare": prepared.result(),
        "bare": bare.result() | {"stages_s": bare.stages_s},
        "bytes": size,
        "import_s": loading,
        "clips": len(chosen),
        "workers": workers,
        "rounds": rounds,
        "options": options.to_dict(),
    }


def _choose(source: Path | str, *, clips: int) -> tuple[PathLike, Sequence[Clip]]:
    """Return the root of a source and some of its clips, evenly spread; 0 = all."""
    listing = read_source(Path(source))
    found = [clip for clip in clean_captions(listing.clips)[0] if clip.captions]
    if not found:
        raise UserError(f"no clip of {str(source)!r} has a caption or a label")
    step = max(1, len(found) // clips) if clips else 1
    return listing.root, found[::step][: clips or None]


def _cpu(who: int) -> float:
    usage = resource.getrusage(who)
    return usage.ru_utime + usage.ru_stime


def _run_prepare(clips: Sequence[Clip], *, root: PathLike, options: DecodeOptions, workers: int, spent: _Usage) -> int:
    """Build a folder of the clips once; return the size of its shards."""
    from ...data.prepare import builder

    contents = read_inputs(clips, root=root).contents()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        with spent.clock():
            builder.begin(out)
            settings = {
                "options": options,
                "limits": Limits(),
                "workers": workers,
                "max_bad_fraction": 1.0,
                "progress": False,
            }
            summary = builder.build(clips, contents=contents, root=root, out=out, **settings)
            builder.end(out)
    spent.clips += len(clips)
    spent.frames += sum(count.frames for count in summary.splits.values())
    spent.failed += len(summary.rejects)
    return summary.bytes


def _run_bare(clips: Sequence[Clip], *, root: PathLike, options: DecodeOptions, workers: int, spent: _Usage) -> None:
    """Run the bare loop over the clips once, in several processes."""
    kept = dataclasses.asdict(options)
    todo = collections.deque(json.dumps([join(root, clip.path), clip.start_s, clip.end_s, kept]) for clip in clips)
    with spent.clock(), concurrent.futures.ThreadPoolExecutor(workers) as pool:
        answers = [
            answer for future in [pool.submit(_feed, todo) for _ in range(workers)] for answer in future.result()
        ]
    spent.clips += len(clips)
    for answer in answers:
        spent.failed += not answer["frames"]
        spent.frames += answer["frames"]
        for stage in _STAGES:
            spent.stages_s[stage] += answer[stage]


def _feed(todo: collections.deque[str]) -> list[dict[str, Any]]:
    """Feed one process from the queue until it is empty; several threads share the queue."""
    command = f"import sys; sys.path[:] = {sys.path!r}; from twinreel.bench.sides.bare import serve; serve()"
    process = subprocess.Popen([sys.executable, "-c", command], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None and process.stdout is not None
    answers = []
    with process:
        with contextlib.suppress(IndexError):  # the queue is empty
            while True:
                process.stdin.write(todo.popleft().encode() + b"\n")
                process.stdin.flush()
                answers.append(json.loads(process.stdout.readline()))
        process.stdin.close()
    return answers


def main(argv: list[str]) -> int:
    """Run the verb."""
    parser = Parser(verb="bench prepare", description=DESCRIPTION)
    parser.add_argument(
        "source",
        nargs="?",
        metavar="SOURCE",
        help="a manifest (.jsonl), a .csv or a folder of videos; by default, films of drifting patterns are made",
    )
    parser.add_argument("--clips", type=int, default=200, help="number of its clips to use, evenly spread; 0 = all")
    parser.add_argument("--workers", type=int, default=0, help="decoding processes of either side; 0 = one per core")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each side")
    parser.add_argument("--fps", type=float, default=8.0, help="frames per second to keep; 0 keeps every frame")
    parser.add_argument("--short_side", type=int, default=256, help="pixels of the shorter side; 0 = as in the file")
    parser.add_argument("--jpeg_quality", type=int, default=92, help="1 to 100")
    parser.add_argument("--audio", action=argparse.BooleanOptionalAction, default=True, help="decode the sound, too")
    parser.add_json()
    args, _ = parser.parse(argv)
    fields: dict[str, Any] = vars(args)
    as_json, source = fields.pop("json"), fields.pop("source")
    if source:
        result = measure(source, **fields)
    else:
        from ..made.films import write_films

        with tempfile.TemporaryDirectory() as folder:
            result = measure(write_films(Path(folder)), **fields)
    if as_json:
        print(json.dumps(result))
    else:
        _print(result)
    return 0


def _print(result: dict[str, Any]) -> None:
    title = f"{result['clips']} clips, {result['workers']} processes, {result['rounds']} rounds"
    table = Table("", "clips/s", "frames/s", "CPU ms/clip", "of these: workers", "parent", title=title)
    per_clip = 1e3 / (result["clips"] * result["rounds"])
    for name, key in (("prepare", "prepare"), ("PyAV + simplejpeg alone", "bare")):
        side = result[key]
        cpu = (f"{side[part] * per_clip:,.1f}" for part in ("cpu_s", "workers_cpu_s", "own_cpu_s"))
        table.add_row(name, f"{side['clips_per_s']:,.1f}", f"{side['frames_per_s']:,.0f}", *cpu)
    console = Console()
    console.print(table)
    stages = result["bare"]["stages_s"]
    total = sum(stages.values()) or 1.0
    shares = ", ".join(f"{stage} {100 * stages[stage] / total:.0f} %" for stage in _STAGES)
    console.print(f"ratio {result['ratio']:.2f}, CPU ratio {result['cpu_ratio']:.2f}; the bare loop's time: {shares}")
    if result["prepare"]["failed"] or result["bare"]["failed"]:
        failed = (result[side]["failed"] // result["rounds"] for side in ("prepare", "bare"))
        console.print(
            "clips that could not be used: {} in prepare, {} in the bare loop".format(*failed), style="yellow"
        )
    console.print(f"once, in neither: {result['import_s']:.1f} CPU seconds to load tensorflow")
