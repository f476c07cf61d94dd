"""Checkpoints: `workdir/checkpoints/<step>/` with the items `state` (arrays) and `meta` (JSON), by orbax."""

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
from flax import nnx

from ...base.errors import UserError
from ..start.processes import everywhere
from ..step.state import NOT_HALTED, TrainState, join, leaf, split_model
from .files import write_atomically
from .fit import misfits, table
from .preservation import KeepLastAndBest, put_aside, remove_half_written
from .quiet import report_once
from .snapshot import to_host

log = logging.getLogger(__name__)

FOLDER = "checkpoints"


class UnreadableError(UserError):
    """A checkpoint that is damaged or not whole."""


class Checkpoints:
    """Saves and restores the states of one run.

    Saving is asynchronous: `save` orders a copy into host memory and returns; a thread waits for the copy and writes
    it. A checkpoint appears under its final name only when it is whole, and older ones are deleted only after that.

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
        """
        self.folder, self._abstract, self._warn, self._metric = folder.absolute(), abstract, warn, best_metric
        self._keep = KeepLastAndBest(last=keep_last, best=keep_best, mode=best_mode)
        remove_half_written(self.folder, warn=warn)
        self._manager: ocp.CheckpointManager | None = None
        self.last_save_s = 0.0
        self._writer = concurrent.futures.ThreadPoolExecutor(max_workers=1, thread_name_prefix="twinreel-save")
        self._saving: tuple[int, concurrent.futures.Future[None]] | None = None

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def restore(self) -> tuple[TrainState, dict[str, Any]] | None:
        """Return (state, meta) of the newest readable checkpoint, or None if there is none at all.

        An unreadable one is named in a warning, put aside as `unreadable-<step>`, and the one before it is used.

        Raises:
          UserError: a readable checkpoint of another model or optimizer (with a table of what does not fit), or
            checkpoints of which none is readable.
        """
        steps = steps_in(self.folder)
        for step in reversed(steps):
            path = self.folder / str(step)
            meta = state = None
            try:
                meta = _meta(path)
                state = self._read(path)
            except UnreadableError as error:
                self._warn(f"{error}; using the one before it")
            if not everywhere(state is not None) or meta is None or state is None:
                continue
            put_aside([self.folder / str(s) for s in steps if s > step], warn=self._warn)
            if meta["scores"]["metric"] == self._metric:
                self._keep.scores = {int(s): value for s, value in meta["scores"]["values"].items()}
            halted = jax.device_put(np.int32(NOT_HALTED), self._abstract.halted.sharding)
            return TrainState(**state, halted=halted), meta
        if steps:
            raise UserError(
                f"none of the {len(steps)} checkpoints in {self.folder} is readable; "
                "to begin anew, move that folder away"
            )
        return None

    def save(
        self,
        state: TrainState,
        *,
        step: int,
        meta: dict[str, Any],
        score: float | None = None,
        after: Callable[[], None] = lambda: None,
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

        Raises:
          UserError: this save or the one before it failed (disk full, no permission); older checkpoints are as they
            were.
        """
        self.wait()
        began = time.perf_counter()
        if score is not None:
            self._keep.scores[step] = score
        if step in self.steps():
            return
        with self._reporting(step):
            self._check_room(items_bytes=sum(x.nbytes for x in jax.tree.leaves(_to_save(state))))
            manager, snapshot = self._open(), to_host(_to_save(state))
        complete = self._complete(meta, step=step)
        self._saving = step, self._writer.submit(self._write, manager, snapshot, complete, began, after)

    def amend(self, *, step: int, meta: dict[str, Any], score: float | None = None) -> None:
        """Replace the meta of a checkpoint that is saved (an evaluation came later than the save)."""
        self.wait()
        if score is not None:
            self._keep.scores[step] = score
        if jax.process_index() == 0:
            text = json.dumps(self._complete(meta, step=step))
            write_atomically(self.folder / str(step) / "meta" / "metadata", text=text)

    def steps(self) -> list[int]:
        """Return the steps that are saved or being saved, ascending."""
        saved = set(self._manager.all_steps() if self._manager else steps_in(self.folder))
        return sorted(saved | ({self._saving[0]} if self._saving else set()))

    def busy(self) -> bool:
        """Tell whether a save is under way."""
        return self._saving is not None and not self._saving[1].done()

    def wait(self) -> None:
        """Wait until the last save is on disk; raises as `save` does."""
        if self._saving is not None:
            (step, job), self._saving = self._saving, None
            with self._reporting(step):
                job.result()

    def close(self) -> None:
        """Wait for the last save and free the threads."""
        try:
            self.wait()
        finally:
            self._writer.shutdown()
            manager, self._manager = self._manager, None
            if manager is not None:
                manager.close()

    def _write(
        self, manager: ocp.CheckpointManager, snapshot: Any, meta: dict[str, Any], began: float, after: Callable
    ) -> None:
        """Write a snapshot as soon as it is there (in a thread)."""
        step = meta["step"]
        after()
        if int(jax.block_until_ready(snapshot)["step"]) != step:
            return  # frozen; all processes see it, as the state is the same on all
        items = ocp.args.Composite(state=ocp.args.PyTreeSave(snapshot), meta=ocp.args.JsonSave(meta))
        manager.save(step, args=items, force=True)
        self.last_save_s = time.perf_counter() - began

    def _complete(self, meta: dict[str, Any], *, step: int) -> dict[str, Any]:
        scores = {"metric": self._metric, "values": {str(s): value for s, value in self._keep.scores.items()}}
        return meta | {"step": step, "scores": scores}

    def _read(self, path: Path) -> dict[str, Any]:
        wanted = _to_save(self._abstract)
        check_fit(path, saved=_shapes(path), wanted=wanted)
        args = ocp.checkpoint_utils.construct_restore_args(wanted)
        return _restore(path, state=ocp.args.PyTreeRestore(item=wanted, restore_args=args))["state"]

    def _open(self) -> ocp.CheckpointManager:
        if self._manager is None:  # made late: it lists the folder, which `restore` may have tidied up
            # Naming the processes makes orbax meet in jax's coordination service; its other way is a collective of all
            # devices, which from a thread would come between those of the steps in another order on each process.
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

    @contextlib.contextmanager
    def _reporting(self, step: int | None):
        report_once()
        try:
            yield
        except Exception as error:  # an error of the writing thread: OSError, or tensorstore's ValueError
            self._manager = None  # it would raise the same error again on closing
            what = "a checkpoint" if step is None else f"checkpoint {step} (or the one before it)"
            whole = steps_in(self.folder)
            raise UserError(
                f"saving {what} in {self.folder} failed: {_reason(error)}\n"
                f"The newest whole checkpoint is {self.folder / str(whole[-1]) if whole else '(none yet)'}. Make room "
                "on that disk (config.train.keep_last and keep_best say how many stay) and run the same command again"
            ) from error


def resolve(path: str | Path) -> Path:
    """Return the step folder that `path` means.

    Args:
      path: a step folder, which is taken as it is; or a `checkpoints` folder or a workdir, of which the newest
        readable checkpoint is taken: its parameters are read for that, so that a damaged one is passed over.

    Raises:
      UserError: nothing there, or nothing readable.
    """
    path = Path(path).absolute()
    if is_step(path):
        return path
    folder = path / FOLDER if (path / FOLDER).is_dir() else path
    if not folder.is_dir():
        raise UserError(f"no checkpoint at {path}: there is no such folder; give a workdir or a checkpoint of one")
    for step in reversed(steps_in(folder)):
        try:
            _meta(folder / str(step))
            _params(folder / str(step))  # reads all: a damaged file shows nowhere else
        except UnreadableError as error:
            log.warning("%s; using the one before it", error)
            continue
        return folder / str(step)
    raise UserError(
        f"no readable checkpoint in {folder}; give a workdir (holds `{FOLDER}/`), a `{FOLDER}` folder, or "
        "one of the numbered folders in it"
    )


def read_meta(path: str | Path) -> dict[str, Any]:
    """Return the JSON `meta` of a checkpoint (anything that `resolve` takes, a step folder without further ado).

    Raises:
      UserError: it cannot be read.
    """
    return _meta(resolve(path))


def read_params(path: str | Path) -> dict[str, np.ndarray]:
    """Return {"/"-joined path: array} of all parameters and other variables of a checkpoint's model.

    Where the run kept moving averages of its parameters, these.

    Raises:
      UserError: it cannot be read.
    """
    return _params(resolve(path))


def restore_model(path: str | Path, *, model: nnx.Module) -> None:
    """Fill all parameters and other variables of `model` from a checkpoint, in place.

    Arrays take the dtype of the checkpoint, which is that of the model, and the placement that the model's have.

    Raises:
      UserError: it cannot be read, or it does not fit: a table with parameter, in checkpoint, in model.
    """
    path = resolve(path)
    flat = dict(nnx.to_flat_state(nnx.state(model)))
    variables = {join(key): v for key, v in flat.items() if not isinstance(v, nnx.RngState)}
    saved = _shapes(path)
    check_fit(path, saved=saved["params"] | saved["others"], wanted=split_model(model))
    got = _params(path)
    for name, variable in variables.items():
        sharding = getattr(leaf(variable), "sharding", None)
        variable.set_value(jax.device_put(got[name], sharding))
    nnx.update(model, nnx.from_flat_state({key: flat[key] for key in flat if join(key) in variables}))


def check_fit(path: Path, *, saved: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Raise UserError with a table unless two trees of shapes agree."""
    rows = misfits(saved=saved, wanted=wanted)
    if rows:
        raise UserError(
            f"checkpoint {path} does not fit the model of this config:\n{table(rows)}\n"
            "Use the config that it was made with (config.json in its workdir), or another checkpoint"
        )


def steps_in(folder: Path) -> list[int]:
    """Return the step numbers of the checkpoints in a folder, ascending, readable or not."""
    found = folder.iterdir() if folder.is_dir() else ()
    return sorted(int(path.name) for path in found if path.name.isdigit() and path.is_dir())


def is_step(path: Path) -> bool:
    """Tell whether `path` looks like one checkpoint rather than a folder of them."""
    return path.name.isdigit() and (path / "meta").is_dir()


def _to_save(state: TrainState) -> dict[str, Any]:
    saved = {"step": state.step, "params": state.params, "others": state.others, "opt_state": state.opt_state}
    return saved | ({"ema": state.ema} if state.ema else {})


def _meta(path: Path) -> dict[str, Any]:
    return _restore(path, meta=ocp.args.JsonRestore())["meta"]


def _params(path: Path) -> dict[str, np.ndarray]:
    saved = _shapes(path)
    like = {part: saved[part] for part in ("params", "others", "ema") if part in saved}
    args = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), like)
    got = _restore(path, state=ocp.args.PyTreeRestore(item=like, restore_args=args, partial_restore=True))
    return got["state"]["params"] | got["state"]["others"] | got["state"].get("ema", {})


