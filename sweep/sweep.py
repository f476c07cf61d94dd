"""`twinreel sweep`: many runs of one config with other values, compared on one page."""

import argparse
import json
import signal
import sys
import time
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .. import __version__
from ..base.config import Config, difference, load_config, to_json
from ..base.errors import UserError
from ..base.parser import Parser, folder
from ..base.section import field_of, section
from ..engine.keeping.files import write_atomically
from ..engine.start.gpus import gpus_of
from .page import write_sweep_page
from .results import Results, copied_flags, results_of, share_curve
from .runner import Runner, Work
from .space import Parameter, Space, Value, make_space, read_space
from .study import PRUNERS, SAMPLERS, STORAGES, StudyOptions, SweepStudy, import_optuna

DESCRIPTION = """Try other values of a config's fields: many runs, each a normal run with a workdir of its own.

  twinreel sweep --verb finetune --config demo_classify --init runs/demo/pretrain --data runs/demo/moving_shapes \\
      --space space.toml --workdir runs/sweep --trials 20
  twinreel sweep --config few_clips --data data/few --space space.toml --workdir runs/sweep --metric val/t2v_R@1 \\
      --sampler random --pruner hyperband
  twinreel sweep --verb finetune --config demo_classify --init runs/demo/pretrain --data runs/demo/moving_shapes \\
      --workdir runs/shares --shares 0.1,0.3,1 --draws 3

space.toml (also .yaml, or .py with get_space() -> dict) lists fields of the config with their values:

  "optimizer.lr" = {low = 1e-4, high = 1e-2, log = true}
  "task.head" = ["linear", "attentive"]
  "task.dropout" = {low = 0.0, high = 0.4, step = 0.1}

A trial's value is the best result of --metric over its evaluations during training, and the run keeps the checkpoint
of that step. --sampler tpe learns from earlier trials, random does not, grid goes through all combinations. --pruner
stops trials whose intermediate results are worse than those of others at the same step.

Stop it in any way and run the same command again to resume: trials that were interrupted continue from their own
checkpoints. --processes P runs P trials at a time; the same command in another terminal shares the work.

WORKDIR/index.html compares the trials and lists the flags of the best one; results.json has the same as JSON;
trials/NNNN is the workdir of a trial. --shares draws a learning curve: the metric against the share of the training
files, with the best values that the sweep has found (or the config as it is, without --space)."""
FILE, PAGE, RESULTS = "sweep.json", "index.html", "results.json"
TRIALS, SHARES = "trials", "shares"
MAX_SEED = 2**31 - 1
VERBS = ("pretrain", "finetune")
_WRITE_S = 30.0
_LOWER = ("loss", "mae", "MdR", "MnR", "EER")  # ends of the names of results of which a lower one is better


def main(argv: list[str]) -> int:
    """Run the verb."""
    args, overrides = _parser().parse(argv)
    _check_flags(args)
    import_optuna()
    results = Sweep(args, overrides=overrides).run()
    if args.json:
        print(json.dumps(results))
    else:
        _print(results, page=Path(args.workdir) / PAGE)
    return 0


