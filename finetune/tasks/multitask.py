"""Several tasks on one tower: one pass through it for all of them, and a loss that weighs them."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ...base.errors import UserError
from ...base.section import section
from ...engine.sharding.mesh import check_batch_size
from ...models.heads.multitask import MultiTaskModel
from ...zoo.spec import MODALITIES, ModelSpec
from ..examples.clips import LabelledClips
from ..examples.context import TaskContext
from ..figures.multitask import NO_SHARE, compute_figures, main_result, reported_result, transfer_figures
from ..inputs.feed import Batch, Feed
from ..inputs.shared import SharedFeed, mixed_records, shared_batches, united
from ..kinds.joint import GradNorm, JointObjective, Part
from ..kinds.task import VALIDATION
from ..options.multitask import TOWER_FIELDS, MultitaskOptions
from ..reports.multitask import print_multitask, write_multitask
from . import make_task


class Multitask:
    """The task `multitask`; see `task.Task`."""

    targets = None

    def __init__(self, context: TaskContext):
        """Build all tasks; reads `clips.jsonl` but no record."""
        self._context, self.feed = context, Feed(context)
        self.options = options = section(MultitaskOptions, context.config["task"], name="task")
        check_batch_size(context.data.feed.batch_size, mesh=context.mesh)
        self._tasks = {name: self._made(name) for name in options.chosen}
        balance = GradNorm(alpha=options.gradnorm_alpha, lr=options.gradnorm_lr)
        given = {"spec": self._spec(), "options": options, "context": context, "balance": balance}
        self.objective = JointObjective(parts={name: self._part(name) for name in self._tasks}, **given)
        self._train, self._record = self._trained()
        self._check_choice()

    @property
    def parts(self) -> tuple[str, ...]:
        """The towers come from the checkpoint."""
        return tuple(f"{side}/.*" for side in self.objective.spec.towers)

    @property
    def metric(self) -> str:
        """The mean of the results of the tasks that validate, or that of the one that `config.task.chosen_by` names."""
        chosen = self.options.chosen_by
        if not self._validating or (chosen and chosen not in self._validating):
            return ""
        own = self._tasks[chosen].metric.removeprefix(f"{VALIDATION}/") if chosen else ""
        return f"{VALIDATION}/{chosen}/{own}" if chosen else f"{VALIDATION}/mean"

    @property
    def validated_on(self) -> str:
        """Describes the validation examples."""
        return "; ".join(dict.fromkeys(task.validated_on for task in self._validating.values()))

    def trained_on(self) -> LabelledClips:
        """Return the clips that any task is trained on."""
        return self._train

    def evaluated_on(self) -> list[LabelledClips]:
        """Return for each split the clips that any task is evaluated on."""
        return united([clips for task in self._tasks.values() for clips in task.evaluated_on()])

    def settled(self) -> dict[str, Any]:
        """Return `config.task` with what the data gave each task."""
        found = {name: dict(fields) for name, fields in self.options.tasks.items()}
        for name, task in self._tasks.items():
            found[name] |= {key: value for key, value in task.settled().items() if key not in TOWER_FIELDS}
        return dataclasses.asdict(self.options) | {"tasks": found}

    def batches(self, start_step: int) -> Iterator[Batch]:
        """Return this process's rows of the train batches; see `shared.shared_batches`."""
        stream = self.feed.examples(self._train, record=self._record, start_step=start_step)
        parts = {name: (task.feed, task.batches(start_step)) for name, task in self._tasks.items()}
        return shared_batches(stream, parts=parts, context=self._context, start_step=start_step)

    def evaluate(self, model: MultiTaskModel, step: int) -> dict[str, float]:
        """Return `NAME/RESULT` for each task that validates, and `mean` of the main ones without a `chosen_by`."""
        found, main = {}, []
        for name, task in self._validating.items():
            results = task.evaluate(model.view(name), step)
            found |= {f"{name}/{key}": value for key, value in results.items()}
            main.append(main_result(task, kind=self._kind(name), results=results)[1])
        return found if self.options.chosen_by else found | {"mean": float(np.mean(main))}

    def report(self, model: MultiTaskModel, *, out: Path, protocol: dict[str, Any]) -> dict[str, Any]:
        """Write the report of each task into a folder of its name, and one of all."""
        tasks, weights = {}, self._weights(model)
        for name, task in self._tasks.items():
            view = model.view(name)
            self._context.say(f"task {name!r}:")
            task.report(view, out=out / name, protocol=protocol | {"tasks": list(self._tasks)})
            metric, value = reported_result(task, kind=self._kind(name), model=view)
            tasks[name] = {"kind": self._kind(name), "metric": metric, "value": value, "weight": weights[name]}
        own = {name: one["value"] for name, one in tasks.items()}
        figures = {"tasks": tasks, "compute": self._compute()}
        figures["transfer"] = transfer_figures(out.parent / "transfer", own=own)
        whole = protocol | {"dataset": self._context.records.folder.resolve().name}
        whole |= {"clips_of_training": len(self._train), "weighting": self.options.weighting}
        whole |= {"shared_depth": self.options.shared_depth, "trained": list(self.objective.trainable)}
        if jax.process_index() == 0:
            print_multitask(figures, page=write_multitask(figures, out=out, protocol=whole))
        return {"protocol": whole, **figures}

    def _made(self, name: str) -> Any:
        """Return a task as where it is alone, but for its feed and for what is trained of the towers."""
        context, options = self._context, self.options
        opened = bool(options.train_towers or options.trainable or context.config.get("adapt"))
        optimizer = {**context.config["optimizer"], "frozen": ()}
        changed = {"task": options.own(name) | {"train_towers": opened}, "adapt": {}, "optimizer": optimizer}
        part = dataclasses.replace(context, config={**context.config, **changed})
        context.say(f"task {name!r}:")
        try:
            task: Any = make_task(part)
        except UserError as error:
            raise UserError(f"task {name!r} of config.task.tasks: {error}") from error
        if "audio" in task.objective.spec.towers:
            raise UserError(f"config.task.tasks.{name} hears sound, which tasks on one tower do not; set "
                            "config.data.audio_seconds=0")  # fmt: skip
        task.feed = SharedFeed(part, whole=self.feed)
        return task

    def _kind(self, name: str) -> str:
        return self.options.tasks[name]["name"]

    def _part(self, name: str) -> Part:
        own = self.options.tasks[name]
        squared = own.get("kind") == "regression" and own.get("number_loss") == "l2"
        return Part(self._tasks[name].objective, self.options.part(name).weight, squared)

    def _spec(self) -> ModelSpec:
        options, tasks, taken = self.options, {}, set()
        for name, task in self._tasks.items():
            [(kind, head)] = task.objective.spec.heads.items()
            taken |= set(task.objective.spec.towers)
            tasks[name] = {"task": kind, "sides": list(task.objective.spec.towers), **head}
        head = {"kind": options.weighting, "labels": [], "shared_depth": options.shared_depth, "tasks": tasks}
        head |= {"shared_heads": options.shared_heads, "dropout": options.shared_dropout}
        spec = self._context.tower_spec(*(side for side in MODALITIES if side in taken))
        return spec.replace(heads={"multitask": head})

    def _trained(self) -> tuple[LabelledClips, np.ndarray]:
        """Return the clips that any task is trained on and none is measured on, and the records of an epoch."""
        sets = {name: task.trained_on() for name, task in self._tasks.items()}
        measured = {clips.split: clips.label >= 0 for clips in self.evaluated_on()}
        kept = {name: clips.only(~measured[clips.split]) if clips.split in measured else clips
                for name, clips in sets.items()}  # fmt: skip
        if empty := [name for name, clips in kept.items() if not len(clips)]:
            raise UserError(
                f"tasks {empty} of config.task.tasks have no clip to train on that no other task is measured on; give "
                "all tasks the same val_split and test_split"
            )
        [train] = united(list(kept.values()))
        shares = [self.options.part(name).share for name in kept]
        return train, mixed_records(list(kept.values()), shares=shares)

    @property
    def _validating(self) -> dict[str, Any]:
        """The tasks that have something to validate on."""
        return {name: task for name, task in self._tasks.items() if task.metric}

    def _check_choice(self) -> None:
        others = [name for name, task in self._tasks.items() if task.metric.removeprefix(f"{VALIDATION}/") in NO_SHARE]
        if others and not self.options.chosen_by and len(self._tasks) > 1:
            raise UserError(
                f"tasks {others} of config.task.tasks have errors as results, which no mean joins with shares; name "
                f"the task that chooses the checkpoint: config.task.chosen_by={next(iter(self._tasks))!r}"
            )

    def _weights(self, model: MultiTaskModel) -> dict[str, float]:
        given = np.array([self.options.part(name).weight for name in self._tasks])
        learned = np.ones(len(given))
        if model.head.log_variance is not None:
            squared = [0.5 if self._part(name).squared else 1.0 for name in self._tasks]
            learned = np.array(squared) * np.exp(-np.asarray(model.head.log_variance[...], np.float64))
        if model.head.balance is not None:
            learned = np.asarray(model.head.balance.weights[...], np.float64)
        return dict(zip(self._tasks, (given * learned).tolist(), strict=True))

    def _compute(self) -> dict[str, Any]:
        quiet, config = self._context, self._context.config
        alone = {}
        for name in self._tasks:
            changed = {**config, "task": {**config["task"], "only": (name,), "chosen_by": ""}}
            alone[name] = Multitask(dataclasses.replace(quiet, config=changed, say=lambda what: None)).objective
        how = {"batch": next(self.batches(0)), "context": self._context}
        return compute_figures(self.objective, alone=alone, **how)


def make(context: TaskContext) -> Multitask:
    """Build the task."""
    return Multitask(context)