def _reader(handler: ocp.CompositeCheckpointHandler) -> ocp.Checkpointer:
    """A checkpointer that waits for no other process: each reads what it needs, and one may read alone."""
    me = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(
        primary_host=me, active_processes={me}, barrier_sync_key_prefix=f"reader-{me}"
    )
    return ocp.Checkpointer(handler, multiprocessing_options=alone)


def _restore(path: Path, **items: Any) -> Any:
    with _unreadable(path), _reader(ocp.CompositeCheckpointHandler()) as checkpointer:
        return checkpointer.restore(path, args=ocp.args.Composite(**items))


def _shapes(path: Path) -> dict[str, Any]:
    """Return the tree of shapes and dtypes of item `state`."""
    handler = ocp.CompositeCheckpointHandler(state=ocp.PyTreeCheckpointHandler(), meta=ocp.JsonCheckpointHandler())
    with _unreadable(path), _reader(handler) as checkpointer:
        items = checkpointer.metadata(path).item_metadata
        if items is None or items["state"] is None:
            raise FileNotFoundError(f"{path / 'state'} is missing or empty")
        return items["state"].tree


@contextlib.contextmanager
def _unreadable(path: Path):
    report_once()
    try:
        yield
    except Exception as error:  # orbax and tensorstore raise many types for a damaged file
        raise UnreadableError(f"checkpoint {path} is unreadable: {_reason(error)}") from error


def _reason(error: BaseException) -> str:
    """The kind and first line of an error; of a long one the end, where tensorstore says what the system said."""
    line = (str(error).strip() or "no message").splitlines()[0].split(" [tensorstore_spec=")[0]
    return f"{type(error).__name__}: {line if len(line) <= 300 else '... ' + line[-300:]}"
