"""The towers of 3-D convolutions: interface, a single frame, gradients, errors. Their numbers: tests/zoo/convert."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tower_loops import randomised

from twinreel.base.errors import UserError
from twinreel.models.towers.r2plus1d import R2Plus1dBlock, R2Plus1dTower
from twinreel.models.towers.s3d import InceptionBlock, S3DTower
from twinreel.models.towers.words import WordsTower

SMALL = {
    "s3d": (S3DTower, {"stem": (4, 4, 6), "blocks": ((2, 2, 3, 1, 2, 1),) * 9}),
    "r2plus1d": (R2Plus1dTower, {"stem": (3, 4), "widths": (4, 6), "depths": (1, 1)}),
}


def clips(*, frames=4, side=16):
    return jnp.asarray(np.random.default_rng(0).integers(0, 256, (2, frames, side, side, 3), dtype=np.uint8))


def tower(name, **changes):
    """The tower as shapes: nothing is computed."""
    kind, sizes = SMALL[name]
    return nnx.eval_shape(lambda: kind(**sizes | changes, rngs=nnx.Rngs(0)))


def encoded(model, video):
    return nnx.eval_shape(lambda m, v: (m(v), m.features(v), m.tokens(v)[0]), model, video)


@pytest.mark.parametrize("name", SMALL)
def test_interface(name):
    model = tower(name)
    y, features, tokens = encoded(model, clips(frames=12, side=64))
    steps, side = {"s3d": (2, 2), "r2plus1d": (6, 16)}[name]
    assert (y.shape, features.shape) == ((2, model.width), (2, steps, model.width))
    assert tokens.shape == (2, steps, side * side, model.width)
    assert y.dtype == features.dtype == model.dtype == jnp.float32
    paths = ["/".join(map(str, path)) for path, _ in nnx.to_flat_state(nnx.state(model))]
    assert all(any(path.startswith(part) for part in model.layer_order()) for path in paths)


def test_pools_are_means_over_space_and_time():
    kind, sizes = SMALL["r2plus1d"]
    model = nnx.jit(lambda: kind(**sizes, rngs=nnx.Rngs(0)))()
    y, features, tokens = nnx.jit(lambda m, v: (m(v), m.features(v), m.tokens(v)[0]))(model, clips())
    np.testing.assert_allclose(tokens.mean(axis=2), features, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(features.mean(axis=1), y, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "block",
    [
        lambda given: InceptionBlock(6, (2, 2, 3, 1, 2, 1), **given),
        lambda given: R2Plus1dBlock(6, 4, stride=2, **given),
    ],
)
def test_gradients_are_finite(block):
    layer = randomised(block({"dtype": jnp.float32, "rngs": nnx.Rngs(0)}))
    for path, variable in nnx.to_flat_state(nnx.state(layer)):
        if path[-1] == "variance":
            variable.set_value(jnp.abs(variable[...]) + 0.1)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 4, 4, 6)), jnp.float32)
    gradients = nnx.jit(nnx.grad(lambda layer, x: jnp.sum(layer(x) ** 2)))(layer, x)
    for path, value in nnx.to_flat_state(nnx.state(gradients)):
        assert bool(jnp.isfinite(value[...]).all()), path
        assert path[-1] in ("mean", "variance") or float(jnp.abs(value[...]).max()) > 0, path


def test_a_single_frame_is_a_pair_of_equal_ones_for_s3d():
    assert encoded(tower("s3d"), clips(frames=1))[1].shape == encoded(tower("s3d"), clips(frames=2))[1].shape


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("s3d", {"stem": (4, 4)}, "stem must be three widths"),
        ("s3d", {"blocks": ((1, 1, 1, 1, 1, 1),) * 8}, "blocks must be nine times six"),
        ("s3d", {"pixel_std": (1, 1, 0)}, "pixel_std must be above 0"),
        ("r2plus1d", {"depths": (1,)}, "widths and depths one number"),
        ("r2plus1d", {"depths": (1, 0)}, "at least 1"),
    ],
)
def test_sizes_that_do_not_fit(name, changes, message):
    with pytest.raises(UserError, match=message):
        tower(name, **changes)


def test_clips_that_do_not_fit():
    with pytest.raises(UserError, match=r"clips of 3 frames.*config\.data\.num_frames"):
        encoded(tower("s3d"), clips(frames=3))
    with pytest.raises(UserError, match="sides that patch=2 divides"):
        encoded(tower("s3d"), clips(side=15))
    with pytest.raises(UserError, match="dtype float32"):
        encoded(tower("r2plus1d"), clips().astype(jnp.float32))


def test_words_with_a_layer_and_padding_that_is_seen():
    """The maximum of `relu(layer(word))` over all places, padding among them, or over the words alone."""
    sizes = {"vocab_size": 5, "context_length": 4, "width": 3, "hidden": 6, "pool": "max"}
    text, mask = (
        jnp.asarray([[1, 2, 0, 0], [4, 0, 0, 0]]),
        jnp.asarray([[True, True, False, False], [True, *[False] * 3]]),
    )
    for seen in (True, False):
        model = WordsTower(**sizes, padding_seen=seen, rngs=nnx.Rngs(0))
        table, kernel = np.asarray(model.embedding[...]), np.asarray(model.hidden.kernel[...])
        each = np.maximum(table[text] @ kernel + np.asarray(model.hidden.bias[...]), 0)
        wanted = [(row if seen else row[real]).max(axis=0) for row, real in zip(each, mask, strict=True)]
        np.testing.assert_allclose(model(jnp.asarray(text), mask=jnp.asarray(mask)), wanted, rtol=1e-5)
        assert model.width == 6
