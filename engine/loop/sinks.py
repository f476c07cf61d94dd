"""Where metrics go besides metrics.jsonl: TensorBoard, and on request Weights & Biases and MLflow.

A sink of a service must never hold up or end a run: it is called in a thread of its own, and its failures are warnings.
"""

import contextlib
import importlib.util
import json
import math
import os
import queue
import re
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from ...base.errors import UserError
from ..keeping.files import write_atomically

FILE = "sinks.json"
"""In the workdir: which run of each service belongs to it, so that a resumed run continues there."""
PROJECT = "twinreel"
_WAITING = 1000  # steps that may wait for a slow service before lines are dropped
_CLOSE_S = 30.0


class Sink(Protocol):
    """Takes metrics."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Take the values of a step; names are `train/loss`, `eval/val/t2v_R@1` and so on."""
        ...

    def close(self) -> None:
        """Finish writing."""
        ...


class Wandb:
    """A run of Weights & Biases, which its own variables configure: WANDB_PROJECT, WANDB_ENTITY, WANDB_MODE …"""

    def __init__(self, workdir: Path, *, config: Mapping[str, Any], run: str):
        """Begin the run of this id, or continue it."""
        import wandb  # pyright: ignore[reportMissingImports]

        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            id=run,
            name=workdir.absolute().name,
            dir=str(workdir),
            config=dict(config),
            resume="allow",
            settings=wandb.Settings(console="off"),
        )
        # Of a step that is done again after an interruption the later point counts; wandb's own step cannot go back.
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Add a point to each curve."""
        self._run.log({"step": step, **values})

    def close(self) -> None:
        """Wait until all is written or sent."""
        self._run.finish()


class Mlflow:
    """A run of MLflow on the server or in the database that MLFLOW_TRACKING_URI names."""

    def __init__(self, workdir: Path, *, config: Mapping[str, Any], run: str):
        """Continue the run with this id as a tag, or begin it; MLFLOW_EXPERIMENT_NAME names its experiment."""
        from mlflow import MlflowClient  # pyright: ignore[reportMissingImports]

        self._client, tag = MlflowClient(), f"{PROJECT}.run"
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        known = self._client.get_experiment_by_name(name)
        experiment = known.experiment_id if known else self._client.create_experiment(name)
        found = self._client.search_runs([experiment], filter_string=f"tags.`{tag}` = '{run}'")
        if found:
            self._id = found[0].info.run_id
            self._client.update_run(self._id, status="RUNNING")
            return
        made = self._client.create_run(experiment, run_name=workdir.absolute().name, tags={tag: run})
        self._id = made.info.run_id
        self._client.log_dict(self._id, dict(config), "config.json")

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Add a point to each curve; MLflow's names have no "@", ":" or "=", so R@1 becomes R_at_1."""
        from mlflow.entities import Metric  # pyright: ignore[reportMissingImports]

        now = int(1000 * time.time())
        named = {re.sub(r"[^\w./ -]", "_", name.replace("@", "_at_")): value for name, value in values.items()}
        found = [Metric(name, value, now, step) for name, value in named.items()]
        self._client.log_batch(self._id, metrics=found)

    def close(self) -> None:
        """Mark the run as finished; a resumed one is marked as running again."""
        self._client.set_terminated(self._id)


SINKS: dict[str, Callable[..., Sink]] = {"wandb": Wandb, "mlflow": Mlflow}
"""Values of config.train.sinks."""


def check_sinks(names: tuple[str, ...]) -> None:
    """Refuse, before the first step, services that cannot be reached for want of a package or an address.

    Raises:
      UserError: the package of one of them is not installed, or MLflow has no MLFLOW_TRACKING_URI.
    """
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise UserError(
                f"config.train.sinks names {name!r}, and that package is not installed; `pip install "
                f"'twinreel[{name}]'`, or leave it out of config.train.sinks"
            )
    if "mlflow" in names and not os.environ.get("MLFLOW_TRACKING_URI"):
        raise UserError(
            "config.train.sinks names 'mlflow', and MLFLOW_TRACKING_URI is not set; set it to the address of your "
            "server, or to a database such as sqlite:///runs/mlflow.db (for which package mlflow is needed)"
        )


def open_sinks(
    names: tuple[str, ...], *, workdir: Path, config: Mapping[str, Any], say: Callable[[str], None]
) -> "list[Background]":
    """Open services; one that cannot be opened is left out with a warning.

    Args:
      names: of `SINKS`.
      workdir: of the run; `sinks.json` in it holds the ids under which a resumed run continues.
      config: of the run, as JSON values.
      say: shows a warning.
    """
    if not names:
        return []
    path, opened = workdir / FILE, []
    known = json.loads(path.read_text()) if path.is_file() else {}
    ids = known | {name: known.get(name) or uuid.uuid4().hex[:12] for name in names}
    if ids != known:
        write_atomically(path, text=json.dumps(ids) + "\n")
    for name in names:
        try:
            opened.append(Background(SINKS[name](workdir, config=config, run=ids[name]), name=name, say=say))
        except Exception as error:  # any fault of a service or its package: training goes on
            say(f"warning: {name} takes no metrics of this start: {_first_line(error)}; metrics.jsonl has them all")
    return opened


class Background:
    """Calls a sink in a thread: a slow service holds nothing up, a failing one is reported once.

    Lines that cannot wait any longer are dropped; metrics.jsonl has them all.
    """

    def __init__(self, sink: Sink, *, name: str, say: Callable[[str], None], waiting: int = _WAITING):
        """Begin.

        Args:
          sink: what is called.
          name: of it, for warnings.
          say: shows a warning.
          waiting: lines that may wait.
        """
        self._sink, self._name, self._say, self._warned = sink, name, say, False
        self._queue: queue.Queue[tuple[int, dict[str, float]] | None] = queue.Queue(maxsize=waiting)
        self._thread = threading.Thread(target=self._work, name=f"twinreel-{name}", daemon=True)
        self._thread.start()

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Hand the values over, without waiting; those that are not finite are left out."""
        finite = {name: float(value) for name, value in values.items() if math.isfinite(value)}
        try:
            self._queue.put_nowait((step, finite))
        except queue.Full:
            self._warn("it is too slow, so lines are dropped")

    def close(self, *, within_s: float = _CLOSE_S) -> None:
        """Wait until all lines are written, but no longer than `within_s` seconds."""
        with contextlib.suppress(queue.Full):
            self._queue.put(None, timeout=within_s)
        self._thread.join(timeout=within_s)
        if self._thread.is_alive():
            self._warn(f"it has not taken the last lines within {within_s:g} s")

    def _work(self) -> None:
        while (item := self._queue.get()) is not None:
            self._guarded(lambda item=item: self._sink.log(*item))
        self._guarded(self._sink.close)

    def _guarded(self, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception as error:  # whatever a service raises: training goes on
            self._warn(_first_line(error))

    def _warn(self, text: str) -> None:
        if not self._warned:
            self._warned = True
            self._say(f"warning: {self._name} lacks metrics: {text}; metrics.jsonl has them all (said once)")


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), "") or type(error).__name__
