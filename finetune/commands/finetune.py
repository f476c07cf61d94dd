"""`twinreel finetune`: train a downstream head, and the towers if wanted, from a pretrained checkpoint."""

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ml_collections

from ... import __version__
from ...base.config import load_config
from ...base.parser import Parser
from ...base.section import field_of, section
from ...engine.remote.place import workdir_of
from ...engine.start.allocator import keep_freed_memory_on_cpus
from ...engine.start.flags import join_run

if TYPE_CHECKING:
    from flax import nnx

    from ...data.text.tokenizer import Tokenizer
    from ...engine.keeping.transfer import Transfer
    from ...engine.loop.train import TrainResult
    from ...engine.loop.workdir import Identity
    from ..examples.context import TaskContext
    from ..kinds.task import Task
    from .inherit import Source

FEATURES = "features"
"""Folder of the features of a frozen tower in a workdir, by default."""
DESCRIPTION = """Train a downstream head on a pretrained checkpoint and report on the test split.

  twinreel finetune --config demo_classify --init runs/demo/pretrain --data runs/demo/moving_shapes \\
      --workdir runs/first_colour
  twinreel finetune --config demo_localise --init runs/demo/pretrain --data runs/demo/moving_shapes \\
      --workdir runs/moments
  twinreel finetune --config demo_classify:linear --init runs/mine --data data/mine --workdir runs/fights \\
      --config.task.labels='("fight","no fight")' --config.task.train_towers=True

A new run begins at step 0 with the checkpoint's towers; a table lists which parameters were loaded, resized or left
new. The tokenizer comes from the checkpoint, and so does every field of its input that the config leaves open (frames,
sampling, preprocessing). Clips without a validation split are held out by source file.
config.adapt trains few parameters of the towers: LoRA's (--config.adapt.lora.rank=8), DoRA's, adapters, prompts or the
biases (--config.adapt.bitfit={}); a table counts what is trained, frozen and added (docs/finetuning.md, "Training
few parameters"). `twinreel merge` turns the result into plain weights.
The workdir then holds config.json, metrics.jsonl, tensorboard/, checkpoints/ and report/ (index.html, JSON, picture).
Stop it in any way and run the same command again to resume. `twinreel predict WORKDIR FILE ...` labels new files;
`twinreel launch` starts several processes, here or on a cluster."""


def main(argv: list[str]) -> int:
    """Run the verb."""
    parser = Parser(verb="finetune", description=DESCRIPTION)
    parser.add_config()
    parser.add_run()
    parser.add_argument("--init", required=True, help="the model to begin with: a bundle, a workdir or a checkpoint")
    parser.add_argument(
        "--transfer",
        default="",
        metavar="KIND",
        help="of several tasks: first run each of them `alone`, or also `pairs` of them, for the table of transfer",
    )
    parser.add_distributed()
    args, overrides = parser.parse(argv)
    keep_freed_memory_on_cpus()  # before any library starts threads
    workdir = workdir_of(args.workdir)
    config = load_config(args.config, overrides=[*overrides, *([f"data.dir={args.data}"] if args.data else [])])
    workdir = workdir_of(args.workdir, process=join_run(args))
    how = {"init": Path(args.init), "overwrite_config": args.overwrite_config}
    if args.transfer and not _transferred(args.transfer, config=config, workdir=workdir, how=how):
        return args.stopped_status
    report = finetune(config, workdir=workdir, resume_step=args.resume_step, **how)
    return args.stopped_status if report is None else 0


def _transferred(kind: str, *, config: ml_collections.ConfigDict, workdir: Path, how: dict[str, Any]) -> bool:
    """Run some of the tasks of a multitask run; return False if one was stopped."""
    import jax

    from ...engine.loop.lock import writing_alone
    from ...engine.loop.options import TrainOptions
    from ..reports.terminal import say, silent
    from .transfer import check_transfer, run_transfer

    check_transfer(kind, config=config)
    tell = say if jax.process_index() == 0 else silent
    limit_s = field_of(TrainOptions, config.train, field="preflight_timeout")
    given = {"features": workdir / FEATURES, **how}
    with writing_alone(workdir, timeout_s=limit_s, say=tell):  # the stage of a URL is emptied before they begin
        return run_transfer(
            config, kind=kind, workdir=workdir, run=lambda changed, to: finetune(changed, workdir=to, **given), say=tell
        )


