"""Batches whose loss or gradient is not finite: the run ends, skips them, or goes back; every advice given works."""

import json
import re

import jax.numpy as jnp
import numpy as np
import pytest
from engine_toy import ToyObjective, batch_of, batches, config
from files import lines
from flax import nnx

from twinreel.base.errors import UserError
from twinreel.engine.keeping.checkpoint import read_meta, read_params, steps_in
from twinreel.engine.loop.train import TrainingDiverged, train


def poisoned(*bad):
    """Batches of which some give nan."""

    def source(start):
        step = start
        while True:
            yield batch_of(step, poison_at=step if step in bad else -1)
            step += 1

    return source


def go(workdir, *, bad=(), objective=None, **changes):
    options = {key: changes.pop(key) for key in ("resume_step", "overwrite_config") if key in changes}
    cfg = config(**{"train__checkpoint_every": 100} | changes)
    objective = objective or ToyObjective()
    return train(objective=objective, batches=poisoned(*bad), workdir=workdir, config=cfg, meta={}, **options)


def same(a, b):
    for path, value in read_params(a).items():
        np.testing.assert_array_equal(read_params(b)[path], value)


@pytest.mark.parametrize("bad", [0, 5, 11])
def test_the_run_ends_with_the_state_before_it(tmp_path, bad):
    with pytest.raises(TrainingDiverged) as caught:
        go(tmp_path / "bad", bad=[bad])
    message = str(caught.value)
    assert f"step {bad + 1} is not finite (global batch {bad}; clip_index {bad * 8}, {bad * 8 + 1}," in message
    assert str(tmp_path / "bad" / "checkpoints" / str(bad)) in message
    assert "train.skip_nonfinite=1" in message
    assert read_meta(tmp_path / "bad")["step"] == bad
    if bad:  # the state after the steps before it; the config's schedule must be the same
        go(tmp_path / "good", train__checkpoint_every=bad, train__keep_last=99)
        same(tmp_path / "good" / "checkpoints" / str(bad), tmp_path / "bad")
    with pytest.raises(TrainingDiverged):  # the same command meets the same batch
        go(tmp_path / "bad", bad=[bad])
    assert all(line["loss"] is not None for line in lines(tmp_path / "bad", "train"))


def test_no_checkpoint_of_a_frozen_state(tmp_path):
    with pytest.raises(TrainingDiverged):
        go(tmp_path, bad=[3], train__checkpoint_every=4)
    assert steps_in(tmp_path / "checkpoints") == [3]


def skipping(workdir):
    """The lines on skipped batches."""
    return [(line["step"], line["batch"], line["total"]) for line in lines(workdir, "skipped")]


def test_skipped_batches_change_nothing_and_are_logged_with_their_clips(tmp_path, capsys):
    result = go(tmp_path / "skips", bad=[0, 4], train__skip_nonfinite=2)
    assert (result.step, result.reason) == (12, "done")
    assert skipping(tmp_path / "skips") == [(1, 0, 1), (5, 4, 2)]
    clips = [line["clip_index"] for line in lines(tmp_path / "skips", "skipped")]
    assert clips == [list(range(8)), list(range(32, 40))]
    assert "step 5: the loss or the gradient is not finite, so the batch was skipped (2" in capsys.readouterr().err
    # what an optimizer does that never sees these batches, at the rates of the steps that see the others
    plan = _Loop()
    for step in range(12):
        if step not in (0, 4):
            plan.step(step)
    for path, value in plan.params.items():
        np.testing.assert_allclose(read_params(tmp_path / "skips")[path], value, rtol=2e-4, atol=1e-6, err_msg=path)


