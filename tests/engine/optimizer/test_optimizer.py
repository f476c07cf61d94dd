import math

import jax.numpy as jnp
import numpy as np
import pytest

from twinreel.base.errors import UserError
from twinreel.base.section import section
from twinreel.engine.optimizer.optimizer import make_optimizer
from twinreel.engine.optimizer.schedule import make_schedule


def rates(name, *, steps=10, at, **options):
    schedule = make_schedule(name, lr=2.0, steps=steps, **options)
    return [float(schedule(jnp.int32(step))) for step in at]


def test_schedules_by_hand():
    assert rates("constant", at=[0, 9]) == [2.0, 2.0]
    assert rates("constant", warmup_steps=4, at=[0, 1, 3, 4]) == [0.5, 1.0, 2.0, 2.0]
    np.testing.assert_allclose(rates("linear", end_lr_factor=0.1, at=[0, 5, 10, 99]), [2.0, 1.1, 0.2, 0.2], rtol=1e-6)
    half = 2.0 * 0.5 * (1 + math.cos(math.pi * 0.25))
    np.testing.assert_allclose(rates("cosine", warmup_steps=2, at=[2, 4, 10]), [2.0, half, 0.0], atol=1e-6)
    np.testing.assert_allclose(rates("rsqrt", warmup_steps=4, at=[3, 4, 12]), [2.0, 2.0, 2.0 / math.sqrt(3)], rtol=1e-6)


def test_wsd_by_hand():
    got = rates("wsd", steps=20, warmup_steps=4, decay_share=0.4, end_lr_factor=0.1, at=[0, 3, 11, 12, 14, 20])
    falling = 2.0 * (0.1 + 0.9 * (1 - math.sqrt(2 / 8)))
    np.testing.assert_allclose(got, [0.5, 2.0, 2.0, 2.0, falling, 0.2], rtol=1e-6)


def adamw_by_hand(param, grads, *, lr, b1, b2, eps, decay):
    m = v = np.zeros_like(param)
    for t, grad in enumerate(grads, start=1):
        m, v = b1 * m + (1 - b1) * grad, b2 * v + (1 - b2) * grad**2
        update = (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps)
        param = param - lr * (update + decay * param)
    return param


def test_adamw_against_a_loop_in_float64():
    rng = np.random.default_rng(0)
    params = {"a/kernel": rng.normal(size=(3, 4)), "a/bias": rng.normal(size=4), "log_scale": rng.normal()}
    grads = [{key: rng.normal(size=np.shape(value)) for key, value in params.items()} for _ in range(5)]
    optimizer = make_optimizer(steps=5, lr=0.1, schedule="constant", weight_decay=0.3, b2=0.95)
    now = {key: jnp.float32(value) for key, value in params.items()}
    state = optimizer.init(now)
    for step, grad in enumerate(grads):
        grad = {k: jnp.float32(g) for k, g in grad.items()}
        now, state = optimizer.update(grad, state=state, params=now, step=jnp.int32(step))
    for key, value in params.items():
        decay = 0.3 if np.ndim(value) > 1 else 0.0  # biases and log_scale are not decayed
        wanted = adamw_by_hand(
            np.float64(value), [g[key] for g in grads], lr=0.1, b1=0.9, b2=0.95, eps=1e-8, decay=decay
        )
        np.testing.assert_allclose(now[key], wanted, rtol=2e-5)


def test_clip_norm_and_no_decay():
    optimizer = make_optimizer(
        steps=1, name="sgd", b1=0.0, lr=1.0, schedule="constant", clip_norm=0.5, weight_decay=0.1, no_decay=("^b",)
    )
    params = {"a": jnp.ones((1, 1)), "b": jnp.ones((1, 1))}
    grads = {"a": jnp.full((1, 1), 3.0), "b": jnp.full((1, 1), 4.0)}  # norm 5, clipped to 0.5
    new, _ = optimizer.update(grads, state=optimizer.init(params), params=params, step=jnp.int32(0))
    np.testing.assert_allclose([new["a"][0, 0], new["b"][0, 0]], [1 - 0.3 - 0.1, 1 - 0.4], rtol=1e-6)


def test_the_learning_rate_is_that_of_the_step_whatever_the_optimizer_has_seen():
    """A skipped batch counts as a step, and the rate that is logged is the one that is used."""
    optimizer = make_optimizer(steps=10, name="sgd", b1=0.0, lr=2.0, schedule="linear")
    params = {"a": jnp.zeros(())}
    for step in (0, 5, 8):
        new, _ = optimizer.update(
            {"a": jnp.ones(())}, state=optimizer.init(params), params=params, step=jnp.int32(step)
        )
        np.testing.assert_allclose(new["a"], -2.0 * (1 - step / 10), rtol=1e-6)


@pytest.mark.parametrize("name", ["adamw", "lamb", "lion", "adafactor", "muon", "sgd"])
def test_every_optimizer_goes_downhill(name):
    optimizer = make_optimizer(steps=30, name=name, lr=0.05, weight_decay=0.01)
    params = {"w": jnp.full((2, 3), 2.0)}
    state = optimizer.init(params)
    for step in range(30):
        grads = {"w": 2 * params["w"]}
        params, state = optimizer.update(grads, state=state, params=params, step=jnp.int32(step))
    assert float(jnp.abs(params["w"]).max()) < 1.7


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"lr": 1.0, "name": "adamv"}, "config.optimizer.name.*did you mean 'adamw'"),
        ({"lr": 1.0, "schedule": "cos"}, "config.optimizer.schedule"),
        ({"lr": 1.0, "warmup_steps": 11}, "warmup_steps=11 must lie between 0 and config.train.steps=10"),
        ({"lr": -1.0}, "config.optimizer.lr must not be negative"),
        ({"lr": 1.0, "weigth_decay": 0.1}, "did you mean 'weight_decay'"),
        ({"lr": 1.0, "end_lr_factor": 2.0}, "end_lr_factor must lie between 0 and 1"),
        (
            {"lr": 1.0, "schedule": "wsd", "warmup_steps": 9},
            "decay_share=0.2 .*its 2 steps must fit",
        ),
        ({"lr": 1.0, "mu_dtype": "float16"}, "config.optimizer.mu_dtype"),
        ({"lr": 1.0, "layer_decay": 0.0}, "layer_decay must be above 0"),
        ({"lr": 1.0, "ema_decay": 1.0}, "ema_decay must be at least 0 and below 1"),
        ({"lr": 1.0, "lr_scale": (("^text/",),)}, "config.optimizer.lr_scale.0. must have 2 values, got 1"),
        ({"lr": 1.0, "lr_scale": (("(", 0.1),)}, "config.optimizer.lr_scale.*not a regular expression"),
        ({"lr": 1.0, "steps": 3}, "config.optimizer .steps."),
        ({}, "config.optimizer lacks 'lr'"),
    ],
)
def test_mistakes_are_named(values, message):
    with pytest.raises(UserError, match=message):
        section(make_optimizer, values, name="optimizer", steps=10)