def finetune(
    config: ml_collections.ConfigDict,
    *,
    init: Path,
    workdir: Path,
    resume_step: int | None = None,
    overwrite_config: bool = False,
    features: Path | None = None,
) -> dict[str, Any] | None:
    """Fine-tune a checkpoint for the task of `config.task`; resume if `workdir` holds an unfinished run of it.

    Args:
      config: sections task, data, model, optimizer, mesh, train, and seed.
      init: the pretrained model; a bundle, a step folder, a checkpoints folder or a workdir.
      workdir: folder of this run.
      resume_step: go back to the checkpoint of this step.
      overwrite_config: continue although the workdir was started with another config or other data.
      features: where features are kept unless `config.task.features_dir` says so; None = `FEATURES` in the workdir.

    Returns:
      The report (see the task), or None if the run was terminated before its end.

    Raises:
      UserError: no such task or checkpoint, a checkpoint that does not fit (with a table), data that do not fit.
    """
    import jax

    from ...data.batches.ends import read_ends
    from ...data.batches.identity import contents
    from ...engine.loop.evaluation import Evaluation
    from ...engine.loop.lock import writing_alone
    from ...engine.loop.options import TrainOptions
    from ...engine.loop.train import train
    from ..kinds.task import VALIDATION
    from ..reports.terminal import say, silent
    from ..tasks import check_config
    from .inherit import ask_checkpoint

    check_config(config.to_dict())
    tell = say if jax.process_index() == 0 else silent
    limit_s = field_of(TrainOptions, config.train, field="preflight_timeout")  # the section is not settled yet
    with writing_alone(workdir, timeout_s=limit_s, say=tell):  # features and the report are written outside `train`
        source, whole, context, task = _open_on_all(config, init=init, workdir=workdir, timeout_s=limit_s, say=tell)
        settled = ml_collections.ConfigDict(settle(whole, task=task))
        weights = Weights(source, task=task, workdir=workdir, say=tell)
        identity = contents(context.data.feed)
        kept = {"workdir": workdir, "features": features or workdir / FEATURES}
        cache_features(task, config=settled, weights=weights, identity=identity, overwrite=overwrite_config, **kept)
        ask_checkpoint(task, source=source, context=context, workdir=workdir)
        result = train(
            objective=task.objective,
            batches=task.batches,
            workdir=workdir,
            config=settled,
            meta=_run_meta(source, task=task, context=context),
            evaluations=[Evaluation(name=VALIDATION, run=task.evaluate)] if task.metric else [],
            initialize=weights.fill,
            identity=identity,
            resume_step=resume_step,
            overwrite_config=overwrite_config,
            readable=lambda: read_ends(context.data),
        )
        if result.reason == "terminated":
            tell(f"stopped at step {result.step}; run the same command again to resume")
            return None
        step, why = use_best(result, task=task, keep_best=field_of(TrainOptions, settled.train, field="keep_best"))
        protocol = _protocol(source, result=result, step=step, why=why)
        return task.report(result.model, out=workdir / "report", protocol=protocol)


def _open_on_all(
    config: ml_collections.ConfigDict, *, init: Path, workdir: Path, timeout_s: float, say: Callable[[Any], None]
) -> "tuple[Source, dict[str, Any], TaskContext, Task]":
    """`open_task` on every process of the run; a fault on one of them ends all."""
    from ...engine.start.preflight import on_all

    return on_all(
        "data",
        lambda: open_task(config.to_dict(), init=init, workdir=workdir, say=say),
        timeout_s=timeout_s,
        same=lambda made: json.dumps([made[1], made[3].objective.spec.to_dict()], sort_keys=True, default=str),
    )


def _run_meta(source: "Source", *, task: "Task", context: "TaskContext") -> dict[str, Any]:
    """Return what the checkpoints of the run say of its model and data."""
    return {
        "objective": context.config["task"]["name"],
        "spec": task.objective.spec.to_dict(),
        "data": {"prepare": context.records.options, "name": context.records.folder.resolve().name},
        "init": source.to_meta(),
    }


def _protocol(source: "Source", *, result: "TrainResult", step: int, why: str) -> dict[str, Any]:
    began = source.origin
    return {
        "twinreel": __version__,
        "init": began["name"] + ("" if began["step"] is None else f", step {began['step']}"),
        "init_sha256": began["sha256"],
        "ended": result.reason,
        "steps": result.step,
        "checkpoint_step": step,
        "checkpoint_chosen_by": why,
    }


def open_task(
    config: dict[str, Any], *, init: Path, workdir: Path, say: Callable[[Any], None]
) -> "tuple[Source, dict[str, Any], TaskContext, Task]":
    """Find the checkpoint, complete the config, open the data and build the task.

    Raises:
      UserError: a fault in one of them. In a new run a fault in the data shows here, before anything is written.
    """
    from ...engine.keeping.checkpoint import FOLDER, steps_in
    from ..tasks import make_task
    from .inherit import complete, source_of

    source, note = source_of(init, workdir=workdir)
    if note:
        say(note)
    whole = complete(config, source=source)
    context = open_context(whole, source=source, say=say)
    task = make_task(context)
    if not steps_in(workdir / FOLDER):
        task.batches(0)  # not read from
    return source, whole, context, task


