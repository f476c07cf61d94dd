"""The study: several processes, kill -9 at any moment, samplers and pruners."""

import os
import signal
import subprocess
import sys
import threading

import pytest

pytest.importorskip("optuna")

from twinreel.base.errors import UserError
from twinreel.sweep.space import Parameter, Space
from twinreel.sweep.study import StudyOptions, SweepStudy, shown_state

SPACE = Space(
    parameters=(
        Parameter(name="optimizer.lr", low=1e-4, high=1e-2, log=True),
        Parameter(name="task.head", choices=("linear", "attentive", None)),
    )
)
GRID = Space(parameters=(Parameter(name="a", choices=(1, 2)), Parameter(name="b", choices=("x", "y"))))


def study_in(folder, *, space=SPACE, **options) -> SweepStudy:
    given = {"trials": 3, "sampler": "random", "storage": "journal", "pruner": "none"} | options
    return SweepStudy(folder, name="trials", space=space, options=StudyOptions(**given))


def give_up(claim) -> None:
    """What kill -9 does: the lock goes, nothing is recorded."""
    os.close(claim.lock)


KILLED = """
import sys, time
from pathlib import Path
sys.path[:0] = {path!r}
from twinreel.sweep.space import Parameter, Space
from twinreel.sweep.study import StudyOptions, SweepStudy
space = Space(parameters=(Parameter(name="optimizer.lr", low=1e-4, high=1e-2, log=True),
                          Parameter(name="task.head", choices=("linear", "attentive", None))))
options = StudyOptions(trials=3, sampler="random", storage={storage!r}, pruner="none")
claim = SweepStudy(Path({folder!r}), name="trials", space=space, options=options).claim()
print(claim.run, claim.values["optimizer.lr"], flush=True)
time.sleep(60)
"""


def test_a_trial_of_a_killed_process_is_tried_again_in_its_folder(tmp_path):
    storage = "sqlite"
    code = KILLED.format(path=sys.path, folder=str(tmp_path), storage=storage)
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        run, lr = process.stdout.readline().split()
        study = study_in(tmp_path, storage=storage)
        other = study.claim()
        assert other.run == "0001"  # the first trial is another process's while that lives
        process.send_signal(signal.SIGKILL)
        process.wait()
    again = study.claim()
    assert again.run == run == "0000" and again.values["optimizer.lr"] == float(lr)
    for number, claim in enumerate((other, again, study.claim())):
        study.end(claim, value=float(number), state="COMPLETE")
        os.close(claim.lock)
    assert study.claim() == "done"
    assert sorted(one.user_attrs["run"] for one in study.trials()) == ["0000", "0001", "0003"]


def test_a_trial_whose_run_lives_on_is_left_to_it(tmp_path):
    """The sweep is gone, its run still saves: both must not write into one workdir."""
    study = study_in(tmp_path, trials=1)
    claim = study.claim()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=(claim.lock,)) as run:
        give_up(claim)
        assert study.claim() == "wait"
        run.communicate(b"\n")
    assert study.claim().run == claim.run


def test_a_start_that_is_killed_while_it_recovers_queues_a_trial_once(tmp_path):
    study = study_in(tmp_path, trials=1)
    claim = study.claim()
    give_up(claim)
    [one] = study.trials()
    study._queue_again(one)  # and the kill comes before the trial is recorded as failed
    again = study.claim()
    assert (again.run, again.values) == (claim.run, claim.values)
    study.end(again, value=1.0, state="COMPLETE")
    give_up(again)
    assert study.claim() == "done" and len(study.trials()) == 1


def test_threads_share_a_study_and_get_each_trial_once(tmp_path):
    taken, lock = [], threading.Lock()

    def work():
        study = study_in(tmp_path, space=GRID, sampler="grid")
        while (claim := study.claim()) != "done":
            if claim == "wait":
                continue
            with lock:
                taken.append((claim.values["a"], claim.values["b"]))
            study.end(claim, value=1.0, state="COMPLETE")
            os.close(claim.lock)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert sorted(taken) == [(1, "x"), (1, "y"), (2, "x"), (2, "y")]


def test_values_are_a_function_of_the_seed_whatever_was_interrupted(tmp_path):
    def drawn(folder, *, reopened, seed=0):
        study, found = study_in(folder, seed=seed), []
        for _ in range(3):
            study = study_in(folder, seed=seed) if reopened else study
            claim = study.claim()
            found.append(claim.values)
            study.end(claim, value=0.0, state="COMPLETE")
            os.close(claim.lock)
        return found

    one = drawn(tmp_path / "a", reopened=False)
    assert drawn(tmp_path / "b", reopened=True) == one
    assert drawn(tmp_path / "c", reopened=False, seed=1) != one and len({str(values) for values in one}) == 3


def test_a_median_pruner_stops_a_trial_below_the_others(tmp_path):
    study = study_in(tmp_path, trials=6, pruner="median")
    for value in (0.5, 0.6, 0.7, 0.8):
        claim = study.claim()
        assert not study.report(claim, value=value, step=10)
        study.end(claim, value=value, state="COMPLETE")
        os.close(claim.lock)
    claim = study.claim()
    assert study.report(claim, value=0.55, step=10)
    study.end(claim, state="PRUNED")
    os.close(claim.lock)
    claim = study.claim()
    assert not study.report(claim, value=0.75, step=10)
    give_up(claim)
    assert [shown_state(one) for one in study.trials()] == ["complete"] * 4 + ["pruned", "running"]


def test_hyperband_gives_most_trials_a_part_of_the_steps(tmp_path):
    study = study_in(tmp_path, trials=12, pruner="hyperband", first_step=10, steps=90)
    ended = []
    while (claim := study.claim()) != "done":
        step = 10
        while not study.report(claim, value=-float(len(ended)), step=step) and step < 90:
            step += 10
        ended.append(step)
        study.end(claim, value=0.0 if step == 90 else None, state="COMPLETE" if step == 90 else "PRUNED")
        os.close(claim.lock)
    assert min(ended) < 90 == max(ended) and len(ended) == 12


def test_the_parameter_that_matters_is_the_important_one(tmp_path):
    space = Space(parameters=(Parameter(name="a", low=0.0, high=1.0), Parameter(name="b", low=0.0, high=1.0)))
    study = study_in(tmp_path, space=space, trials=12)
    assert study.importance() == {}
    while (claim := study.claim()) != "done":
        study.end(claim, value=claim.values["a"] ** 2 + 0.01 * claim.values["b"], state="COMPLETE")
        os.close(claim.lock)
    found = study.importance()
    assert found["a"] > 0.8 and sum(found.values()) == pytest.approx(1.0)


def test_failed_trials_are_tried_again_when_that_is_asked_for(tmp_path):
    study = study_in(tmp_path, trials=1)
    claim = study.claim()
    study.end(claim, state="FAIL")
    os.close(claim.lock)
    assert study.claim() == "done"
    assert study.retry_failed() == 1 and study.retry_failed() == 0
    again = study.claim()
    assert (again.run, again.values) == (claim.run, claim.values)
    give_up(again)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sampler": "tpa"}, "--sampler 'tpa'; did you mean 'tpe'"),
        ({"pruner": "mean"}, "--pruner 'mean'"),
        ({"storage": "mysql"}, "--storage 'mysql'"),
        ({"trials": 0}, "--trials must be at least 1"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(UserError, match=message):
        StudyOptions(**options)
