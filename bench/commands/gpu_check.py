"""`twinreel bench gpu_check`: one table of what a GPU does with twinreel, within a few minutes."""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...base.errors import UserError, unknown
from ...base.parser import Parser
from ...data.manifest import write_whole
from ..sides.gpu import Row

DESCRIPTION = """\
Check a GPU in a few minutes: one table of speeds, each beside a peer or a limit that was measured in the same run.

  twinreel bench gpu_check --out gpu.json                 without network, tensorflow or a data set
  twinreel bench gpu_check --torch_python other/bin/python     a Python with torch and transformers
  twinreel bench gpu_check --only attention,compile
  twinreel bench gpu_check --device cpu --size tiny            tries the command where there is no GPU

  step       the train step of ViT-L/14 on 8 frames in bfloat16: MFU, beside torch.compile and bare matrix products
  loss       value and gradient of InfoNCE, dense and blockwise, 8,192 and 32,768 rows
  attention  cuDNN's kernel beside plain XLA, with and without masks: time, and error beside float32
  compile    time to trace and compile a step, by depth, with layers in a loop and written out
  encode     a public CLIP converted, and clips encoded from arrays

Each check is a process of its own. What has not ended after --seconds in all is stopped and listed with the reason, and
so is a check that fails; the others go on. With --out the table is written after each check, and a run that
was stopped takes from it what was measured, if device and size are the same."""
GOALS = {"products": 0.55, "torch.compile": 1.1}
Lines = Callable[[argparse.Namespace], list[str]]


def main(argv: Sequence[str]) -> int:
    """Run the verb."""
    parser = Parser(verb="bench gpu_check", description=DESCRIPTION)
    parser.add_argument("--only", default=",".join(CHECKS), metavar="A,B", help="checks to run")
    parser.add_argument("--device", choices=("gpu", "cpu"), default="gpu", help="where they run")
    parser.add_argument("--size", choices=("full", "tiny"), default="full", help="of the models")
    parser.add_argument("--seconds", type=float, default=480.0, help="time for all checks")
    parser.add_argument("--torch_python", default=sys.executable, help="a Python that has torch and transformers")
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="save the results here, and resume from them")
    parser.add_json()
    args, _ = parser.parse(argv)
    names = args.only.split(",")
    for name in names:
        if name not in CHECKS:
            raise unknown("check in --only", name, CHECKS)
    if args.seconds <= 0:
        raise UserError(f"--seconds must be above 0, got {args.seconds:g}")
    kept = _kept(args)
    found = {name: kept[name] for name in names if name in kept}
    end = time.monotonic() + args.seconds
    for name in names:
        if name in found:
            print(f"{name}: taken from {args.out}", file=sys.stderr)
            continue
        found[name] = check(name, args=args, seconds=end - time.monotonic())
        _keep(kept | found, args=args)
    print(json.dumps(found)) if args.json else _print(found, args=args)
    return 0


