import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from engine_toy import ToyObjective, batch_of
from flax import nnx

from twinreel.engine.optimizer.optimizer import make_optimizer
from twinreel.engine.sharding.mesh import make_mesh, put_batch
from twinreel.engine.sharding.rules import make_rules
from twinreel.engine.step.state import StateBuilder, split_model
from twinreel.engine.step.step import compile_step, stop_flags

OPTIMIZER = make_optimizer(steps=10, lr=0.1, weight_decay=0.1, schedule="constant")


def build(objective, *, mesh=None, rules=None, batch=None, optimizer=OPTIMIZER):
    mesh = mesh or make_mesh()
    options = {} if rules is None else {"rules": rules}
    plan = StateBuilder(objective=objective, optimizer=optimizer, mesh=mesh, seed=0, **options)
    batch = put_batch(batch or batch_of(0), mesh=mesh)
    step = compile_step(batch, builder=plan)
    return plan, step, stop_flags(mesh)


def run(objective, *, steps, poison_at=None, **options):
    plan, step, flags = build(objective, batch=batch_of(0, poison_at=poison_at), **options)
    state, outputs = plan.init(), []
    for i in range(steps):
        state, out = step(state, put_batch(batch_of(i, poison_at=poison_at), mesh=plan.mesh), flags[False])
        outputs.append(jax.device_get(out))
    return jax.device_get(state), outputs


def test_one_step_against_plain_jax():
    objective = ToyObjective()
    plan, step, flags = build(objective)
    batch = batch_of(0)
    key = jax.random.fold_in(jax.random.key(0), 0)
    start = plan.init()

    def loss_of(params):
        model = plan.model(dataclasses.replace(start, params=params))
        return objective.loss(model, {k: jnp.asarray(batch[k]) for k in ("x", "y")}, rngs=nnx.Rngs(key))[0]

    loss, grads = jax.value_and_grad(loss_of)(jax.device_get(start.params))
    norm = np.sqrt(sum(np.sum(np.square(g)) for g in grads.values()))
    state, out = step(start, put_batch(batch, mesh=plan.mesh), flags[False])
    assert int(state.step) == 1
    np.testing.assert_allclose(out["metrics"]["loss"], loss, rtol=1e-5)
    np.testing.assert_allclose(out["metrics"]["grad_norm"], norm, rtol=1e-5)
    np.testing.assert_allclose(out["metrics"]["lr"], 0.1, rtol=1e-6)
    assert set(out["metrics"]) == {"loss", "grad_norm", "lr", "scale"}


@pytest.mark.parametrize(
    ("mesh", "rules"),
    [
        ({"replica": 2, "fsdp": 4}, [["inner/kernel", [None, "fsdp"]], [".*", []]]),
        (
            {"replica": 1, "fsdp": 4, "tensor": 2},
            [["inner/kernel", [None, "tensor"]], ["inner/bias", ["tensor"]], [".*", []]],
        ),
    ],
)
def test_placement_does_not_change_the_training(mesh, rules):
    whole, _ = run(ToyObjective(), steps=4)
    split, _ = run(ToyObjective(), steps=4, mesh=make_mesh(**mesh), rules=make_rules(rules=rules))
    for path, value in whole.params.items():
        np.testing.assert_allclose(split.params[path], value, rtol=2e-4, atol=1e-6)


def test_frozen_parameters_stay():
    objective = ToyObjective(trainable=("^head/",))
    before = jax.device_get(build(objective)[0].init())
    after, _ = run(objective, steps=3)
    for path, value in before.others.items():
        np.testing.assert_array_equal(after.others[path], value)
    assert not np.array_equal(after.params["head/kernel"], before.params["head/kernel"])


