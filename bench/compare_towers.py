"""`twinreel bench compare_towers`: towers with public weights beside their public implementation."""

import contextlib
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..base.errors import UserError, unknown
from ..base.parser import Parser
from .torch_towers import CASES
from .worker import Worker

DESCRIPTION = f"""Compare towers with their public implementation in one run: error, speed, memory.

  pip install torch transformers                     in any Python; nothing is downloaded at run time
  twinreel bench compare_towers --torch_python other/bin/python
  twinreel bench compare_towers --cases clip-l14,videoprism-lvt-b --frames 8 --torch_python other/bin/python

The public library makes a model with random weights and writes its folder; twinreel converts the folder. Both encode
the same uint8 clips and token ids in float32. Printed: the largest difference of rows of unit length; times of a
forward pass and of a forward and backward pass (gradients of all parameters), as twinreel / public, medians over rounds
in which both take turns, by CPU time; and the peak of each process's memory up to then. The towers of a pair share a
process, so the row of the second is at least that of the first.

Cases: {", ".join(CASES)}."""
DEFAULT = ("clip-b32", "siglip-b16", "bert-base", "vit-b16", "dinov2-s14", "videomae-b16")
MODES = ("forward", "train")
_HINT = "; --torch_python names a Python that has torch and transformers"


def main(argv: Sequence[str]) -> int:
    """Run the verb."""
    parser = Parser(verb="bench compare_towers", description=DESCRIPTION)
    parser.add_argument("--cases", default=",".join(DEFAULT), metavar="A,B", help="models to compare")
    parser.add_argument("--rows", type=int, default=1, help="clips and texts of a batch")
    parser.add_argument("--frames", type=int, default=8, help="frames of a clip, even")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each pass")
    parser.add_argument("--torch_python", default=sys.executable, help="a Python that has torch and transformers")
    parser.add_json()
    args, _ = parser.parse(argv)
    cases = args.cases.split(",")
    for case in cases:
        if case not in CASES:
            raise unknown("case in --cases", case, CASES)
    for name in ("rows", "frames", "rounds"):
        if getattr(args, name) < 1:
            raise UserError(f"--{name} must be at least 1, got {getattr(args, name)}")
    found = []
    for case in cases:
        rows = compare(case, rows=args.rows, frames=args.frames, rounds=args.rounds, torch_python=args.torch_python)
        for row in rows:  # at once: a stopped run keeps what it has measured
            ratios = ", ".join(f"{mode} {row[f'{mode}_cpu_ratio']:.2f}" for mode in MODES)
            print(f"{case} {row['tower']}: error {row['error']:.0e}, CPU time {ratios} of the public", file=sys.stderr)
        found += rows
    print(json.dumps(found)) if args.json else _print(found)
    return 0


def compare(case: str, *, rows: int, frames: int, rounds: int, torch_python: str) -> list[dict[str, Any]]:
    """Compare one model; returns a row for each of its towers.

    Args:
      case: a name of `torch_towers.CASES`.
      rows: clips and texts of a batch.
      frames: T.
      rounds: runs of each pass; the first one is not counted where there are more.
      torch_python: a Python with torch and transformers.

    Raises:
      UserError: a side that cannot be run.
    """
    with tempfile.TemporaryDirectory(prefix="twinreel-towers-") as folder, contextlib.ExitStack() as stack:
        script = str(Path(__file__).with_name("torch_towers.py"))
        flags = [f"--case={case}", f"--folder={folder}", f"--rows={rows}", f"--frames={frames}"]
        torch_side = Worker([torch_python, script, *flags], name=f"the public side of {case}", hint=_HINT)
        public = stack.enter_context(torch_side)
        theirs = public.facts()  # it has written the folder
        command = [sys.executable, "-m", f"{__package__}.tower_sides", folder]
        ours = stack.enter_context(Worker(command, name=f"twinreel's side of {case}"))
        own, made = ours.facts(), []
        for tower in theirs["towers"]:
            turn = lambda mode: tuple(side.run(f"{tower} {mode}") for side in (ours, public))  # noqa: B023, E731
            times = {mode: [turn(mode) for _ in range(rounds)] for mode in MODES}
            made.append(_row(case, tower, times=times, ours=own, public=theirs))
        return made


def _row(
    case: str, tower: str, *, times: dict[str, Any], ours: dict[str, Any], public: dict[str, Any]
) -> dict[str, Any]:
    row: dict[str, Any] = {"case": case, "tower": tower, "twinreel": ours["what"], "public": public["what"]}
    row |= {"parameters": ours["parameters"], "error": ours["errors"][tower], "compile_s": ours["compile_s"][tower]}
    for mode, pairs in times.items():
        kept = pairs[1:] or pairs
        row[f"{mode}_cpu_s"] = statistics.median(own[1] for own, _ in kept)
        row[f"{mode}_cpu_ratio"] = statistics.median(own[1] / other[1] for own, other in kept)
        row[f"{mode}_wall_ratio"] = statistics.median(own[0] / other[0] for own, other in kept)
    row["peak_bytes"], row["public_peak_bytes"] = (max(pair[i][2] for pair in times["train"]) for i in range(2))
    return row


def _print(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{rows[0]['twinreel']} / {rows[0]['public']}, float32, CPU time", title_justify="left")
    for name in ("tower", "size", "error", "forward", "ratio", "train", "ratio", "GiB", "ratio"):
        table.add_column(name, justify="left" if name == "tower" else "right")
    for row in rows:
        table.add_row(
            f"{row['case']} {row['tower']}",
            f"{row['parameters'] / 1e6:.0f} M",
            f"{row['error']:.0e}",
            *(text for mode in MODES for text in (f"{row[f'{mode}_cpu_s']:.2f} s", f"{row[f'{mode}_cpu_ratio']:.2f}")),
            f"{row['peak_bytes'] / 2**30:.1f}",
            f"{row['peak_bytes'] / row['public_peak_bytes']:.2f}",
        )
    Console().print(table)
