"""`twinreel bench data`: the rate of the input pipeline, and that of the raw decoder, in one run."""

import argparse
import concurrent.futures
import dataclasses
import json
import math
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from ...base.errors import UserError
from ...base.parser import Parser
from ...data.transforms.units import is_unit, split_units

if TYPE_CHECKING:  # at run time it would load tensorflow, for which --help need not wait
    from ...data.batches.pipeline import Batches
    from ...data.options import DataOptions

DESCRIPTION = """\
Measure the training input of a prepared folder: records -> drawn frames -> decoded and cropped -> batches.

  twinreel bench data --data runs/demo/moving_shapes
  twinreel bench data --data data/mine --num_frames 16 --threads 8 --json

Prints frames/s, clips/s and CPU time per frame of the pipeline and of libjpeg-turbo alone (simplejpeg), which decodes
the same JPEG files in full, from memory, in as many threads. `ratio` is the pipeline's rate divided by that of
libjpeg-turbo. The two take turns in one process, so that other load affects both; CPU time per frame is the better
figure on a busy machine. Of a folder with frames in H.264, PyAV alone decodes each drawn frame from its key picture on.

Further rows are the pipeline with sound, with every transform and with a mixture of five sources. The last line is the
CPU time of each stage on its own, in one thread: read a record, parse it, draw and extract its frames, decode them in
full, transform them. `bench frames` compares the two ways to store frames.
"""
_ROUNDS = 4
_RAW_FRAMES = 2048  # frames held in memory for the raw rate


def main(argv: list[str]) -> int:
    """Run the verb."""
    parser = Parser(verb="bench data", description=DESCRIPTION)
    parser.add_argument("--data", required=True, metavar="DIR", help="a folder that `twinreel prepare` made")
    parser.add_argument("--split", default="train", help="split to read")
    parser.add_argument("--num_frames", type=int, default=8, help="frames of a clip")
    parser.add_argument("--batch_size", type=int, default=32, help="clips of a batch")
    parser.add_argument(
        "--video",
        default="",
        help="preprocessing, as in config.data.train_video; by default 'random_crop(n)|flip_lr' with n = 224 or the "
        "shortest side in the data",
    )
    parser.add_argument("--threads", type=int, default=0, help="decoding threads; 0 = one per core")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of each measurement")
    parser.add_argument(
        "--variants",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="also measure sound, transforms and a mixture",
    )
    parser.add_json()
    args, _ = parser.parse(argv)
    result = measure(
        args.data,
        split=args.split,
        num_frames=args.num_frames,
        batch_size=args.batch_size,
        video=args.video,
        threads=args.threads,
        seconds=args.seconds,
        variants=args.variants,
    )
    print(json.dumps(result)) if args.json else _print(result)
    return 0


def measure(
    folder: str,
    *,
    split: str = "train",
    num_frames: int = 8,
    batch_size: int = 32,
    video: str = "",
    threads: int = 0,
    seconds: float = 10.0,
    variants: bool = True,
) -> dict[str, Any]:
    """Measure the pipeline and the raw decoder, `raw`.

    Args:
      folder: a prepared folder.
      split: its split to read.
      num_frames: frames T of a clip.
      batch_size: clips of a batch.
      video: preprocessing; "" for random_crop(n)|flip_lr, n = 224 or the shortest side in the data.
      threads: decoding threads; 0 = one per core.
      seconds: length of each of the two measurements.
      variants: whether to measure the pipeline with sound, all transforms and a mixture, too, half as long each.

    Returns:
      `clips_per_s`, `frames_per_s` of the pipeline, `raw_frames_per_s` of the `raw` decoder, `ratio` of the latter two;
      the settings; `encoded_bytes` from which a drawn frame is decoded, on average; `stages` (see `data_stages.stages`)
      with the `rest` of the pipeline's CPU time (threads, batches, copies); and `variants`: by name `frames_per_s`,
      `cpu_us_per_frame`.

    Raises:
      UserError: a fault in the folder or the options.
    """
    if seconds <= 0:
        raise UserError(f"--seconds must be above 0, got {seconds}")
    if threads < 0:
        raise UserError(f"--threads must be at least 0, got {threads}")
    from ..sides.data_stages import stages

    fields = {"split": split, "num_frames": num_frames, "batch_size": batch_size, "video": video, "threads": threads}
    data, clips = _options(folder, **fields)
    start = _starter(data)
    clock = _compare(start(data), data=data, seconds=seconds)
    pipeline, raw = clock.clips / clock.pipeline_s, clock.raw_frames / clock.raw_s
    cpu = 1e6 * clock.pipeline_cpu_s / (clock.clips * num_frames)
    steps = stages(data)
    changed = _variants(data) if variants else {}
    return {
        "clips_per_s": pipeline,
        "frames_per_s": pipeline * num_frames,
        "raw_frames_per_s": raw,
        "ratio": pipeline * num_frames / raw,
        "cpu_us_per_frame": cpu,
        "raw_cpu_us_per_frame": 1e6 * clock.raw_cpu_s / clock.raw_frames,
        "threads": data.feed.num_threads,
        "video": data.augment.train_video,
        "num_frames": num_frames,
        "batch_size": data.feed.batch_size,
        "raw": "PyAV" if is_unit(clock.encoded[0]) else "libjpeg-turbo",
        "encoded_bytes": sum(map(len, clock.encoded)) / len(clock.encoded),
        "clips": clips,
        "stages": steps | {"rest": cpu - sum(steps.values())},
        "variants": {name: rate(start, data, seconds=seconds / 2) for name, data in changed.items()},
    }


