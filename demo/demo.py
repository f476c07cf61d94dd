"""`twinreel demo`: the whole way from media files to a retrieval report, on a data set that it makes itself."""

import time
from pathlib import Path
from typing import Any

from ..base.config import Config, load_config
from ..base.parser import Parser, folder
from ..base.section import section

DESCRIPTION = """Make a data set of moving shapes, pretrain on it, and report zero-shot retrieval, in a few minutes.

About four minutes on two CPU cores.

  twinreel demo --workdir runs/demo

  1. writes MP4 files: shapes that enter, fall, turn, vanish one after another, with tones and captions
  2. prepares them: decodes each clip once into record shards          (twinreel prepare)
  3. trains a small video tower and text tower with InfoNCE            (twinreel pretrain)
  4. measures retrieval on clips that it never saw, writes a report    (twinreel evaluate)

The workdir then holds videos/, moving_shapes/ (records), pretrain/ (checkpoints, metrics) and report/index.html, a page
that opens from disk. Stop it at any time and run it again: each stage goes on where it was."""


def main(argv: list[str]) -> int:
    """Run the verb."""
    parser = Parser(verb="demo", description=DESCRIPTION)
    parser.add_argument("--workdir", default="runs/demo", help="folder for everything that the demo makes")
    parser.add_argument("--seed", type=int, default=0, help="seed of the data set and of the training")
    parser.add_config(default="demo")
    args, overrides = parser.parse(argv)
    workdir = folder(args.workdir, flag="--workdir")
    fixed = [f"seed={args.seed}", f"data.dir={workdir / 'moving_shapes'}"]
    demo(load_config(args.config, overrides=[*fixed, *overrides]), workdir=workdir)
    return 0


def demo(config: Config, *, workdir: Path) -> dict[str, Any]:
    """Run the four stages and print one table at the end.

    Args:
      config: as for `pretrain`, with the sections `shapes` (arguments of `moving_shapes.write`) and `prepare`
        (arguments of `data.prepare.prepare.prepare`) beside; `config.data.dir` is where the records go.
      workdir: receives videos/, pretrain/ and report/.

    Returns:
      The content of `report/retrieval.json`.
    """
    from rich.console import Console

    from ..data.prepare.prepare import prepare
    from ..demo import moving_shapes
    from ..evaluate.evaluate import evaluate
    from ..evaluate.terminal import print_table
    from ..pretrain.pretrain import pretrain

    console, clock = Console(), _Clock()
    console.rule("[bold]1/4  moving_shapes: MP4 files")
    manifest = section(moving_shapes.write, config.shapes, name="shapes", out=workdir / "videos", seed=config.seed)
    clock.lap("videos")
    console.rule("[bold]2/4  prepare: records")
    section(prepare, config.prepare, name="prepare", source=manifest, out=Path(config.data.dir), console=console)
    clock.lap("prepare")
    console.rule("[bold]3/4  pretrain: video tower and text tower")
    trained = pretrain(config, workdir=workdir / "pretrain")
    if trained.reason == "terminated":
        console.print(f"stopped at step {trained.step}; the same command goes on from there")
        raise KeyboardInterrupt
    clock.lap("pretrain")
    console.rule("[bold]4/4  evaluate: zero-shot retrieval")
    report = workdir / "report"
    results = evaluate(
        workdir / "pretrain",
        data=Path(config.data.dir),
        out=report,
        split="test",
        captions="first",
        batch_size=50,
        shuffle_seed=config.seed,
    )
    clock.lap("evaluate")
    print_table(results)
    console.print(f"time: {clock}")
    console.print(f"report: [bold]{report / 'index.html'}[/]   (open it in a browser)")
    return results


class _Clock:
    """Wall time of each stage, seconds."""

    def __init__(self):
        self._last, self._laps = time.monotonic(), {}

    def lap(self, name: str) -> None:
        now = time.monotonic()
        self._laps[name], self._last = now - self._last, now

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in self._laps.items())
        return f"{sum(self._laps.values()):.0f} s ({parts})"
