"""The temperature of a dual tower: its cap, and what passes it."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from dual_towers import build
from flax import nnx

from twinreel.models.dual import MAX_SCALE, capped


def tiny():
    video = {"image_size": 8, "patch": 8, "width": 8, "depth": 0, "heads": 2, "temporal_depth": 0}
    text = {"width": 8, "depth": 0, "heads": 2}
    sizes = {"num_frames": 1, "context_length": 2, "vocab_size": 4}
    return build(video=video, text=text, embed_dim=4, rngs=nnx.Rngs(0), **sizes)


def test_scale_is_capped():
    model = tiny()
    assert float(model.scale) == pytest.approx(1 / 0.07, rel=1e-6)
    model.log_scale[...] = jnp.float32(9.0)
    assert float(model.scale) == pytest.approx(MAX_SCALE, rel=1e-6)


@pytest.mark.parametrize(
    ("log_scale", "slope", "wanted"),
    [(2.0, -1.0, -np.exp(2)), (2.0, 1.0, np.exp(2)), (9.0, 1.0, MAX_SCALE), (9.0, -1.0, 0.0)],
)
def test_above_the_cap_only_a_gradient_that_asks_for_less_passes(log_scale, slope, wanted):
    graph, params = nnx.split(tiny())
    params["log_scale"][...] = jnp.float32(log_scale)
    gradient = jax.grad(lambda p: jnp.float32(slope) * nnx.merge(graph, p).scale)(params)
    assert float(gradient["log_scale"][...]) == pytest.approx(wanted, rel=1e-6)


def test_momentum_carries_the_scale_over_the_cap_and_the_gradient_brings_it_back():
    cap, adam = np.log(MAX_SCALE), optax.adam(0.02)

    @jax.jit
    def step(log_scale, state, slope):
        gradient = jax.grad(lambda x: slope * jnp.exp(capped(x)))(log_scale)
        with jax.numpy_dtype_promotion("standard"):
            change, state = adam.update(gradient, state)
        return log_scale + change, state

    log_scale, way = jnp.float32(np.log(1 / 0.07)), []
    state = adam.init(log_scale)
    for slope in [-1.0] * 200 + [1.0] * 100:
        log_scale, state = step(log_scale, state, jnp.float32(slope))
        way.append(float(log_scale))
    assert cap < way[149] == pytest.approx(way[199], abs=1e-3) and way[199] < cap + 0.5  # over it, but not away
    assert way[-1] < cap - 0.1