class Sweep:
    """One start of a sweep in its workdir."""

    def __init__(self, args: argparse.Namespace, *, overrides: list[str]):
        """Read config and space, and check that the workdir belongs to them.

        Raises:
          UserError: a mistake in one of them, or a workdir of another sweep.
        """
        given = [f"--config.data.dir={args.data}"] if args.data else []
        self._args, self._overrides = args, [*overrides, *given]
        self.workdir = folder(args.workdir, flag="--workdir")
        config = load_config(args.config, overrides=self._overrides)
        self._space = make_space(read_space(args.space), config=config) if args.space else None
        self._metric, self._maximize = _metric(args, config=config)
        self._steps, self._eval_every = _schedule(config)
        _check_evaluations(args, config=config, eval_every=self._eval_every)
        self._trials: SweepStudy | None = None
        self._curve: SweepStudy | None = None
        self._chosen: list[str] = []
        self._written = -_WRITE_S
        self._claim(config)

    def run(self) -> Results:
        """Run what is missing; returns the results, which are also written."""
        previous = signal.signal(signal.SIGTERM, _interrupt)  # as Ctrl-C: runs under way save first
        try:
            if self._space is not None:
                self._trials = self._study(TRIALS, space=self._space)
                self._run(self._trials, flags=(), title="trials")
            if self._args.shares:
                self._chosen = self._best_overrides()
                self._curve = self._share_study()
                self._run(self._curve, flags=tuple(f"--config.{one}" for one in self._chosen), title="learning curve")
        finally:
            signal.signal(signal.SIGTERM, previous)
            results = self._write()
        return results

    def _best_overrides(self) -> list[str]:
        """Return the values of the best trial, for the learning curve; [] without trials."""
        if self._trials is None:
            return []
        best = self._found()["best"]
        if best is None:
            raise UserError("no trial is complete, so there are no values for --shares; look at the failed ones")
        return [one for one in best["overrides"] if not one.startswith(("data.share=", "seed="))]

    def _share_study(self) -> SweepStudy:
        """Open the study of the learning curve: a grid of shares and seeds, with the values of the best trial."""
        config = load_config(self._args.config, overrides=[*self._overrides, *self._chosen])
        share, seed = Parameter(name="data.share", high=1.0), Parameter(name="seed", high=MAX_SEED, whole=True)
        seeds = [int(config.seed) + number for number in range(self._args.draws)]
        points = [{"data.share": one, "seed": own} for one in _shares(self._args.shares) for own in seeds]
        of = zlib.crc32(" ".join(self._chosen).encode())
        return self._study(
            f"{SHARES}-{of:08x}" if self._chosen else SHARES, space=Space(parameters=(share, seed)), points=points
        )

    def _study(self, name: str, *, space: Space, points: Sequence[Mapping[str, Value]] = ()) -> SweepStudy:
        args, curve = self._args, bool(points)
        options = StudyOptions(
            trials=args.trials,
            sampler="grid" if curve else args.sampler,
            pruner="none" if curve else args.pruner,
            seed=args.seed,
            storage=args.storage,
            maximize=self._maximize,
            first_step=self._eval_every or self._steps,
            steps=self._steps,
        )
        return SweepStudy(self.workdir, name=name, space=space, options=options, points=points)

    def _run(self, study: SweepStudy, *, flags: tuple[str, ...], title: str) -> None:
        args = self._args
        if args.retry_failed and (again := study.retry_failed()):
            _say(f"{again} failed runs are tried again")
        own = [f"--init={args.init}"] if args.init else []
        own += [f"--config.{one.removeprefix('--config.')}" for one in self._overrides]
        if args.metric:
            own += [f"--config.train.best_metric={self._metric}"]
            own += [f"--config.train.best_mode={'max' if self._maximize else 'min'}"]
        work = Work(
            verb=args.verb,
            flags=(f"--config={args.config}", *own, *flags),
            metric=self._metric,
            maximize=self._maximize,
            steps=self._steps,
            processes=args.processes,
            gpus=args.gpus,
        )
        Runner(study, work=work, title=title, say=_say, ended=self._now_and_then).run()

    def _claim(self, config: Config) -> None:
        """Write what this sweep is of into the workdir, or compare it with what is there."""
        args = self._args
        own = {
            "verb": args.verb,
            "init": args.init,
            "metric": self._metric,
            "maximize": self._maximize,
            "config": to_json(config),
            "space": self._space.to_json() if self._space else {},
            "storage": args.storage,
        }
        path = self.workdir / FILE
        self.workdir.mkdir(parents=True, exist_ok=True)
        if not path.is_file():
            write_atomically(path, text=json.dumps({**own, "twinreel": __version__}, indent=2) + "\n")
            return
        kept = json.loads(path.read_text(encoding="utf-8"))
        if changed := difference({key: kept.get(key) for key in own}, json.loads(json.dumps(own))):
            lines = "\n".join(f"  {line}" for line in changed)
            raise UserError(
                f"workdir {self.workdir} belongs to another sweep; nothing was changed. In it -> now:\n{lines}\n"
                "Its trials could not be compared with new ones: choose another --workdir"
            )

    def _found(self) -> Results:
        args = self._args
        about = {"config": args.config, "verb": args.verb, "init": args.init, "data": args.data}
        about |= {"sampler": args.sampler, "pruner": args.pruner, "twinreel": __version__}
        return results_of(self._trials, about=about, maximize=self._maximize, metric=self._metric)

    def _now_and_then(self) -> None:
        """Write results and page, but not more often than every so many seconds."""
        if time.monotonic() - self._written > _WRITE_S:
            self._write()
            self._written = time.monotonic()

    def _write(self) -> Results:
        """Write results and page."""
        results = self._found()
        if self._curve is not None:
            curve = {"overrides": self._chosen, "points": share_curve(self._curve), "runs": str(self._curve.folder)}
            results["shares"] = curve
        write_atomically(self.workdir / RESULTS, text=json.dumps(results, indent=1) + "\n")
        write_sweep_page(self.workdir / PAGE, results=results)
        return results


def _metric(args: argparse.Namespace, *, config: Config) -> tuple[str, bool]:
    """Return the metric ("" = that of the run, which fine-tuning chooses), and whether a higher one is better."""
    own = config.train.get("best_metric", "")
    if not args.metric and not own and args.verb == "pretrain":
        raise UserError(
            "config.train.best_metric is empty, so it is not known what to compare; give --metric, such as "
            "--metric val/t2v_R@1: a result of one of config.evaluations"
        )
    if args.mode:
        return args.metric or own, args.mode == "max"
    if args.metric and args.metric != own:
        return args.metric, not args.metric.endswith(_LOWER)
    return own, config.train.get("best_mode", "max") == "max"


