"""Precomputed vectors in the place of frames: the feature tower, and a tower on frames that is given them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from twinreel.base.errors import UserError
from twinreel.models.towers.features import FeatureTower
from twinreel.models.towers.frames import FramesTower

RNG = np.random.default_rng(3)
X = RNG.normal(size=(3, 5, 6)).astype(np.float32)
MASK = np.arange(5)[None] < np.array([[5], [2], [0]])
IMAGE = {"image_size": 16, "patch": 8, "width": 8, "depth": 1, "heads": 2, "class_token": True, "pool": "cls_mean"}


def tower(**changes):
    own = {"features": "rgb", "input_width": 6, "num_frames": 5, "width": 8, "depth": 1, "heads": 2} | changes
    return FeatureTower(**own, rngs=nnx.Rngs(0))


@nnx.jit
def run(model, x, mask):
    return model(x, mask=mask)


def test_it_begins_as_the_mean_of_projected_vectors():
    model = tower(over_time="transformer")
    found = run(model, X, MASK)
    z = (X - X.mean(-1, keepdims=True)) / np.sqrt(X.var(-1, keepdims=True) + 1e-6)
    z = z @ np.asarray(model.embed.kernel[...]) + np.asarray(model.embed.bias[...])
    for row, length in ((0, 5), (1, 2)):
        np.testing.assert_allclose(found[row], z[row, :length].mean(axis=0), atol=1e-4)
    np.testing.assert_array_equal(found[2], 0)


@pytest.mark.parametrize("over_time", ["mean", "transformer", "attention", "lstm", "gru"])
def test_padding_is_seen_by_nothing(over_time):
    model = tower(over_time=over_time)
    if model.time is not None:
        model.time.gate[...] = jnp.ones_like(model.time.gate[...])
    dirty = np.where(MASK[..., None], X, np.nan)

    clean = run(model, X, MASK)
    np.testing.assert_array_equal(run(model, dirty, MASK), clean)
    loss = nnx.grad(lambda model, x: jnp.sum(jnp.square(model(x, mask=jnp.asarray(MASK)))))
    grads = nnx.jit(loss)(model, dirty)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))
    alone = run(model, X[1:2, :2], MASK[1:2, :2]) if over_time in ("mean", "lstm", "gru") else clean[1:2]
    np.testing.assert_allclose(alone, clean[1:2], atol=1e-5)  # no positions to interpolate: padding may be left out


def test_vectors_of_another_width_are_refused():
    with pytest.raises(UserError, match=r"features 'rgb' of shape \[B,T,6\].*input_width"):
        tower()(jnp.zeros((1, 5, 7)))
    with pytest.raises(UserError, match=r"over_time 'lstn'; did you mean 'lstm'"):
        tower(over_time="lstn")
    frames = FramesTower(image=IMAGE, num_frames=5, features="dino", rngs=nnx.Rngs(1))
    with pytest.raises(UserError, match=r"features='dino'.*image tower gives vectors of 16 .*twinreel features"):
        frames(jnp.zeros((1, 5, 7)))


@pytest.mark.parametrize("unit_frames", [False, True])
def test_vectors_of_the_image_tower_stand_for_frames(unit_frames):
    model = FramesTower(image=IMAGE, num_frames=3, over_time="lstm", depth=1, unit_frames=unit_frames, rngs=nnx.Rngs(1))
    model.time.gate[...] = jnp.ones_like(model.time.gate[...])
    video = RNG.integers(0, 256, (2, 3, 16, 16, 3)).astype(np.uint8)

    @nnx.jit
    def both(model, video):
        vectors = model.image(video.reshape(6, 16, 16, 3))
        padded = jnp.concatenate([vectors.reshape(2, 3, -1), jnp.full((2, 1, 16), jnp.nan)], axis=1)
        real = jnp.arange(4)[None] < jnp.full((2, 1), 3)
        return vectors, model(video), model(vectors.reshape(2, 3, -1)), model(padded, mask=real)

    vectors, frames, given, padded = both(model, video)
    assert model.width == 16 and vectors.shape == (6, 16)
    np.testing.assert_allclose(given, frames, atol=1e-6)
    np.testing.assert_allclose(padded, frames, atol=1e-6)
    tokens = model.image.tokens(video[0])
    np.testing.assert_allclose(vectors[:3, :8], tokens.leading[:, 0], atol=1e-5)
    np.testing.assert_allclose(vectors[:3, 8:], np.mean(tokens.patches, axis=1), atol=1e-5)
