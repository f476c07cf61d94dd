"""Captured attention: the same outputs, weights that are weights, gradients by them; pixels that are real numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tower_loops import drawn, small_options

from twinreel.base.errors import UserError
from twinreel.models.layers.blocks import Blocks
from twinreel.models.layers.capture import Capture, capturing, real_pixels
from twinreel.models.layers.oriented_gradients import frames_last, oriented_gradients
from twinreel.models.towers.vivit import VideoTower

MASK = np.array([[1, 1, 1, 1, 1], [1, 1, 0, 1, 0]], bool)
TOKENS = np.random.default_rng(0).normal(size=(2, 5, 12)).astype(np.float32)


@pytest.mark.parametrize(
    "options", [{"kv_heads": 2, "logit_cap": 0.7}, {"causal": True, "attention_scale": 0.3}], ids=str
)
def test_a_captured_stack_gives_the_same_outputs_and_its_weights(options):
    stack = drawn(lambda: Blocks(small_options(tower="text", **options), depth=2, rngs=nnx.Rngs(0)))

    @jax.jit
    def both(x, mask):
        plain = stack(x, mask=mask)
        with capturing(Capture("text")) as capture:
            captured = stack(x, mask=mask)
            again = stack(x, mask=mask)  # only the first stack is captured
        return plain, captured, again, capture.values

    plain, captured, again, (*weights, output) = both(TOKENS, MASK)
    np.testing.assert_allclose(captured, plain, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(captured, output)
    np.testing.assert_allclose(again, plain, rtol=1e-5, atol=1e-5)
    assert len(weights) == 2
    for weight in weights:
        assert weight.shape == (2, 4, 5, 5)
        np.testing.assert_allclose(np.sum(weight, axis=-1), 1, rtol=1e-5)
        assert not np.asarray(weight)[1][:, :, ~MASK[1]].any()
        assert not options.get("causal") or not np.triu(weight[0, 0], 1).any()


def test_gradients_by_weights_are_those_of_finite_differences():
    stack = drawn(lambda: Blocks(small_options(tower="text"), depth=2, rngs=nnx.Rngs(0)))

    @jax.jit
    def total(taps):
        with capturing(Capture("text", taps=taps)):
            return jnp.sum(jnp.square(stack(TOKENS)))

    taps = [jnp.zeros((2, 4, 5, 5), jnp.float32)] * 2 + [jnp.zeros((2, 5, 12), jnp.float32)]
    found = jax.jit(jax.grad(total))(taps)
    for number, place in ((0, (1, 2, 3, 0)), (1, (0, 1, 4, 2)), (2, (0, 3, 7))):
        ends = [total([t.at[place].add(e) if i == number else t for i, t in enumerate(taps)]) for e in (1e-2, -1e-2)]
        assert float(found[number][place]) == pytest.approx(float(ends[0] - ends[1]) / 2e-2, rel=2e-2, abs=1e-2)


def test_towers_take_real_pixels_only_where_they_are_asked_to():
    sizes = {"image_size": 8, "patch": 4, "num_frames": 2, "width": 8, "depth": 1, "heads": 2, "temporal_depth": 1}
    tower = drawn(lambda: VideoTower(**sizes, stem=2, gradients=3, rngs=nnx.Rngs(0)))
    video = np.random.default_rng(0).integers(0, 256, (1, 2, 8, 8, 3), np.uint8)
    with pytest.raises(UserError, match=r"dtype float32.*uint8"):
        tower(jnp.asarray(video, jnp.float32))

    @jax.jit
    def outputs(video, real):
        with real_pixels():
            return tower(video), tower(real)

    np.testing.assert_allclose(*outputs(video, video.astype(np.float32)), rtol=1e-5, atol=1e-5)


def test_gradients_flow_through_histograms_and_are_finite_where_nothing_varies():
    video = np.full((1, 1, 8, 8, 3), 90, np.float32)
    video[..., 4:, :] = 130
    video[0, 0, 2:5, 2:5] += np.random.default_rng(0).normal(0, 9, (3, 3, 3))

    @jax.jit
    def total(x):
        found = oriented_gradients(frames_last(x), cell=4, orientations=3)
        return jnp.sum(found * jnp.cos(jnp.arange(found.size, dtype=jnp.float32)).reshape(found.shape))

    gradient = np.asarray(jax.jit(jax.grad(total))(jnp.asarray(video)))
    assert np.isfinite(gradient).all() and not gradient[0, 0, :, 7].any() and gradient.any()
    for place in (
        (0, 0, 3, 3, 0),
        (0, 0, 2, 3, 1),
        (0, 0, 3, 2, 2),
    ):  # elsewhere channels tie: a kink
        ends = []
        for step in (0.05, -0.05):
            changed = video.copy()
            changed[place] += step
            ends.append(float(total(jnp.asarray(changed))))
        assert gradient[place] == pytest.approx((ends[0] - ends[1]) / 0.1, rel=0.1, abs=0.01)
