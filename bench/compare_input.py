"""Compare twinreel's input with a PyTorch DataLoader that decodes the same videos, moment for moment.

The loader's workers open each MP4 with decord (if it is installed) or PyAV, decode T frames (the middles of T equal
parts of the clip), resize the shorter side to --short_side and cut a random square. twinreel takes the stored frames of
the same moments from a folder that `twinreel prepare` made of these files, and does the same with them, in as many
threads as the loader has workers.

Each side runs in a process of its own, so that torch may live in another Python (--torch_python). The preparation, done
once by twinreel, is timed too: how many epochs pay for it is printed.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SIDES = ("torch", "twinreel")


def main() -> int:
    """Run the comparison, or one side of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path, help="a twinreel manifest (clips.jsonl); every clip is used")
    parser.add_argument("--num_frames", type=int, default=8, help="frames T of a clip (default: 8)")
    parser.add_argument("--crop", type=int, default=224, help="pixels of the square (default: 224)")
    parser.add_argument("--short_side", type=int, default=256, help="pixels of the shorter side (default: 256)")
    parser.add_argument("--batch_size", type=int, default=32, help="clips of a batch (default: 32)")
    parser.add_argument("--workers", type=int, default=2, help="processes or threads (default: 2)")
    parser.add_argument("--seconds", type=float, default=20.0, help="length of each measurement (default: 20)")
    parser.add_argument("--rounds", type=int, default=2, help="both sides in turns, so often (default: 2)")
    parser.add_argument("--decoder", choices=("auto", "decord", "pyav"), default="auto", help="the loader's decoder")
    parser.add_argument("--torch_python", default=sys.executable, help="a Python that has torch (default: this one)")
    parser.add_argument("--prepared", type=Path, help="a folder that was prepared before (default: prepare now)")
    parser.add_argument("--fps", type=float, default=8.0, help="frames per second to prepare (default: 8)")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        print(json.dumps(_torch(args) if args.side == "torch" else _twinreel(args)))
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        return _compare(args, scratch=Path(scratch))


def _compare(args: argparse.Namespace, *, scratch: Path) -> int:
    prepare_s = 0.0
    if args.prepared is None:
        args.prepared = scratch / "prepared"
        begin = time.perf_counter()
        made = [sys.executable, "-m", "twinreel", "prepare", str(args.manifest), "--out", str(args.prepared)]
        made += ["--short_side", str(args.short_side), "--fps", str(args.fps), "--workers", str(args.workers)]
        subprocess.run([*made, "--max_bad_fraction", "1"], check=True, stdout=subprocess.DEVNULL)
        prepare_s = time.perf_counter() - begin
    rates: dict[str, list[float]] = {side: [] for side in SIDES}
    for _ in range(args.rounds):
        for side in SIDES:
            found = _run(args, side=side)
            rates[side].append(found["clips_per_s"])
            print(f"{found['what']}: {found['clips_per_s']:.1f} clips/s of {args.num_frames} frames", flush=True)
    best = {side: max(found) for side, found in rates.items()}
    ratios = sorted(b / a for a, b in zip(rates["torch"], rates["twinreel"], strict=True))
    print(f"twinreel / torch, by round: {', '.join(f'{ratio:.1f}' for ratio in ratios)}")
    if prepare_s:
        clips = sum(1 for line in args.manifest.read_text(encoding="utf-8").splitlines() if line.strip())
        saved = clips / best["torch"] - clips / best["twinreel"]
        if saved > 0:
            print(f"preparing took {prepare_s:.0f} s, once: paid for after {prepare_s / saved:.1f} epochs")
    return 0


