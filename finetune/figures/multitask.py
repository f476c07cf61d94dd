"""Figures of several tasks on one tower: each task's main one, what a step computes, and transfer among tasks."""

import copy
import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from ...cost.flops import count_flops
from ...data.batches.clip_graph import ClipGraph
from ...engine.step.state import join
from ..examples.context import TaskContext
from ..kinds.objective import HeadObjective
from ..kinds.task import VALIDATION

_FACTORS = {("classify", "accuracy"): 100.0, ("summarise", "kendall"): 100.0}
"""(kind of task, its result) -> factor to percent, where the result is a share or a correlation."""
NO_SHARE = ("minus_error",)
"""Results that are no percentages, so that a mean with others means nothing."""


def main_result(task: Any, *, kind: str, results: Mapping[str, float]) -> tuple[str, float]:
    """Return the name of the result that chooses a task's checkpoint, and its value, in percent where it is a share.

    Args:
      task: the task; its `metric` names the result.
      kind: the name of its kind, such as "classify".
      results: of its `evaluate`.
    """
    name = task.metric.removeprefix(f"{VALIDATION}/")
    return name, _FACTORS.get((kind, name), 1.0) * results[name]


def reported_result(task: Any, *, kind: str, model: nnx.Module) -> tuple[str, float]:
    """Return what `main_result` does, measured on the examples of the report."""
    on_report = copy.copy(task)
    on_report.splits = dataclasses.replace(task.splits, validation=task.splits.report)
    return main_result(on_report, kind=kind, results=on_report.evaluate(model, 0))


def step_flops(objective: HeadObjective, *, batch: Mapping[str, Any], context: TaskContext) -> dict[str, float]:
    """Count the FLOPs of matrix products of a step, forward and backward, and those of the video tower among them.

    Args:
      objective: a joint objective.
      batch: arrays of a train batch; clips take the place of features of a frozen tower.
      context: of the run.

    Returns:
      `step` and `tower`, in FLOPs of one clip.
    """
    model = objective.abstract()
    rows = len(batch["valid"])
    clips = jax.ShapeDtypeStruct((rows, *ClipGraph.of(context.data, train=True).shape), np.uint8)
    given = {key: jax.ShapeDtypeStruct(x.shape, jax.dtypes.canonicalize_dtype(x.dtype)) for key, x in batch.items()}
    given = {key: x for key, x in given.items() if key not in ("video", "tokens")}
    graph, state = nnx.split(model)
    tokens = jax.eval_shape(lambda state, video: nnx.merge(graph, state).tokens(video), state, clips)
    whole, rest = (
        count_flops(_traced(objective, model=model, batch=given | {key: x})).model
        for key, x in (("video", clips), ("tokens", tokens))
    )
    return {"step": whole / rows, "tower": (whole - rest) / rows}


def _traced(objective: Any, *, model: nnx.Module, batch: dict[str, Any]) -> Any:
    """Return the trace of the loss and of its gradients by the trained parameters."""
    graph, state = nnx.split(model)
    flat = dict(nnx.to_flat_state(state))
    paths, chosen = {join(path): path for path in flat}, set(objective.trained)
    arrays = {name: flat[path].get_value() for name, path in paths.items()}
    trained = {name: arrays[name] for name, path in paths.items() if name in chosen and type(flat[path]) is nnx.Param}
    others = {name: value for name, value in arrays.items() if name not in trained}

    def loss(trained: dict[str, Any], others: dict[str, Any], batch: dict[str, Any]) -> jax.Array:
        whole = {paths[name]: value for name, value in (trained | others).items()}
        return objective.loss(nnx.merge(graph, nnx.from_flat_state(whole)), batch, rngs=nnx.Rngs(0))[0]

    return jax.make_jaxpr(jax.value_and_grad(loss))(trained, others, batch)


def compute_figures(
    objective: HeadObjective,
    *,
    alone: Mapping[str, HeadObjective],
    batch: Mapping[str, Any],
    context: TaskContext,
) -> dict[str, Any]:
    """Return `together` and `alone`, what a step computes of a clip for all tasks (`step_flops`), and `tower_share`.

    Args:
      objective: of all tasks.
      alone: of each task by itself; `alone` above is their sum.
      batch: of all tasks.
      context: of the run.
    """
    together = step_flops(objective, batch=batch, context=context)
    single = [step_flops(one, batch=batch, context=context) for one in alone.values()]
    total = {key: sum(one[key] for one in single) for key in together}
    return {"together": together, "alone": total, "tower_share": together["tower"] / total["tower"]}


def transfer_figures(folder: Path, *, own: Mapping[str, float]) -> list[dict[str, Any]]:
    """Return the results of runs that trained some of the tasks, those of one task first.

    Args:
      folder: has a workdir for each, named after its tasks.
      own: task -> its result where all are trained.

    Returns:
      Rows `{"tasks": [...], "results": {task: value}}`, the last of which is `own`; [] without other runs.
    """
    rows = []
    for file in sorted(folder.glob("*/report/multitask.json")):
        found = json.loads(file.read_text(encoding="utf-8"))["tasks"]
        rows.append({"tasks": list(found), "results": {name: one["value"] for name, one in found.items()}})
    rows = sorted((row for row in rows if set(row["tasks"]) < set(own)), key=lambda row: len(row["tasks"]))
    return [*rows, {"tasks": list(own), "results": dict(own)}] if rows else []


def subsets(tasks: Sequence[str], *, pairs: bool) -> list[tuple[str, ...]]:
    """Return each task by itself and, if wanted and there are more than two, all pairs."""
    found: list[tuple[str, ...]] = [(task,) for task in tasks]
    if pairs and len(tasks) > 2:
        found += [(a, b) for i, a in enumerate(tasks) for b in tasks[i + 1 :]]
    return found
