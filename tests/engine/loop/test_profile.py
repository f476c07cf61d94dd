"""Traces on request."""

import os
import signal

from engine_toy import ToyObjective, batches, config

from twinreel.engine.loop.options import TrainOptions
from twinreel.engine.loop.profile import ON_REQUEST, Profile
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


def test_a_request_leaves_the_chosen_steps_as_they_are(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr("jax.profiler.start_trace", lambda folder: calls.append("start"))
    monkeypatch.setattr("jax.profiler.stop_trace", lambda: calls.append("stop"))
    with Profile(tmp_path, options=TrainOptions(steps=30, profile_steps="12:14")) as profile:
        for step in range(20):
            if step in (2, 13):
                os.kill(os.getpid(), signal.SIGUSR2)
            profile.before(step, settle=lambda: None)
            calls.append(step)
    traced = [step for step in range(20) if _last(calls[: calls.index(step)]) == "start"]
    assert traced == [2, 3, 4, 5, 6, 12, 13, 14, 15, 16, 17]  # steps 13 to 17 were asked for in the second trace


def _last(calls):
    return next((call for call in reversed(calls) if isinstance(call, str)), "")
