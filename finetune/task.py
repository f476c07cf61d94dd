"""What fine-tuning needs to know of a downstream task, and the table of tasks."""

import dataclasses
import importlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from flax import nnx

from ..base.errors import UserError, unknown

if TYPE_CHECKING:
    from jax.sharding import Mesh

    from ..data.batches.records import Records
    from ..data.options import DataOptions
    from ..data.text.tokenizer import Tokenizer
    from ..engine.step.objective import Objective

TASKS = {
    "classify": ("classify", "one label per clip: a linear or attentive head on the video tower"),
}
"""`config.task.name` -> (module of this folder with `make(setting) -> Task`, what it is)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    """What every task is made from.

    Attributes:
      config: the experiment as nested dicts, completed from the checkpoint (see `inherit.complete`).
      data: `config.data`.
      records: the prepared data set.
      tokenizer: that of the checkpoint.
      mesh: the devices of the run.
      say: prints a line (or a rich table) for the user, on the first process only.
    """

    config: dict[str, Any]
    data: "DataOptions"
    records: "Records"
    tokenizer: "Tokenizer"
    mesh: "Mesh"
    say: Callable[[Any], None]


class Task(Protocol):
    """A downstream task; `finetune.finetune` knows nothing else of it."""

    @property
    def objective(self) -> "Objective":
        """The model (towers and head), its loss and which of its parameters are trained."""
        ...

    @property
    def parts(self) -> tuple[str, ...]:
        """Regexes over whole parameter paths of the model: these come from the checkpoint, all others are new."""
        ...

    @property
    def metric(self) -> str:
        """The result of `evaluate` by which the best checkpoint is chosen; "" where there is nothing to evaluate on."""
        ...

    def batches(self, start_step: int) -> Iterator[dict[str, np.ndarray]]:
        """Return the endless train batches from this step on."""
        ...

    def evaluate(self, model: nnx.Module, step: int) -> dict[str, float]:
        """Measure the model on the validation clips; called by the loop only if `metric` is not ""."""
        ...

    def settled(self) -> dict[str, Any]:
        """Return `config.task` with what the data decided (the label set, for example), so that a run remembers it."""
        ...

    def meta(self) -> dict[str, Any]:
        """Return what a checkpoint of this task must hold besides the common things; has the key `objective`."""
        ...

    def report(self, model: nnx.Module, *, out: Path, protocol: dict[str, Any]) -> dict[str, Any]:
        """Measure the chosen model on the test split, write the report into `out`, print its table, return its JSON."""
        ...


def make_task(setting: Setting) -> Task:
    """Build the task that `config.task.name` names.

    Raises:
      UserError: no such task (the nearest is named), or what the task itself refuses.
    """
    name = setting.config["task"]["name"]
    if name not in TASKS:
        raise unknown("task in config.task.name:", name, TASKS)
    return importlib.import_module(f".{TASKS[name][0]}", __package__).make(setting)


def check_config(config: Mapping[str, Any]) -> None:
    """Raise UserError unless the config is one for fine-tuning: it has a section `task` with a name."""
    if "name" not in (config.get("task") or {}):
        raise UserError(
            "this config has no section `task` with a name, so it is none for fine-tuning; "
            f"give one such as demo_classify (tasks: {', '.join(TASKS)})"
        )
