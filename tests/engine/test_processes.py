"""The loop in processes of its own: killed, stopped, out of disk, and several of them together."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from twinreel.engine.checkpoint import read_meta, read_params, resolve, steps_in

WORKER = Path(__file__).parent / "worker_train.py"
LIMIT_S = 120


@pytest.fixture
def start(tmp_path, compiled_programs):
    """Start workers; those that a failed test leaves running are killed."""
    started = []

    def begin(workdir, **flags):
        env = os.environ | {
            "JAX_COMPILATION_CACHE_DIR": compiled_programs,
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        }
        command = [sys.executable, "-W", "error", str(WORKER), f"--workdir={tmp_path / workdir}"]
        command += [f"--{key}={value}" for key, value in flags.items()]
        process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def finish(process, *, status=0):
    out, err = process.communicate(timeout=LIMIT_S)
    assert process.returncode == status, err
    return json.loads(out.splitlines()[-1]) if status == 0 else err  # Gloo greets on the lines before


def wait_for(condition, *, process):
    end = time.monotonic() + LIMIT_S
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def train_lines(workdir):
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line["loss"] for line in lines if line["kind"] == "train"}, lines


def steps_logged(workdir):
    return (workdir / "metrics.jsonl").read_text().count("loss") if (workdir / "metrics.jsonl").is_file() else 0


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


def free_port():
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return listener.getsockname()[1]


def test_two_processes_agree_with_one(start, tmp_path):
    one = start("one", devices=4, fsdp=4)

    def both(**flags):
        port = free_port()
        return [
            start("two", devices=2, fsdp=4, coordinator=f"localhost:{port}", num_processes=2, process_id=i, **flags)
            for i in range(2)
        ]

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
    (wanted, _), (got, _) = train_lines(tmp_path / "one"), train_lines(tmp_path / "two")
    assert list(got) == list(wanted) == list(range(1, 13))
    np.testing.assert_allclose(list(got.values()), list(wanted.values()), rtol=1e-5)
    a, b = read_params(tmp_path / "one"), read_params(tmp_path / "two")
    for path, value in a.items():
        np.testing.assert_allclose(b[path], value, rtol=1e-4, atol=1e-6)


def contrastive(start, workdir, *, processes, devices=4, **flags):
    """Start tiny towers for three steps in so many processes, which share the devices."""
    cluster = {"coordinator": f"localhost:{free_port()}", "num_processes": processes} if processes > 1 else {}
    return [
        start(workdir, steps=3, devices=devices // processes, **cluster, **flags,
              **({"process_id": i} if cluster else {}))
        for i in range(processes)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("processes", "placing"),
    [
        (2, {"contrastive": "fsdp_tensor", "fsdp": 2, "tensor": 2}),
        pytest.param(4, {"contrastive": "fsdp", "fsdp": 4}, marks=pytest.mark.slow),
    ],
)
def test_towers_split_over_processes_train_as_on_one_device(start, tmp_path, processes, placing):
    runs = contrastive(start, "one", processes=1, devices=1, contrastive="replicated")
    runs += contrastive(start, "many", processes=processes, **placing)
    for process in runs:
        assert finish(process)["step"] == 3
    (wanted, lines), (got, lines_here) = train_lines(tmp_path / "one"), train_lines(tmp_path / "many")
    np.testing.assert_allclose(list(got.values()), list(wanted.values()), rtol=1e-5)
    norms = [[line["grad_norm"] for line in found if line["kind"] == "train"] for found in (lines, lines_here)]
    np.testing.assert_allclose(norms[1], norms[0], rtol=1e-4)
