"""kill -9 at random moments of runs whose workdir is an S3 bucket; half of the next starts are on another machine."""

import json
import random
import shutil
import signal
import time

import fsspec
import numpy as np
import pytest
from engine_toy import ToyObjective, batches, config
from processes import LIMIT_S, finish, launch, train_lines, wait_for

from twinreel.engine.keeping.checkpoint import read_params
from twinreel.engine.loop.train import train
from twinreel.engine.remote.place import workdir_of

STEPS = 40


def lines_of(url):
    text = fsspec.filesystem("s3").cat(f"{url}/metrics.jsonl").decode()
    lines = [json.loads(line) for line in text.splitlines()]
    return [line for line in lines if line["kind"] != "goodput"]


def progress(url):
    """Return (starts, newest committed step) of a run."""
    system = fsspec.filesystem("s3")
    system.invalidate_cache()
    if not system.exists(f"{url}/run.json"):
        return 0, 0
    state = json.loads(system.cat(f"{url}/run.json"))
    return state["epoch"], max(map(int, state["checkpoints"]), default=0)


def check_kills(bucket, folder, *, processes, kills, seed):
    """Kill so often, a live run at least once, then let the run end; it must be the undisturbed one, bit for bit."""
    draw, flags = random.Random(seed), {"processes": processes, "devices": 4 // processes, "fsdp": 2, "steps": STEPS}
    flags |= {"seconds_per_batch": 0.1, "checkpoint_every": 4, "local_every": 2}
    for process in launch(f"{bucket}/reference", **flags):
        finish(process)
    url, done, moments = f"{bucket}/run", 0, []
    while len(moments) < kills or all(ended for _, ended in moments):
        before = progress(url)
        started = launch(url, **flags)
        try:
            # any moment after the lease is taken, or (every other time) after one more commit
            part = draw.randrange(2)
            end = time.monotonic() + LIMIT_S
            while progress(url)[part] == before[part] and time.monotonic() < end and started[0].poll() is None:
                time.sleep(0.05)
            time.sleep(draw.uniform(0.0, 4.0 if part else 12.0))
            ended = started[0].poll() is not None
        finally:
            for process in started:
                process.send_signal(signal.SIGKILL)
                process.communicate()
        committed = progress(url)[1]
        assert committed >= done, f"checkpoint {done} is lost, seed {seed}: {moments}"
        done = committed
        moments.append((committed, ended))
        if ended:  # it came to its end: kill another
            fsspec.filesystem("s3").rm(url, recursive=True)
            shutil.rmtree(folder / "stages", ignore_errors=True)
            done = 0
        elif draw.random() < 0.5:
            shutil.rmtree(folder / "stages", ignore_errors=True)
    for process in launch(url, **flags):
        assert finish(process)["step"] == STEPS
    print(f"seed {seed}, {processes} processes: (newest committed step, ended) at each kill: {moments}")
    wanted, found = lines_of(f"{bucket}/reference"), lines_of(url)
    losses = [[(x["step"], x["loss"]) for x in lines if x["kind"] == "train"] for lines in (wanted, found)]
    assert losses[0] == losses[1]
    params = read_params(url)
    for path, value in read_params(f"{bucket}/reference").items():
        np.testing.assert_array_equal(params[path], value)


@pytest.mark.slow
@pytest.mark.parametrize(("processes", "kills"), [(1, 20), (2, 6)])
def test_kills(bucket, tmp_path, processes, kills):
    check_kills(bucket, tmp_path, processes=processes, kills=kills, seed=random.randrange(10**6))


def test_two_processes_leave_parts_that_one_reads(bucket, tmp_path):
    """Each process sends its part; the parts are a checkpoint for any number of processes, on any machine."""
    url, flags = f"{bucket}/run", {"fsdp": 2, "seconds_per_batch": 0.1}
    for process in launch(url, processes=2, devices=1, steps=5, **flags):
        assert finish(process)["step"] == 5
    parts = fsspec.filesystem("s3").glob(f"{url}/checkpoints/5-1/state/ocdbt*")
    assert {name.rsplit("/", 1)[-1] for name in parts} == {"ocdbt.process_0", "ocdbt.process_1"}
    shutil.rmtree(tmp_path / "stages")
    [alone] = launch(url, devices=2, steps=12, **flags)
    assert finish(alone)["step"] == 12
    changes = {"train__log_every": 1}
    train(objective=ToyObjective(), batches=batches, workdir=tmp_path / "whole", config=config(**changes), meta={})
    wanted, _ = train_lines(tmp_path / "whole")
    found = {x["step"]: x["loss"] for x in lines_of(url) if x["kind"] == "train"}
    np.testing.assert_allclose(list(found.values()), list(wanted.values()), rtol=1e-5)


@pytest.mark.slow
def test_two_processes_resume_from_their_own_disks(bucket):
    url, flags = f"{bucket}/run", {"processes": 2, "devices": 2, "fsdp": 2, "local_every": 2, "checkpoint_every": 50}
    started = launch(url, steps=50, seconds_per_batch=0.5, **flags)
    for number, process in enumerate(started):
        stage = workdir_of(url, process=number)
        wait_for(lambda stage=stage: (stage / "local" / "8").is_dir(), process=process)
    for process in started:
        process.kill()
        process.communicate()
    assert progress(url) == (1, 5)  # the best one was sent; it is older than those on the disks
    shutil.rmtree(workdir_of(url, process=1) / "local" / "8")  # as if it had been killed before it wrote that
    newest = min(max(int(p.name) for p in (workdir_of(url, process=n) / "local").iterdir()) for n in (0, 1))
    first, second = launch(url, steps=12, **flags)
    out, err = first.communicate(timeout=LIMIT_S)
    finish(second)
    assert first.returncode == 0, out
    assert f"resuming from the checkpoint of step {newest}" in err and newest >= 6