class _Loop:
    """The training of the toy by plain calls of its parts, on one device."""

    def __init__(self):
        import jax

        from twinreel.base.section import section
        from twinreel.engine.optimizer.optimizer import make_optimizer
        from twinreel.engine.sharding.mesh import make_mesh
        from twinreel.engine.step.state import StateBuilder
        from twinreel.engine.step.step import make_gradients

        optimizer = section(make_optimizer, config().optimizer, name="optimizer", steps=12)
        mesh = make_mesh(devices=jax.devices()[:1])
        self.optimizer = optimizer
        self.builder = StateBuilder(objective=ToyObjective(), optimizer=optimizer, mesh=mesh, seed=0)
        self.state = self.builder.init()
        self.gradients = jax.jit(make_gradients(builder=self.builder))

    @property
    def params(self):
        return self.state.params

    def step(self, number):
        import dataclasses

        state = dataclasses.replace(self.state, step=jnp.int32(number))
        *_, grads = self.gradients(state, {k: jnp.asarray(batch_of(number)[k]) for k in ("x", "y")})
        how = {"state": state.opt_state, "params": state.params, "step": state.step}
        params, opt_state = self.optimizer.update(grads, **how)
        self.state = dataclasses.replace(state, params=params, opt_state=opt_state)


def test_the_cap_holds_over_the_whole_run_and_survives_a_resume(tmp_path):
    with pytest.raises(TrainingDiverged, match=r"step 8 .*after 2 skipped batches"):
        go(tmp_path, bad=[1, 5, 7], train__skip_nonfinite=2)
    assert steps_in(tmp_path / "checkpoints") == [7]
    with pytest.raises(TrainingDiverged, match="step 8 "):  # two are gone already
        go(tmp_path, bad=[1, 5, 7], train__skip_nonfinite=2)
    result = go(tmp_path, bad=[1, 5, 7], train__skip_nonfinite=3)
    assert result.step == 12
    assert skipping(tmp_path) == [(2, 1, 1), (6, 5, 2), (8, 7, 3)]
    go(tmp_path / "whole", bad=[1, 5, 7], train__skip_nonfinite=3)
    same(tmp_path, tmp_path / "whole")


def test_gradients_that_are_not_finite_are_skipped_too(tmp_path):
    class Overflowing(ToyObjective):
        """A finite loss with an infinite gradient at batch 2: d sqrt(x) / dx at 0."""

        def loss(self, model, batch, *, rngs):
            loss, logged = super().loss(model, {"x": batch["x"], "y": batch["y"]}, rngs=rngs)
            bad = jnp.any(batch["poison"])
            return loss + jnp.sqrt(jnp.where(bad, 0.0 * model.head.bias[0], 1.0)), logged

    result = go(tmp_path, bad=[2], objective=Overflowing(), train__skip_nonfinite=1)
    assert result.step == 12 and skipping(tmp_path) == [(3, 2, 1)]
    assert all(np.isfinite(value).all() for value in read_params(tmp_path).values())


class Climbing(ToyObjective):
    """Plain descent moves `log_scale` up by the learning rate at each step; batch 6 overflows if it is too high."""

    def __init__(self):
        super().__init__(trainable=("log_scale",))

    def loss(self, model, batch, *, rngs):
        value = model.log_scale[...]
        too_high = jnp.any(batch["clip_index"] == 6 * 8) & (value > 0.55)
        return -value + jnp.where(too_high, jnp.float32(jnp.inf), jnp.float32(0)), {}


CLIMB = {"optimizer": {"name": "sgd", "lr": 0.1, "b1": 0.0, "schedule": "constant"}, "train__checkpoint_every": 2}


def flags(message):
    """The flags that a message advises, as arguments of `go`, one set for each way past the batch."""
    ways = []
    for advice in re.findall(r"--config\.([\w.]+)=([\w.]+)", message):
        found = {advice[0].replace(".", "__"): json.loads(advice[1])}
        if advice[0].startswith("optimizer"):
            found |= {"resume_step": int(re.search(r"--resume_step (\d+)", message)[1]), "overwrite_config": True}
        ways.append(found)
    return ways


