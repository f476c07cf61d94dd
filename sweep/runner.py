"""The trials of a study, several at a time, each in a process of its own."""

import dataclasses
import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..base.errors import UserError, nearest
from ..engine.start.gpus import gpus_of
from .space import Value
from .study import Claim, SweepStudy
from .trial import RunSpec, best_of, last_lines, log_of, run_trial, value_of

if TYPE_CHECKING:
    from rich.progress import Progress

_WAIT_S = 2.0
_HOPELESS = 3  # trials of one start that fail, while none succeeds, after which it ends
Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Work:
    """What all trials of a sweep share.

    Attributes:
      verb: "pretrain" or "finetune".
      flags: of the verb, without --workdir and without the values of a trial.
      metric: the evaluation result that is compared; "" = the run's own config.train.best_metric.
      maximize: whether a higher one is better.
      steps: of a run, for progress bars.
      processes: runs at a time.
      gpus: GPUs of each run; 0 = all that the environment gives.
    """

    verb: str
    flags: tuple[str, ...]
    metric: str
    maximize: bool
    steps: int
    processes: int = 1
    gpus: int = 0

    def run(self, study: SweepStudy, *, run: str, values: dict[str, Value], slot: int = 0) -> RunSpec:
        """Return the run of a trial."""
        env: dict[str, str] = {}
        if self.gpus:
            env |= gpus_of(slot, count=self.gpus, flag=f"--processes={self.processes} --gpus={self.gpus}")
        flags = [f"--config.{one}" for one in study.space.overrides(values)]
        return RunSpec(verb=self.verb, flags=(*self.flags, *flags), workdir=study.folder / run, env=env)


