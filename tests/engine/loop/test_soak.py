"""Soak: random processes are killed at random moments, and the run ends as if nothing had happened."""

import random
import shutil
import signal
import time

import numpy as np
import pytest
from processes import LIMIT_S, finish, launch, train_lines

from twinreel.engine.keeping.checkpoint import read_params

STEPS = 40
START_UP_S = 3.0  # about what importing, restoring and compiling take; only spreads the moments
MOMENTS = ("any", "compile", "save", "evaluation")


class Soak:
    """Runs of one shape, killed until there have been enough kills; each is then ended in peace and compared."""

    def __init__(self, folder, *, processes, seed):
        self.folder, self.processes, self.random = folder, processes, random.Random(seed)
        self.options = {"processes": processes, "devices": 4 // processes, "fsdp": 2, "steps": STEPS}
        self.options |= {"seconds_per_batch": 0.05, "evaluation_s": 0.1}
        self.said = []
        self.alive = []

    def go(self, kills):
        """Kill so often; returns how many runs it took."""
        reference = self.folder / "reference"
        for process in self.begin(reference):
            finish(process)
        runs = 0
        while kills > 0:
            runs += 1
            workdir = self.folder / f"run{runs}"
            while kills > 0 and self.kill_one(workdir):
                kills -= 1
            for process in self.begin(workdir):
                assert finish(process)["step"] == STEPS
            self.compare(workdir, reference)
            shutil.rmtree(workdir)
        return runs

    def begin(self, workdir):
        self.alive = launch(workdir, **self.options)
        return self.alive

    def kill_one(self, workdir):
        """Start, kill one process at some moment, and what it leaves alone soon after; False if the run ended first."""
        moment, number = self.random.choice(MOMENTS), self.random.choice((signal.SIGKILL, signal.SIGTERM))
        victim, patience = self.random.randrange(self.processes), self.random.uniform(0.0, 3.0)
        after = self.random.uniform(0.0, 2 * START_UP_S) if moment == "any" else self.random.expovariate(20.0)
        self.said.append(f"{moment} + {after:.3f} s: {number.name} to {victim} of {self.processes}")
        for name in ("compiling", "evaluating"):
            workdir.with_name(f"{workdir.name}.{name}").unlink(missing_ok=True)
        started = self.begin(workdir)
        self.wait(moment, workdir=workdir)
        time.sleep(after)
        ended = started[victim].poll() is not None
        started[victim].send_signal(number)
        end = time.monotonic() + (patience if number == signal.SIGKILL else LIMIT_S)
        # a scheduler takes the rest away when one is gone; one that was only told to stop may take its time
        while any(p.poll() is None for p in started) and time.monotonic() < end:
            if any(p.poll() not in (None, 0) for p in started):
                end = min(end, time.monotonic() + patience)
            time.sleep(0.02)
        for process in started:
            process.kill()
            _, err = process.communicate()
            assert process.returncode in (0, -signal.SIGKILL, -signal.SIGTERM) or self.processes > 1, err
        return not ended

    def wait(self, moment, *, workdir):
        """Wait for a moment, or for the end of the run if that comes first."""
        there = {
            "any": lambda: True,
            "compile": workdir.with_name(f"{workdir.name}.compiling").exists,
            "evaluation": workdir.with_name(f"{workdir.name}.evaluating").exists,
            "save": lambda: any(workdir.glob("checkpoints/*orbax-checkpoint-tmp*")),
        }[moment]
        while not there() and all(process.poll() is None for process in self.alive):
            time.sleep(0.001)

    def compare(self, workdir, reference):
        (losses, lines), (wanted, wanted_lines) = train_lines(workdir), train_lines(reference)
        assert losses == wanted
        assert [(x["step"], x["kind"]) for x in lines] == [(x["step"], x["kind"]) for x in wanted_lines]
        params = read_params(workdir)
        for path, value in read_params(reference).items():
            np.testing.assert_array_equal(params[path], value)


def soak(folder, *, processes, kills, seed):
    trial = Soak(folder, processes=processes, seed=seed)
    try:
        return trial.go(kills)
    except BaseException:
        print(f"seed {seed}, {processes} processes; kills so far:", *trial.said, sep="\n  ")
        raise
    finally:
        for process in trial.alive:
            process.kill()
            process.communicate()


def test_four_kills(tmp_path):
    assert soak(tmp_path, processes=1, kills=4, seed=random.randrange(10**6)) >= 1


@pytest.mark.slow
@pytest.mark.parametrize(("processes", "kills"), [(1, 30), (2, 20)])
def test_fifty_kills(tmp_path, processes, kills):
    seed = random.randrange(10**6)
    assert soak(tmp_path, processes=processes, kills=kills, seed=seed) >= 1
