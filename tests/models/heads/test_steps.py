"""The head on time steps: what it sees around each of them, and the model on bags of windows."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from twinreel.models.heads.steps import StepHead, StepModel


def head(**options):
    return StepHead(video_width=6, width=8, rngs=nnx.Rngs(0), **options)


@pytest.mark.parametrize(("dilations", "smooth", "reach"), [((1, 4), 0, 4), ((1,), 2, 3), ((), 0, 0)])
def test_a_step_sees_as_far_as_the_reach(dilations, smooth, reach):
    made = head(dilations=dilations, smooth=smooth)
    assert made.reach == reach
    tokens = np.random.default_rng(0).normal(size=(1, 15, 6)).astype(np.float32)
    other = tokens.copy()
    other[0, 7] *= -1.0
    change = np.abs(np.asarray(made(jnp.asarray(tokens)).logits - made(jnp.asarray(other)).logits))[0] > 1e-7
    near = {7} | {7 + sign * dilation for dilation in dilations for sign in (-1, 1)}
    seen = {step + shift for step in near for shift in range(-smooth, smooth + 1)}
    assert set(np.flatnonzero(change).tolist()) == seen


def test_steps_that_are_not_real_are_as_the_ends_of_the_film():
    made = head()
    tokens = np.random.default_rng(0).normal(size=(2, 9, 6)).astype(np.float32)
    whole = made(jnp.asarray(tokens))
    padded = np.concatenate([np.full((2, 5, 6), 3.0, np.float32), tokens, np.full((2, 4, 6), -2.0, np.float32)], axis=1)
    mask = np.zeros((2, 18), bool)
    mask[:, 5:14] = True
    got = made(jnp.asarray(padded), mask=jnp.asarray(mask))
    np.testing.assert_allclose(got.logits[:, 5:14], whole.logits, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(got.magnitudes[:, 5:14], whole.magnitudes, rtol=1e-5, atol=1e-6)


class Means(nnx.Module):
    """A tower whose tokens are the mean colours of frames."""

    def features(self, video, *, keys=None, drop_patches=False):
        del keys, drop_patches
        return jnp.repeat(jnp.mean(video.astype(jnp.float32), axis=(2, 3)), 2, axis=-1)


def test_the_windows_of_a_bag_follow_each_other():
    model = StepModel(video=Means(), head=head())
    video = np.random.default_rng(0).integers(0, 255, (2, 3, 4, 5, 5, 3), dtype=np.uint8)
    got = model(jnp.asarray(video))
    tokens = np.repeat(video.mean(axis=(3, 4), dtype=np.float64), 2, axis=-1).reshape(2, 12, 6).astype(np.float32)
    np.testing.assert_allclose(got.logits, model.head(jnp.asarray(tokens)).logits, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(model(jnp.asarray(video[:, 0])).logits, model(jnp.asarray(video[:, :1])).logits)