def _options(
    folder: str, *, split: str, num_frames: int, batch_size: int, video: str, threads: int
) -> tuple["DataOptions", int]:
    """Return `config.data` for the measurement, and the number of clips of the split."""
    from ...data.batches.records import Records
    from ...data.machine import cores
    from ...data.options import DataOptions

    rows = Records(folder).rows(split)
    side = min(min(row["height"], row["width"]) for row in rows)
    fields = {
        "dir": folder,
        "batch_size": min(batch_size, len(rows)),
        "num_frames": num_frames,
        "train_split": split,
        "train_video": video or f"random_crop({min(224, side)})|flip_lr",
        "num_threads": threads or cores(),
    }
    return DataOptions.of(fields), len(rows)


def _starter(data: "DataOptions") -> Callable[["DataOptions"], "Batches"]:
    """Return a function that starts the pipeline with other options; all use one tokenizer."""
    from ...data.batches.pipeline import make_tokenizer, train_batches

    tokenizer = make_tokenizer(data)
    return lambda data: train_batches(data, tokenizer=tokenizer, seed=0, start_step=0)


def _variants(data: "DataOptions") -> dict[str, "DataOptions"]:
    """Return the options of the further rows, by name."""
    same = {"dir": data.feed.dir, "split": data.feed.train_split}
    return {
        "with sound": data.replace(audio_seconds=2.0),
        "all transforms": data.replace(train_video=_every_transform(data.augment.train_video)),
        "mixture of 5": data.replace(mixture={f"part{i}": same for i in range(5)}),
    }


def rate(start: Callable[["DataOptions"], "Batches"], data: "DataOptions", *, seconds: float) -> dict[str, float]:
    """Measure batches: `frames_per_s` and `cpu_us_per_frame`.

    Args:
      start: starts the pipeline.
      data: its options.
      seconds: length of the measurement, after the first batches.
    """
    batches = start(data)
    for _ in range(data.feed.prefetch + 2):
        next(batches)
    frames, begin, cpu = 0, time.perf_counter(), time.process_time()
    while (spent := time.perf_counter() - begin) < seconds or not frames:
        frames += len(next(batches)["valid"]) * data.input.num_frames
    used = time.process_time() - cpu
    batches.close()
    return {"frames_per_s": frames / max(spent, 1e-9), "cpu_us_per_frame": 1e6 * used / frames}


def _every_transform(declared: str) -> str:
    """Return the same geometry, followed by every other transform."""
    return f"{declared}|rotate(10)|color_jitter(0.4, hue=0.1)|grayscale(0.2)|blur|frame_noise(4)|rand_augment(2, 9)"


def _compare(batches: "Batches", *, data: "DataOptions", seconds: float) -> "_Clock":
    """Measure the pipeline and the raw decoder in turns."""
    clock = _Clock(data, batches=batches, encoded=_encoded(batches, limit=_RAW_FRAMES), seconds=seconds / _ROUNDS)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        for _ in bar.track(range(_ROUNDS), description="measuring"):
            clock.one_round()
    batches.close()
    return clock


