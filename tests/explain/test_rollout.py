"""The rollout against its formula in float64, and on a stack in which it is known who attends to whom."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tower_loops import drawn, small_options

from twinreel.explain.rollout import Patches, patches_of, rolled_out
from twinreel.models.layers.blocks import Blocks
from twinreel.models.layers.capture import Capture, capturing
from twinreel.models.towers.vivit import VideoTower

TOKENS = np.random.default_rng(0).normal(size=(2, 5, 12)).astype(np.float32)


def test_the_rollout_is_that_of_its_formula():
    stack = drawn(lambda: Blocks(small_options(tower="text"), depth=2, rngs=nnx.Rngs(0)))
    direction = np.random.default_rng(1).normal(size=12).astype(np.float32)

    def score():
        return jnp.mean(stack(TOKENS)[:, 1:], axis=1) @ direction  # the first token is not pooled

    def total(taps):
        with capturing(Capture("text", taps=taps)) as capture:
            return jnp.sum(score()), capture.values

    taps = [jnp.zeros((2, 4, 5, 5), jnp.float32)] * 2 + [jnp.zeros((2, 5, 12), jnp.float32)]
    gradients, values = jax.jit(jax.grad(total, has_aux=True))(taps)
    rolled = np.eye(5)[None].repeat(2, axis=0)
    for weight, gradient in zip(values[:2], gradients[:2], strict=True):
        product = np.maximum(np.asarray(weight, np.float64) * np.asarray(gradient, np.float64), 0).mean(axis=1)
        rolled = rolled + (product / product.sum(axis=-1).max()) @ rolled
    begin = np.linalg.norm(np.asarray(gradients[2], np.float64), axis=-1)
    wanted = np.einsum("rl,rlm->rm", begin, rolled)
    np.testing.assert_allclose(jax.jit(lambda: rolled_out(score, tower="text"))(), wanted, rtol=1e-4)


def test_tokens_that_only_a_pooled_token_attends_to_get_its_relevance():
    """Only the first token is pooled, and all attend to the fourth: those two carry the score."""
    stack = drawn(lambda: Blocks(small_options(tower="text"), depth=1, rngs=nnx.Rngs(0)))
    pairs = np.zeros((5, 5), bool)
    pairs[:, 3] = True

    def score():
        from twinreel.models.layers.attention import AttentionInputs

        return stack(TOKENS, inputs=AttentionInputs(pairs=jnp.asarray(pairs)))[:, 0, 0]

    found = np.asarray(jax.jit(lambda: rolled_out(score, tower="text"))())
    assert (found[:, 0] > 0).all() and not found[:, [1, 2, 4]].any()
    assert found[:, 3].max() == pytest.approx(found[found[:, 3].argmax(), 0], rel=1e-5)


def test_the_patches_of_a_tower_are_those_of_its_grid():
    sizes = {"image_size": 12, "patch": 4, "num_frames": 4, "tubelet": 2, "width": 8, "depth": 1, "heads": 2}
    tower = nnx.eval_shape(lambda: VideoTower(**sizes, temporal_depth=1, rngs=nnx.Rngs(0)))
    assert patches_of(tower, family="vivit", shape=(4, 12, 12, 3)) == Patches(2, 3, 3, frames=True)