def open_context(config: dict[str, Any], *, source: "Source", say: Callable[[Any], None]) -> "TaskContext":
    """Open the data, the tokenizer and the devices of a run; warn where clips are shown unlike in pretraining.

    Args:
      config: the completed config.
      source: the checkpoint.
      say: prints a line for the user.
    """
    from ...data.batches.records import Records
    from ...data.options import DataOptions
    from ...engine.sharding.mesh import make_mesh
    from ..examples.context import TaskContext
    from .inherit import mismatches, model_changes, run_spec

    data, model = DataOptions.of(config["data"]), model_changes(config)
    records = Records(data.feed.dir, cache_dir=data.feed.cache_dir, cache_gb=data.feed.cache_gb)
    rows = records.rows(data.feed.train_split) if data.feed.train_split in records.splits else []
    for warning in mismatches(data, source=source, prepare=records.options, rows=rows):
        say(f"warning: {warning}")
    return TaskContext(
        config=config,
        data=data,
        records=records,
        tokenizer=_tokenizer_of(source),
        spec=run_spec(source, model=model, data=data, prepare=records.options, seed=config["seed"]),
        layers={"remat": model.remat, "unroll": model.unroll, "attention": model.attention},
        mesh=section(make_mesh, config["mesh"], name="mesh"),
        say=say,
        heads=source.spec.task_heads,
    )


def _tokenizer_of(source: "Source") -> "Tokenizer":
    """Return the checkpoint's tokenizer; for an encoder without one, a stand-in: no task of it reads text."""
    from ...data.text.tokenizer import tokenizer_from_meta
    from ...data.text.words import WordTokenizer

    meta = dict(source.spec.tokenizer)
    return tokenizer_from_meta(meta) if meta else WordTokenizer(("a",))


class Weights:
    """The parameters that a task takes over from a checkpoint; read when they are first needed."""

    def __init__(self, source: "Source", *, task: "Task", workdir: Path, say: Callable[[Any], None]):
        self._source, self._task, self._workdir, self._say = source, task, workdir, say

    @functools.cached_property
    def plan(self) -> "Transfer":
        """What becomes of each parameter; its table is printed.

        Raises:
          UserError: parameters that do not fit, with a table.
        """

        from ...engine.keeping.init_from import InitFrom

        located = self._source.located
        assert located is not None, "a resumed run reads its own checkpoints"
        what = {"parts": self._task.parts, "parts_flag": "", "adapts": True}
        init = InitFrom(checkpoint=located.path, read=lambda _: located.params(), **what)
        plan = init.plan(self._task.objective.abstract())
        self._say(plan.table())
        return plan

    def fill(self, model: "nnx.Module") -> None:
        """Fill the task's parts of a fresh model, in place."""
        from ...engine.keeping.transfer import fill_planned

        fill_planned(model, plan=self.plan)

    def model(self) -> "nnx.Module":
        """Build the model as the run begins, or as its newest checkpoint has it."""
        from flax import nnx

        from ...engine.keeping.checkpoint import FOLDER, restore_model, steps_in

        model = self._task.objective.init(nnx.Rngs(0))
        if steps_in(self._workdir / FOLDER):
            restore_model(self._workdir, model=model)
        else:
            self.fill(model)
        return model


def cache_features(
    task: "Task",
    *,
    config: ml_collections.ConfigDict,
    weights: Weights,
    workdir: Path,
    features: Path,
    identity: "Identity",
    overwrite: bool,
) -> None:
    """Compute what a frozen tower makes of the clips once, if `config.task.cache_features` and nothing is random."""
    from ...engine.loop.options import TrainOptions
    from ...engine.loop.workdir import check_workdir
    from ...engine.optimizer.optimizer import make_optimizer

    if not (task.objective.frozen and task.options.cache_features):
        return
    # Faults that the train loop would name only after the computation.
    options = section(TrainOptions, config.train, name="train")
    section(make_optimizer, config.optimizer, name="optimizer", steps=options.steps)
    check_workdir(workdir, config=config, identity=identity, overwrite=overwrite)
    named = task.options.features_dir
    task.feed.cache(
        train=task.trained_on(),
        evaluated=task.evaluated_on(),
        model=weights.model,
        folder=Path(named) if named else features,
    )


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


def use_best(result: "TrainResult", *, task: "Task", keep_best: int) -> tuple[int, str]:
    """Fill the model with the best checkpoint's parameters, in place, if there is one.

    Returns:
      The step of the parameters, and how it was chosen, for the protocol.
    """
    from ...engine.keeping.checkpoint import restore_model

    best, last = result.best, result.step
    if not task.metric:
        return last, "last step (no validation clips)"
    if best is None:
        return last, "last step (no evaluation of it gave a finite number)"
    name = best["metric"].removeprefix("val/")
    if best["checkpoint"] is None and best["step"] != last:
        return last, (
            f"last step (config.train.keep_best={keep_best} kept no checkpoint of step {best['step']}, which had the "
            f"best {name} on {task.validated_on})"
        )
    if best["checkpoint"] is not None:
        restore_model(best["checkpoint"], model=result.model)
    return best["step"], f"best {name} on {task.validated_on}"
