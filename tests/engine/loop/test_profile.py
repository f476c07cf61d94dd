"""Traces on request."""

import os
import signal

from engine_toy import ToyObjective, batches, config

from twinreel.engine.loop.profile import ON_REQUEST
from twinreel.engine.loop.train import train


def test_a_signal_traces_the_next_steps(tmp_path, monkeypatch):
    calls, step = [], [0]
    monkeypatch.setattr("jax.profiler.start_trace", lambda folder: calls.append(("start", step[0], folder)))
    monkeypatch.setattr("jax.profiler.stop_trace", lambda: calls.append(("stop", step[0])))
    annotated = []

    class Annotation:
        def __init__(self, name, *, step_num):
            step[0] = step_num
            annotated.append((name, step_num))

        def __enter__(self):
            if step[0] == 2:
                os.kill(os.getpid(), signal.SIGUSR2)

        def __exit__(self, *_):
            pass

    monkeypatch.setattr("jax.profiler.StepTraceAnnotation", Annotation)
    before = signal.getsignal(signal.SIGUSR2)
    train(objective=ToyObjective(), batches=batches, workdir=tmp_path / "run", config=config(), meta={})
    assert annotated == [("train", number) for number in range(12)]
    # each is called before the annotation of its own step
    assert calls == [("start", 2, str(tmp_path / "run" / "profile")), ("stop", 2 + ON_REQUEST)]
    assert signal.getsignal(signal.SIGUSR2) is before
