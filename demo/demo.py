"""`twinreel demo`: all stages from media files to a retrieval report, on a data set that it makes itself."""

import time
from pathlib import Path
from typing import Any

from ..base.config import Config, load_config
from ..base.parser import Parser, folder
from .data_sets import DATA_SETS, make, prepare_clips, write_clips

DESCRIPTION = """Try twinreel on a generated data set: pretrain on it and report zero-shot retrieval.

It takes about four minutes on two CPU cores.

  twinreel demo --workdir runs/demo

  1. writes MP4 files: shapes that fall, turn or vanish one after another, with tones and captions
  2. prepares them: decodes each clip once into record shards            (twinreel prepare)
  3. trains a small video tower and a small text tower with InfoNCE      (twinreel pretrain)
  4. measures retrieval on test clips and writes a report                (twinreel evaluate)

You see a table of retrieval figures. The workdir then holds videos/, moving_shapes/ (records), pretrain/ (checkpoints,
metrics) and report/index.html, a page to open in a browser. Running the same command again resumes an interrupted
demo.

  twinreel demo --workdir runs/demo --data films

makes another generated data set instead, for the fine-tuning of one task:

"""
for _name, _made in DATA_SETS.items():
    DESCRIPTION += f"  {_name:12}{_made.what}\n{'':14}(twinreel {_made.verb} --config {_made.config})\n"
DESCRIPTION += """
  twinreel demo --workdir runs/demo --facts captions.json

reads the captions that `twinreel caption --data runs/demo/moving_shapes --out DIR` wrote of the demo's clips, and tells
how many of them name the right events, attributes and order. Each fact has several wordings, so BLEU cannot.
"""


def main(argv: list[str]) -> int:
    """Run the verb."""
    parser = Parser(verb="demo", description=DESCRIPTION)
    parser.add_argument("--workdir", default="runs/demo", help="folder for all files of the demo")
    parser.add_argument("--seed", type=int, default=0, help="seed of the data set and of training")
    parser.add_argument("--data", choices=DATA_SETS, help="make this data set instead, and prepare it")
    parser.add_argument("--facts", type=Path, metavar="FILE", help="captions.json: tell which facts are right instead")
    parser.add_config(default="demo")
    args, overrides = parser.parse(argv)
    workdir = folder(args.workdir, flag="--workdir")
    if args.facts:
        from .facts import score_file

        _print_facts(score_file(args.facts, manifest=workdir / "videos" / "manifest.jsonl"))
        return 0
    fixed = [f"seed={args.seed}", f"data.dir={workdir / 'moving_shapes'}"]
    config = load_config(args.config, overrides=[*fixed, *overrides])
    if args.data:
        print(f"wrote {make(args.data, config=config, workdir=workdir)}")
    else:
        demo(config, workdir=workdir)
    return 0


def demo(config: Config, *, workdir: Path) -> dict[str, Any]:
    """Run the four stages and print one table at the end.

    Args:
      config: as for `pretrain`, plus the sections `shapes` (arguments of `moving_shapes.write`) and `prepare`
        (arguments of `data.prepare.prepare.prepare`); the records are written to `config.data.dir`.
      workdir: folder for videos/, pretrain/ and report/.

    Returns:
      The content of `report/retrieval.json`.
    """
    from rich.console import Console

    from ..engine.start.allocator import keep_freed_memory

    keep_freed_memory()  # the demo is made for CPUs; before any library starts threads
    from ..evaluate.evaluate import EvaluateOptions, evaluate
    from ..evaluate.reports.terminal import print_table
    from ..pretrain.pretrain import pretrain

    console, clock = Console(), _Clock()
    console.rule("[bold]1/4  moving_shapes: MP4 files")
    manifest = write_clips(config, workdir=workdir)
    clock.lap("videos")
    console.rule("[bold]2/4  prepare: records")
    prepare_clips(config, manifest=manifest, out=Path(config.data.dir))
    clock.lap("prepare")
    console.rule("[bold]3/4  pretrain: video tower and text tower")
    trained = pretrain(config, workdir=workdir / "pretrain")
    if trained.reason == "terminated":
        console.print(f"stopped at step {trained.step}")
        raise KeyboardInterrupt
    clock.lap("pretrain")
    console.rule("[bold]4/4  evaluate: zero-shot retrieval")
    report = workdir / "report"
    options = EvaluateOptions(captions="first", batch_size=50, control_seed=config.seed)
    results = evaluate(workdir / "pretrain", data=Path(config.data.dir), out=report, options=options)
    assert results is not None, "the demo is one process"
    clock.lap("evaluate")
    print_table(results)
    console.print(f"time: {clock}")
    console.print(f"report: [bold]{report / 'index.html'}[/]   (open it in a browser)")
    return results


def _print_facts(figures: dict[str, float]) -> None:
    """Print what captions say of the demo's clips, as a table."""
    from rich.console import Console
    from rich.table import Table

    from .facts import ATTRIBUTES

    table = Table("percent right", "", title=f"facts in captions of {figures['clips']:.0f} clips", title_justify="left")
    rows = {"events": "number of events", "exact": "all facts in order", "attributes": "attributes"}
    rows |= {name: f"  {name}" for name in ATTRIBUTES}
    rows |= {"twins": f"own order, not the twin's ({figures['clips_with_twin']:.0f} clips)"}
    for name, what in rows.items():
        table.add_row(what, f"{100 * figures[name]:.1f}")
    Console(highlight=False).print(table)


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
