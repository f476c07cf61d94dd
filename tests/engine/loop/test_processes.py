"""The loop in processes of its own: killed, stopped, out of disk, and several of them together."""

import os
import signal
import time

import numpy as np
import pytest
from engine_toy import ToyObjective, batches, config
from processes import finish, steps_logged, train_lines, wait_for

from twinreel.engine.keeping.checkpoint import read_meta, read_params, resolve, steps_in
from twinreel.engine.loop.train import train


@pytest.fixture
def start(start_all):
    """Start a run of one process."""
    return lambda workdir, **flags: start_all(workdir, **flags)[0]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """{step: loss} of an undisturbed run in this process, on eight devices."""
    workdir = tmp_path_factory.mktemp("whole")
    train(objective=ToyObjective(), batches=batches, workdir=workdir, config=config(train__log_every=1), meta={})
    return train_lines(workdir)[0]


def test_killed_stopped_and_resumed_is_the_same_run(start, tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    reference = start("whole", steps=20)

    process = start("broken", steps=20, seconds_per_batch=0.2)
    wait_for(lambda: steps_in(broken / "checkpoints"), process=process)
    time.sleep(0.3)
    process.kill()
    process.communicate()
    killed_at = steps_logged(broken)
    assert 3 <= killed_at < 18

    process = start("broken", steps=20, seconds_per_batch=0.2)
    wait_for(lambda: steps_logged(broken) > killed_at, process=process)
    process.send_signal(signal.SIGTERM)
    stopped = finish(process)
    assert stopped["reason"] == "terminated"
    assert resolve(broken).name == str(stopped["step"])
    assert read_meta(broken)["step"] == stopped["step"] < 20

    assert finish(start("broken", steps=20))["reason"] == "done"
    best = finish(reference)["best"]
    assert best["step"] == 5
    a, b = read_params(whole), read_params(broken)
    for path, value in a.items():
        np.testing.assert_array_equal(b[path], value)
    (losses, lines), (wanted, wanted_lines) = train_lines(broken), train_lines(whole)
    assert losses == wanted
    assert [(x["step"], x["kind"]) for x in lines] == [(x["step"], x["kind"]) for x in wanted_lines]


def test_the_first_interrupt_saves(start, tmp_path):
    process = start("run", seconds_per_batch=0.2, checkpoint_every=100)
    wait_for(lambda: steps_logged(tmp_path / "run") >= 2, process=process)
    process.send_signal(signal.SIGINT)
    stopped = finish(process)
    assert stopped["reason"] == "terminated"
    assert steps_in(tmp_path / "run" / "checkpoints") == [stopped["step"]]


def test_a_full_disk_leaves_the_old_checkpoint_good(start, tmp_path):
    flags = {"width": 20_000, "checkpoint_every": 4, "steps": 10}
    message = finish(start("run", full_at=8, seconds_per_batch=0.1, **flags), status=2)
    newest = steps_in(tmp_path / "run" / "checkpoints")[-1]
    assert newest in (4, 5)  # 5 was the best; it may have been under way when the disk filled up
    assert "File too large" in message
    assert f"The newest whole checkpoint is {tmp_path / 'run' / 'checkpoints' / str(newest)}" in message
    assert "Traceback" not in message
    assert read_meta(tmp_path / "run")["step"] == newest
    assert finish(start("run", **flags))["step"] == 10


def test_two_processes_agree_with_one(start, start_all, tmp_path):
    one = start("one", devices=4, fsdp=4, poison_at=10)

    def both(**flags):
        return start_all("two", processes=2, devices=2, fsdp=4, poison_at=10, **flags)

    processes = both(seconds_per_batch=0.2)
    wait_for(lambda: steps_logged(tmp_path / "two") >= 4, process=processes[1])
    processes[1].send_signal(signal.SIGTERM)  # one is told, both stop at the same step and save together
    stopped = [finish(process) for process in processes]
    assert {result["reason"] for result in stopped} == {"terminated"}
    assert stopped[0]["step"] == stopped[1]["step"]
    newest = resolve(tmp_path / "two")
    for file in (newest / "state").rglob("d/*"):
        os.truncate(file, file.stat().st_size // 2)
    for process in both():  # they pass over the damaged checkpoint together
        assert finish(process)["step"] == 12
    assert (newest.parent / f"unreadable-{newest.name}").is_dir()
    finish(one)
    (wanted, lines), (got, lines_here) = train_lines(tmp_path / "one"), train_lines(tmp_path / "two")
    assert list(got) == list(wanted) == list(range(1, 13))
    assert (wanted.pop(11), got.pop(11)) == (None, None)
    np.testing.assert_allclose(list(got.values()), list(wanted.values()), rtol=1e-5)
    for found in (lines, lines_here):  # with the clips of all processes
        [skipped] = [line for line in found if line["kind"] == "skipped"]
        assert (skipped["step"], skipped["clip_index"]) == (11, list(range(80, 88)))
    a, b = read_params(tmp_path / "one"), read_params(tmp_path / "two")
    for path, value in a.items():
        np.testing.assert_allclose(b[path], value, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("processes", "placing"),
    [
        pytest.param(2, {"contrastive": "fsdp_tensor", "fsdp": 2, "tensor": 2}, marks=pytest.mark.slow),
        pytest.param(4, {"contrastive": "fsdp", "fsdp": 4}, marks=pytest.mark.slow),
    ],
)
def test_towers_split_over_processes_train_as_on_one_device(start_all, tmp_path, processes, placing):
    """AdamW makes whole steps of gradients that are rounding alone (the keys' bias has none): hence 1e-4 later on."""
    runs = start_all("one", steps=3, devices=1, contrastive="replicated")
    runs += start_all("many", steps=3, processes=processes, devices=4 // processes, **placing)
    for process in runs:
        assert finish(process)["step"] == 3
    (wanted, lines), (got, lines_here) = train_lines(tmp_path / "one"), train_lines(tmp_path / "many")
    np.testing.assert_allclose(got[1], wanted[1], rtol=1e-5)
    np.testing.assert_allclose(list(got.values()), list(wanted.values()), rtol=1e-4)
    norms = [[line["grad_norm"] for line in found if line["kind"] == "train"] for found in (lines, lines_here)]
    np.testing.assert_allclose(norms[1][0], norms[0][0], rtol=1e-5)
    np.testing.assert_allclose(norms[1], norms[0], rtol=1e-3)


@pytest.mark.parametrize(
    ("processes", "placing"),
    [
        pytest.param(2, {"contrastive": "fsdp_tensor", "fsdp": 2, "tensor": 2}, marks=pytest.mark.slow),
        pytest.param(4, {"contrastive": "fsdp", "fsdp": 4}, marks=pytest.mark.slow),
    ],
)
def test_gradients_over_processes_are_those_of_one_device(start_all, tmp_path, processes, placing):
    """One plain step at so high a rate that what is left are the gradients, times that rate."""
    runs = start_all("one", steps=1, sgd_lr=1e8, devices=1, contrastive="replicated")
    runs += start_all("many", steps=1, sgd_lr=1e8, processes=processes, devices=4 // processes, **placing)
    for process in runs:
        assert finish(process)["step"] == 1
    (wanted, _), (got, _) = train_lines(tmp_path / "one"), train_lines(tmp_path / "many")
    np.testing.assert_allclose(got[1], wanted[1], rtol=1e-5)
    one, many = read_params(tmp_path / "one"), read_params(tmp_path / "many")
    assert one.keys() == many.keys()
    for path, gradient in one.items():
        largest = np.abs(gradient).max()
        assert largest > 1e3, path  # 1e-5 of the rate: the value before the step does not count
        np.testing.assert_allclose(many[path], gradient, rtol=0, atol=1e-5 * largest, err_msg=path)


def same_run(a, b):
    """Assert that two runs wrote the same curve and the same parameters, bit for bit."""
    (losses, lines), (wanted, wanted_lines) = train_lines(a), train_lines(b)
    assert losses == wanted
    assert [(x["step"], x["kind"]) for x in lines] == [(x["step"], x["kind"]) for x in wanted_lines]
    params = read_params(a)
    for path, value in read_params(b).items():
        np.testing.assert_array_equal(params[path], value)


def test_a_stop_during_an_evaluation(start, tmp_path):
    reference = start("whole")
    process = start("run", evaluation_s=600, checkpoint_every=100)
    wait_for((tmp_path / "run.evaluating").exists, process=process)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGTERM)  # one more changes nothing
    assert finish(process) == {"step": 5, "reason": "terminated", "best": None}
    assert steps_in(tmp_path / "run" / "checkpoints") == [5]
    (tmp_path / "run.evaluating").unlink()
    process = start("run", evaluation_s=600, checkpoint_every=100)  # takes the evaluation up, and is stopped again
    wait_for((tmp_path / "run.evaluating").exists, process=process)
    process.send_signal(signal.SIGTERM)
    assert finish(process)["step"] == 5
    done = finish(start("run"))
    assert (done["reason"], done["best"]["step"]) == ("done", 5)
    finish(reference)
    same_run(tmp_path / "run", tmp_path / "whole")
    assert read_meta(tmp_path / "run")["scores"] == read_meta(tmp_path / "whole")["scores"]


@pytest.mark.slow
def test_two_processes_that_are_killed_during_an_evaluation_lose_no_step(start_all, tmp_path):
    """No signal may cut it short there, as one process would leave the other in the middle."""
    flags = {"processes": 2, "devices": 1, "checkpoint_every": 100}
    reference = start_all("whole", **flags)
    processes = start_all("run", evaluation_s=600, **flags)
    wait_for((tmp_path / "run.evaluating").exists, process=processes[0])
    wait_for(lambda: steps_in(tmp_path / "run" / "checkpoints") == [5], process=processes[0])
    for process in processes:
        process.kill()
        process.communicate()
    done = [finish(process) for process in start_all("run", **flags)]
    assert [(x["step"], x["best"]["step"]) for x in done] == [(12, 5), (12, 5)]
    for process in reference:
        finish(process)
    same_run(tmp_path / "run", tmp_path / "whole")
    assert steps_in(tmp_path / "run" / "checkpoints") == steps_in(tmp_path / "whole" / "checkpoints") == [5, 10, 12]
    metas = [read_meta(tmp_path / name / "checkpoints" / "5") for name in ("run", "whole")]
    assert metas[0]["scores"] == metas[1]["scores"] == {"metric": "val/score", "values": {"5": 0.0}}
    assert metas[0]["evaluations"] == metas[1]["evaluations"]


def test_a_stop_before_the_first_step_leaves_nothing(start, tmp_path):
    process = start("run", starve_at=0)
    wait_for((tmp_path / "run.starving").exists, process=process)
    process.send_signal(signal.SIGTERM)
    assert finish(process) == {"step": 0, "reason": "terminated", "best": None}
    assert not (tmp_path / "run" / "checkpoints").exists()


def same_curve(workdir, wanted):
    """Assert that the losses are those of a run on another mesh, to rounding, each step once."""
    got, lines = train_lines(workdir)
    assert [line["step"] for line in lines if line["kind"] == "train"] == list(wanted) == list(range(1, 13))
    np.testing.assert_allclose(list(got.values()), list(wanted.values()), rtol=1e-5)


@pytest.mark.parametrize("processes", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_a_stop_of_one_that_waits_for_data(start_all, tmp_path, processes, whole):
    """Only the last process starves and only it is told; the others wait for it in a step."""
    flags = {"processes": processes, "devices": 4 // processes, "checkpoint_every": 100}
    started = start_all("run", starve_at=3, starve=processes - 1, **flags)
    wait_for((tmp_path / "run.starving").exists, process=started[-1])
    wait_for(lambda: steps_logged(tmp_path / "run") >= 3, process=started[-1])
    started[-1].send_signal(signal.SIGTERM)
    assert [finish(process) for process in started] == [{"step": 3, "reason": "terminated", "best": None}] * processes
    assert steps_in(tmp_path / "run" / "checkpoints") == [3]
    for process in start_all("run", **flags):
        assert finish(process)["reason"] == "done"
    same_curve(tmp_path / "run", whole)


@pytest.mark.parametrize("processes", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_from_several_processes_to_one_and_back(start_all, tmp_path, processes, whole):
    many = {"processes": processes, "devices": 4 // processes, "fsdp": 2}
    for flags in (many | {"steps": 5}, {"devices": 1, "steps": 9}, many | {"steps": 12}):
        for process in start_all("run", checkpoint_every=100, **flags):
            assert finish(process)["step"] == flags["steps"]
    same_curve(tmp_path / "run", whole)