def _run(args: argparse.Namespace, *, side: str) -> dict:
    """Run one side in its own process."""
    python = args.torch_python if side == "torch" else sys.executable
    flags = [
        f"--{name}={value}" for name, value in vars(args).items() if name not in ("manifest", "torch_python", "side")
    ]
    done = subprocess.run(
        [python, __file__, str(args.manifest), f"--side={side}", *flags], check=True, stdout=subprocess.PIPE, text=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def _twinreel(args: argparse.Namespace) -> dict:
    from twinreel.data.batches.pipeline import (  # pyright: ignore[reportMissingImports]
        make_tokenizer,
        train_batches,
    )
    from twinreel.data.options import DataOptions  # pyright: ignore[reportMissingImports]

    split = json.loads((args.prepared / "clips.jsonl").read_text(encoding="utf-8").splitlines()[0])["split"]
    data = DataOptions.of(
        {
            "dir": str(args.prepared),
            "batch_size": args.batch_size,
            "num_frames": args.num_frames,
            "train_split": split,
            "train_sampling": "uniform",
            "train_video": f"resize_short({args.short_side})|random_crop({args.crop})",
            "num_threads": args.workers,
        }
    )
    batches = train_batches(data, tokenizer=make_tokenizer(data), seed=0, start_step=0)
    return {"what": "twinreel", "clips_per_s": _rate(batches, count=lambda b: len(b["video"]), seconds=args.seconds)}


def _torch(args: argparse.Namespace) -> dict:
    import torch  # pyright: ignore[reportMissingImports]

    paths, decode, name = _files(args.manifest), *_decoder(args.decoder)

    class Clips(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return 1 << 40

        def __getitem__(self, index: int) -> torch.Tensor:
            order = torch.Generator().manual_seed(index)
            path = paths[int(torch.randint(len(paths), (), generator=order))]
            frames = torch.from_numpy(decode(path, args.num_frames)).permute(0, 3, 1, 2)
            height, width = frames.shape[2:]
            scale = args.short_side / min(height, width)
            if scale != 1:
                size = [max(args.short_side, round(side * scale)) for side in (height, width)]
                frames = torch.nn.functional.interpolate(frames, size=size, mode="bilinear", antialias=True)
            y, x = (int(torch.randint(side - args.crop + 1, (), generator=order)) for side in frames.shape[2:])
            return frames[:, :, y : y + args.crop, x : x + args.crop].contiguous()

    loader = torch.utils.data.DataLoader(
        Clips(), batch_size=args.batch_size, sampler=range(1 << 40), num_workers=args.workers
    )
    rate = _rate(iter(loader), count=len, seconds=args.seconds)
    return {"what": f"torch DataLoader, {name}", "clips_per_s": rate}


def _decoder(wanted: str):
    """Return (path, T) -> uint8 [T,H,W,3], and the name of what decodes."""
    if wanted in ("auto", "decord"):
        try:
            import decord  # pyright: ignore[reportMissingImports]
        except ImportError:
            if wanted == "decord":
                raise
        else:

            def by_decord(path: str, count: int):
                reader = decord.VideoReader(path, num_threads=1)
                places = [(2 * i + 1) * len(reader) // (2 * count) for i in range(count)]
                return reader.get_batch(places).asnumpy()

            return by_decord, f"decord {decord.__version__}"
    import av
    import numpy as np

    def by_pyav(path: str, count: int):
        with av.open(path) as container:
            stream = container.streams.video[0]
            stream.thread_type = "NONE"
            frames = list(container.decode(stream))
        places = [(2 * i + 1) * len(frames) // (2 * count) for i in range(count)]
        return np.stack([frames[place].to_ndarray(format="rgb24") for place in places])

    return by_pyav, f"PyAV {av.__version__}"


def _files(manifest: Path) -> list[str]:
    rows = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines() if line.strip()]
    return [str(manifest.parent / row["path"]) for row in rows]


def _rate(batches, *, count, seconds: float) -> float:
    """Clips per second, after four batches for the start."""
    for _ in range(4):
        next(batches)
    clips, begin = 0, time.perf_counter()
    while time.perf_counter() - begin < seconds:
        clips += count(next(batches))
    return clips / (time.perf_counter() - begin)


if __name__ == "__main__":
    sys.exit(main())