@pytest.mark.parametrize("way", [0, 1, 2])
@pytest.mark.parametrize(("every", "keep_last"), [(2, 3), (4, 1)])
def test_every_advice_of_the_message_leads_past_the_batch(tmp_path, way, every, keep_last):
    setting = CLIMB | {"train__keep_last": keep_last, "train__checkpoint_every": every}
    with pytest.raises(TrainingDiverged) as caught:
        go(tmp_path, objective=Climbing(), **setting)
    message = str(caught.value)
    assert "step 7 is not finite" in message
    advised = flags(message)
    fields = ["train__skip_nonfinite", "optimizer__lr", "optimizer__clip_norm"]
    assert [next(iter(found)) for found in advised] == fields
    result = go(tmp_path, objective=Climbing(), **(setting | advised[way]))
    assert (result.step, result.reason) == (12, "done")
    steps = [line["step"] for line in lines(tmp_path, "train")]
    assert steps == sorted(set(steps)) == [2, 4, 6, 8, 10, 12]  # each step once


def test_going_back_with_the_same_config_meets_the_same_batch(tmp_path):
    with pytest.raises(TrainingDiverged):
        go(tmp_path, objective=Climbing(), **CLIMB)
    with pytest.raises(TrainingDiverged, match="step 7 is not finite"):
        go(tmp_path, objective=Climbing(), resume_step=4, **CLIMB)


def test_without_an_earlier_checkpoint_none_is_advised(tmp_path):
    with pytest.raises(TrainingDiverged, match="no earlier checkpoint; start again in another --workdir with "):
        go(tmp_path, bad=[1])


def test_going_back_drops_what_came_after_and_only_once(tmp_path, capsys):
    every = {"train__checkpoint_every": 4, "train__keep_last": 9, "train__log_every": 1}
    go(tmp_path, **every)
    lower = every | {"optimizer__lr": 0.01, "overwrite_config": True, "resume_step": 4}

    class CutError(Exception):
        """Ends a run in the middle."""

    def cut(start):
        for step, batch in enumerate(batches(start), start):
            if step == 10:
                raise CutError
            yield batch

    source = {"objective": ToyObjective(), "workdir": tmp_path, "meta": {}, "resume_step": 4, "overwrite_config": True}
    settings = {key: value for key, value in lower.items() if "__" in key}
    with pytest.raises(CutError):
        train(batches=cut, config=config(**settings), **source)
    assert "going back to step 4; the metrics after it are dropped" in capsys.readouterr().err
    folder = tmp_path / "checkpoints"
    assert steps_in(folder) == [4, 8]
    assert {path.name for path in folder.iterdir()} == {"4", "8", "dropped-8", "dropped-12"}
    # the same command again, as after any interruption: it resumes where it was
    result = go(tmp_path, **lower)
    assert result.step == 12
    assert "resuming from the checkpoint of step 8" in capsys.readouterr().err
    rates = [line["lr"] for line in lines(tmp_path, "train")]
    assert len(rates) == 12 and rates[3] > 0.02 and max(rates[4:]) < 0.011
    go(tmp_path, **(lower | {"optimizer__lr": 0.001}))  # with another config it goes back again
    assert lines(tmp_path, "train")[-1]["lr"] < 0.0011
    with pytest.raises(UserError, match=r"--resume_step 5: .* no checkpoint of that step; it has 4, 8, 12"):
        go(tmp_path, **(lower | {"resume_step": 5}))


def test_batch_statistics_of_a_skipped_batch_are_not_kept(tmp_path):
    class Normed(nnx.Module):
        def __init__(self, *, rngs):
            self.norm = nnx.BatchNorm(6, momentum=0.5, rngs=rngs)

    class NormedObjective:
        trainable = ()

        def init(self, rngs):
            return Normed(rngs=rngs)

        def loss(self, model, batch, *, rngs):
            x = jnp.where(jnp.any(batch["poison"]), jnp.float32(jnp.nan), batch["x"])
            return jnp.mean(model.norm(x, use_running_average=False) ** 2), {}

    go(tmp_path, objective=NormedObjective(), bad=[11], train__skip_nonfinite=1)
    assert all(np.isfinite(value).all() for value in read_params(tmp_path).values())
