"""The real objective on meshes of 1, 2, 4 and 8 devices: loss and gradients are those of one device."""

import functools

import jax
import numpy as np
import pytest
from contrastive_toy import BATCH, batch_of, objective, sharding_rules

from twinreel.base.errors import UserError
from twinreel.engine.optimizer.optimizer import make_optimizer
from twinreel.engine.sharding.mesh import batch_sharding, make_mesh, put_batch
from twinreel.engine.sharding.placement import Activations
from twinreel.engine.step.state import StateBuilder
from twinreel.engine.step.step import make_gradients

OPTIMIZER = make_optimizer(steps=10, lr=0.1, schedule="constant")


def gradients(*, rules="replicated", devices=1, **sizes):
    """Loss and gradients of the first step on so many devices, as NumPy."""
    mesh = make_mesh(devices=jax.devices()[:devices], **sizes)
    goal = objective()
    with jax.set_mesh(mesh):
        plan = StateBuilder(objective=goal, optimizer=OPTIMIZER, mesh=mesh, seed=0, rules=sharding_rules(rules))
        place = Activations(mesh=mesh, rules=plan.rules)
        both = make_gradients(builder=plan, place=place)
        run = jax.jit(both, in_shardings=(plan.shardings, batch_sharding(mesh)))
        state = plan.init() if devices == 1 else jax.device_put(alone()[2], plan.shardings)
        loss, metrics, _, grads = run(state, put_batch(batch_of(0), mesh=mesh))
        place.check()
    if devices == 1:
        return plan, jax.device_get((state.params, loss, metrics, grads)), jax.device_get(state)
    return plan, jax.device_get((state.params, loss, metrics, grads))


@functools.cache
def alone():
    return gradients()


def log_softmax_loss(scores):
    """Mean of -log softmax at the diagonal, of each row over its columns, by loops in float64."""
    total = 0.0
    for i, row in enumerate(scores):
        top = max(row)
        total += top + np.log(sum(np.exp(value - top) for value in row)) - row[i]
    return total / len(scores)


def test_loss_against_a_loop_in_float64():
    plan, (params, loss, metrics, _), state = alone()
    model = plan.model(state)
    batch = batch_of(0)
    video = np.asarray(model.encode_video(batch["video"]), np.float64)
    text = np.asarray(model.encode_text(batch["text"], mask=batch["text_mask"]), np.float64)
    scores = np.exp(np.float64(params["log_scale"])) * video @ text.T
    wanted = 0.5 * (log_softmax_loss(scores) + log_softmax_loss(scores.T))
    np.testing.assert_allclose(loss, wanted, rtol=1e-5)
    np.testing.assert_allclose(metrics["scale"], np.exp(np.float64(params["log_scale"])), rtol=1e-6)


@pytest.mark.parametrize(
    ("devices", "rules", "sizes"),
    [
        pytest.param(2, "replicated", {}, marks=pytest.mark.slow),
        pytest.param(8, "replicated", {}, marks=pytest.mark.slow),
        (4, "fsdp", {"replica": 1, "fsdp": -1}),
        pytest.param(8, "fsdp", {"replica": 2, "fsdp": 4}, marks=pytest.mark.slow),
        pytest.param(2, "fsdp_tensor", {"tensor": 2}, marks=pytest.mark.slow),
        pytest.param(4, "fsdp_tensor", {"replica": 1, "fsdp": 2, "tensor": 2}, marks=pytest.mark.slow),
        (8, "fsdp_tensor", {"replica": 2, "fsdp": 2, "tensor": 2}),
    ],
    ids=lambda value: str(value).replace(" ", ""),
)
def test_any_mesh_gives_the_gradients_of_one_device(devices, rules, sizes):
    _, (_, loss, metrics, grads), _ = alone()
    plan, (_, loss_here, metrics_here, grads_here) = gradients(rules=rules, devices=devices, **sizes)
    split = [path for path, value in plan.abstract.params.items() if not value.sharding.is_fully_replicated]
    assert bool(split) == (rules != "replicated")
    np.testing.assert_allclose(loss_here, loss, rtol=1e-5)
    for name, value in metrics.items():
        np.testing.assert_allclose(metrics_here[name], value, rtol=1e-5, err_msg=name)
    for path, value in grads.items():
        scale = np.abs(value).max()
        np.testing.assert_allclose(grads_here[path], value, rtol=1e-5, atol=1e-5 * scale, err_msg=path)


def test_a_batch_that_does_not_divide_is_refused():
    with pytest.raises(UserError, match=r"batch_size=8 must divide by the 3 devices"):
        put_batch(batch_of(0), mesh=make_mesh(devices=jax.devices()[:3]))
    assert BATCH == 8
