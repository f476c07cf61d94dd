"""`twinreel bench compare_towers`: towers with public weights beside their public implementation."""

import json
import statistics
import sys
from collections.abc import Sequence
from typing import Any

from ...base.parser import Parser
from ..measure.public import add_flags, checked_cases, two_sides
from ..sides.torch_towers import CASES

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


def main(argv: Sequence[str]) -> int:
    """Run the verb."""
    parser = Parser(verb="bench compare_towers", description=DESCRIPTION)
    add_flags(parser, default=DEFAULT)
    parser.add_argument("--rows", type=int, default=1, help="clips and texts of a batch")
    parser.add_argument("--frames", type=int, default=8, help="frames of a clip, even")
    args, _ = parser.parse(argv)
    cases = checked_cases(args, known=CASES, counts=("rows", "frames", "rounds"))
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
    flags = [f"--rows={rows}", f"--frames={frames}"]
    with two_sides(case, sides="towers", flags=flags, torch_python=torch_python) as both:
        made = []
        for tower in both.theirs["towers"]:
            times = {mode: both.turns(f"{tower} {mode}", rounds=rounds) for mode in MODES}
            made.append(_row(case, tower, times=times, ours=both.own, public=both.theirs))
        return made


def _row(
    case: str, tower: str, *, times: dict[str, Any], ours: dict[str, Any], public: dict[str, Any]
) -> dict[str, Any]:
    row: dict[str, Any] = {"case": case, "tower": tower, "twinreel": ours["what"], "public": public["what"]}
    row |= {"parameters": ours["parameters"], "convert_s": ours["convert_s"]}
    row |= {"error": ours["errors"][tower], "compile_s": ours["compile_s"][tower]}
    for mode, pairs in times.items():
        row[f"{mode}_cpu_s"] = statistics.median(own[1] for own, _ in pairs)
        row[f"{mode}_cpu_ratio"] = statistics.median(own[1] / other[1] for own, other in pairs)
        row[f"{mode}_wall_ratio"] = statistics.median(own[0] / other[0] for own, other in pairs)
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
