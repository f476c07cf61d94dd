"""Drills with eight processes, as eight hosts: one slow, one killed, one with a full disk, one with other data.

Each prints what docs/scale.md has in its table (`pytest -m slow -s tests/engine/loop/test_eight_processes.py`).
"""

import json
import time

import numpy as np
import pytest
from engine_toy import ToyObjective, batches, config
from processes import finish, steps_logged, train_lines, wait_for

from twinreel.engine.keeping.checkpoint import steps_in
from twinreel.engine.loop.train import train

pytestmark = pytest.mark.slow
COUNT, STEPS = 8, 24
LIMIT_S = 600  # eight processes compile at the same time, on however few cores


@pytest.fixture
def eight(start_all):
    """Start a run of eight processes, with a device each."""
    return lambda workdir, **flags: start_all(workdir, processes=COUNT, devices=1, **flags)


def how_long_until_all_end(processes, *, since):
    """Wait for processes; returns ({process: (exit status, stderr)}, seconds until the last one ended)."""
    ended = {}
    while len(ended) < len(processes):
        for number, process in processes.items():
            if number not in ended and process.poll() is not None:
                ended[number] = time.monotonic() - since
        assert time.monotonic() - since < LIMIT_S
        time.sleep(0.05)
    told = {number: (process.returncode, process.communicate()[1]) for number, process in processes.items()}
    return told, max(ended.values())


def report(drill, **figures):
    print("\nDRILL", json.dumps({"drill": drill} | figures))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """{step: loss} of an undisturbed run of one process."""
    workdir = tmp_path_factory.mktemp("whole")
    run = config(train__log_every=1, train__steps=STEPS)
    train(objective=ToyObjective(), batches=batches, workdir=workdir, config=run, meta={})
    return train_lines(workdir)[0]


def test_one_is_slow_then_one_is_killed_and_four_go_on(eight, start_all, tmp_path, whole):
    run, log = tmp_path / "run", tmp_path / "run" / "metrics.jsonl"
    began = time.monotonic()
    processes = eight("run", steps=STEPS, checkpoint_every=4, slow=2, seconds_per_batch=1.0, stall_timeout=60.0)
    wait_for(lambda: steps_logged(run) >= 15, process=processes[0], limit_s=LIMIT_S)
    started = time.monotonic() - began
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    waits = [line for line in lines if line["kind"] == "train" and "data_wait_process" in line]
    assert [line["data_wait_process"] for line in waits[-3:]] == [2, 2, 2]  # once what was ready is used up
    killed, since = processes.pop(5), time.monotonic()
    killed.kill()
    killed.communicate()
    told, seconds = how_long_until_all_end(dict(zip([0, 1, 2, 3, 4, 6, 7], processes, strict=True)), since=since)
    assert all(status != 0 for status, _ in told.values())
    named = sum("heartbeats):\n5\n" in text for _, text in told.values())
    done, kept = steps_logged(run), steps_in(run / "checkpoints")[-1]
    assert 0 <= done - kept <= 5
    report("slow and killed", start_s=started, slow=waits[-1], stop_s=seconds, done=done, kept=kept, named=named,
           statuses={n: status for n, (status, _) in told.items()}, tail=told[0][1][-600:])  # fmt: skip

    since = time.monotonic()
    fewer = start_all("run", processes=4, devices=1, steps=STEPS, checkpoint_every=4)
    assert [finish(process, limit_s=LIMIT_S)["step"] for process in fewer] == [STEPS] * 4
    losses, _ = train_lines(run)
    assert list(losses) == list(whole)
    np.testing.assert_allclose(list(losses.values()), list(whole.values()), rtol=1e-5)
    report("four go on", seconds=time.monotonic() - since)


def test_a_full_disk_of_one_stops_all(eight, tmp_path):
    run = tmp_path / "run"
    flags = {"width": 40_000, "checkpoint_every": 4, "steps": 40, "fsdp": 8}
    processes = eight("run", full_at=12, full=3, seconds_per_batch=0.3, stall_timeout=60.0, **flags)
    wait_for(lambda: steps_logged(run) >= 8, process=processes[0], limit_s=LIMIT_S)
    told, seconds = how_long_until_all_end(dict(enumerate(processes)), since=time.monotonic())
    done, kept = steps_logged(run), steps_in(run / "checkpoints")[-1]
    report("full disk", stop_s=seconds, done=done, kept=kept, statuses={n: status for n, (status, _) in told.items()},
           tails={n: text[-500:] for n, (_, text) in told.items() if n in (0, 3)})  # fmt: skip
    assert {status for status, _ in told.values()} == {2}
    assert all("process 3 on" in text for number, (_, text) in told.items() if number != 3)
    assert all("File too large" in text for _, text in told.values())
    assert kept >= 4
    assert seconds < 100  # inside Orbax the others would wait for 300 s


def test_other_data_of_one_is_named_before_the_first_step(eight, tmp_path):
    processes = eight("run", other_data=6)
    told, seconds = how_long_until_all_end(dict(enumerate(processes)), since=time.monotonic())
    report("other data", stop_s=seconds, told=told[0][1][-400:])
    assert all(status == 2 and "process 6 on" in text for status, text in told.values())
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
