"""Compare twinreel's train step with PyTorch's: a CLIP ViT on 8 frames and its text tower, on this machine.

    pip install torch transformers            # anywhere; nothing is downloaded at run time
    python bench/compare_step.py --torch_python other/bin/python
    python bench/compare_step.py --device gpu --model ViT-L/14 --batch_size largest

Both sides do forward, symmetric InfoNCE, backward and AdamW on the same batch of uint8 clips and full-length texts:
torch with `transformers.CLIPModel` (random weights, its default attention; each frame an image, the mean over frames
before the projection), in float32 and under bfloat16 autocast, on a GPU also through `torch.compile`; twinreel with the
step that `pretrain` compiles, in float32 and bfloat16. Other processes measure the rate of bare `jax` matrix products
on the shapes of the towers' dense layers, forward and both products of the backward pass: the denominator of "share of
the matmul rate".

On a CPU all processes live side by side and take turns, one step each, so that a noise hits all alike; ratios are
medians over rounds of the ratio within a round, by wall time and by CPU time. The latter hardly sees what else the
machine does, but counts the time in which a library's threads wait in a loop. On a GPU each has the device to itself,
one after another, and `--batch_size largest` finds for each the largest power of two that fits.
"""

import argparse
import functools
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from step_sides import FRAMES, MODELS, OUT_OF_MEMORY, serve

SIDES = {
    "cpu": tuple(f"{kind}-{dtype}" for kind in ("torch", "twinreel", "matmul") for dtype in ("float32", "bfloat16")),
    "gpu": tuple(f"{kind}-bfloat16" for kind in ("torch", "torch.compile", "twinreel", "matmul")),
}
LARGEST, SMALLEST = "largest", 8
Times = list[tuple[float, float]]
Measured = tuple[dict[str, Any], Times]