class Runner:
    """Takes trials from a study until it has as many as wanted."""

    def __init__(self, study: SweepStudy, *, work: Work, title: str, say: Say, ended: Callable[[], object]):
        """Remember what to do.

        Args:
          study: gives the trials.
          work: what they share.
          title: of the progress bar.
          say: prints a line for the user.
          ended: called after each trial.
        """
        self._study, self._work, self._title, self._say, self._ended = study, work, title, say, ended
        self._stop, self._mutex = threading.Event(), threading.Lock()
        self._failures: list[str] = []
        self._succeeded = False
        self._progress: Progress | None = None

    def run(self) -> None:
        """Run all trials; on Ctrl-C or an error the runs under way save and end first.

        Raises:
          UserError: a run lacks the metric, or the first trials all fail.
        """
        with _bar(self._title, total=self._study.wanted, done=self._done()) as (progress, task):
            self._progress, self._task = progress, task
            with ThreadPoolExecutor(max_workers=self._work.processes, thread_name_prefix="twinreel-trial") as pool:
                workers = [pool.submit(self._take, slot) for slot in range(self._work.processes)]
                try:
                    for worker in workers:
                        while not worker.done():
                            time.sleep(0.1)  # not `result()`: a signal must be able to come between
                        worker.result()
                except BaseException:
                    self._stop.set()
                    raise

    def _done(self) -> int:
        return sum(one.state.is_finished() for one in self._study.trials())

    def _take(self, slot: int) -> None:
        """Run trials one after another."""
        try:
            while not self._stop.is_set():
                claim = self._study.claim()
                if claim == "done":
                    return
                if claim == "wait":
                    self._stop.wait(_WAIT_S)
                    continue
                assert isinstance(claim, Claim)
                try:
                    self._one(claim, slot=slot)
                finally:
                    os.close(claim.lock)
                assert self._progress is not None
                self._progress.update(self._task, completed=self._done())
                with self._mutex:
                    self._ended()
        except BaseException:
            self._stop.set()
            raise

    def _one(self, claim: Claim, *, slot: int) -> None:
        spec = self._work.run(self._study, run=claim.run, values=claim.values, slot=slot)
        self._study.note(claim, command=spec.line())
        began, results = time.monotonic(), dict[int, float]()
        known: set[str] = set()
        steps = int(claim.values.get("train.steps") or self._work.steps)
        bar = self._progress.add_task(f"trial {claim.run}", total=steps) if self._progress else None

        def evaluated(step: int, found: dict[str, float]) -> bool:
            known.update(found)
            value = value_of(found, metric=self._metric(spec))
            if value is None:
                return False
            results[step] = value
            return self._study.report(claim, value=value, step=step) and step < steps

        def stepped(step: int) -> None:
            if self._progress and bar is not None:
                self._progress.update(bar, completed=step)

        try:
            status, pruned = run_trial(spec, lock=claim.lock, stop=self._stop, evaluated=evaluated, stepped=stepped)
        finally:
            if self._progress and bar is not None:
                self._progress.remove_task(bar)
        if self._stop.is_set() and not pruned and status != 0:
            return  # it stays recorded as running, and the next start finds that nobody runs it
        self._study.note(claim, metric=self._metric(spec), seconds=round(time.monotonic() - began, 1))
        if pruned:
            self._study.end(claim, state="PRUNED")
            self._tell(claim, f"stopped early at step {max(results)} with {_shown(results[max(results)])}")
        elif status == 0:
            self._complete(claim, spec=spec, results=results, known=known)
        else:
            self._fail(claim, status=status, log=log_of(spec.workdir))

    def _complete(self, claim: Claim, *, spec: RunSpec, results: dict[int, float], known: set[str]) -> None:
        if not results:
            metric = self._metric(spec)
            self._study.note(claim, error=f"no evaluation of it gave {metric}")
            self._study.end(claim, state="FAIL")
            raise UserError(_without_metric(metric, known=known, workdir=spec.workdir))
        best = best_of(list(results.values()), maximize=self._work.maximize)
        step = min(step for step, value in results.items() if value == best)
        self._study.note(claim, best_step=step)
        self._study.end(claim, value=best, state="COMPLETE")
        self._succeeded = True
        self._tell(claim, f"{_shown(best)} at step {step}")

    def _fail(self, claim: Claim, *, status: int, log: Path) -> None:
        text = last_lines(log) or f"it ended with status {status}"
        self._study.note(claim, error=text)
        self._study.end(claim, state="FAIL")
        self._tell(claim, f"failed with status {status} ({log}):\n{text}")
        self._failures.append(text)
        if not self._succeeded and len(self._failures) >= min(_HOPELESS, self._study.wanted):
            raise UserError(
                f"the first {len(self._failures)} trials failed, the last with:\n{text}\nCorrect the cause and run the "
                "same command with --retry_failed"
            )

    def _metric(self, spec: RunSpec) -> str:
        """Return the metric; that of a run itself stands in the config in its workdir."""
        if self._work.metric:
            return self._work.metric
        file = spec.workdir / "config.json"
        return json.loads(file.read_text(encoding="utf-8"))["train"].get("best_metric", "") if file.is_file() else ""

    def _tell(self, claim: Claim, text: str) -> None:
        values = ", ".join(self._study.space.overrides(claim.values))
        self._say(f"trial {claim.run} ({values}): {text}")


def _bar(title: str, *, total: int, done: int) -> Any:
    import contextlib

    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    @contextlib.contextmanager
    def shown() -> Iterator[tuple[Progress, Any]]:
        columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()]
        with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
            yield progress, progress.add_task(title, total=total, completed=done)

    return shown()


def _shown(value: float) -> str:
    return f"{value:.6g}"


def _without_metric(metric: str, *, known: Sequence[str] | set[str], workdir: Path) -> str:
    names = sorted(known)
    if not names:
        return (
            f"the run in {workdir} evaluated nothing, so there is nothing to compare; it needs config.evaluations "
            "(pretrain), or validation clips (finetune)"
        )
    hint = nearest(metric, names) if metric else None
    what = f"no evaluation of the run in {workdir} gave {metric!r}" if metric else "the config has no train.best_metric"
    suggestion = f"; did you mean {hint!r}?" if hint else ""
    return f"{what}{suggestion} Give --metric one of: {', '.join(names)}"
