"""`twinreel bench compare_step`: twinreel's train step and PyTorch's, on the same CLIP model and the same machine."""

import argparse
import contextlib
import functools
import json
import os
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ...base.errors import UserError, unknown
from ...base.parser import Parser
from ..measure.worker import Worker, WorkerEnded
from ..sides.torch_step import FRAMES, MODELS, OUT_OF_MEMORY, SideOptions

DESCRIPTION = """\
Compare one train step of twinreel with one of PyTorch: a CLIP ViT on 8 frames and its text tower, on this machine.

  pip install torch transformers                     in any Python; nothing is downloaded at run time
  twinreel bench compare_step --torch_python other/bin/python
  twinreel bench compare_step --device gpu --model ViT-L/14 --batch_size largest

Prints, for each side, the step time, FLOP/s and clips/s, and how many times as fast twinreel is as torch.

Both libraries do forward, symmetric InfoNCE, backward and AdamW on the same uint8 clips and full-length texts: torch
with `transformers.CLIPModel` (random weights, its default attention; every frame is an image, the mean over frames
comes before the projection), in float32 and under bfloat16 autocast, on a GPU also through `torch.compile`; twinreel
with the step that `pretrain` compiles, in float32 and bfloat16. Two more sides measure bare jax matrix products on the
shapes of the towers' dense layers, forward and both products of the backward pass: the denominator of "share of the
matmul rate".

On a CPU all sides are running at once and take turns, one step each, so that other load affects all alike. Ratios are
medians over rounds of the ratio within a round, by wall time and by CPU time; CPU time is hardly affected by other
load, but includes busy waiting in a library's threads. On a GPU each side has the device to itself, one after another,
and `--batch_size largest` finds the largest power of two that fits, for each side."""

SIDES = {
    "cpu": tuple(f"{kind}-{dtype}" for kind in ("torch", "twinreel", "matmul") for dtype in ("float32", "bfloat16")),
    "gpu": tuple(f"{kind}-bfloat16" for kind in ("torch", "torch.compile", "twinreel", "matmul")),
}
LARGEST, SMALLEST = "largest", 8
Times = list[tuple[float, float]]
"""Wall and CPU time of each step, seconds."""
Measured = tuple[dict[str, Any], Times]
"""The facts that a side prints, and its times."""


def main(argv: Sequence[str]) -> int:
    """Run the verb."""
    parser = Parser(verb="bench compare_step", description=DESCRIPTION)
    parser.add_argument("--device", choices=SIDES, default="cpu", help="where the steps run")
    parser.add_argument("--model", default="ViT-B/32", help=f"one of {', '.join(MODELS)}")
    parser.add_argument("--batch_size", default="4", help=f"clips of a batch, or {LARGEST!r}")
    parser.add_argument("--rounds", type=int, default=7, help="steps of each side")
    parser.add_argument("--torch_python", default=sys.executable, help="a Python that has torch and transformers")
    parser.add_argument("--sides", help="sides to measure, separated by commas; by default " + _default_sides())
    parser.add_argument("--remat", default="none", help="twinreel's config.model.remat")
    parser.add_argument("--unroll", type=int, default=0, help="twinreel's config.model.unroll; 0 = all layers")
    parser.add_json()
    args, _ = parser.parse(argv)
    if args.batch_size != LARGEST and not (args.batch_size.isdecimal() and int(args.batch_size)):
        raise UserError(f"--batch_size must be a number of clips or {LARGEST!r}, got {args.batch_size!r}")
    if args.rounds < 1:
        raise UserError(f"--rounds must be at least 1, got {args.rounds}")
    if args.model not in MODELS:
        raise unknown("--model", args.model, MODELS)
    known = {side for sides in SIDES.values() for side in sides}
    sides = args.sides.split(",") if args.sides else list(SIDES[args.device])
    for side in sides:
        if side not in known:
            raise unknown("side in --sides", side, known)
    in_turns = args.device == "cpu" and args.batch_size != LARGEST
    result = (_in_turns if in_turns else _one_by_one)(args, sides=sides)
    print(json.dumps(result)) if args.json else _print(result)
    return 0


def _default_sides() -> str:
    return "; ".join(f"on a {device.upper()} {','.join(sides)}" for device, sides in SIDES.items())


def _in_turns(args: argparse.Namespace, *, sides: list[str]) -> dict[str, Any]:
    """Start every side and let them take turns."""
    workers, ready = {}, {}
    times: dict[str, Times] = {side: [] for side in sides}
    with contextlib.ExitStack() as stack:
        for side in sides:
            workers[side] = stack.enter_context(_worker(args, side=side, batch_size=int(args.batch_size)))
            ready[side] = workers[side].facts()  # one at a time: compilation is not disturbed
        for _ in range(args.rounds):
            for side, worker in workers.items():
                times[side].append(_timed(worker))
    return _result(args, ready=ready, times=times)


def _one_by_one(args: argparse.Namespace, *, sides: list[str]) -> dict[str, Any]:
    """Run one side after another; the bare products come last, at the largest batch of the others."""
    ready, times, fits = {}, {}, 0
    for side in sorted(sides, key=lambda side: side.startswith("matmul")):
        measure = functools.partial(_alone, args, side=side)
        size = (fits or SMALLEST) if args.batch_size == LARGEST else int(args.batch_size)
        if args.batch_size == LARGEST and not (side.startswith("matmul") and fits):
            found = largest(measure, batch_size=size)
        else:
            found = measure(batch_size=size)
        if found is None:
            raise UserError(f"the side {side} does not fit in memory; lower --batch_size, or set it to {LARGEST}")
        ready[side], times[side] = found
        fits = max(fits, ready[side]["batch_size"])
    return _result(args, ready=ready, times=times)


def largest(measure: Callable[..., Measured | None], *, batch_size: int) -> Measured | None:
    """Measure at the largest power of two that fits, searched from `batch_size` on, up or down.

    Args:
      measure: batch_size -> facts and times, or None if it does not fit. Where the facts include `resident_bytes`,
        `peak_bytes` and `limit_bytes`, the search jumps to the largest batch that should fit.
      batch_size: where to begin, a power of two.

    Returns:
      The facts and times at the largest batch; None if not even one clip fits.
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
    """Return the batch to try after one that fitted: the largest power of two that should fit; 0 if none is larger."""
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
    """Measure one side while no other runs; None if the batch does not fit."""
    with _worker(args, side=side, batch_size=batch_size) as worker:
        try:
            ready = worker.facts()
        except WorkerEnded as ended:
            if ended.status == OUT_OF_MEMORY:
                return None
            raise
        return ready, [_timed(worker) for _ in range(args.rounds)]


def _worker(args: argparse.Namespace, *, side: str, batch_size: int) -> Worker:
    given = {name: getattr(args, name) for name in ("device", "model", "remat", "unroll")}
    options = SideOptions(side=side, batch_size=batch_size, **given)
    command, hint = [sys.executable, "-m", "twinreel.bench.sides.step"], ""
    if options.library.startswith("torch"):
        command = [args.torch_python, str(Path(__file__).parents[1] / "sides" / "torch_step.py")]
        hint = "; --torch_python names a Python that has torch and transformers"
    hint += f"; status {OUT_OF_MEMORY} means that its batch does not fit in memory"
    return Worker([*command, *options.flags()], name=f"the side {side}", hint=hint)


def _timed(worker: Worker) -> tuple[float, float]:
    """Run one step of a side; return its wall time and its CPU time in seconds."""
    wall, cpu = worker.run("step")
    return wall, cpu


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
    """Return medians over rounds: clips/s as a multiple of torch's, and FLOP/s as a share of the matmul rate."""

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
