"""`twinreel finetune`: train a downstream head, and the towers if wished, from a pretrained checkpoint."""

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ml_collections

from .. import __version__
from ..base.config import load_config
from ..base.errors import UserError
from ..base.parser import Distributed, Parser, folder
from ..base.section import field_of, section

if TYPE_CHECKING:
    from collections.abc import Callable

    from flax import nnx

    from ..engine.keeping.transfer import Transfer
    from .task import Setting, Task

DESCRIPTION = """Train a downstream head on a pretrained checkpoint and report on the test split.

  twinreel finetune --config demo_classify --init runs/demo/pretrain --workdir runs/first_colour
  twinreel finetune --config demo_classify:linear --init runs/mine --data data/mine --workdir runs/fights \\
      --config.task.labels='("fight","no fight")' --config.task.train_towers=True

--init begins a new run at step 0 with the checkpoint's towers; a table says what came of every group of parameters.
What the config leaves open (frames, sampling, crops, the tower's sizes) and the tokenizer come from the checkpoint.
The workdir then holds config.json, metrics.jsonl, tensorboard/, checkpoints/ and report/ (index.html, JSON, picture).
Stop it in any way and run the same command again: it goes on where it was. `twinreel launch` starts several processes
of it, here or on a cluster."""


def main(argv: list[str]) -> int:
    """Run the verb."""
    parser = Parser(verb="finetune", description=DESCRIPTION)
    parser.add_config()
    parser.add_argument("--init", required=True, help="the checkpoint to begin with: a workdir or a checkpoint in it")
    parser.add_argument("--workdir", required=True, help="folder of this run; made if absent")
    parser.add_argument("--data", default="", help="prepared data set; default config.data.dir, else the checkpoint's")
    parser.add_argument("--overwrite_config", action="store_true", help="go on in a workdir of another config")
    parser.add_distributed()
    args, overrides = parser.parse(argv)
    workdir = folder(args.workdir, flag="--workdir")
    config = load_config(args.config, overrides=[*overrides, *([f"data.dir={args.data}"] if args.data else [])])
    together = Distributed.of(args)
    if together:
        from ..engine.start.join import initialize_distributed

        initialize_distributed(**together.to_dict())
    report = finetune(config, init=Path(args.init), workdir=workdir, overwrite_config=args.overwrite_config)
    return args.stopped_status if report is None else 0


def finetune(
    config: ml_collections.ConfigDict, *, init: Path, workdir: Path, overwrite_config: bool = False
) -> dict[str, Any] | None:
    """Fine-tune a checkpoint for the task of `config.task`; resume if `workdir` holds an unfinished run of it.

    Args:
      config: sections task, data, model, optimizer, mesh, train, and seed; None = as in the checkpoint.
      init: the pretrained checkpoint; a step folder, a checkpoints folder or a workdir.
      workdir: folder of this run.
      overwrite_config: go on although the workdir was started with another config.

    Returns:
      The report (see the task), or None if the run was terminated before its end.

    Raises:
      UserError: no such task or checkpoint, a checkpoint that does not fit (with a table), data that do not fit.
    """
    import jax

    from ..data.batches.ends import read_ends
    from ..engine.loop.options import TrainOptions
    from ..engine.loop.train import train
    from ..engine.start.preflight import on_all
    from .inherit import complete
    from .task import check_config

    check_config(config.to_dict())
    say = _say if jax.process_index() == 0 else _silent
    origin = starting_point(init, workdir=workdir)
    whole = complete(config.to_dict(), meta=origin["meta"], init={"checkpoint": origin["checkpoint"]})
    new = not has_checkpoint(workdir)
    setting, task = on_all(
        "data",
        lambda: open_task(whole, meta=origin["meta"], say=say, new=new),
        timeout_s=field_of(TrainOptions, whole["train"], field="preflight_timeout"),  # the section is not settled yet
    )
    weights = Weights(Path(origin["checkpoint"]), task=task)
    if new:
        say(weights.plan.table())
    result = train(
        objective=task.objective,
        batches=task.batches,
        workdir=workdir,
        config=ml_collections.ConfigDict(settle(whole, task=task)),
        meta={
            **task.meta(),
            "tokenizer": setting.tokenizer.to_meta(),
            "data": {"prepare": setting.records.options, "name": setting.records.folder.resolve().name},
            "init": origin,
        },
        evaluate=task.evaluate if task.metric else None,
        initialize=weights.fill,
        overwrite_config=overwrite_config,
        readable=lambda: read_ends(setting.data),
    )
    if result.reason == "terminated":
        say(f"stopped at step {result.step}; the same command goes on from there")
        return None
    step = use_best(result.model, best=result.best, last=result.step)
    protocol = {"init": origin["checkpoint"], "ended": result.reason, "steps": result.step, "checkpoint_step": step}
    return task.report(result.model, out=workdir / "report", protocol={"twinreel": __version__, **protocol})


