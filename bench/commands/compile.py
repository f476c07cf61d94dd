"""`twinreel bench compile`: how long a train step takes to trace and compile, by the depth of its towers."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from ...base.config import load_config
from ...base.errors import UserError
from ...base.parser import Parser

DESCRIPTION = """Measure how long the train step of a config takes to compile at several depths of its towers.

  twinreel bench compile --config small_26m
  twinreel bench compile --config base_1b --depths 6,24 --unroll 1 --config.data.batch_size=8 --json

Each program is traced and compiled in a process of its own, for the devices of this machine and without jax's cache of
compiled programs; nothing is trained. --unroll is config.model.unroll: 1 runs one layer's code in a loop (lax.scan), 0
writes out all layers. Printed: seconds of CPU and wall time, CPU time as a multiple of that of the smallest depth in
the same form, the size of the lowered program's text, the process's peak memory and the temporaries of the program. CPU
time hardly depends on other load, wall time does."""


def main(argv: Sequence[str]) -> int:
    """Run the verb."""
    parser = Parser(verb="bench compile", description=DESCRIPTION)
    parser.add_config()
    parser.add_argument("--depths", default="6,24", metavar="A,B", help="numbers of blocks of video and text tower")
    parser.add_argument("--unroll", default="1,0", metavar="A,B", help="values of config.model.unroll")
    parser.add_json()
    args, overrides = parser.parse(argv)
    depths = numbers(args.depths, flag="--depths", least=1)
    unrolls = numbers(args.unroll, flag="--unroll", least=0)
    load_config(args.config, overrides=[*overrides, *of_depth(depths[0], unroll=unrolls[0])])  # mistakes come first
    found = []
    for unroll in unrolls:
        for depth in sorted(depths):
            row = measure(args.config, depth=depth, unroll=unroll, overrides=overrides)
            found.append(row)
            print(f"unroll {unroll}, depth {depth}: {row['cpu_s']:.1f} s of CPU time", file=sys.stderr, flush=True)
    for row in found:
        first = next(other for other in found if other["unroll"] == row["unroll"])
        row["cpu_ratio"] = row["cpu_s"] / first["cpu_s"]
    print(json.dumps(found)) if args.json else _print(found, config=args.config)
    return 0


def numbers(text: str, *, flag: str, least: int) -> list[int]:
    """Return the numbers of a list such as "6,24".

    Raises:
      UserError: something else, or a number below `least`.
    """
    parts = text.split(",")
    if not all(part.isdecimal() and int(part) >= least for part in parts):
        raise UserError(f"{flag} must be whole numbers from {least} up, separated by commas, got {text!r}")
    return [int(part) for part in parts]


def of_depth(depth: int, *, unroll: int) -> list[str]:
    """Return the overrides that give both towers that many blocks."""
    return [f"model.video.depth={depth}", f"model.text.depth={depth}", f"model.unroll={unroll}"]


def measure(config: str, *, depth: int, unroll: int, overrides: Sequence[str]) -> dict[str, Any]:
    """Compile one program; returns its settings, seconds by stage, their sums and bytes.

    Args:
      config: as for `pretrain`.
      depth: blocks of either tower.
      unroll: `config.model.unroll`.
      overrides: of the config, before those of depth and unroll.

    Raises:
      UserError: the program cannot be compiled; its own message is on standard error.
    """
    command = [
        sys.executable,
        "-m",
        "twinreel.bench.sides.compile",
        config,
        *overrides,
        *of_depth(depth, unroll=unroll),
    ]
    env = os.environ | {"JAX_ENABLE_COMPILATION_CACHE": "false"}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=env)
    if done.returncode:
        raise UserError(f"the step of depth {depth} does not compile (status {done.returncode}); see the message above")
    row = json.loads(done.stdout.splitlines()[-1])
    sums = {f"{clock}_s": row[f"trace_{clock}_s"] + row[f"compile_{clock}_s"] for clock in ("cpu", "wall")}
    return {"depth": depth, "unroll": unroll, **row, **sums}


def _print(rows: list[dict[str, Any]], *, config: str) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"compiling the train step of {config}", title_justify="left")
    for name in (
        "unroll",
        "depth",
        "trace, CPU",
        "compile, CPU",
        "sum",
        "ratio",
        "wall",
        "lowered",
        "peak",
        "temporaries",
    ):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(
            str(row["unroll"]),
            str(row["depth"]),
            *(f"{row[name]:.1f} s" for name in ("trace_cpu_s", "compile_cpu_s", "cpu_s")),
            f"{row['cpu_ratio']:.2f}",
            f"{row['wall_s']:.1f} s",
            f"{row['lowered_bytes'] / 2**10:,.0f} KiB",
            f"{row['peak_bytes'] / 2**20:,.0f} MiB",
            f"{row['temporary_bytes'] / 2**20:,.0f} MiB",
        )
    Console().print(table)
