"""Transfer among the tasks of a multitask run: runs of some of the tasks, each a normal one in a folder of its own."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_collections

from ...base.errors import UserError, unknown

KINDS = ("alone", "pairs")
"""Which runs: each task by itself, or also each pair."""
FOLDER = "transfer"
"""Folder of these runs in the workdir of all tasks."""


def check_transfer(kind: str, *, config: ml_collections.ConfigDict) -> None:
    """Raise UserError unless `--transfer` names one of `KINDS` and the config is one of several tasks."""
    if kind not in KINDS:
        raise unknown("--transfer:", kind, KINDS)
    task = config.to_dict().get("task") or {}
    if task.get("name") != "multitask" or len(task.get("tasks") or {}) < 2:
        raise UserError(
            f"--transfer={kind} compares runs of config.task.name='multitask' with two tasks or more; leave it out, or "
            "use a config such as demo_multitask"
        )


def run_transfer(
    config: ml_collections.ConfigDict,
    *,
    kind: str,
    workdir: Path,
    run: Callable[[ml_collections.ConfigDict, Path], dict[str, Any] | None],
    say: Callable[[str], None],
) -> bool:
    """Run or resume the subsets of the tasks.

    Args:
      config: of all tasks.
      kind: of `KINDS`.
      workdir: of the run of all tasks; the others go into `FOLDER` in it.
      run: (config, workdir) -> report, None if it was stopped.
      say: prints a line.

    Returns:
      False if a run was stopped before its end.
    """
    from ..figures.multitask import subsets

    given = config.to_dict()
    names = tuple(given["task"].get("only") or given["task"]["tasks"])
    for tasks in subsets(names, pairs=kind == "pairs"):
        folder, task = workdir / FOLDER / "+".join(tasks), {**given["task"], "only": tasks}
        if task.get("chosen_by") not in (None, "", *tasks):  # some results have no mean: one task still has to choose
            task["chosen_by"] = tasks[0]
        changed = ml_collections.ConfigDict({**given, "task": task})
        say(f"transfer: {' + '.join(tasks)}, in {folder}")
        if run(changed, folder) is None:
            return False
    return True
