"""The checkpoints of one run: saved asynchronously, the newest and the best kept, restored at the next start."""

import concurrent.futures
import contextlib
import errno
import json
import logging
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from ...base.errors import UserError
from ..remote.ledger import LeaseLost
from ..remote.parcels import TEMPORARY
from ..remote.session import LOCAL, Session
from ..remote.store import DamagedError
from ..start.processes import everywhere
from ..step.state import NOT_HALTED, TrainState
from .checkpoint import UnreadableError, meta_of, named_in, read_state, short_reason, steps_in
from .files import write_atomically
from .local import read_local, write_local
from .parts import write_part
from .preservation import DROPPED, UNREADABLE, KeepLastAndBest, remove_half_written, set_aside
from .quiet import report_once
from .snapshot import to_host
from .writer import OthersFailed, Writer

log = logging.getLogger(__name__)


class Checkpoints:
    """Saves and restores the states of one run.

    Saving is asynchronous: `save` orders a copy into host memory and returns; a thread waits for the copy and writes
    it. A checkpoint appears under its final name only when it is whole, and older ones are deleted only after that.

    Where the workdir is in an object store, the folder is a stage: a checkpoint is written there, sent, and then
    committed. Of several processes each sends its part, and the stage holds only what was fetched.

    Attributes:
      last_save_s: seconds from the call of the last save that is whole until it was.
    """

    def __init__(
        self,
        folder: Path,
        *,
        abstract: TrainState,
        keep_last: int = 2,
        keep_best: int = 1,
        best_metric: str = "",
        best_mode: str = "max",
        warn: Callable[[str], None] = log.warning,
        session: Session | None = None,
    ):
        """Open `folder`, which need not exist.

        Args:
          folder: usually workdir/checkpoints.
          abstract: shapes and shardings of the run's state.
          keep_last: how many of the newest stay.
          keep_best: how many of those with the best scores stay as well.
          best_metric: what the scores are; those of another metric are forgotten.
          best_mode: "max" or "min".
          warn: receives the name of each unreadable checkpoint and what becomes of it.
          session: the far side of a workdir in an object store.
        """
        self.folder, self._abstract, self._warn, self._metric = folder.absolute(), abstract, warn, best_metric
        self._keep = KeepLastAndBest(last=keep_last, best=keep_best, mode=best_mode)
        self._kept_far = KeepLastAndBest(last=keep_last, best=keep_best, mode=best_mode)
        self._policy = self._keep if session is None else self._kept_far  # has the scores that count
        self._alone = session is not None and jax.process_count() > 1
        self._session, self._mine = session, session is not None or jax.process_index() == 0
        remove_half_written(self.folder, warn=warn, here=self._mine)
        self._manager: ocp.CheckpointManager | None = None
        self.last_save_s = 0.0
        self._writer = Writer()
        self._saving: tuple[int, concurrent.futures.Future[None]] | None = None

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def restore(self, *, step: int | None = None) -> tuple[TrainState, dict[str, Any]] | None:
        """Return (state, meta) of the newest readable checkpoint, or None if there is none at all.

        An unreadable one is named in a warning, renamed to `unreadable-<step>`, and the one before it is used.

        Args:
          step: go back to the checkpoint of this step; later ones are renamed to `dropped-<step>`.

        Raises:
          UserError: a readable checkpoint of another model or optimizer (with a table of what does not fit);
            checkpoints of which none is readable; none of `step`, or one that is not readable.
        """
        steps = self.steps()
        self._refuse_renamed(steps)
        local = self._session.local if self._session is not None else []
        steps = sorted({*steps, *local})
        if step is not None and step not in steps:
            listed = ", ".join(map(str, steps)) or "(none)"
            raise UserError(f"--resume_step {step}: {self.folder} has no checkpoint of that step; it has {listed}")
        for number in reversed(steps) if step is None else [step]:
            far = number not in local or number in self.steps()
            found = self._read(number) if far else self._read_local(number)
            if not everywhere(found is not None) or found is None:
                continue
            self._set_aside([n for n in steps if n > number], prefix=UNREADABLE if step is None else DROPPED)
            if not far:
                self.save(found[0], step=number, meta=found[1])
            elif self._session is not None and number not in self._session.steps():
                self._saving = number, self._writer.submit(self._send, number)
            return found
        if step is not None:
            raise UserError(f"--resume_step {step}: that checkpoint in {self.folder} is not readable; choose another")
        if steps:
            raise UserError(
                f"none of the {len(steps)} checkpoints in {self.folder} is readable; "
                "to start again from step 0, move that folder away"
            )
        return None

    def _read(self, step: int) -> tuple[TrainState, dict[str, Any]] | None:
        """Read a checkpoint, and take over its scores; None, with a warning, if it is not readable."""
        path = self.folder / str(step)
        for source in ("here", "there"):
            try:
                if self._session is not None and not path.exists():
                    self._session.fetch(step)
                meta, state = meta_of(path), read_state(path, like=_to_save(self._abstract))
                break
            except (UnreadableError, DamagedError) as error:
                self._warn(str(error))
                if source == "there" or self._session is None or step not in self._session.steps():
                    return None
                shutil.rmtree(path, ignore_errors=True)  # the disk may be at fault: fetch it (again)
        else:
            return None
        return self._restored(state, meta)

    def _read_local(self, step: int) -> tuple[TrainState, dict[str, Any]] | None:
        """Read what this process wrote to its disk alone; None, with a warning, if it is not usable."""
        try:
            state, meta = read_local(self.folder.parent / LOCAL, step=step, like=_to_save(self._abstract))
        except UnreadableError as error:
            self._warn(str(error))
            return None
        return self._restored(state, meta)

    def _restored(self, state: dict[str, Any], meta: dict[str, Any]) -> tuple[TrainState, dict[str, Any]]:
        if meta["scores"]["metric"] == self._metric:
            self._policy.scores = {int(s): value for s, value in meta["scores"]["values"].items()}
        return TrainState(**state, halted=jax.device_put(np.int32(NOT_HALTED), self._abstract.halted.sharding)), meta

    def _set_aside(self, steps: list[int], *, prefix: str) -> None:
        set_aside([self.folder / str(n) for n in steps], prefix=prefix, warn=self._warn, here=self._mine)
        if self._session is not None:
            for step in steps:
                self._session.set_aside(step, prefix=prefix)
                shutil.rmtree(self.folder.parent / LOCAL / str(step), ignore_errors=True)

    def save(
        self,
        state: TrainState,
        *,
        step: int,
        meta: dict[str, Any],
        score: float | None = None,
        after: Callable[[], None] = lambda: None,
        far: bool = True,
    ) -> None:
        """Start saving `state` under its step number, after the save before it has ended.

        The step that makes `state` need not be done yet. Should it turn out to have frozen the state (a loss that was
        not finite, a stop), so that `state.step` is not `step`, then nothing is written.

        Args:
          state: the state; may be donated as soon as this returns.
          step: the number of steps done, equal to `state.step`.
          meta: JSON values.
          score: value of the best metric, if this step was evaluated; counts for `keep_best`.
          after: waits, in the thread, for what must be on disk before the checkpoint is.
          far: of a workdir in an object store, whether it is sent there; else it is on the local disk alone.

        Raises:
          UserError: this save or the one before it failed (disk full, no permission); older checkpoints are as they
            were.
        """
        self.wait()
        began = time.perf_counter()
        if score is not None:
            self._policy.scores[step] = score
        if step in self.steps():
            if far and self._session is not None and step not in self._session.steps():
                self._saving = step, self._writer.submit(self._send, step)
            return
        with self._reporting(step):
            self._check_room(items_bytes=sum(x.nbytes for x in jax.tree.leaves(_to_save(state))))
            manager = None if self._alone else self._open()
            snapshot = to_host(_to_save(state), spread=None if far or not self._alone else False)
        complete = self._complete(meta, step=step)
        self._saving = step, self._writer.submit(self._write, manager, snapshot, complete, began, after, far)

    def amend(self, *, step: int, meta: dict[str, Any], score: float | None = None) -> None:
        """Replace the meta of a checkpoint that is saved (an evaluation came later than the save)."""
        self.wait()
        if score is not None:
            self._policy.scores[step] = score
        text, path = json.dumps(self._complete(meta, step=step)), self.folder / str(step)
        if self._mine and (self._session is None or path.exists()):
            write_atomically(path / "meta" / "metadata", text=text)
        if self._session is not None:
            self._session.amend(step=step, path="meta/metadata", text=text)

    def steps(self) -> list[int]:
        """Return the steps that are saved or being saved, ascending."""
        saved = set(self._manager.all_steps() if self._manager else steps_in(self.folder))
        there = self._session.steps() if self._session is not None else []
        return sorted(saved | {*there} | ({self._saving[0]} if self._saving else set()))

    def keep_one_more(self) -> None:
        """Let the next save push no older checkpoint out."""
        self._keep.last += 1
        self._kept_far.last += 1

    def busy(self) -> bool:
        """Tell whether a save is under way."""
        return self._saving is not None and not self._saving[1].done()

    def wait(self) -> None:
        """Wait until the last save is on disk; raises as `save` does."""
        if self._saving is not None:
            (step, job), self._saving = self._saving, None
            with self._reporting(step):
                self._writer.result(job)

    def close(self) -> None:
        """Wait for the last save and free the threads."""
        try:
            self.wait()
        finally:
            self._writer.close()
            manager, self._manager = self._manager, None
            if manager is not None:
                manager.close()

    def _write(
        self,
        manager: ocp.CheckpointManager | None,
        snapshot: Any,
        meta: dict[str, Any],
        began: float,
        after: Callable[[], None],
        far: bool,
    ) -> None:
        """Write a snapshot as soon as it is there (in a thread)."""
        step = meta["step"]
        after()
        if int(jax.block_until_ready(snapshot)["step"]) != step:
            return  # frozen; all processes see it, as the state is the same on all
        if manager is None and not far:
            write_local(self.folder.parent / LOCAL, step=step, state=snapshot, meta=meta)
        elif manager is None:
            part = self.folder / f"{step}.{TEMPORARY}-part"
            write_part(part, state=snapshot, meta=meta)
            self._send(step, folder=part)
            shutil.rmtree(part, ignore_errors=True)
        elif manager is not None:
            self._keep.scores = dict(self._policy.scores)
            items = ocp.args.Composite(state=ocp.args.PyTreeSave(snapshot), meta=ocp.args.JsonSave(meta))
            manager.save(step, args=items, force=True)
            if far and self._session is not None:
                self._send(step)
        self.last_save_s = time.perf_counter() - began

    def _send(self, step: int, *, folder: Path | None = None) -> None:
        """Send a checkpoint, or this process's part of it, to the store, and commit it (in a thread)."""
        assert self._session is not None
        self._session.save(folder or self.folder / str(step), step=step, keep=self._kept_far.stay)
        if folder is not None:  # copies that were fetched for the start are of no more use
            for old in steps_in(self.folder):
                shutil.rmtree(self.folder / str(old), ignore_errors=True)

    def _complete(self, meta: dict[str, Any], *, step: int) -> dict[str, Any]:
        scores = {"metric": self._metric, "values": {str(s): value for s, value in self._policy.scores.items()}}
        return meta | {"step": step, "scores": scores}

    def _refuse_renamed(self, steps: list[int]) -> None:
        """Refuse to start from step 0 next to checkpoints of the run that have been renamed."""
        names = [] if steps else named_in(self.folder)
        if names:
            step = meta_of(self.folder / names[-1])["step"]
            raise UserError(
                f"{self.folder} holds no numbered checkpoint, but {', '.join(names)}; to resume from one, give it the "
                f"number of its step as its name again ({names[-1]} -> {step}), or choose another --workdir"
            )

    def _open(self) -> ocp.CheckpointManager:
        if self._manager is None:  # made late: it lists the folder, which `restore` may have tidied up
            # Naming the processes makes orbax synchronise in jax's coordination service. Else it uses a collective of
            # all devices, which from a thread would come between those of the steps in another order on each process.
            everyone = ocp.options.MultiprocessingOptions(active_processes=set(range(jax.process_count())))
            options = ocp.CheckpointManagerOptions(
                preservation_policy=self._keep,
                enable_async_checkpointing=False,  # the thread of `save` is all that is needed
                create=False,
                multiprocessing_options=everyone,
            )
            self.folder.mkdir(parents=True, exist_ok=True)
            self._manager = ocp.CheckpointManager(self.folder, options=options)
        return self._manager

    def _check_room(self, *, items_bytes: int) -> None:
        """Fail before writing if the disk cannot hold the arrays; several processes leave that to the file system."""
        if jax.process_count() > 1:
            return
        parent = next(path for path in (self.folder, *self.folder.parents) if path.exists())
        free = shutil.disk_usage(parent).free
        if free < items_bytes:
            raise OSError(errno.ENOSPC, f"No space left: {items_bytes:,} bytes needed, {free:,} free")

    def _far_fault(self, error: Exception, *, what: int | None) -> str:
        assert self._session is not None
        whole = self._session.steps()
        reason = str(error) if isinstance(error, UserError) else short_reason(error)
        return (
            f"saving checkpoint {what} of {self._session.url} failed: {reason}\n"
            f"The newest whole checkpoint there is {whole[-1] if whole else '(none yet)'}. Checkpoints are written to "
            f"{self.folder} first: make room on that disk or set TWINREEL_STAGE to another, see that the store can be "
            "reached, and run the same command again"
        )

    @contextlib.contextmanager
    def _reporting(self, step: int | None):
        report_once()
        try:
            yield
        except Exception as error:  # an error of the writing thread: OSError, or tensorstore's ValueError
            self._manager = None  # it would raise the same error again on closing
            if isinstance(error, LeaseLost):  # no fault of a disk or of the store
                raise
            reason = str(error) if isinstance(error, OthersFailed) else short_reason(error)
            if self._session is not None:
                raise UserError(self._far_fault(error, what=step)) from error
            what = "a checkpoint" if step is None else f"checkpoint {step} (or the one before it)"
            whole = steps_in(self.folder)
            raise UserError(
                f"saving {what} in {self.folder} failed: {reason}\n"
                f"The newest whole checkpoint is {self.folder / str(whole[-1]) if whole else '(none yet)'}. Make room "
                "on that disk (config.train.keep_last and keep_best say how many stay) and run the same command again"
            ) from error


def _to_save(state: TrainState) -> dict[str, Any]:
    names = ("step", "params", "others", "opt_state", "skipped")
    saved = {name: getattr(state, name) for name in names}
    return saved | ({"ema": state.ema} if state.ema else {})
