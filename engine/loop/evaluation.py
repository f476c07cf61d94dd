"""Evaluations during training: when, which was best, and when to give up."""

import contextlib
import math
from collections.abc import Callable
from typing import Any

from flax import nnx

from ...base.errors import unknown
from ..start.processes import of_the_first
from .options import TrainOptions

Evaluate = Callable[[nnx.Module, int], dict[str, float]]


class Evaluations:
    """Runs the evaluate hook and keeps the best result; its memory lives in the checkpoints' meta.

    Attributes:
      best: {"metric", "value", "step"} of the best evaluation so far, or None.
    """

    def __init__(self, evaluate: Evaluate | None, *, options: TrainOptions, meta: dict[str, Any] | None = None):
        """Begin, or continue from the meta of a restored checkpoint."""
        self._evaluate, self._options = evaluate, options
        kept = (meta or {}).get("evaluations", {})
        self.best: dict[str, Any] | None = kept.get("best")
        self._without_better: int = kept.get("without_better", 0)
        self._last_step: int = kept.get("last_step", -1)
        self._last_value: float | None = None
        if self.best is not None and self.best["metric"] != options.best_metric:
            self.best, self._without_better = None, 0  # the config was overwritten with another metric

    @property
    def exhausted(self) -> bool:
        """Whether `patience` evaluations have gone by without a better one."""
        return 0 < self._options.patience <= self._without_better

    def due(self, step: int) -> bool:
        """Tell whether to evaluate after `step`."""
        if self._evaluate is None or step == self._last_step:
            return False
        every = self._options.eval_every
        return step == self._options.steps or (every > 0 and step % every == 0)

    def run(
        self, model: nnx.Module, *, step: int, guard: contextlib.AbstractContextManager[None] | None = None
    ) -> tuple[dict[str, float], bool]:
        """Evaluate, inside of `guard`; returns (results, whether they are the best so far).

        What the hook or the guard raises goes through, and then this step counts as not evaluated.

        Raises:
          UserError: `config.train.best_metric` is not among the results.
        """
        assert self._evaluate is not None
        with guard or contextlib.nullcontext():
            found = self._evaluate(model, step)
        values = of_the_first({key: float(value) for key, value in found.items()})
        self._last_step = step
        name = self._options.best_metric
        if not name:
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
        return self._last_value if step == self._last_step else None

    def to_meta(self) -> dict[str, Any]:
        """Return JSON values from which a resumed run continues."""
        return {"best": self.best, "without_better": self._without_better, "last_step": self._last_step}

    def _better(self, value: float) -> bool:
        if math.isnan(value):
            return False
        if self.best is None:
            return True
        return value > self.best["value"] if self._options.best_mode == "max" else value < self.best["value"]