def main() -> int:
    """Run the comparison, or one side of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=SIDES, default="cpu", help="where the steps run (default: cpu)")
    parser.add_argument("--model", choices=MODELS, default="ViT-B/32", help="default: ViT-B/32")
    parser.add_argument("--batch_size", default="4", help="clips of a batch, or 'largest' (default: 4)")
    parser.add_argument("--rounds", type=int, default=7, help="steps of each side (default: 7)")
    parser.add_argument("--torch_python", default=sys.executable, help="a Python that has torch (default: this one)")
    parser.add_argument("--sides", help=f"which sides take part (default: {SIDES['cpu']}, on a GPU {SIDES['gpu']})")
    parser.add_argument("--remat", default="none", help="twinreel's config.model.remat (default: none)")
    parser.add_argument("--unroll", type=int, default=0, help="twinreel's config.model.unroll (default: 0, all layers)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.batch_size != LARGEST and not args.batch_size.isdigit():
        parser.error(f"--batch_size={args.batch_size} must be a number of clips or {LARGEST!r}")
    if args.side:
        return serve(args)
    known = sorted({side for sides in SIDES.values() for side in sides})
    sides = args.sides.split(",") if args.sides else list(SIDES[args.device])
    if wrong := sorted(set(sides) - set(known)):
        parser.error(f"--sides names {', '.join(wrong)}; there are {', '.join(known)}")
    result = (_in_turns if args.device == "cpu" and args.batch_size != LARGEST else _one_by_one)(args, sides=sides)
    print(json.dumps(result)) if args.json else _print(result)
    return 0


def _in_turns(args: argparse.Namespace, *, sides: list[str]) -> dict[str, Any]:
    """Start every side, let them take turns, and put their times beside each other."""
    workers, ready = {}, {}
    for side in sides:
        workers[side] = _start(args, side=side, batch_size=int(args.batch_size))
        ready[side] = json.loads(_line(workers[side], side=side))  # one at a time: compilation is not disturbed
    times: dict[str, Times] = {side: [] for side in sides}
    for _ in range(args.rounds):
        for side, worker in workers.items():
            times[side].append(_timed(worker, side=side))
    for worker in workers.values():
        _end(worker)
    return _result(args, ready=ready, times=times)


def _one_by_one(args: argparse.Namespace, *, sides: list[str]) -> dict[str, Any]:
    """Give each side the device to itself; the bare products come last, at the largest batch of the others."""
    ready, times, fits = {}, {}, 0
    for side in sorted(sides, key=lambda side: side.startswith("matmul")):
        measure = functools.partial(_alone, args, side=side)
        size = (fits or SMALLEST) if args.batch_size == LARGEST else int(args.batch_size)
        if args.batch_size == LARGEST and not (side.startswith("matmul") and fits):
            found = largest(measure, batch_size=size)
        else:
            found = measure(batch_size=size)
        if found is None:
            raise SystemExit(f"the side {side} does not fit in memory; set --batch_size lower, or to {LARGEST}")
        ready[side], times[side] = found
        fits = max(fits, ready[side]["batch_size"])
    return _result(args, ready=ready, times=times)


def largest(measure: Callable[..., Measured | None], *, batch_size: int) -> Measured | None:
    """Measure at the largest power of two that fits, searched from `batch_size` on, up or down.

    Args:
      measure: takes a batch_size; gives facts and times, or None if it does not fit. Facts with `resident_bytes`,
        `peak_bytes` and `limit_bytes` say how far up to go at once.
      batch_size: where to begin, a power of two.

    Returns:
      What was measured at it; None if not even one clip fits.
    """
    best, size, too_large = None, batch_size, sys.maxsize
    while 0 < size < too_large:
        found = measure(batch_size=size)
        print(f"{size} clips {'fit' if found else 'do not fit'}", file=sys.stderr, flush=True)
        if found is None:
            too_large, size = size, size // 2
        else:
            best, size = found, _next(found[0])
        if best is not None and size <= best[0]["batch_size"]:
            break
    return best


def _next(facts: dict[str, Any]) -> int:
    """Return the batch to try after one that fitted: the largest power of two that should fit; 0 if that is it."""
    size = facts["batch_size"]
    if "limit_bytes" not in facts:
        return 2 * size
    grows = (facts["peak_bytes"] - facts["resident_bytes"]) / size
    room = (facts["limit_bytes"] - facts["resident_bytes"]) / grows
    larger = size
    while 2 * larger <= room:
        larger *= 2
    return larger if larger > size else 0


def _alone(args: argparse.Namespace, *, side: str, batch_size: int) -> Measured | None:
    """Measure a side that has the device to itself; None if the batch does not fit."""
    worker = _start(args, side=side, batch_size=batch_size)
    line = worker.stdout.readline() if worker.stdout else ""
    if not line and worker.wait() == OUT_OF_MEMORY:
        return None
    ready = json.loads(line or _line(worker, side=side))
    times = [_timed(worker, side=side) for _ in range(args.rounds)]
    _end(worker)
    return ready, times


def _start(args: argparse.Namespace, *, side: str, batch_size: int) -> subprocess.Popen:
    python = args.torch_python if side.startswith("torch") else sys.executable
    command = [python, str(Path(__file__).resolve()), f"--side={side}", f"--batch_size={batch_size}"]
    command += [f"--device={args.device}", f"--model={args.model}", f"--remat={args.remat}", f"--unroll={args.unroll}"]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _timed(worker: subprocess.Popen, *, side: str) -> tuple[float, float]:
    """Let a side do one step; return its wall time and its CPU time in seconds."""
    assert worker.stdin is not None
    worker.stdin.write("step\n")
    worker.stdin.flush()
    wall, cpu = map(float, _line(worker, side=side).split())
    return wall, cpu


def _end(worker: subprocess.Popen) -> None:
    assert worker.stdin is not None
    worker.stdin.close()
    worker.wait()


def _line(worker: subprocess.Popen, *, side: str) -> str:
    line = worker.stdout.readline() if worker.stdout else ""
    if not line:
        status = worker.wait()
        hint = "its batch does not fit in memory" if status == OUT_OF_MEMORY else "its message stands above"
        raise SystemExit(f"the side {side} ended with status {status}; {hint}")
    return line


def _result(args: argparse.Namespace, *, ready: dict[str, dict[str, Any]], times: dict[str, Times]) -> dict[str, Any]:
    wall, cpu = ({side: [pair[i] for pair in pairs] for side, pairs in times.items()} for i in range(2))
    return {
        "model": args.model,
        "device": args.device,
        "frames": FRAMES,
        "cores": len(os.sched_getaffinity(0)),
        "sides": {side: ready[side] | _figures(wall[side], facts=ready[side]) for side in times},
        "ratios": _ratios(wall, ready=ready),
        "cpu_ratios": _ratios(cpu, ready=ready) if args.device == "cpu" else {},
    }


def _figures(times: list[float], *, facts: dict[str, Any]) -> dict[str, float]:
    median = statistics.median(times)
    figures = {"step_s": median, "step_min_s": min(times), "gflops_per_s": facts["flops"] / median / 1e9}
    return figures | {"clips_per_s": facts["batch_size"] / median}


def _ratios(times: dict[str, list[float]], *, ready: dict[str, dict[str, Any]]) -> dict[str, float]:
    """Median over rounds of how many times faster in clips, and which share of the matmul rate in FLOPs."""

    def ratio(ours: str, theirs: str, *, unit: str) -> float:
        done, wanted = ready[ours][unit], ready[theirs][unit]
        return statistics.median(done / a * b / wanted for a, b in zip(times[ours], times[theirs], strict=True))

    found = {
        f"{ours} / {theirs}": ratio(ours, theirs, unit="batch_size")
        for ours in times
        for theirs in times
        if ours.startswith("twinreel") and theirs.startswith("torch")
    }
    for side in times:
        bare = f"matmul-{side.split('-')[1]}"
        if bare in times and not side.startswith("matmul"):
            found[f"{side} / {bare}"] = ratio(side, bare, unit="flops")
    return found


def _print(result: dict[str, Any]) -> None:
    cores = f", {result['cores']} cores" if result["device"] == "cpu" else ""
    print(f"{result['model']} on {result['frames']} frames, {result['device']}{cores}")
    head = ("clips", "step, median", "least", "GFLOP/step", "GFLOP/s", "clips/s", "parameters", "peak GB")
    print(f"{'side':22} {head[0]:>5} {head[1]:>12} {head[2]:>9} " + " ".join(f"{name:>11}" for name in head[3:]))
    for side, row in result["sides"].items():
        peak = f"{row['peak_bytes'] / 1e9:11.1f}" if "peak_bytes" in row else ""
        print(
            f"{side:22} {row['batch_size']:5} {row['step_s']:10.3f} s {row['step_min_s']:7.3f} s "
            f"{row['flops'] / 1e9:11,.0f} {row['gflops_per_s']:11,.0f} {row['clips_per_s']:11.2f} "
            f"{row.get('parameters', 0):11,} {peak}"
        )
    print("\ntimes as fast in clips/s (against torch), share of the FLOP rate (against matmul); medians over rounds:")
    print(f"{'':48} {'wall':>6}" + (f" {'CPU':>6}" if result["cpu_ratios"] else ""))
    for name, value in result["ratios"].items():
        cpu = f" {result['cpu_ratios'][name]:6.2f}" if result["cpu_ratios"] else ""
        print(f"{name:48} {value:6.2f}{cpu}")


if __name__ == "__main__":
    sys.exit(main())
