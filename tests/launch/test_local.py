"""A group of processes: small programs first, then a real run of two processes."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from twinreel.launch.watch import ProcessGroup, ProcessSpec

LIMIT_S = 300


def group(tmp_path, *programs, grace_s=5.0):
    specs = [
        ProcessSpec(
            number=i, command=(sys.executable, "-c", code), env={"N": str(i)}, log=tmp_path / "logs" / f"{i}.log"
        )
        for i, code in enumerate(programs)
    ]
    return ProcessGroup(specs, grace_s=grace_s)


def test_lines_have_numbers_and_logs_do_not(tmp_path, capfd):
    code = "import os, sys; print('out', os.environ['N']); print('err', file=sys.stderr)"
    assert group(tmp_path, code, code).run() == 0
    out = capfd.readouterr().out.splitlines()
    assert sorted(out) == ["[0] err", "[0] out 0", "[1] err", "[1] out 1"]
    assert sorted((tmp_path / "logs" / "1.log").read_text().splitlines()) == ["err", "out 1"]


def test_one_that_fails_ends_the_others_and_is_named(tmp_path, capfd):
    waits = "import time; print('waiting', flush=True); time.sleep(1000)"
    fails = "import sys; [print('line', i) for i in range(50)]; sys.exit(7)"
    assert group(tmp_path, waits, fails, waits).run() == 7
    err = capfd.readouterr().err
    assert "launch: process 1 ended with status 7; the 2 others were ended. Its last lines" in err
    assert "line 49" in err and "line 30" in err and "line 29" not in err and "waiting" not in err


def test_one_that_is_killed(tmp_path, capfd):
    kills = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    assert group(tmp_path, kills).run() == 128 + signal.SIGKILL
    assert "process 0 was ended by SIGKILL." in capfd.readouterr().err


def test_one_that_does_not_heed_sigterm_is_killed_after_the_grace(tmp_path, capfd):
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(1000)"
    fails = "import sys, time; time.sleep(2); sys.exit(1)"
    assert group(tmp_path, deaf, fails, grace_s=0.5).run() == 1
    assert "process 1 ended with status 1" in capfd.readouterr().err


@pytest.mark.parametrize("ignored", [False, True])
def test_a_terminal_that_is_closed_ends_the_processes_in_order(tmp_path, ignored):
    saves = "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: (print('saved'), sys.exit()))\n"
    saves += "print('ready', flush=True); time.sleep(3); print('to its end')"
    made, logs = group(tmp_path, saves, saves), [tmp_path / "logs" / f"{number}.log" for number in range(2)]

    def hang_up():
        while not all(log.is_file() and "ready" in log.read_text() for log in logs):
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGHUP)

    before = signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else lambda *_: None)
    try:
        threading.Thread(target=hang_up, daemon=True).start()
        assert made.run() == 0
    finally:
        signal.signal(signal.SIGHUP, before)
    assert made.stopped is not ignored
    assert [log.read_text().split("\n")[1] for log in logs] == ["to its end" if ignored else "saved"] * 2


def launch(*flags, workdir, overrides, **options):
    command = [sys.executable, "-m", "twinreel", "launch", "--backend", "local", "--num_processes", "2"]
    command += ["--platform", "cpu", "--devices_per_process", "1", *flags, "--", "pretrain", "--config", "demo"]
    command += ["--workdir", str(workdir), *(f"--config.{override}" for override in overrides)]
    env = {key: value for key, value in os.environ.items() if key not in ("XLA_FLAGS", "JAX_PLATFORMS")}
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def steps_of(workdir):
    path = workdir / "metrics.jsonl"
    text = path.read_text().splitlines() if path.is_file() else []
    return [line["step"] for line in map(json.loads, text) if line["kind"] == "train"]


def until(condition, *, process):
    end = time.monotonic() + LIMIT_S
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.fixture
def finish():
    """Waits for a launch; one that a failed test leaves running is ended."""
    started = []

    def end(process):
        started.append(process)
        out, err = process.communicate(timeout=LIMIT_S)
        return process.returncode, out, err

    yield end
    for process in started:
        if process.poll() is None:
            process.terminate()
            process.communicate()


@pytest.mark.slow
def test_two_real_processes_train_together_and_ctrl_c_saves_both(tiny_overrides, tmp_path, finish):
    workdir = tmp_path / "run"
    more = [
        *tiny_overrides,
        "train.eval_every=0",
        "evaluations={}",
        "train.steps=2000",
        "train.checkpoint_every=2000",
    ]
    process = launch(workdir=workdir, overrides=more)
    until(lambda: len(steps_of(workdir)) >= 3, process=process)
    process.send_signal(signal.SIGINT)
    status, out, err = finish(process)
    assert status == 0, out + err
    (saved,) = (int(path.name) for path in (workdir / "checkpoints").iterdir())
    assert 3 <= saved < 2000 and out.count(f"step {saved}: terminated") == 2
    assert "[0] preflight: 2 processes on 1 host, 2 x cpu" in out
    assert "preflight" not in (workdir / "logs" / "process-1.log").read_text()


@pytest.mark.slow
def test_a_restart_resumes_after_a_crash(tiny_overrides, tmp_path, finish):
    workdir = tmp_path / "run"
    more = [*tiny_overrides, "train.eval_every=0", "evaluations={}", "train.steps=60", "train.checkpoint_every=5"]
    process = launch("--restart", "1", "--grace", "3", workdir=workdir, overrides=more)
    until(lambda: len(steps_of(workdir)) >= 8, process=process)
    children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split()
    os.kill(int(children[1]), signal.SIGKILL)
    status, out, err = finish(process)
    assert status == 0, out + err
    assert "restarting all processes (1 of 1)" in err and "resuming from the checkpoint of step" in out
    assert steps_of(workdir) == list(range(1, 61))


@pytest.mark.slow
def test_a_config_that_is_wrong_is_said_once_and_ends_all(tiny_overrides, tmp_path, finish):
    process = launch(workdir=tmp_path / "run", overrides=[*tiny_overrides, "data.batch_size=7"])
    status, _, err = finish(process)
    assert status == 2
    assert "ended with status 2" in err and "batch_size=7 must divide by the 2 devices" in err
