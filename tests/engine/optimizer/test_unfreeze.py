"""Gradual unfreezing: parameters that are trained from a later step on, and layers that open one after another."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from twinreel.base.errors import UserError
from twinreel.engine.optimizer.optimizer import make_optimizer
from twinreel.engine.step.counts import count_openings, openings_text

SHAPES = {"head/kernel": (4, 2), "video/layers/up/kernel": (3, 4, 4), "video/embed/kernel": (6, 4), "text/kernel": (5,)}
DISTANCES = {"video/layers/up/kernel": np.array([3, 2, 1], np.float32), "video/embed/kernel": np.asarray(4, np.float32)}
SCHEDULE = (("^video/", 2, 3), ("^text/", 4))


def optimizer(**options):
    import dataclasses

    made = make_optimizer(steps=20, lr=0.1, schedule="constant", **({"unfreeze": SCHEDULE} | options))
    return dataclasses.replace(made, distances=DISTANCES)


def test_each_parameter_moves_from_its_step_on_as_if_its_moments_had_always_been_kept():
    """Against a loop of Adam in float64 whose updates are dropped before the step."""
    made, rng = optimizer(b1=0.9, b2=0.99), np.random.default_rng(0)
    params = {path: rng.normal(size=shape) for path, shape in SHAPES.items()}
    now = {path: jnp.asarray(value, jnp.float32) for path, value in params.items()}
    state = made.init(now)
    moments = {path: (np.zeros(shape), np.zeros(shape)) for path, shape in SHAPES.items()}
    opens = {"head/kernel": 0, "text/kernel": 4, "video/embed/kernel": 2 + 3 * 3}
    opens["video/layers/up/kernel"] = np.array([2 + 3 * 2, 2 + 3, 2])[:, None, None]
    update = jax.jit(lambda g, s, p, step: made.update(g, state=s, params=p, step=step))
    for step in range(13):
        grads = {path: rng.normal(size=shape) for path, shape in SHAPES.items()}
        now, state = update({p: jnp.asarray(g, jnp.float32) for p, g in grads.items()}, state, now, jnp.int32(step))
        for path, grad in grads.items():
            m, v = (
                b * old + (1 - b) * x for b, old, x in zip((0.9, 0.99), moments[path], (grad, grad**2), strict=True)
            )
            moments[path] = m, v
            change = m / (1 - 0.9 ** (step + 1)) / (np.sqrt(v / (1 - 0.99 ** (step + 1))) + 1e-8)
            params[path] = params[path] - np.where(step >= opens[path], 0.1 * change, 0)
            np.testing.assert_allclose(now[path], params[path], rtol=2e-5, atol=2e-5, err_msg=f"{path} at {step}")


def test_closed_parameters_do_not_decay():
    made = optimizer(weight_decay=0.5)
    now = {path: jnp.ones(shape, jnp.float32) for path, shape in SHAPES.items()}
    new, _ = made.update(optax.tree.zeros_like(now), state=made.init(now), params=now, step=jnp.int32(0))
    moved = {path for path in now if not np.array_equal(new[path], now[path])}
    assert moved == {"head/kernel"}


def test_the_table_counts_what_opens_when():
    made = optimizer()
    shapes = {path: jax.ShapeDtypeStruct(shape, jnp.float32) for path, shape in SHAPES.items()}
    counts = count_openings(shapes, opens=made.opens(shapes))
    wanted = {(0, "head"): 8, (2, "video"): 16, (4, "text"): 5, (5, "video"): 16, (8, "video"): 16, (11, "video"): 24}
    assert counts == wanted and sum(counts.values()) == sum(int(np.prod(shape)) for shape in SHAPES.values())
    last = openings_text(counts).splitlines()[-2].split()
    assert [word for word in last if word[0].isdigit()] == ["11", "24", "85"]


@pytest.mark.parametrize(
    ("table", "wanted"),
    [
        ((("^video/",),), r"rows \(regex, step\) or \(regex, step, steps from layer to layer\), got \('\^video/',\)"),
        ((("^video/", 2.5),), r"got \('\^video/', 2\.5\)"),
        ((("^video/", 20),), r"would open at step 20 of 20"),
        ((("^vidoe/", 2),), r"unfreeze.*'\^vidoe/'|'\^vidoe/'.*unfreeze"),
        ((("", 2),), r"opens no parameter at step 0"),
    ],
)
def test_mistakes_are_named(table, wanted):
    shapes = {path: jnp.zeros(shape) for path, shape in SHAPES.items()}
    with pytest.raises(UserError, match=wanted):
        optimizer(unfreeze=table).init(shapes)