def _schedule(config: Config) -> tuple[int, int]:
    from ..engine.loop.options import TrainOptions

    options = section(TrainOptions, {**config.train.to_dict(), "patience": 0}, name="train")
    return options.steps, field_of(TrainOptions, config.train, field="eval_every")


def _check_evaluations(args: argparse.Namespace, *, config: Config, eval_every: int) -> None:
    named = dict(config.get("evaluations") or {})
    if args.verb == "pretrain" and not named:
        raise UserError("config.evaluations is empty, so no trial would be measured; name an evaluation in the config")
    often = eval_every or any(one.get("every", 0) for one in named.values())
    if args.space and args.pruner != "none" and not often:
        _say("note: config.train.eval_every=0 evaluates at the end only, so --pruner has nothing to judge by")


def _shares(text: str) -> list[float]:
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or len(set(found)) < len(found) or not all(0 < share <= 1 for share in found):
        raise UserError(f"--shares must list different numbers above 0 and up to 1, such as 0.1,0.3,1; got {text!r}")
    return sorted(found)


def _interrupt(number: int, frame: Any) -> None:
    del number, frame
    raise KeyboardInterrupt


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _print(results: Results, *, page: Path) -> None:
    best = results["best"]
    counts: dict[str, int] = {}
    for one in results["trials"]:
        counts[one["state"]] = counts.get(one["state"], 0) + 1
    if counts:
        print(", ".join(f"{count} {state}" for state, count in counts.items()))
    if best:
        print(f"best {results['metric']}: {best['value']:.6g} at step {best['step']} of {best['workdir']}")
        print(f"  {copied_flags(best['overrides'])}")
    for one in results.get("shares", {}).get("points", []):
        print(f"share {one['share']:g}: {one['mean']:.6g} ± {one['std']:.3g} over {len(one['values'])} runs")
    print(f"page: {page}")


def _check_flags(args: argparse.Namespace) -> None:
    if args.verb not in VERBS:
        raise UserError(f"--verb must be {' or '.join(VERBS)}, got {args.verb!r}")
    if not args.space and not args.shares:
        raise UserError("give --space FILE, the values to try, or --shares, the points of a learning curve")
    if args.verb == "finetune" and not args.init:
        raise UserError("--verb finetune needs --init, the model to begin with")
    for name, least in (("processes", 1), ("gpus", 0), ("draws", 1), ("seed", 0), ("trials", 1)):
        if getattr(args, name) < least:
            raise UserError(f"--{name} must be at least {least}, got {getattr(args, name)}")
    if args.gpus:
        gpus_of(args.processes - 1, count=args.gpus, flag=f"--processes={args.processes} --gpus={args.gpus}")
    if args.shares:
        _shares(args.shares)
    if args.mode not in ("", "max", "min"):
        raise UserError(f"--mode must be max or min, got {args.mode!r}")
    StudyOptions(sampler=args.sampler, pruner=args.pruner, storage=args.storage)


def _parser() -> Parser:
    parser = Parser(verb="sweep", description=DESCRIPTION)
    parser.add_config()
    parser.add_argument("--workdir", required=True, help="folder of the sweep and of its runs")
    parser.add_argument("--verb", default="pretrain", help="pretrain or finetune")
    parser.add_argument("--init", default="", help="the model that each run begins with")
    parser.add_argument("--data", default="", help="prepared data set; short for --config.data.dir=DIR")
    group = parser.add_argument_group("trials")
    group.add_argument("--space", metavar="FILE", default="", help="fields and their values: .toml, .yaml or .py")
    group.add_argument("--trials", type=int, default=20, help="how many; a grid has as many as combinations")
    group.add_argument("--sampler", default="tpe", help=", ".join(SAMPLERS))
    group.add_argument("--pruner", default="median", help=", ".join(PRUNERS))
    group.add_argument("--metric", default="", help="result of an evaluation; default: config.train.best_metric")
    words = "max or min; default: that of the config, min for losses, ranks and error rates"
    group.add_argument("--mode", default="", help=words)
    group.add_argument("--seed", type=int, default=0, help="of the sampler; runs have the config's seed")
    group.add_argument("--retry_failed", action="store_true", help="try failed trials again")
    group = parser.add_argument_group("learning curve")
    group.add_argument("--shares", default="", help="shares of the training files, such as 0.1,0.3,1")
    group.add_argument("--draws", type=int, default=1, help="runs for each share: other files and another seed each")
    group = parser.add_argument_group("machine")
    group.add_argument("--processes", type=int, default=1, help="runs at a time")
    group.add_argument("--gpus", type=int, default=0, help="GPUs of each run; 0 = all that are visible")
    group.add_argument(
        "--storage",
        default="sqlite",
        help=f"{' or '.join(STORAGES)}; journal is for several machines that share WORKDIR by NFS 4 or the like",
    )
    parser.add_json()
    return parser
