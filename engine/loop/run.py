"""What happens between two steps: look at results, evaluate, save, give up. The order is fixed here and matters."""

import dataclasses
import importlib.metadata
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NoReturn

import jax
from flax import nnx

from ...base.config import to_json
from ...base.errors import UserError
from ..keeping.checkpoints import Checkpoints
from ..step.state import StateBuilder, TrainState
from ..step.step import Outputs
from .batches import Prefetcher
from .evaluation import Evaluations
from .goodput import Goodput, line_of
from .metrics import History, Monitor, first_clips
from .options import TrainOptions
from .position import Position
from .signals import Interrupted, StopRequest
from .terminal import Terminal
from .watchdog import Watchdog
from .workdir import RunStart

_GOODPUT_EVERY = 10  # lines of metrics between two lines of goodput
_VERSIONS = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


class TrainingDiverged(UserError):
    """The loss or the gradient of a batch is inf or nan, and no batch may be skipped; the state before it was saved."""


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
    """The parts of a run that act between two steps.

    Attributes:
      options: section `train` of the config.
      builder: of the state; it has mesh, objective and optimizer.
      terminal: what shows the run to a person.
      stop: whether a signal asked the run to stop.
      goodput: where its wall time goes.
      position: where it is in its data.
    """

    def __init__(
        self,
        *,
        options: TrainOptions,
        builder: StateBuilder,
        checkpoints: Checkpoints,
        evaluations: Evaluations,
        terminal: Terminal,
        watchdog: Watchdog,
        meta: dict[str, Any],
        stop: StopRequest,
        goodput: Goodput,
        position: Position,
    ):
        self.position = position
        if position.note:
            terminal.say(position.note)
        self.options, self.builder, self._checkpoints = options, builder, checkpoints
        self._evaluations, self.terminal, self._meta = evaluations, terminal, meta
        self.stop, self.goodput = stop, goodput
        self._watchdog = watchdog
        self._monitor: Monitor | None = None
        self._cut = False  # whether a stop came in the middle of an evaluation

    def catch_up(self, state: TrainState, *, step: int, history: Callable[[], History]) -> None:
        """Evaluate the restored state if the start before this one was stopped before it could."""
        if step == 0 or not self._evaluations.due(step):
            return
        with history() as self._history:
            self._history.forget(step=step, kind="eval")
            self._evaluate(state, step=step)
        if not self._cut:
            self._amend(step)

    def begin(self, history: History, *, stream: Prefetcher, step: int, skipped: int = 0) -> Monitor:
        """Take what exists only if there are steps to do; the clock starts here."""
        self._history, self._stream = history, stream
        self._monitor = Monitor(
            history=history,
            terminal=self.terminal,
            stream=stream,
            log_every=self.options.log_every,
            start_step=step,
            skipped=skipped,
        )
        self.terminal.start(step)
        self.goodput.begin(step, waited=lambda: stream.waited_s)
        self._watchdog.beat(step)
        return self._monitor

    def settle(self) -> None:
        """Wait for all steps that were handed to the device."""
        if self._monitor is not None:
            self._monitor.drain()

    def over(self, step: int) -> bool:
        """Tell whether there is no further step."""
        return step >= self.options.steps or self._stopped is not None or self._cut or self._evaluations.exhausted

    def between_steps(self, state: TrainState, *, outputs: Outputs, step: int) -> None:
        """Take the outputs of the step that made `step` steps done, and do what is due.

        First the guard: an evaluation of a frozen state would carry the wrong step (a checkpoint is guarded by the step
        number in the state itself, so that a save need not wait for the device). Then the evaluation, so that its
        result travels in the checkpoint and a resumed run neither repeats nor forgets it. Of several processes a signal
        cannot cut it short, so there the state is saved first and the result is written into its checkpoint after.

        Raises:
          TrainingDiverged: some step's loss or gradient was not finite.
        """
        assert self._monitor is not None
        self._monitor.push(outputs, step=step)
        evaluate = self._evaluations.due(step)
        save = step % self.options.checkpoint_every == 0
        near = self.options.local_every > 0 and step % self.options.local_every == 0
        if evaluate or self.over(step):
            self._monitor.drain()
        if self._monitor.halted is not None:
            self._give_up(state, batch=self._monitor.halted)
        if step % (self.options.log_every * _GOODPUT_EVERY) == 0:
            self._report(step)
        if evaluate or save or near or self.over(step):
            self._act(state, step=step, evaluate=evaluate and self._stopped is None, save=save, near=near)
        self._watchdog.beat(step)

    def _act(self, state: TrainState, *, step: int, evaluate: bool, save: bool, near: bool) -> None:
        """Evaluate and save as is due after `step`; `near` = at least on the local disk."""
        assert self._monitor is not None
        first = evaluate and jax.process_count() > 1
        with self._watchdog.patient(f"the evaluation or the save after step {step}"):
            if first:
                self._save(state, step=step)
            if evaluate:
                with self._monitor.paused():
                    better = self._evaluate(state, step=step)
                save |= better and self.options.keep_best > 0
            if first:
                self._amend(step)
            elif self.over(step):
                with self._monitor.paused():
                    self._save(state, step=self._done(step))
            elif save or near:
                self._save(state, step=step, far=save)

    def result(self, state: TrainState, *, step: int) -> TrainResult:
        """Wait for the last checkpoint and return the result."""
        step = self._done(step)
        with self._watchdog.patient("the last checkpoint"), self.goodput.spending("checkpoint"):
            self._checkpoints.wait()
        best = self._evaluations.best
        if best is not None:
            kept = best["step"] in self._checkpoints.steps()
            best = best | {"checkpoint": str(self._checkpoints.folder / str(best["step"])) if kept else None}
        done = step >= self.options.steps and not self._cut
        reason = "done" if done else "patience" if self._evaluations.exhausted else "terminated"
        if self._monitor is not None:
            self._report(step)
            self.goodput.note("end", step=step, reason=reason)
        return TrainResult(model=self.builder.averaged(state), step=step, reason=reason, best=best)

    @property
    def _stopped(self) -> int | None:
        return self._monitor.stopped if self._monitor is not None else None

    def _done(self, step: int) -> int:
        """Return how many of `step` steps were done: those before a stop."""
        return step if self._stopped is None else min(step, self._stopped)

    def _report(self, step: int) -> None:
        shares = self.goodput.shares()
        if shares:
            self._history.write({k: float(f"{v:.4g}") for k, v in shares.items()}, step=step, kind="goodput")
            self.goodput.note("log", step=step)
            self.terminal.say(line_of(shares))

    def _evaluate(self, state: TrainState, *, step: int) -> bool:
        """Evaluate; returns whether it was the best.

        A signal cuts it short, so that the state can be saved in the seconds that are left; the next start evaluates.
        Of several processes none may leave the others in the middle: there the evaluation is done to its end.
        """
        guard = self.stop.interrupting() if jax.process_count() == 1 else None
        try:
            with self.terminal.paused(), self.goodput.spending("evaluation"):
                values, better = self._evaluations.run(self.builder.averaged(state), step=step, guard=guard)
        except Interrupted:
            self._cut = True
            self.terminal.say(f"the evaluation at step {step} was cut short by a signal; the next start does it")
            return False
        self._history.write(values, step=step, kind="eval")
        self.terminal.evaluation(values, step=step)
        return better

    def _full_meta(self, step: int) -> dict[str, Any]:
        return self._meta | {"evaluations": self._evaluations.to_meta()} | self.position.to_meta(step)

    def _save(self, state: TrainState, *, step: int, far: bool = True) -> None:
        with self.goodput.spending("checkpoint"):
            score, after = self._evaluations.score(step), self._monitor.written() if self._monitor else lambda: None
            # a checkpoint without the lines of its steps would be a gap in the curve of a run that is killed now
            self._checkpoints.save(state, step=step, meta=self._full_meta(step), score=score, after=after, far=far)
        self.goodput.note("save", step=step)

    def _amend(self, step: int) -> None:
        """Write the result of an evaluation into the checkpoint of its step, which is saved."""
        with self.goodput.spending("checkpoint"):
            self._checkpoints.amend(step=step, meta=self._full_meta(step), score=self._evaluations.score(step))

    def _give_up(self, state: TrainState, *, batch: int) -> NoReturn:
        assert self._monitor is not None
        self._checkpoints.keep_one_more()  # one to go back to
        self._save(state, step=batch)  # `batch` steps were good, and the state is frozen since
        self._checkpoints.wait()
        raise TrainingDiverged(
            divergence_message(
                batch=batch,
                clips=self._stream.clips_of(batch),
                folder=self._checkpoints.folder,
                earlier=[step for step in self._checkpoints.steps() if step < batch],
                skipped=self._monitor.skipped,
                optimizer=self._meta["config"]["optimizer"],
                grad_norm=self._monitor.grad_norm,
            )
        )