def check(name: str, *, args: argparse.Namespace, seconds: float) -> dict[str, Any]:
    """Run one check.

    Args:
      name: of `CHECKS`.
      args: parsed flags.
      seconds: that are left; the check is stopped after them.

    Returns:
      `seconds` that it took, and `rows`, or the `failed` reason.
    """
    command, read = CHECKS[name]
    begin = time.monotonic()
    if seconds <= 1:
        return {"seconds": 0.0, "failed": f"no time was left of --seconds={args.seconds:g}"}
    print(f"{name} ...", file=sys.stderr, flush=True)
    try:
        done = subprocess.run(command(args), capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        took = time.monotonic() - begin
        return {"seconds": took, "failed": f"stopped after {took:.0f} s: --seconds={args.seconds:g} were over"}
    took = time.monotonic() - begin
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
        return {"seconds": took, "failed": last}
    return {"seconds": took, "rows": read(json.loads(done.stdout.splitlines()[-1]))}


def _bench(verb: str, *flags: str) -> list[str]:
    return [sys.executable, "-m", "twinreel", "bench", verb, "--json", *flags]


def _step_command(args: argparse.Namespace) -> list[str]:
    kinds = ("torch.compile", "twinreel", "matmul") if args.device == "gpu" else ("torch", "twinreel", "matmul")
    if subprocess.run([args.torch_python, "-c", "import torch, transformers"], capture_output=True).returncode:
        kinds = ("twinreel", "matmul")
    sides = ",".join(f"{kind}-bfloat16" for kind in kinds)
    given: dict[str, Any] = {"model": "ViT-L/14", "batch_size": 32, "rounds": 10}
    given |= {} if args.size == "full" else {"model": "ViT-B/32", "batch_size": 1, "rounds": 1}
    given |= {"device": args.device, "sides": sides, "torch_python": args.torch_python}
    return _bench("compare_step", *(f"--{name}={value}" for name, value in given.items()))


def step_rows(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of `bench compare_step --json`."""
    own, bare = result["sides"]["twinreel-bfloat16"], result["sides"]["matmul-bfloat16"]
    what = f"train step, {result['model']} x {result['frames']} frames, {own['batch_size']} clips, bfloat16"
    value = f"{own['clips_per_s']:.1f} clips/s, {own['gflops_per_s'] / 1e3:.0f} TFLOP/s"
    beside = f"bare products {bare['gflops_per_s'] / 1e3:.0f} TFLOP/s"
    share = own["gflops_per_s"] / bare["gflops_per_s"]
    rows = [Row(what=what, value=value, beside=beside, ratio=share, goal=GOALS["products"])]
    for name, side in result["sides"].items():
        if name.startswith("torch"):
            library = name.split("-")[0]
            beside = f"{library} {side['clips_per_s']:.1f} clips/s, {side['gflops_per_s'] / 1e3:.0f} TFLOP/s"
            ratio = result["ratios"][f"twinreel-bfloat16 / {name}"]
            rows.append(Row(what=what, value=value, beside=beside, ratio=ratio, goal=GOALS.get(library)))
    if len(rows) == 1:
        rows.append(Row(what="train step beside torch.compile", value="not measured: --torch_python has no torch"))
    return [vars(row) for row in rows]


def _loss_command(args: argparse.Namespace) -> list[str]:
    return _bench("loss", f"--batch={'8192,32768' if args.size == 'full' else '64'}", "--rounds=5")


def loss_rows(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of `bench loss --json`: each form beside the dense one."""
    dense = {row["batch"]: row for row in result["rows"] if row["form"] == "dense"}
    rows = []
    for row in result["rows"]:
        what = f"{result['loss']}, {row['form']}, {row['batch']:,} rows, value and gradient"
        time_of = lambda one: f"{1e3 * one['time_s']:.1f} ms" if one["time_s"] else one["note"]  # noqa: E731
        value = f"{time_of(row)}, {row['peak_bytes'] / 2**20:,.0f} MiB"
        if row["form"] == "dense":
            rows.append(Row(what=what, value=value))
            continue
        other = dense[row["batch"]]
        beside = f"dense {time_of(other)}, {other['peak_bytes'] / 2**20:,.0f} MiB"
        ratio = 1 / row["time_ratio"] if row.get("time_ratio") else None
        rows.append(Row(what=what, value=value, beside=beside, ratio=ratio))
    return [vars(row) for row in rows]


def _alone(name: str) -> Lines:
    return lambda args: [sys.executable, "-m", "twinreel.bench.sides.gpu", name, args.device, args.size]


CHECKS: dict[str, tuple[Lines, Callable[[Any], list[dict[str, Any]]]]] = {
    "step": (_step_command, step_rows),
    "attention": (_alone("attention"), list),
    "loss": (_loss_command, loss_rows),
    "compile": (_alone("compile"), list),
    "encode": (_alone("encode"), list),
}
"""Name of a check -> its command, and what makes rows of the JSON that it prints."""


def _kept(args: argparse.Namespace) -> dict[str, Any]:
    """Return the checks of an earlier run that were measured with the same device and size."""
    if args.out is None or not args.out.is_file():
        return {}
    try:
        earlier = json.loads(args.out.read_text(encoding="utf-8"))
        same = (earlier["device"], earlier["size"]) == (args.device, args.size)
        return {name: one for name, one in earlier["checks"].items() if "rows" in one} if same else {}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"--out {args.out} exists and is no table of gpu_check ({error}); name another file") from error


def _keep(found: Mapping[str, Any], *, args: argparse.Namespace) -> None:
    if args.out is None:
        return
    made = {"device": args.device, "size": args.size, "checks": dict(found)}
    write_whole(args.out, parts=[json.dumps(made, indent=1)])


def _print(found: Mapping[str, Any], *, args: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"twinreel on a {args.device.upper()}, {args.size} size", title_justify="left")
    for name in ("what", "measured", "beside", "ratio", "goal"):
        table.add_column(name, justify="right" if name == "ratio" else "left", overflow="fold")
    for name, one in found.items():
        table.add_section()
        failed = one.get("failed", "")
        table.add_row(f"[bold]{name}[/], {one['seconds']:.0f} s", failed and "not measured", failed)
        for row in one.get("rows", ()):
            ratio = "" if row["ratio"] is None else f"{row['ratio']:.2f}"
            table.add_row(row["what"], row["value"], row["beside"], ratio, _goal(row))
    console = Console()
    console.width = max(console.width, 120)
    console.print(table)


def _goal(row: Mapping[str, Any]) -> str:
    """Say whether a row's goal or limit holds."""
    ratio, goal, limit = row["ratio"], row["goal"], row["limit"]
    if goal is not None:
        return f"at least {goal:g}: {'reached' if ratio >= goal else 'missed'}"
    return "" if limit is None else f"at most {limit:g}: {'kept' if ratio <= limit else 'missed'}"
