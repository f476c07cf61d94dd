"""The goodput: by hand with a clock that a test moves, and of a run that was killed."""

import json

import pytest
from engine_toy import ToyObjective, batches, config

from twinreel.engine.loop.evaluation import Evaluation
from twinreel.engine.loop.goodput import KINDS, Goodput, line_of
from twinreel.engine.loop.train import train


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now

    def go(self, seconds):
        self.now += seconds


def seconds_in(path):
    return json.loads(path.read_text().splitlines()[-1])["seconds"]


def first_start(path, clock):
    """60 s of start-up, 10 of them waiting; 300 s of steps, 20 of them waiting; a save of 5, an evaluation of 35 s."""
    waited = 0.0
    goodput = Goodput(path, clock=clock)
    goodput.started()
    clock.go(60)
    waited = 10.0
    goodput.begin(0, waited=lambda: waited)
    clock.go(300)
    waited += 20.0
    with goodput.spending("checkpoint"):
        clock.go(5)
    goodput.note("save", step=100)
    with goodput.spending("evaluation"):
        clock.go(35)
    return goodput


def test_shares_of_one_start(tmp_path):
    shares = first_start(tmp_path / "goodput.jsonl", Clock()).shares()
    assert tuple(shares) == KINDS
    assert shares == pytest.approx(
        {
            "steps": 280 / 400,
            "data_wait": 30 / 400,
            "compile": 50 / 400,
            "checkpoint": 5 / 400,
            "evaluation": 35 / 400,
            "restart": 0.0,
        }
    )
    assert sum(shares.values()) == pytest.approx(1.0)


def test_what_a_kill_costs_is_restart(tmp_path):
    """Killed 130 s after the save (35 of them evaluation), away for 1000 s, 40 s until the first step."""
    path, clock = tmp_path / "goodput.jsonl", Clock()
    goodput = first_start(path, clock)
    clock.go(95)
    goodput.note("log", step=130)
    clock.go(1000)
    with path.open("a") as file:
        file.write('{"event": "save", "time": 17')  # the kill came in the middle of a line
    again = Goodput(path, clock=clock)
    again.started()
    clock.go(40)
    again.begin(100)
    clock.go(100)
    again.note("end", step=200, reason="done")
    assert seconds_in(path) == pytest.approx(
        {"steps": 380, "data_wait": 30, "compile": 50, "checkpoint": 5, "evaluation": 0, "restart": 130 + 1000 + 40}
    )
    assert sum(again.shares().values()) == pytest.approx(1.0)
    clock.go(9999)  # nobody waited for it in that time
    more = Goodput(path, clock=clock)
    clock.go(7)
    more.begin(200)
    more.note("log", step=200)
    assert seconds_in(path)["restart"] == pytest.approx(1170 + 7)


def test_two_kills_in_a_row(tmp_path):
    """A start that is killed before it saves counts wholly as restart, as does one before its first step."""
    path, clock = tmp_path / "goodput.jsonl", Clock()
    first_start(path, clock)
    clock.go(10)
    second = Goodput(path, clock=clock)
    clock.go(20)
    second.begin(100)
    clock.go(200)  # steps that will be lost
    Goodput(path, clock=clock)  # killed while compiling
    clock.go(30)
    third = Goodput(path, clock=clock)
    clock.go(40)
    third.begin(100)
    third.note("log", step=100)
    assert seconds_in(path)["restart"] == pytest.approx(35 + 10 + 20 + 200 + 30 + 40)
    assert seconds_in(path)["steps"] == pytest.approx(280)


def test_a_kill_before_the_first_save(tmp_path):
    path, clock = tmp_path / "goodput.jsonl", Clock()
    first = Goodput(path, clock=clock)
    first.started()
    clock.go(50)
    first.begin(0)
    clock.go(50)
    second = Goodput(path, clock=clock)
    clock.go(25)
    second.begin(0)
    clock.go(75)
    wanted = dict.fromkeys(KINDS, 0.0) | {"compile": 50 / 200, "restart": 75 / 200, "steps": 75 / 200}
    assert second.shares() == pytest.approx(wanted)


def test_other_processes_remember_nothing_and_clocks_may_step_back(tmp_path):
    clock = Clock()
    goodput = Goodput(None, clock=clock)
    assert goodput.shares() == {}
    goodput.begin(0)
    clock.go(-5)
    goodput.note("log", step=1)
    clock.go(10)
    assert goodput.shares() == {kind: float(kind == "steps") for kind in KINDS}
    assert not list(tmp_path.iterdir())


def test_one_line():
    assert line_of({"steps": 0.5, "data_wait": 0.5}) == "goodput: steps 50.0 %, data wait 50.0 %"


def test_a_run_says_its_goodput(tmp_path, capsys):
    def run(steps):
        train(
            objective=ToyObjective(),
            batches=batches,
            workdir=tmp_path,
            config=config(train__steps=steps, train__log_every=1, train__eval_every=6),
            meta={},
            evaluations=[Evaluation(name="val", run=lambda model, step: {"x": 1.0})],
        )

    run(12)
    assert "goodput: steps " in capsys.readouterr().err
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    shares = [line for line in lines if line["kind"] == "goodput"]
    assert [line["step"] for line in shares] == [10, 12]
    for line in shares:
        assert set(line) == {"step", "kind", *KINDS}
        assert sum(line[kind] for kind in KINDS) == pytest.approx(1.0, abs=1e-3)
        assert line["steps"] > 0 and line["checkpoint"] > 0 and line["evaluation"] > 0 and line["compile"] > 0
        assert line["restart"] == 0
    run(14)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["kind"] == "goodput" and lines[-1]["restart"] > 0
