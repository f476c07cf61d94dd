"""The downstream tasks, one module each: a table from `config.task.name` to the module."""

import importlib
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from ...base.errors import UserError, unknown
from ...base.python_file import module_of, naming_errors_in
from ..examples.context import TaskContext
from ..kinds.task import Task

TASKS = {
    "classify": ("classify", "one label per clip: a head on the video tower"),
    "few_labels": ("few_labels", "one label per clip, where most clips have none: pseudo-labels and consistency"),
    "distil": ("distil", "one label per clip, for a tower that also learns from a larger one"),
    "localise": ("localise", "when what a text says happens, or which actions happen when"),
    "anomaly": ("anomaly", "when something abnormal happens, learned from labels of whole films"),
    "identify": ("identify", "whether two clips show the same identity, such as a face, a person or an object"),
    "recommend": ("recommend", "which clip comes next in a session, from the clips before it"),
    "answer": ("answer", "what the answer to a question about a clip is"),
    "highlight": ("highlight", "how much each moment belongs to a text, or is a highlight by itself"),
    "summarise": ("summarise", "which shots of a film are worth keeping, as annotators score or choose them"),
    "multitask": ("multitask", "several of these tasks on one tower, with a joint loss"),
}
"""`config.task.name` -> (module of this folder with `make(context) -> Task`, description)."""


def make_task(context: TaskContext) -> Task:
    """Build the task that `config.task.name` names: one of `TASKS`, or a Python file with `make(context) -> Task`.

    Raises:
      UserError: no such task (the nearest is named) or file, or an error of the task itself.
    """
    name = context.config["task"]["name"]
    if name.endswith(".py"):
        return _from_file(Path(name)).make(context)
    if name not in TASKS:
        raise unknown("task in config.task.name:", name, TASKS)
    return importlib.import_module(f".{TASKS[name][0]}", __package__).make(context)


def _from_file(path: Path) -> ModuleType:
    """Import a task of the user's own."""
    if not path.is_file():
        raise UserError(f"config.task.name={str(path)!r} is no file; give a Python file that has make(context)")
    with naming_errors_in(path, what=f"task {str(path)!r}"):
        module = module_of(path, kind="task")
    if not hasattr(module, "make"):
        raise UserError(f"config.task.name={str(path)!r} has no function make(context) that returns a task; add one")
    return module


def check_config(config: Mapping[str, Any]) -> None:
    """Raise UserError unless the config is one for fine-tuning: it has a section `task` with a name."""
    if "name" not in (config.get("task") or {}):
        raise UserError(
            "this config has no section `task` with a name, so it is not one for fine-tuning; "
            f"use one such as demo_classify (tasks: {', '.join(TASKS)})"
        )