def open_task(
    config: dict[str, Any], *, meta: dict[str, Any], say: "Callable[[Any], None]", new: bool
) -> "tuple[Setting, Task]":
    """Open what `make_setting` opens and build the task on it; `new` = no run has begun in the workdir yet.

    Raises:
      UserError: what the task refuses. In a new run a fault in the data shows here, before anything is written.
    """
    from .task import make_task

    setting = make_setting(config, meta=meta, say=say)
    task = make_task(setting)
    if new:
        task.batches(0)  # not read from
    return setting, task


def make_setting(config: dict[str, Any], *, meta: dict[str, Any], say: "Callable[[Any], None]") -> "Setting":
    """Open the data, the tokenizer and the devices of a run; warn where clips are shown unlike in pretraining.

    Args:
      config: the completed config.
      meta: the checkpoint's meta.
      say: prints a line for the user.
    """
    from ..data.batches.records import Records
    from ..data.options import DataOptions
    from ..data.text.tokenizer import tokenizer_from_meta
    from ..engine.sharding.mesh import make_mesh
    from .inherit import mismatches
    from .task import Setting

    data = DataOptions.of(config["data"])
    records = Records(data.feed.dir, cache_dir=data.feed.cache_dir, cache_gb=data.feed.cache_gb)
    rows = records.rows(data.feed.train_split) if data.feed.train_split in records.splits else []
    for warning in mismatches(config, meta=meta, prepare=records.options, rows=rows):
        say(f"warning: {warning}")
    return Setting(
        config=config,
        data=data,
        records=records,
        tokenizer=tokenizer_from_meta(meta["tokenizer"]),
        mesh=section(make_mesh, config["mesh"], name="mesh"),
        say=say,
    )


def has_checkpoint(workdir: Path) -> bool:
    """Tell whether a run has begun in `workdir`, so that it will be resumed."""
    from ..engine.keeping.checkpoint import FOLDER, steps_in

    return bool(steps_in(workdir / FOLDER))


def starting_point(init: Path, *, workdir: Path) -> dict[str, Any]:
    """Return the checkpoint to begin with and what is needed of its meta: {"checkpoint", "meta"}.

    For a run that has begun in `workdir` this is the one that it began with, which its own checkpoints remember: the
    pretraining in `init` may have gone on, or cleared it away.

    Raises:
      UserError: no readable checkpoint.
    """
    from ..engine.keeping import checkpoint

    if has_checkpoint(workdir):
        own = checkpoint.read_meta(workdir)
        origin = own.get("init")
        if origin is not None and Path(origin["checkpoint"]).is_relative_to(init.absolute()):
            return origin
    start = checkpoint.resolve(init)
    meta = checkpoint.read_meta(start)
    for key in ("config", "tokenizer"):
        if key not in meta:
            raise UserError(
                f"the meta of {start} has no {key!r}, so its towers cannot be built; give a checkpoint of "
                "`twinreel pretrain`"
            )
    return {
        "checkpoint": str(start),
        "meta": {key: meta[key] for key in ("config", "tokenizer", "data") if key in meta},
    }


class Weights:
    """The parameters that a task takes over from a checkpoint; read when they are first needed."""

    def __init__(self, checkpoint: Path, *, task: "Task"):
        self._checkpoint, self._task = checkpoint, task

    @functools.cached_property
    def plan(self) -> "Transfer":
        """What comes of each parameter.

        Raises:
          UserError: parameters that do not fit, with a table.
        """
        from flax import nnx

        from ..engine.keeping.checkpoint import read_params
        from ..engine.keeping.transfer import plan_transfer, shapes

        model = nnx.eval_shape(lambda: self._task.objective.init(nnx.Rngs(0)))
        return plan_transfer(
            read_params(self._checkpoint), target=shapes(model), parts=self._task.parts, name=str(self._checkpoint)
        )

    def fill(self, model: "nnx.Module") -> None:
        """Fill the task's parts of a fresh model, in place."""
        from ..engine.keeping.transfer import fill

        fill(model, values=self.plan.values)


def settle(config: dict[str, Any], *, task: "Task") -> dict[str, Any]:
    """Return the config with what the data decided: the task's own settings, and how the best checkpoint is chosen.

    Without validation clips there is no early stopping and no best checkpoint.
    """
    train = dict(config["train"])
    if not task.metric:
        train |= {"best_metric": "", "patience": 0, "eval_every": 0}
    elif not train.get("best_metric"):
        train |= {"best_metric": task.metric, "best_mode": "max"}
    return {**config, "task": task.settled(), "train": train}


def use_best(model: "nnx.Module", *, best: dict[str, Any] | None, last: int) -> int:
    """Fill `model` with the best checkpoint's parameters, in place; return its step, or `last` without one."""
    from ..engine.keeping.checkpoint import restore_model

    if best is None or best["checkpoint"] is None:
        return last
    restore_model(best["checkpoint"], model=model)
    return best["step"]


def _say(what: Any) -> None:
    from rich.console import Console

    Console(stderr=True, soft_wrap=True, highlight=False, markup=False).print(what)


def _silent(what: Any) -> None:
    del what
