"""Sinks of metrics, with services that are recorded instead of called."""

import importlib.machinery
import json
import sys
import threading
import types
from typing import ClassVar

import pytest
from engine_toy import ToyObjective, batches, config
from files import lines

from twinreel.base.errors import UserError
from twinreel.engine.loop import sinks
from twinreel.engine.loop.evaluation import Evaluation
from twinreel.engine.loop.metrics import History
from twinreel.engine.loop.options import TrainOptions
from twinreel.engine.loop.train import train


def package(monkeypatch, name, **attributes):
    """Put a module in the place of an installed package."""
    made = types.ModuleType(name)
    made.__spec__ = importlib.machinery.ModuleSpec(name, loader=None)
    made.__dict__.update(attributes)
    monkeypatch.setitem(sys.modules, name, made)


class Wandb:
    """What is used of the package `wandb`; remembers the runs that were begun."""

    def __init__(self):
        self.runs = []

    def init(self, **given):
        run = types.SimpleNamespace(given=given, logged=[], finished=[], defined=[])
        run.log, run.finish = run.logged.append, lambda: run.finished.append(True)
        run.define_metric = lambda name, **options: run.defined.append((name, options))
        self.runs.append(run)
        return run


class Client:
    """What is used of `mlflow.MlflowClient`; all clients see one server."""

    runs: ClassVar[dict] = {}

    def get_experiment_by_name(self, name):
        return types.SimpleNamespace(experiment_id="7") if self.runs else None

    def create_experiment(self, name):
        return "7"

    def create_run(self, experiment, *, run_name, tags):
        run = {"experiment": experiment, "name": run_name, "tags": tags, "metrics": [], "status": "RUNNING"}
        self.runs["r1"] = run
        return types.SimpleNamespace(info=types.SimpleNamespace(run_id="r1"))

    def search_runs(self, experiments, *, filter_string):
        found = [key for key, run in self.runs.items() if f"'{run['tags']['twinreel.run']}'" in filter_string]
        return [types.SimpleNamespace(info=types.SimpleNamespace(run_id=key)) for key in found]

    def update_run(self, run, *, status):
        self.runs[run]["status"] = status

    def log_dict(self, run, values, name):
        self.runs[run][name] = values

    def log_batch(self, run, *, metrics):
        self.runs[run]["metrics"] += [(one.step, one.key, one.value) for one in metrics]

    def set_terminated(self, run):
        self.runs[run]["status"] = "FINISHED"


@pytest.fixture
def services(monkeypatch):
    """Both packages, recorded."""
    wandb, runs = Wandb(), {}
    monkeypatch.setattr(Client, "runs", runs)
    package(monkeypatch, "wandb", init=wandb.init, Settings=dict)
    package(monkeypatch, "mlflow", MlflowClient=Client)
    package(
        monkeypatch,
        "mlflow.entities",
        Metric=lambda key, value, time, step: types.SimpleNamespace(key=key, value=value, step=step),
    )
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://localhost:1")
    for name in ("WANDB_PROJECT", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    return wandb.runs, runs


def go(workdir, *, steps=4, names=("wandb", "mlflow")):
    return train(
        objective=ToyObjective(),
        batches=batches,
        workdir=workdir,
        config=config(train__steps=steps, train__sinks=names),
        meta={},
        evaluations=[Evaluation(name="val", run=lambda model, step: {"R@1": 10.0 * step, "dsl:scale=1/R@1": 1.0})],
    )


def points(workdir):
    """(step, name, value) of all numbers in metrics.jsonl, with the names that sinks get."""
    found = []
    for line in lines(workdir):
        step, kind = line.pop("step"), line.pop("kind")
        found += [(step, f"{kind}/{name}", value) for name, value in line.items() if value is not None]
    return found


def test_all_lines_go_to_both_and_a_resumed_run_continues_there(services, tmp_path):
    go(tmp_path / "mine")
    go(tmp_path / "mine", steps=6)
    began, server = services
    assert {run.given["id"] for run in began} == {json.loads((tmp_path / "mine" / "sinks.json").read_text())["wandb"]}
    assert [run.given["name"] for run in began] == ["mine", "mine"] and began[0].given["resume"] == "allow"
    assert began[0].given["project"] == "twinreel" and began[0].given["config"]["train"]["steps"] == 4
    assert began[0].defined == [("step", {}), ("*", {"step_metric": "step"})]
    assert all(run.finished == [True] for run in began)
    logged = [dict(values) for run in began for values in run.logged]
    seen = [(one["step"], name, value) for one in logged for name, value in one.items() if name != "step"]
    assert sorted(seen) == sorted(points(tmp_path / "mine")) and (6, "eval/val/R@1", 60.0) in seen
    [run] = server.values()
    assert (run["name"], run["status"], run["config.json"]["train"]["steps"]) == ("mine", "FINISHED", 4)
    named = {"eval/val/R@1": "eval/val/R_at_1", "eval/val/dsl:scale=1/R@1": "eval/val/dsl_scale_1/R_at_1"}
    assert sorted(run["metrics"]) == sorted((step, named.get(name, name), value) for step, name, value in seen)


def test_a_missing_package_or_address_is_said_before_the_first_step(services, tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    with pytest.raises(UserError, match="MLFLOW_TRACKING_URI is not set"):
        go(tmp_path / "run", names=("mlflow",))
    monkeypatch.delitem(sys.modules, "wandb")
    monkeypatch.setattr(sinks.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        UserError, match=r"'wandb', and that package is not installed; `pip install 'twinreel\[wandb\]'"
    ):
        go(tmp_path / "run", names=("wandb",))
    assert not (tmp_path / "run" / "checkpoints").exists()
    with pytest.raises(UserError, match=r"config\.train\.sinks: 'wandbb'; did you mean 'wandb'"):
        TrainOptions(steps=1, sinks=("wandbb",))


def test_a_service_that_fails_is_reported_once_and_training_goes_on(services, tmp_path, monkeypatch, capsys):
    def refuse(self, run, *, metrics):
        raise ConnectionError("no route to host\nand more")

    monkeypatch.setattr(Client, "log_batch", refuse)
    monkeypatch.setattr(sys.modules["wandb"], "init", lambda **given: 1 / 0)
    assert go(tmp_path).step == 4
    said = capsys.readouterr().err
    assert said.count("warning: mlflow lacks metrics: no route to host; metrics.jsonl has them all") == 1
    assert said.count("warning: wandb takes no metrics of this start: division by zero") == 1
    assert [line["step"] for line in lines(tmp_path, "train")] == [2, 4]


def test_a_slow_service_holds_nothing_up():
    released, taken, said = threading.Event(), [], []

    class Slow:
        def log(self, step, values):
            released.wait()
            taken.append((step, values))

        def close(self):
            taken.append("closed")

    sink = sinks.Background(Slow(), name="slow", say=said.append, waiting=2)
    for step in range(20):
        sink.log(step, {"a": 1.0, "b": float("nan")})
    sink.close(within_s=0.1)
    assert said == [
        "warning: slow lacks metrics: it is too slow, so lines are dropped; metrics.jsonl has them all (said once)"
    ]
    released.set()
    sink.close()
    assert taken[-1] == "closed" and 3 <= len(taken) <= 5 and taken[0] == (0, {"a": 1.0})


def test_other_processes_open_nothing(tmp_path):
    with History(tmp_path, start_step=0, write=False) as history:
        history.write({"loss": 1.0}, step=1, kind="train")
    assert list(tmp_path.iterdir()) == []
