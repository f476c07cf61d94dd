"""What happens between two steps: look at results, evaluate, save, give up. The order is fixed here and matters."""

import dataclasses
import importlib.metadata
import sys
from typing import Any, Literal, NoReturn

import ml_collections
from flax import nnx

from ..configs.errors import UserError
from ..configs.load import to_json
from .batches import Prefetcher
from .checkpoint import Checkpoints
from .evaluation import Evaluations
from .metrics import History, Monitor
from .options import TrainOptions
from .state import Blueprint, TrainState
from .step import Outputs
from .terminal import Terminal

_VERSIONS = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


class TrainingDiverged(UserError):
    """The loss or the gradient became inf or nan; the last good state was saved."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainResult:
    """What a run came to.

    Attributes:
      model: the model with the parameters of the last step, or their moving average where there is one.
      step: optimizer steps done, over all starts.
      reason: "done"; "patience" (config.train.patience evaluations without a better one); "terminated" (by a signal).
      best: {"metric", "value", "step", "checkpoint"} of the best evaluation by config.train.best_metric, or None; its
        checkpoint is the path of the step folder, or None where config.train.keep_best did not keep it.
    """

    model: nnx.Module
    step: int
    reason: Literal["done", "patience", "terminated"]
    best: dict[str, Any] | None


class Run:
    """The parts of a run that act between two steps."""

    def __init__(
        self,
        *,
        options: TrainOptions,
        blueprint: Blueprint,
        checkpoints: Checkpoints,
        evaluations: Evaluations,
        terminal: Terminal,
        meta: dict[str, Any],
    ):
        self._options, self._blueprint, self._checkpoints = options, blueprint, checkpoints
        self._evaluations, self._terminal, self._meta = evaluations, terminal, meta
        self._monitor: Monitor | None = None

    def begin(self, history: History, *, stream: Prefetcher, step: int) -> Monitor:
        """Take what exists only if there are steps to do; the clock starts here."""
        self._history, self._stream = history, stream
        self._monitor = Monitor(
            history=history, terminal=self._terminal, stream=stream, log_every=self._options.log_every, start_step=step
        )
        self._terminal.start(step)
        return self._monitor

    def settle(self) -> None:
        """Wait for all steps that were handed to the device."""
        if self._monitor is not None:
            self._monitor.drain()

    def over(self, step: int) -> bool:
        """Tell whether there is no further step."""
        stopped = self._monitor is not None and self._monitor.stop
        return step >= self._options.steps or stopped or self._evaluations.exhausted

    def between_steps(self, state: TrainState, *, outputs: Outputs, step: int) -> None:
        """Take the outputs of the step that made `step` steps done, and do what is due.

        First the guard: a checkpoint or an evaluation of a frozen state would carry the wrong step. Then the
        evaluation, so that its result travels in the checkpoint and a resumed run neither repeats nor forgets it.

        Raises:
          TrainingDiverged: some step's loss or gradient was not finite.
        """
        assert self._monitor is not None
        self._monitor.push(outputs, step=step)
        evaluate = self._evaluations.due(step)
        save = step % self._options.checkpoint_every == 0
        due = evaluate or save or self.over(step)
        if due:
            self._monitor.drain()
        if self._monitor.halted is not None:
            self._give_up(state, batch=self._monitor.halted)
        if not due:
            return
        with self._monitor.paused():
            better = evaluate and self._evaluate(state, step=step)
            if save or (better and self._options.keep_best) or self.over(step):
                self._save(state, step=step)

    def result(self, state: TrainState, *, step: int) -> TrainResult:
        """Wait for the last checkpoint and say what came out."""
        self._checkpoints.wait()
        best = self._evaluations.best
        if best is not None:
            kept = best["step"] in self._checkpoints.steps()
            best = best | {"checkpoint": str(self._checkpoints.folder / str(best["step"])) if kept else None}
        done = step >= self._options.steps
        reason = "done" if done else "patience" if self._evaluations.exhausted else "terminated"
        return TrainResult(model=self._blueprint.averaged(state), step=step, reason=reason, best=best)

    def _evaluate(self, state: TrainState, *, step: int) -> bool:
        with self._terminal.paused():
            values, better = self._evaluations.run(self._blueprint.averaged(state), step=step)
        self._history.write(values, step=step, kind="eval")
        self._terminal.evaluation(values, step=step)
        return better

    def _save(self, state: TrainState, *, step: int) -> None:
        meta = self._meta | {"evaluations": self._evaluations.to_meta()}
        self._checkpoints.save(state, step=step, meta=meta, score=self._evaluations.score(step))

    def _give_up(self, state: TrainState, *, batch: int) -> NoReturn:
        self._save(state, step=batch)  # `batch` steps were good, and the state is frozen since
        self._checkpoints.wait()
        clips = self._stream.clips_of(batch)
        rows = f", whose first rows are clip_index {', '.join(map(str, clips))}" if clips else ""
        raise TrainingDiverged(
            f"the loss or the gradient of step {batch + 1} is not finite (global batch {batch}{rows}). "
            f"The state before that step was saved as {self._checkpoints.folder / str(batch)}.\n"
            "Look at those clips; then try a lower config.optimizer.lr, a config.optimizer.clip_norm of 1.0, a longer "
            "config.optimizer.warmup_steps, or float32 where the model computes in bfloat16; give --overwrite_config "
            "to go on from there"
        )


def complete_meta(meta: dict[str, Any], *, config: ml_collections.ConfigDict) -> dict[str, Any]:
    """Add config, seed and versions to a run's meta."""
    versions = {name: importlib.metadata.version(name) for name in _VERSIONS}
    versions["python"] = sys.version.split()[0]
    return meta | {"config": to_json(config), "seed": config.seed, "versions": versions | meta.get("versions", {})}
