"""Evaluations during training: which are due, which result was best, and when to give up."""

import contextlib
import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

from flax import nnx

from ...base.errors import UserError, unknown
from ..start.processes import of_the_first
from .options import TrainOptions

Evaluate = Callable[[nnx.Module, int], dict[str, float]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One evaluation during training.

    Attributes:
      name: its results are logged as `NAME/…`.
      run: (model, step) -> results; all processes call it.
      every: steps between two; 0 = only at the end, None = as config.train.eval_every says.
      results: the names of its results where they are known beforehand; () = not before the first.
    """

    name: str
    run: Evaluate
    every: int | None = None
    results: tuple[str, ...] = ()

    def due(self, step: int, *, options: TrainOptions) -> bool:
        """Tell whether it is scheduled after `step`."""
        every = self.steps_between(options)
        return step == options.steps or (every > 0 and step % every == 0)

    def steps_between(self, options: TrainOptions) -> int:
        """Return the steps between two; 0 = only at the end."""
        return options.eval_every if self.every is None else self.every


class Evaluations:
    """Runs evaluations by their schedules and keeps the best result; its memory lives in the checkpoints' meta.

    Attributes:
      best: {"metric", "value", "step"} of the best result so far by config.train.best_metric, or None.
    """

    def __init__(self, evaluations: Sequence[Evaluation], *, options: TrainOptions, meta: dict[str, Any] | None = None):
        """Begin, or continue from the meta of a restored checkpoint.

        Raises:
          UserError: see `check_best_metric`.
        """
        check_best_metric(evaluations, options=options)
        self._evaluations, self._options = tuple(evaluations), options
        kept = (meta or {}).get("evaluations", {})
        self.best: dict[str, Any] | None = kept.get("best")
        self._without_better: int = kept.get("without_better", 0)
        self._last_steps: dict[str, int] = dict(kept.get("last_steps", {}))
        self._last_value: float | None = None
        if self.best is not None and self.best["metric"] != options.best_metric:
            self.best, self._without_better = None, 0  # the config was overwritten with another metric

    @property
    def exhausted(self) -> bool:
        """Whether `patience` evaluations have gone by without a better one."""
        return 0 < self._options.patience <= self._without_better

    def due(self, step: int) -> bool:
        """Tell whether to evaluate after `step`."""
        return bool(self._due(step))

    def run(
        self, model: nnx.Module, *, step: int, guard: contextlib.AbstractContextManager[None] | None = None
    ) -> tuple[dict[str, float], bool]:
        """Run what is due after `step`, inside of `guard`; returns (results, whether they are the best so far).

        What an evaluation or the guard raises goes through, and then all that were due count as not done. The best
        result and `patience` change only where the evaluation of `best_metric` was due.

        Raises:
          UserError: `config.train.best_metric` is not among the results of its evaluation.
        """
        due, found = self._due(step), {}
        with guard or contextlib.nullcontext():
            for one in due:
                found |= {f"{one.name}/{key}": float(value) for key, value in one.run(model, step).items()}
        values = of_the_first(found)
        self._last_steps |= {one.name: step for one in due}
        name = self._options.best_metric
        if not name or _owner(name) not in {one.name for one in due}:
            return values, False
        if name not in values:
            raise unknown("evaluation result (config.train.best_metric)", name, values)
        self._last_value = None if math.isnan(values[name]) else values[name]
        better = self._better(values[name])
        if better:
            self.best = {"metric": name, "value": values[name], "step": step}
        self._without_better = 0 if better else self._without_better + 1
        return values, better

    def score(self, step: int) -> float | None:
        """Return the value of `config.train.best_metric` after `step`, or None if it was not evaluated then."""
        return self._last_value if step == self._last_steps.get(_owner(self._options.best_metric)) else None

    def to_meta(self) -> dict[str, Any]:
        """Return JSON values from which a resumed run continues."""
        return {"best": self.best, "without_better": self._without_better, "last_steps": self._last_steps}

    def _due(self, step: int) -> list[Evaluation]:
        found = [one for one in self._evaluations if one.due(step, options=self._options)]
        return [one for one in found if self._last_steps.get(one.name) != step]

    def _better(self, value: float) -> bool:
        if math.isnan(value):
            return False
        if self.best is None:
            return True
        return value > self.best["value"] if self._options.best_mode == "max" else value < self.best["value"]


def check_best_metric(evaluations: Sequence[Evaluation], *, options: TrainOptions) -> None:
    """Refuse, before the first step, a `config.train.best_metric` that no evaluation gives, and a vain `patience`.

    Raises:
      UserError: the metric belongs to no evaluation, or is none of its results as far as they are known; or
        `config.train.patience` with an evaluation that takes place only at the end.
    """
    name = options.best_metric
    if not name:
        return
    owners = [one for one in evaluations if one.name == _owner(name)]
    known = [f"{one.name}/{key}" for one in evaluations for key in one.results or ("…",)]
    if not owners and not evaluations:
        raise UserError(
            f"config.train.best_metric={name!r}, but this run has no evaluation; set it to '', or add an evaluation "
            "(config.evaluations)"
        )
    if not owners or (owners[0].results and name not in known):
        raise unknown("evaluation result (config.train.best_metric)", name, known)
    if options.patience and not owners[0].steps_between(options):
        raise UserError(
            f"config.train.patience={options.patience} counts evaluations without a better {name}, and evaluation "
            f"{owners[0].name!r} runs only at the end; set config.train.eval_every, or its own `every`, above 0"
        )


def _owner(metric: str) -> str:
    """Return the name of the evaluation to which a metric belongs."""
    return metric.partition("/")[0]
