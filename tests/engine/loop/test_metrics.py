import threading

import numpy as np
from files import lines
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from twinreel.engine.loop.metrics import History, Monitor, drop_after, memory_gb
from twinreel.engine.loop.terminal import Terminal


def test_lines_are_json_and_events_are_read_by_tensorboard(tmp_path):
    with History(tmp_path, start_step=0) as history:
        history.write({"loss": 2.5, "scale": 14.25}, step=10, kind="train")
        history.write({"val/R@1": 40.0}, step=10, kind="eval")
        history.write({"loss": float("nan")}, step=20, kind="train")
    assert lines(tmp_path) == [
        {"step": 10, "kind": "train", "loss": 2.5, "scale": 14.25},
        {"step": 10, "kind": "eval", "val/R@1": 40.0},
        {"step": 20, "kind": "train", "loss": None},
    ]
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert set(events.Tags()["scalars"]) == {"train/loss", "train/scale", "eval/val/R@1"}
    found = [(event.step, event.value) for event in events.Scalars("train/loss")]
    assert found[0] == (10, 2.5)
    assert found[1][0] == 20
    assert np.isnan(found[1][1])


def test_a_resumed_run_doubles_nothing(tmp_path):
    with History(tmp_path, start_step=0) as history:
        for step in (2, 4, 6, 8):
            history.write({"loss": float(step)}, step=step, kind="train")
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 10, "kind": "tr')  # killed while writing
    with History(tmp_path, start_step=4) as history:
        for step in (6, 8):
            history.write({"loss": -float(step)}, step=step, kind="train")
    assert [(line["step"], line["loss"]) for line in lines(tmp_path)] == [(2, 2), (4, 4), (6, -6), (8, -8)]
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(e.step, e.value) for e in events.Scalars("train/loss")] == [(2, 2), (4, 4), (6, -6), (8, -8)]


def test_dropping_leaves_a_whole_file_alone(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n')
    before = path.stat().st_mtime_ns
    drop_after(path, step=2)
    assert path.stat().st_mtime_ns == before
    drop_after(path, step=0)
    assert path.read_text() == ""


def test_other_processes_write_nothing(tmp_path):
    with History(tmp_path, start_step=0, write=False) as history:
        history.write({"loss": 1.0}, step=1, kind="train")
    assert list(tmp_path.iterdir()) == []


def test_memory_is_that_of_this_process():
    assert 0.05 < memory_gb() < 100


class Scalar:
    """Stands for a device scalar; notes when its copy is begun and when it is waited for."""

    def __init__(self, value, *, name, events):
        self.value, self.name, self.events = value, name, events

    def copy_to_host_async(self):
        self.events.append(("copy", self.name))

    def __int__(self):
        if threading.current_thread() is threading.main_thread():
            self.events.append(("wait", self.name))
        return int(self.value)

    def __bool__(self):
        return bool(self.value)

    def __float__(self):
        return float(self.value)


class Stream:
    waited_s, batch_size = 0.0, 8

    def facts(self, step):
        return {"epoch": step / 4}


def test_results_are_looked_at_two_steps_later_and_metrics_only_when_logged(tmp_path):
    events = []
    with History(tmp_path, start_step=0) as history:
        monitor = Monitor(
            history=history, terminal=Terminal(steps=9, quiet=True), stream=Stream(), log_every=2, start_step=0
        )
        for step in range(1, 6):
            outputs = {
                "halted": Scalar(-1, name=step, events=events),
                "skipped": Scalar(0, name=step, events=[]),
                "stop": Scalar(step >= 3, name=step, events=[]),
                "metrics": {"loss": Scalar(step, name=f"loss {step}", events=events)},
            }
            monitor.push(outputs, step=step)
            assert [name for kind, name in events if kind == "wait"] == list(range(1, step - 1))
            assert monitor.stopped == (2 if step >= 5 else None)
        assert {name for kind, name in events if kind == "copy"} == {1, 2, 3, 4, 5, "loss 2", "loss 4"}
        monitor.drain()
    # the steps from the stop on changed nothing
    assert [(line["step"], line["loss"]) for line in lines(tmp_path)] == [(2, 2)]
    assert monitor.halted is None


def test_nothing_is_logged_of_a_frozen_state(tmp_path):
    with History(tmp_path, start_step=0) as history:
        monitor = Monitor(
            history=history, terminal=Terminal(steps=9, quiet=True), stream=Stream(), log_every=1, start_step=0
        )
        for step in range(1, 5):
            outputs = {
                "halted": Scalar(2 if step > 2 else -1, name=step, events=[]),
                "skipped": Scalar(0, name=step, events=[]),
                "stop": Scalar(0, name=step, events=[]),
                "metrics": {"loss": Scalar(step, name=step, events=[])},
            }
            monitor.push(outputs, step=step)
        monitor.drain()
    assert monitor.halted == 2
    assert [line["step"] for line in lines(tmp_path)] == [1, 2]