def divergence_message(
    *,
    batch: int,
    clips: list[int],
    folder: Path,
    earlier: list[int],
    skipped: int,
    optimizer: dict[str, Any],
    grad_norm: float | None = None,
) -> str:
    """Describe a batch whose loss or gradient is not finite, and the ways past it.

    Args:
      batch: its number.
      clips: `clip_index` of its rows, as far as known.
      folder: of the checkpoints, which has one of step `batch`.
      earlier: the steps of the checkpoints before that.
      skipped: how many such batches were skipped before.
      optimizer: `config.optimizer`.
      grad_norm: the newest that was logged; None = not known.
    """
    bounds = [2.0, optimizer.get("clip_norm") or 2.0, 2.0 if grad_norm is None else grad_norm]
    clip_norm = min(bound for bound in bounds if bound > 0) / 2  # one that has an effect
    gentler = f"--config.optimizer.lr={optimizer['lr'] / 2:.2g} or --config.optimizer.clip_norm={clip_norm:.2g}"
    back = (
        f"go back to an earlier checkpoint with --resume_step {earlier[-1]} --overwrite_config and {gentler} "
        f"(checkpoints: {', '.join(map(str, earlier))})"
        if earlier
        else f"there is no earlier checkpoint; start again in another --workdir with {gentler}"
    )
    return (
        f"the loss or the gradient of step {batch + 1} is not finite (global batch {batch}{first_clips(clips)})"
        + (f", after {skipped} skipped batches" if skipped else "")
        + f". The state before that step was saved as {folder / str(batch)}; the same command meets the same batch "
        "again with the same parameters. Two ways past it:\n"
        f"  If the clips are at fault, skip the batch: --config.train.skip_nonfinite={skipped + 1}\n"
        f"  If training has become unstable (grad_norm in metrics.jsonl grows before that step), {back}"
    )


def complete_meta(
    meta: dict[str, Any], *, start: RunStart, saved: dict[str, Any], compiler: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Add config, seed, versions, compiler options and what `start` remembers to a run's meta.

    Args:
      meta: of the run.
      start: this start of it.
      saved: meta of the checkpoint that it resumes from.
      compiler: the options with which the step is compiled.
    """
    versions = {name: importlib.metadata.version(name) for name in _VERSIONS}
    versions["python"] = sys.version.split()[0]
    run = {
        "config": to_json(start.config),
        "seed": start.config.seed,
        **start.to_meta(saved),
        "compiler_options": compiler or {},
    }
    return meta | run | {"versions": versions | meta.get("versions", {})}