def test_frozen_in_the_config_has_neither_state_nor_gradient():
    whole = make_optimizer(steps=10, lr=0.1)
    lit = make_optimizer(steps=10, lr=0.1, frozen=("^inner/",))
    plan, _, _ = build(ToyObjective(), optimizer=lit)
    assert set(plan.abstract.others) == {"inner/kernel", "inner/bias"}
    assert "inner" not in str(jax.tree_util.tree_structure(plan.abstract.opt_state))
    after, _ = run(ToyObjective(), steps=2, optimizer=lit)
    as_objective, _ = run(ToyObjective(trainable=("^head/", "log_scale")), steps=2, optimizer=whole)
    for path, value in (as_objective.params | as_objective.others).items():
        np.testing.assert_array_equal((after.params | after.others)[path], value)


def test_moving_average_of_the_parameters():
    optimizer = make_optimizer(steps=10, lr=0.1, ema_decay=0.3)
    plan, step, flags = build(ToyObjective(), optimizer=optimizer)
    state = plan.init()
    wanted = {path: np.asarray(value, np.float64) for path, value in state.params.items()}
    for i in range(4):
        state, _ = step(state, put_batch(batch_of(i), mesh=plan.mesh), flags[False])
        decay = min(0.3, (2 + i) / (11 + i))
        wanted = {path: decay * wanted[path] + (1 - decay) * np.asarray(state.params[path]) for path in wanted}
    shown = split_model(plan.averaged(state))
    for path, value in wanted.items():
        np.testing.assert_allclose(state.ema[path], value, rtol=1e-5, atol=1e-7)
        np.testing.assert_array_equal(shown[path], state.ema[path])


@pytest.mark.parametrize("devices", [1, 8])
def test_nan_freezes_the_state_before_it(devices):
    """On one CPU the update is a branch, on several a selection."""
    mesh = make_mesh(devices=jax.devices()[:devices])
    good, _ = run(ToyObjective(), steps=3, poison_at=99, mesh=mesh)
    frozen, outputs = run(ToyObjective(), steps=6, poison_at=3, mesh=mesh)
    assert [int(out["halted"]) for out in outputs] == [-1, -1, -1, 3, 3, 3]
    assert int(frozen.step) == 3
    for before, after in zip(jax.tree.leaves(good.params), jax.tree.leaves(frozen.params), strict=True):
        np.testing.assert_array_equal(after, before)
    for before, after in zip(jax.tree.leaves(good.opt_state), jax.tree.leaves(frozen.opt_state), strict=True):
        np.testing.assert_array_equal(after, before)


class Overflowing(ToyObjective):
    """Finite loss, infinite gradient: d sqrt(x) / dx at 0."""

    def loss(self, model, batch, *, rngs):
        return jnp.sqrt(jnp.abs(model.log_scale[...])), {}


def test_an_infinite_gradient_freezes_too():
    _, outputs = run(Overflowing(), steps=1)
    assert np.isfinite(outputs[0]["metrics"]["loss"])
    assert int(outputs[0]["halted"]) == 0


def test_one_device_updates_as_eight_do():
    alone, many = (run(ToyObjective(), steps=4, mesh=make_mesh(devices=jax.devices()[:n]))[0] for n in (1, 8))
    for one, other in zip(jax.tree.leaves(alone), jax.tree.leaves(many), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("devices", [1, 8])
def test_any_process_can_stop_all(devices):
    plan, step, flags = build(ToyObjective(), mesh=make_mesh(devices=jax.devices()[:devices]))
    batch = put_batch(batch_of(0), mesh=plan.mesh)
    state, out = step(plan.init(), batch, flags[False])
    assert not bool(out["stop"])
    _, out = step(state, batch, flags[True])
    assert bool(out["stop"])


class Normed(nnx.Module):
    def __init__(self, *, rngs):
        self.norm = nnx.BatchNorm(6, momentum=0.5, rngs=rngs)


class NormedObjective:
    trainable = ()

    def init(self, rngs):
        return Normed(rngs=rngs)

    def loss(self, model, batch, *, rngs):
        return jnp.mean(model.norm(batch["x"], use_running_average=False) ** 2), {}


def test_batch_statistics_are_of_the_global_batch_and_kept():
    state, _ = run(NormedObjective(), steps=1)
    np.testing.assert_allclose(state.others["norm/mean"], 0.5 * batch_of(0)["x"].mean(axis=0), rtol=1e-4, atol=1e-6)
