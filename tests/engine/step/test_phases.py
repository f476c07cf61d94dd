"""An objective whose loss changes at a known step."""

from types import SimpleNamespace

import numpy as np
import pytest
from engine_toy import ToyObjective, batches, config

from twinreel.base.errors import UserError
from twinreel.engine.keeping.checkpoint import read_params
from twinreel.engine.loop.train import train
from twinreel.engine.step.phases import PhasedSteps, count_phases


class Masked(ToyObjective):
    """Leaves half of the features out until step `until`; counts how often each phase is traced."""

    def __init__(self, until):
        super().__init__()
        self.until, self.traced = until, []

    def phase(self, step):
        return "masked" if step < self.until else "whole"

    def loss(self, model, batch, *, rngs, phase):
        self.traced.append(phase)
        seen = np.array([1, 1, 1, 0, 0, 0] if phase == "masked" else [1] * 6, np.float32)
        return super().loss(model, batch | {"x": batch["x"] * seen[None]}, rngs=rngs)


def go(workdir, objective, **changes):
    options = {"train__steps": 6, "train__log_every": 1, "train__checkpoint_every": 2, "train__keep_last": 9} | changes
    return train(objective=objective, batches=batches, workdir=workdir, config=config(**options), meta={})


def test_the_loss_changes_at_its_step_and_a_resume_goes_on_in_the_right_phase(tmp_path):
    whole = Masked(until=3)
    go(tmp_path / "whole", whole)
    assert set(whole.traced) == {"masked", "whole"}
    never, always = Masked(until=0), Masked(until=99)
    go(tmp_path / "never", never, train__steps=3)
    go(tmp_path / "always", always, train__steps=3)
    assert set(never.traced) == {"whole"}  # a phase that does not come is not compiled

    def at(name, step):
        return read_params(tmp_path / name / "checkpoints" / str(step))["inner/kernel"]

    np.testing.assert_array_equal(at("whole", 2), at("always", 2))
    assert not np.array_equal(at("never", 2), at("always", 2))

    broken = Masked(until=3)

    def stop_after(start):
        for i, batch in enumerate(batches(start)):
            if i == 4:
                raise RuntimeError("power cut")
            yield batch

    with pytest.raises(RuntimeError, match="power cut"):
        train(objective=broken, batches=stop_after, workdir=tmp_path / "broken",
              config=config(train__steps=6, train__log_every=1, train__checkpoint_every=2), meta={})  # fmt: skip
    go(tmp_path / "broken", Masked(until=3))
    np.testing.assert_array_equal(at("broken", 6), at("whole", 6))


class Lowered:
    def __init__(self, phase, log):
        self.phase, self.log = phase, log

    def compile(self):
        self.log.append(("compile", self.phase))
        return self.phase


def test_each_phase_is_compiled_once_after_all_were_checked_and_is_found_by_its_step():
    log = []

    def lower(phase):
        log.append(("lower", phase))
        return Lowered(phase, log)

    def check(lowered):
        log.append(("check", [program.phase for program in lowered]))

    steps = PhasedSteps(lower, objective=Masked(until=4), steps=range(2, 9), check=check)
    assert log == [("lower", "masked"), ("lower", "whole"), ("check", ["masked", "whole"]),
                   ("compile", "masked"), ("compile", "whole")]  # fmt: skip
    assert [steps.at(step) for step in (2, 3, 4, 8)] == ["masked", "masked", "whole", "whole"]
    assert PhasedSteps(lower, objective=ToyObjective(), steps=range(3)).at(2) is None


def test_unmasked_steps_need_an_objective_with_phases(tmp_path):
    with pytest.raises(UserError, match=r"config.train.unmasked_steps=2, but this objective has no phase"):
        go(tmp_path, ToyObjective(), train__unmasked_steps=2)
    with pytest.raises(UserError, match=r"unmasked_steps=7 must be at most config.train.steps=6"):
        go(tmp_path, ToyObjective(), train__unmasked_steps=7)


def test_steps_of_each_phase_are_counted():
    objective = SimpleNamespace(phase=lambda step: "late" if step >= 7 else "early")
    assert count_phases(objective, steps=range(10)) == {"early": 7, "late": 3}
    assert count_phases(objective, steps=range(8, 10)) == {"late": 2}
    assert count_phases(SimpleNamespace(), steps=range(4, 10)) == {None: 6}
    assert count_phases(SimpleNamespace(), steps=range(10, 10)) == {}
