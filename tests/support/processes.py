"""Starts workers (worker_train.py) and looks at what they leave; for the tests that kill, stop or starve them."""

import json
import signal
import time
from pathlib import Path

from forks import Forked

from twinreel.launch.local import free_port

LIMIT_S = 120


def launch(workdir, *, processes=1, **flags):
    """Start one run of `processes` processes."""
    arguments = [f"--workdir={workdir}", *(f"--{key}={value}" for key, value in flags.items())]
    together = [[]]
    if processes > 1:
        port = free_port()
        together = [
            [f"--coordinator=localhost:{port}", f"--num_processes={processes}", f"--process_id={i}"]
            for i in range(processes)
        ]
    return [Forked("worker_train", [*arguments, *more]) for more in together]


def finish(process, *, status=0, limit_s=LIMIT_S):
    """Wait for a worker; returns its result, or what it wrote to standard error where it failed as expected."""
    out, err = process.communicate(timeout=limit_s)
    assert process.returncode == status, err
    return json.loads(out.splitlines()[-1]) if status == 0 else err  # Gloo greets on the lines before


def wait_for(condition, *, process, limit_s=LIMIT_S):
    """Wait until `condition()` while the worker lives."""
    end = time.monotonic() + limit_s
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def suspend(process):
    """Stop a worker until SIGCONT; returns when each of its threads stands still."""
    process.send_signal(signal.SIGSTOP)
    threads = Path(f"/proc/{process.pid}/task")
    wait_for(lambda: all(_state(thread) == "T" for thread in threads.iterdir()), process=process)


def _state(thread):
    return (thread / "stat").read_text().rpartition(") ")[2][0]


def train_lines(workdir):
    """Return ({step: loss}, all lines of steps and evaluations)."""
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    lines = [line for line in lines if line["kind"] != "goodput"]  # how often a run was stopped shows there
    return {line["step"]: line["loss"] for line in lines if line["kind"] == "train"}, lines


def steps_logged(workdir):
    """Return how many steps the run has logged so far."""
    return (workdir / "metrics.jsonl").read_text().count("loss") if (workdir / "metrics.jsonl").is_file() else 0
