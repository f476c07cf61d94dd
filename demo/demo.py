"""`twinreel demo`: all stages from media files to a retrieval report, on a data set that it makes itself."""

import time
from pathlib import Path
from typing import Any

from ..base.config import Config, load_config
from ..base.parser import Parser, folder
from ..base.section import section

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

  twinreel demo --workdir runs/demo --films

joins its clips to films of about 20 s, with importance from annotators, and prepares them: films/ and shape_films/, the
data of `twinreel finetune --config demo_summarise`.

  twinreel demo --workdir runs/demo --odd_films

writes and prepares films in which something odd may happen, odd/ and odd_films/: the data of `twinreel finetune
--config demo_anomaly`.

  twinreel demo --workdir runs/demo --identities

writes and prepares clips of one shape each, whose shape, texture and colour are its identity, identities/ and
shape_identities/: the data of `twinreel finetune --config demo_identify`.

  twinreel demo --workdir runs/demo --sessions

writes sessions.jsonl: which of the demo's clips imagined users with a hidden taste watch, one after another, for
`twinreel finetune --config demo_recommend`."""


def main(argv: list[str]) -> int:
    """Run the verb."""
    parser = Parser(verb="demo", description=DESCRIPTION)
    parser.add_argument("--workdir", default="runs/demo", help="folder for all files of the demo")
    parser.add_argument("--seed", type=int, default=0, help="seed of the data set and of training")
    parser.add_argument("--films", action="store_true", help="make longer films of its clips instead, and prepare them")
    parser.add_argument("--odd_films", action="store_true", help="make films for anomaly detection instead")
    parser.add_argument("--identities", action="store_true", help="make clips for the verification of identity instead")
    parser.add_argument("--sessions", action="store_true", help="make sessions of users with a hidden taste instead")
    parser.add_config(default="demo")
    args, overrides = parser.parse(argv)
    workdir = folder(args.workdir, flag="--workdir")
    fixed = [f"seed={args.seed}", f"data.dir={workdir / 'moving_shapes'}"]
    config = load_config(args.config, overrides=[*fixed, *overrides])
    if args.films:
        make_films(config, workdir=workdir)
    elif args.odd_films:
        make_odd_films(config, workdir=workdir)
    elif args.identities:
        make_identities(config, workdir=workdir)
    elif args.sessions:
        print(f"wrote {make_sessions(config, workdir=workdir)}")
    else:
        demo(config, workdir=workdir)
    return 0


def make_films(config: Config, *, workdir: Path) -> Path:
    """Write and prepare films of the demo's clips, which are written first where they are missing.

    Args:
      config: as for `demo`, with the section `films` (arguments of `films.write`).
      workdir: folder for videos/, films/ and shape_films/.

    Returns:
      The folder of the records.
    """
    from . import films, moving_shapes

    clips = section(moving_shapes.write, config.shapes, name="shapes", out=workdir / "videos", seed=config.seed)
    given = {"out": workdir / "films", "manifest": clips, "seed": config.seed}
    manifest = section(films.write, config.films, name="films", **given)
    return _prepared(manifest, out=workdir / "shape_films", config=config)


def make_odd_films(config: Config, *, workdir: Path) -> Path:
    """Write and prepare films in which something odd may happen; what is there already stays.

    Args:
      config: as for `demo`, with the section `odd_films` (arguments of `odd_films.write`).
      workdir: folder for odd/ and odd_films/.

    Returns:
      The folder of the records.
    """
    from . import odd_films

    given = {"out": workdir / "odd", "seed": config.seed}
    manifest = section(odd_films.write, config.odd_films, name="odd_films", **given)
    return _prepared(manifest, out=workdir / "odd_films", config=config)


def make_identities(config: Config, *, workdir: Path) -> Path:
    """Write and prepare clips of identities; what is there already stays.

    Args:
      config: as for `demo`, with the section `identities` (arguments of `identities.write`).
      workdir: folder for identities/ and shape_identities/.

    Returns:
      The folder of the records.
    """
    from . import identities

    given = {"out": workdir / "identities", "seed": config.seed}
    manifest = section(identities.write, config.identities, name="identities", **given)
    return _prepared(manifest, out=workdir / "shape_identities", config=config)


def make_sessions(config: Config, *, workdir: Path) -> Path:
    """Write sessions of the demo's clips, which are written first where they are missing.

    Args:
      config: as for `demo`, with the section `sessions` (arguments of `sessions.write`).
      workdir: folder for videos/ and sessions.jsonl.

    Returns:
      The file.
    """
    from . import moving_shapes, sessions

    clips = section(moving_shapes.write, config.shapes, name="shapes", out=workdir / "videos", seed=config.seed)
    given = {"out": workdir / "sessions.jsonl", "manifest": clips, "seed": config.seed}
    return section(sessions.write, config.sessions, name="sessions", **given)


def _prepared(manifest: Path, *, out: Path, config: Config) -> Path:
    from rich.console import Console

    from ..data.prepare.prepare import prepare

    section(prepare, config.prepare, name="prepare", source=manifest, out=out, console=Console())
    return out


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
    from ..data.prepare.prepare import prepare
    from ..evaluate.evaluate import EvaluateOptions, evaluate
    from ..evaluate.reports.terminal import print_table
    from ..pretrain.pretrain import pretrain
    from . import moving_shapes

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
