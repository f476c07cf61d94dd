"""`config.task` for several tasks on one tower."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from ...base.errors import UserError, unknown
from ...base.section import section
from ...models.heads.multitask import FORMS, MULTITASK_HEADS
from ..kinds.task import TowerOptions

TOWER_FIELDS = tuple(field.name for field in dataclasses.fields(TowerOptions))
"""Fields of `config.task` that a task among several does not have: they are of all together."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PartOptions:
    """The fields of `config.task.tasks.NAME` that say how a task takes part.

    Attributes:
      weight: of its loss in the sum; with learned weights a factor besides them.
      share: how often its clips are drawn, in proportion to the shares of the other tasks.
    """

    weight: float = 1.0
    share: float = 1.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class MultitaskOptions(TowerOptions):
    """`config.task` for several tasks; the fields of the base belong to it.

    Attributes:
      name: "multitask".
      tasks: name -> `config.task` of a task of `models.heads.multitask.FORMS`, with the fields of `PartOptions` and
        without those of `TowerOptions`. Each is a named term of the loss.
      only: tasks that are trained; () = all.
      weighting: "fixed": the weights of the tasks; "uncertainty" (Kendall et al. 2018) or "gradnorm" (Chen et al.
        2018): weights that are learned.
      gradnorm_alpha: how strongly GradNorm evens out how fast tasks learn.
      gradnorm_lr: learning rate of its weights.
      shared_depth: transformer blocks on the tower's time tokens that all tasks share and train; 0 = none.
      shared_heads: their attention heads, a divisor of the tower's width.
      shared_dropout: their dropout rate.
      chosen_by: the task whose result on the validation clips chooses the checkpoint; "" = the mean of the results of
        all tasks that have any.
    """

    name: str = "multitask"
    tasks: Mapping[str, Mapping[str, Any]]
    only: tuple[str, ...] = ()
    weighting: str = "fixed"
    gradnorm_alpha: float = 1.5
    gradnorm_lr: float = 0.025
    shared_depth: int = 0
    shared_heads: int = 4
    shared_dropout: float = 0.0
    chosen_by: str = ""

    def __post_init__(self):
        if not self.tasks:
            raise UserError("config.task.tasks is empty; give it a section for each task: dict(colours=dict(name=...))")
        for name, fields in self.tasks.items():
            _check_part(name, fields)
        for field, names in (("only", self.only), ("chosen_by", (self.chosen_by,) * bool(self.chosen_by))):
            for name in names:
                if name not in (self.tasks if field == "only" else self.chosen):
                    raise unknown(f"task in config.task.{field}:", name, self.chosen if self.chosen else self.tasks)
        if self.weighting not in MULTITASK_HEADS:
            raise unknown("config.task.weighting:", self.weighting, MULTITASK_HEADS)
        if not 0 <= self.shared_dropout < 1:
            raise UserError(f"config.task.shared_dropout must be at least 0 and below 1, got {self.shared_dropout}")
        for field in ("shared_depth", "gradnorm_alpha", "gradnorm_lr"):
            if getattr(self, field) < 0:
                raise UserError(f"config.task.{field} must be at least 0, got {getattr(self, field)}")

    @property
    def chosen(self) -> dict[str, Mapping[str, Any]]:
        """The tasks that are trained: name -> fields."""
        return {name: fields for name, fields in self.tasks.items() if not self.only or name in self.only}

    def part(self, name: str) -> PartOptions:
        """Return how a task takes part."""
        fields = {field.name for field in dataclasses.fields(PartOptions)}
        given = {key: value for key, value in self.tasks[name].items() if key in fields}
        return section(PartOptions, given, name=f"task.tasks.{name}")

    def own(self, name: str) -> dict[str, Any]:
        """Return `config.task` of a task as where it is alone, without the fields of `TowerOptions`."""
        fields = {field.name for field in dataclasses.fields(PartOptions)}
        return {key: value for key, value in self.tasks[name].items() if key not in fields}


def _check_part(name: str, fields: Mapping[str, Any]) -> None:
    where = f"config.task.tasks.{name}"
    if not name or "/" in name:
        raise UserError(f"config.task.tasks has a task named {name!r}; a name must not be empty or have a '/'")
    if not isinstance(fields, Mapping) or "name" not in fields:
        raise UserError(f"{where} must be a section with the name of a task, such as dict(name='classify')")
    if fields["name"] not in FORMS:
        raise unknown(f"{where}.name:", str(fields["name"]), FORMS)
    for field in TOWER_FIELDS:
        if field in fields:
            raise UserError(f"{where}.{field} is of all tasks together; set config.task.{field}")
    if fields.get("extends"):
        raise UserError(
            f"{where}.extends=True continues the head of a checkpoint, and tasks on one tower have new heads; leave it "
            "out, or train that task by itself"
        )
    if fields.get("patch_grid"):
        raise UserError(f"{where}.patch_grid: the tasks on one tower share its time tokens; leave it out")
    for field in ("weight", "share"):
        value = fields.get(field, 1.0)
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or not 0 < value < float("inf"):
            raise UserError(f"{where}.{field} must be a number above 0, got {value!r}; leave a task out by task.only")