@dataclasses.dataclass
class _Clock:
    """Times both decoders in turns."""

    data: "DataOptions"
    batches: "Batches"
    encoded: Sequence[bytes]
    seconds: float
    clips: int = 0
    pipeline_s: float = 0.0
    pipeline_cpu_s: float = 0.0
    raw_frames: int = 0
    raw_s: float = 0.0
    raw_cpu_s: float = 0.0

    def one_round(self) -> None:
        """Time the raw decoder, then the pipeline."""
        _wait_until_idle()
        begin, cpu = time.perf_counter(), time.process_time()
        self.raw_frames += _decode_raw(self.encoded, threads=self.data.feed.num_threads, until=begin + self.seconds)
        self.raw_s += time.perf_counter() - begin
        self.raw_cpu_s += time.process_time() - cpu
        for _ in range(self.data.feed.prefetch + 2):  # batches that were made during the pause
            next(self.batches)
        begin, cpu = time.perf_counter(), time.process_time()
        while (spent := time.perf_counter() - begin) < self.seconds:
            self.clips += len(next(self.batches)["video"])
        self.pipeline_s += spent
        self.pipeline_cpu_s += time.process_time() - cpu


def _decode_raw(encoded: Sequence[bytes], *, threads: int, until: float) -> int:
    """Decode the frames repeatedly in several threads; return the number of decoded frames."""
    decoder = _raw_h264 if is_unit(encoded[0]) else _raw_jpeg(encoded)

    def work(first: int) -> int:
        done, decode = 0, decoder()
        while time.perf_counter() < until:
            decode(encoded[(first + done * threads) % len(encoded)])
            done += 1
        return done

    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        return sum(pool.map(work, range(threads)))


def _raw_jpeg(encoded: Sequence[bytes]) -> Callable[[], Callable[[bytes], object]]:
    """Return what makes the decoder of a thread."""
    import simplejpeg

    largest = max(math.prod(map(int, simplejpeg.decode_jpeg_header(jpeg)[:2])) for jpeg in encoded)

    def decoder() -> Callable[[bytes], object]:
        buffer = bytearray(3 * largest)
        return lambda jpeg: simplejpeg.decode_jpeg(jpeg, buffer=buffer)

    return decoder


def _raw_h264() -> Callable[[bytes], object]:
    """Return the decoder of a thread."""
    import av
    from av.video.reformatter import VideoReformatter

    reformatter = VideoReformatter()

    def decode(units: bytes) -> object:
        context: Any = av.CodecContext.create("h264", "r")
        context.thread_count = 1
        frames = [frame for unit in split_units(units) for frame in context.decode(av.Packet(unit))]
        last = [*frames, *context.decode(None)][-1]
        return reformatter.reformat(last, format="rgb24", threads=1).to_ndarray()

    return decode


def _encoded(batches: "Batches", *, limit: int) -> list[bytes]:
    """Return the first frames that the pipeline decodes."""
    files: list[bytes] = []
    for clip in batches.encoded_frames():
        files += clip
        if len(files) >= limit:
            break
    return files


def _wait_until_idle(*, at_most: float = 10.0) -> None:
    """Wait until the pipeline has filled its buffers and its threads are idle."""
    end = time.perf_counter() + at_most
    while time.perf_counter() < end:
        cpu = time.process_time()
        time.sleep(0.1)
        if time.process_time() - cpu < 0.01:
            return


def _print(result: dict[str, Any]) -> None:
    table = Table("", "frames/s", "clips/s", "CPU µs/frame", title=f"{result['video']}, {result['threads']} threads")
    frames = result["num_frames"]
    for name, key in (("pipeline", ""), (f"{result['raw']} alone", "raw_")):
        rate = result[f"{key}frames_per_s"]
        table.add_row(name, f"{rate:,.0f}", f"{rate / frames:,.1f}", f"{result[f'{key}cpu_us_per_frame']:,.0f}")
    for name, found in result["variants"].items():
        speed = found["frames_per_s"]
        table.add_row(name, f"{speed:,.0f}", f"{speed / frames:,.1f}", f"{found['cpu_us_per_frame']:,.0f}")
    console = Console()
    console.print(table)
    steps = ", ".join(f"{name} {spent:,.0f}" for name, spent in result["stages"].items())
    console.print(f"CPU µs per frame, by stage: {steps}")
    console.print(f"ratio {result['ratio']:.2f}; {frames} frames a clip, {result['encoded_bytes'] / 1e3:,.1f} kB each")
