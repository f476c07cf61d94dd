"""`launch --backend slurm` under a real SLURM of one node: a run of two processes, stopped in the queue's way."""

import json
import os
import subprocess
import sys
import time

import pytest
import slurm_cluster

pytestmark = pytest.mark.slow
LIMIT_S = 300


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    """The environment in which sbatch finds a running cluster."""
    missing = slurm_cluster.missing()
    if missing:
        pytest.skip(f"no {missing[0]} here (Debian and Ubuntu: apt-get install slurm-wlm munge)")
    if os.geteuid() != 0:
        pytest.skip("slurmd and munged of a test cluster are started by root")
    with slurm_cluster.cluster(tmp_path_factory.mktemp("slurm")) as env:
        yield env | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=1"}


def launch(env, *, workdir, flags, overrides, **options):
    command = [sys.executable, "-m", "twinreel", "launch", "--backend", "slurm", "--tasks_per_node", "2", *flags, "--"]
    command += ["pretrain", "--config", "demo", "--workdir", str(workdir), *(f"--config.{o}" for o in overrides)]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=LIMIT_S, **options)


def logs_of(workdir):
    return "\n".join(f"--- {p.name}\n{p.read_text()[-3000:]}" for p in sorted((workdir / "logs").iterdir()))


def steps_of(workdir):
    path = workdir / "metrics.jsonl"
    text = path.read_text().splitlines() if path.is_file() else []
    return [line["step"] for line in map(json.loads, text) if line["kind"] == "train"]


def test_two_processes_train_through_the_queue(slurm, tiny_overrides, tmp_path):
    workdir = tmp_path / "run"
    found = launch(slurm, workdir=workdir, flags=["--wait"], overrides=tiny_overrides)
    assert found.returncode == 0, found.stdout + found.stderr + logs_of(workdir)
    assert steps_of(workdir) == [1, 2, 3, 4, 5, 6]
    said = [(workdir / "logs" / f"1-{i}.log").read_text() for i in range(2)]
    assert all("step 6: done" in text for text in said)
    assert found.stdout.startswith("job 1; logs ")


def test_the_signal_before_the_limit_saves_and_requeues(slurm, tiny_overrides, tmp_path):
    workdir = tmp_path / "run"
    overrides = [*tiny_overrides, "train.steps=4000", "train.eval_every=0", "train.checkpoint_every=4000"]
    found = launch(slurm, workdir=workdir, flags=["--max_requeues", "1"], overrides=overrides)
    assert found.returncode == 0, found.stderr
    number = found.stdout.split()[1].rstrip(";")

    def until(condition):
        end = time.monotonic() + LIMIT_S
        while not condition():
            assert time.monotonic() < end, logs_of(workdir)
            time.sleep(0.2)

    def state():
        shown = subprocess.run(["scontrol", "show", "job", number], env=slurm, capture_output=True, text=True).stdout
        return dict(word.split("=", 1) for word in shown.split() if "=" in word)

    until(lambda: len(steps_of(workdir)) >= 5)
    # What slurmctld does by itself `--save_before` seconds before the time limit.
    subprocess.run(["scancel", "--batch", "--signal=USR1", number], env=slurm, check=True)
    until(lambda: state()["Restarts"] == "1")
    stopped = int(next((workdir / "checkpoints").iterdir()).name)
    assert 5 <= stopped < 4000 and "terminated" in logs_of(workdir)
    until(lambda: state()["JobState"] == "RUNNING" and max(steps_of(workdir)) > stopped)
    assert f"resuming from the checkpoint of step {stopped}" in logs_of(workdir)
    subprocess.run(["scancel", number], env=slurm, check=True)
    until(lambda: state()["JobState"] not in ("RUNNING", "COMPLETING"))
    assert state()["JobState"] == "CANCELLED"
