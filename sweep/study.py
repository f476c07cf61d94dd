"""The study of a sweep: Optuna's record of all trials in the workdir, shared by processes, safe against kill -9.

A trial belongs to the process that holds the lock of its file. A trial that is recorded as running while nobody holds
its lock is stale: it is recorded as failed, and its values are queued again with the same run folder.
"""

import contextlib
import dataclasses
import json
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..base.errors import UserError, unknown
from .locks import alone, try_lock
from .space import Space, Value

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial, Trial  # pyright: ignore[reportMissingImports]

SAMPLERS = ("tpe", "random", "grid")
PRUNERS = ("median", "hyperband", "none")
STORAGES = {"sqlite": "study.db", "journal": "study.journal"}
"""Kinds of storage -> the file in the workdir."""
_STARTUP = 4  # finished trials before a pruner or TPE judges by them, at least


@dataclasses.dataclass(frozen=True, kw_only=True)
class StudyOptions:
    """How a study chooses values and stops trials.

    Attributes:
      trials: how many, without those that were interrupted and tried again.
      sampler: one of `SAMPLERS`; "grid" goes through all combinations.
      pruner: one of `PRUNERS`.
      seed: of the sampler.
      storage: one of `STORAGES`.
      maximize: whether a higher value is better.
      first_step: steps before the first report of a trial, for the pruner "hyperband".
      steps: of a trial.
    """

    trials: int = 20
    sampler: str = "tpe"
    pruner: str = "median"
    seed: int = 0
    storage: str = "sqlite"
    maximize: bool = True
    first_step: int = 1
    steps: int = 1

    def __post_init__(self):
        for name, known in (("sampler", SAMPLERS), ("pruner", PRUNERS), ("storage", STORAGES)):
            if getattr(self, name) not in known:
                raise unknown(f"value of --{name}", getattr(self, name), known)
        if self.trials < 1:
            raise UserError(f"--trials must be at least 1, got {self.trials}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Claim:
    """A trial that this process runs.

    Attributes:
      trial: Optuna's.
      run: name of its folder; a trial that is tried again keeps it, so that its run resumes.
      values: of the parameters.
      lock: descriptor of the lock, which the run inherits.
    """

    trial: "Trial"
    run: str
    values: dict[str, Value]
    lock: int


class SweepStudy:
    """A study in a folder. Any thread may call any method, and so may other processes at the same time.

    Attributes:
      folder: of the runs and their locks.
      space: what is varied.
      options: how.
    """

    def __init__(
        self,
        workdir: Path,
        *,
        name: str,
        space: Space,
        options: StudyOptions,
        points: Sequence[Mapping[str, Value]] = (),
    ):
        """Open or create the study `name` in the storage of `workdir`; its runs lie in `workdir/NAME`.

        Args:
          workdir: of the sweep.
          name: of the study.
          space: what is varied.
          options: how.
          points: with the sampler "grid", the values to try; () = all combinations of the space.

        Raises:
          UserError: Optuna is not installed, or the storage cannot be opened.
        """
        self.folder, self.space, self.options = workdir / name, space, options
        self._points = list(points or space.grid()) if options.sampler == "grid" else []
        self._lock = workdir / "study.lock"
        self.folder.mkdir(parents=True, exist_ok=True)
        optuna = import_optuna()
        self._optuna, self._failed = optuna, optuna.trial.TrialState.FAIL
        with self._alone():
            self._study = optuna.create_study(
                storage=_storage(optuna, workdir, kind=options.storage),
                study_name=name,
                direction="maximize" if options.maximize else "minimize",
                load_if_exists=True,
                pruner=_pruner(optuna, options),
            )
            self._queue_grid()

    def claim(self) -> Claim | Literal["wait", "done"]:
        """Take the next trial; "wait": others run the last ones, "done": all have ended."""
        with self._alone():
            self._recover()
            trials = self._counted()
            states = self._optuna.trial.TrialState
            waiting = any(one.state == states.WAITING for one in trials)
            if not waiting and len(trials) >= self.wanted:
                return "wait" if any(one.state == states.RUNNING for one in trials) else "done"
            self._study.sampler = self._sampler(len(self._study.get_trials(deepcopy=False)))
            trial = self._study.ask(self._distributions())
            run = trial.user_attrs.get("run") or f"{trial.number:04d}"
            trial.set_user_attr("run", run)
            lock = try_lock(self._lock_of(run))
            assert lock is not None, "nobody else can know this trial"
            return Claim(trial=trial, run=run, values=dict(trial.params), lock=lock)

    def report(self, claim: Claim, *, value: float, step: int) -> bool:
        """Record an intermediate value; returns whether the trial should stop."""
        with self._alone():
            claim.trial.report(value, step)
            return self.options.pruner != "none" and bool(claim.trial.should_prune())

    def note(self, claim: Claim, **facts: Any) -> None:
        """Record facts of a trial, JSON values."""
        with self._alone():
            for name, value in facts.items():
                claim.trial.set_user_attr(name, value)

    def end(self, claim: Claim, *, value: float | None = None, state: Literal["COMPLETE", "PRUNED", "FAIL"]) -> None:
        """Record how a trial ended; its lock is then to be closed."""
        with self._alone():
            self._study.tell(claim.trial, value, state=self._optuna.trial.TrialState[state])

    def trials(self) -> "list[FrozenTrial]":
        """Return the trials without those that were tried again, in their order."""
        with self._alone():
            return self._counted()

    def retry_failed(self) -> int:
        """Queue the values of failed trials again; returns how many."""
        with self._alone():
            failed = [one for one in self._counted() if one.state == self._failed]
            for one in failed:
                self._queue_again(one)
            return len(failed)

    def importance(self) -> dict[str, float]:
        """Return the share of the values' variance that each parameter explains (fANOVA); {} of fewer than 4 trials.

        Hutter et al. 2014 ("An Efficient Approach for Assessing Hyperparameter Importance").
        """
        done = [one for one in self.trials() if one.state == self._optuna.trial.TrialState.COMPLETE]
        if len(done) < _STARTUP or len({one.value for one in done}) < 2 or len(self.space.parameters) < 2:
            return {}
        from optuna.importance import FanovaImportanceEvaluator  # pyright: ignore[reportMissingImports]

        with self._alone():
            found = self._optuna.importance.get_param_importances(
                self._study, evaluator=FanovaImportanceEvaluator(seed=0)
            )
        return {name: float(value) for name, value in found.items()}

    @property
    def wanted(self) -> int:
        """How many trials the study is to have."""
        return len(self._points) or self.options.trials

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        with alone(self._lock):
            yield

    def _lock_of(self, run: str) -> Path:
        return self.folder / f"{run}.lock"

    def _recover(self) -> None:
        """Record stale trials as failed and queue their values again."""
        states = self._optuna.trial.TrialState
        for one in self._study.get_trials(deepcopy=False, states=(states.RUNNING,)):
            lock = try_lock(self._lock_of(one.user_attrs.get("run") or f"{one.number:04d}"))
            if lock is None:
                continue
            self._queue_again(one)
            self._study.tell(one.number, state=self._failed)
            os.close(lock)

    def _queue_again(self, one: "FrozenTrial") -> None:
        """Queue a trial's values, unless a start that was killed in between has."""
        again = {other.user_attrs.get("retry_of") for other in self._study.get_trials(deepcopy=False)}
        if one.number not in again:
            run = one.user_attrs.get("run") or f"{one.number:04d}"
            kept = {"grid": one.user_attrs["grid"]} if "grid" in one.user_attrs else {}
            self._study.enqueue_trial(one.params, user_attrs={"run": run, "retry_of": one.number, **kept})

    def _counted(self) -> "list[FrozenTrial]":
        trials = self._study.get_trials(deepcopy=False)
        again = {one.user_attrs.get("retry_of") for one in trials}
        return [one for one in trials if one.number not in again]

    def _queue_grid(self) -> None:
        """Queue the combinations of a grid that are not queued yet.

        Optuna's GridSampler is not used: it does not know trials that were queued, as those are that are tried again.
        """
        known = {one.user_attrs.get("grid") for one in self._study.get_trials(deepcopy=False)}
        for values in self._points:
            named = json.dumps(values, sort_keys=True)
            if named not in known:
                self._study.enqueue_trial(dict(values), user_attrs={"grid": named})

    def _sampler(self, number: int) -> Any:
        """Return the sampler of trial `number`: values are a function of seed, number and what is known by then."""
        seed = zlib.crc32(f"{self.options.seed}/{number}".encode())
        if self.options.sampler != "tpe":
            return self._optuna.samplers.RandomSampler(seed=seed)
        startup = min(10, max(_STARTUP, self.options.trials // 3))
        return self._optuna.samplers.TPESampler(seed=seed, n_startup_trials=startup)

    def _distributions(self) -> dict[str, Any]:
        made, found = self._optuna.distributions, {}
        for one in self.space.parameters:
            if one.choices:
                found[one.name] = made.CategoricalDistribution(one.choices)
            elif one.whole:
                step = int(one.step or 1)
                found[one.name] = made.IntDistribution(int(one.low), int(one.high), log=one.log, step=step)
            else:
                found[one.name] = made.FloatDistribution(one.low, one.high, log=one.log, step=one.step)
        return found


def import_optuna() -> Any:
    """Import Optuna, quietly.

    Raises:
      UserError: it is not installed.
    """
    try:
        import optuna  # pyright: ignore[reportMissingImports]
        import optuna.importance  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise UserError("a sweep needs Optuna, which is not installed: pip install 'twinreel[sweep]'") from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def shown_state(trial: "FrozenTrial") -> str:
    """Return the state of a trial in lower case: complete, pruned, failed, running or waiting."""
    name = str(trial.state.name)
    return "failed" if name == "FAIL" else name.lower()


def curve_of(trial: "FrozenTrial") -> Sequence[tuple[int, float]]:
    """Return the intermediate values of a trial, by step."""
    return sorted((int(step), float(value)) for step, value in trial.intermediate_values.items())


def _storage(optuna: Any, workdir: Path, *, kind: str) -> Any:
    path = (workdir / STORAGES[kind]).absolute()
    if kind == "sqlite":
        return optuna.storages.RDBStorage(f"sqlite:///{path}", engine_kwargs={"connect_args": {"timeout": 60}})
    backend = optuna.storages.journal
    return optuna.storages.JournalStorage(
        backend.JournalFileBackend(str(path), lock_obj=backend.JournalFileOpenLock(str(path)))
    )


def _pruner(optuna: Any, options: StudyOptions) -> Any:
    if options.pruner == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=_STARTUP)
    if options.pruner == "hyperband":
        first = max(1, options.first_step)
        return optuna.pruners.HyperbandPruner(min_resource=first, max_resource=max(options.steps, first))
    return optuna.pruners.NopPruner()
