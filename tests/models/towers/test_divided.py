"""Divided space-time attention: an independent forward pass, its start as an image tower, draws, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tower_loops import attention_by_loops, dense, f64, layer_of, mlp_by_loops, norm, randomised

from twinreel.base.errors import UserError
from twinreel.models.layers.draws import row_keys
from twinreel.models.towers.divided import DividedTower

SIZES = {"image_size": 8, "num_frames": 3, "patch": 4, "width": 12, "depth": 2, "heads": 2, "mlp_ratio": 2.0}


def tower(**changes):
    return randomised(DividedTower(**SIZES | changes, rngs=nnx.Rngs(0)))


def clips(*, rows=2, frames=3, height=8, width=8, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (rows, frames, height, width, 3), dtype=np.uint8)


def blocks_by_loops(x, token, blocks):
    """Tokens `[T,N,D]` and one class token `[D]`, block by block."""
    for number in range(blocks.depth):
        block = layer_of(blocks, number)
        for place in range(x.shape[1]):
            over_time = attention_by_loops(norm(x[:, place], block.norm_time), block.time)
            x = x.copy()
            x[:, place] += dense(over_time, block.time_dense)
        frames = [np.concatenate([token[None], frame]) for frame in x]
        added = np.stack([attention_by_loops(norm(frame, block.norm1), block.attention) for frame in frames])
        x, token = x + added[:, 1:], token + added[:, 0].mean(axis=0)
        x, token = (side + mlp_by_loops(norm(side, block.norm2), block) for side in (x, token))
    return norm(x, blocks.norm), norm(token, blocks.norm)


def test_forward_pass_by_loops():
    model, video = tower(), clips()
    found, tokens = model(jnp.asarray(video)), model.tokens(jnp.asarray(video))[0]
    assert found.dtype == jnp.float32
    embedded = f64(model.embed(jnp.asarray(video)))
    for row in range(2):
        x = embedded[row] + f64(model.space_position)[None] + f64(model.time_position)[:, None]
        x, token = blocks_by_loops(x, f64(model.class_token)[0], model.blocks)
        np.testing.assert_allclose(tokens[row], x, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(found[row], token, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(model.features(jnp.asarray(video)), tokens.mean(axis=2), rtol=1e-5, atol=1e-5)
    model.pool = "mean"
    np.testing.assert_allclose(model(jnp.asarray(video)), tokens.mean(axis=(1, 2)), rtol=1e-5, atol=1e-5)


def test_a_new_tower_ignores_other_frames():
    """But for the class token, which gathers from all."""
    model, video = DividedTower(**SIZES | {"depth": 1}, rngs=nnx.Rngs(0)), clips()
    other = video.copy()
    other[:, 1] = clips(seed=1)[:, 1]
    found, changed = (np.asarray(model.tokens(jnp.asarray(v))[0]) for v in (video, other))
    np.testing.assert_array_equal(found[:, [0, 2]], changed[:, [0, 2]])
    assert np.abs(found[:, 1] - changed[:, 1]).max() > 1e-3


def test_dropout_leaves_one_class_token_and_belongs_to_the_row():
    model = tower(dropout=0.3, patch_dropout=0.5, block={"drop_path": 0.3}, image_size=16)
    video, keys = jnp.asarray(clips(rows=3, height=16, width=16)), row_keys(jax.random.key(0), rows=3)
    x, kept = model._encode(video, keys=keys, drop_patches=True)
    assert x.shape == (3, 3, 9, 12) and kept.shape == (3, 3, 8)
    np.testing.assert_array_equal(kept[:, 0], kept[:, 2])  # the same places in all frames
    np.testing.assert_array_equal(x[:, 0, 0], x[:, 2, 0])
    np.testing.assert_allclose(model(video[1:2], keys=keys[1:2])[0], x[1, 0, 0], rtol=1e-4, atol=1e-4)
    assert not np.allclose(model(video), x[:, 0, 0], atol=1e-2)
    assert model.tokens(video, keys=keys, drop_patches=False)[1] is None


def test_gradients_reach_every_parameter_and_all_have_a_place_in_the_order_of_layers():
    model = tower(remat="full", unroll=0)
    grads = nnx.grad(lambda m: jnp.sum(m(jnp.asarray(clips(frames=5))) ** 2))(model)
    for path, leaf in nnx.to_flat_state(nnx.state(grads, nnx.Param)):
        assert np.isfinite(leaf[...]).all() and np.abs(leaf[...]).max() > 0, path
        name = "/".join(map(str, path))
        assert sum(name == part or name.startswith(part + "/") for part in model.layer_order()) == 1, name


WRONG = {
    "space_method.*'cubic'": {"space_method": "cubic"},
    "time_method.*'cubic'": {"time_method": "cubic"},
    "pool.*'first'": {"pool": "first"},
    "norm_position must be 'pre'": {"block": {"norm_position": "post"}},
    "image_size=8 must be a multiple of patch=3": {"patch": 3},
}


@pytest.mark.parametrize("message", WRONG)
def test_wrong_arguments(message):
    with pytest.raises(UserError, match=message):
        tower(**WRONG[message])
