"""Pooling against NumPy in float64: means, places of tokens, attention pooling of CoCa, SigLIP and VideoPrism."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tower_loops import attention_by_loops, dense, f64, mlp_by_loops, norm, randomised, small_options

from twinreel.models.layers.pooling import AttentionPool, FirstTokenPool, eos_place, last_place, masked_mean, token_at

DRAW = np.random.default_rng(0)
MASK = np.array([[1, 1, 1, 0, 0], [0, 1, 0, 1, 0], [0, 0, 0, 0, 0]], bool)


def test_means_are_float32_sums_over_real_tokens():
    x = DRAW.normal(size=(3, 5, 4))
    got = masked_mean(jnp.asarray(x, jnp.float32), mask=jnp.asarray(MASK))
    wanted = [x[0, :3].mean(0), x[1, [1, 3]].mean(0), np.zeros(4)]
    np.testing.assert_allclose(got, wanted, atol=1e-6)
    np.testing.assert_allclose(masked_mean(jnp.asarray(x, jnp.float32)), x.mean(1), atol=1e-6)
    many = jnp.ones((1, 300, 2), jnp.bfloat16)  # bfloat16 cannot count to 259
    mean = masked_mean(many, mask=jnp.arange(300)[None] < 259)
    assert mean.dtype == jnp.float32 and (np.asarray(mean) == 1).all()


def test_places_of_last_and_end_of_sentence_tokens():
    np.testing.assert_array_equal(last_place(jnp.asarray(MASK)), [2, 3, 0])
    text = jnp.asarray([[5, 9, 3, 9, 0], [5, 2, 7, 7, 1], [9, 9, 9, 9, 9]])
    np.testing.assert_array_equal(eos_place(text), [1, 2, 0])  # the first of the largest ids
    mask = jnp.asarray([[True] * 4 + [False], [True] * 3 + [False] * 2, [True] * 5])
    np.testing.assert_array_equal(eos_place(text, eos_id=3, mask=mask), [2, 2, 4])  # without it, the last real token
    np.testing.assert_array_equal(eos_place(text, eos_id=7), [4, 2, 4])
    np.testing.assert_array_equal(eos_place(text, eos_id=7, mask=mask[:, ::-1]), [4, 2, 4])
    padding = jnp.asarray([[True, False, True, True, True], [True, True, False, False, False], [True] * 5])
    np.testing.assert_array_equal(eos_place(text, mask=padding), [3, 0, 0])  # ids of padding do not count
    np.testing.assert_array_equal(eos_place(text, eos_id=7, mask=padding), [4, 1, 4])
    x = jnp.arange(15, dtype=jnp.float32).reshape(3, 5, 1)
    np.testing.assert_array_equal(token_at(x, place=jnp.asarray([2, 0, 4]))[:, 0], [2, 5, 14])


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({}, {"norm_tokens": True, "norm_pooled": True}),
        ({"activation": "gelu", "norm_epsilon": 1e-6}, {"mlp": True}),
        ({"head_width": 12, "norm_plus_one": True}, {"per_dim_scale": True, "norm_pooled": True, "queries": 2}),
        ({"activation": "swiglu"}, {"mlp": True, "norm_tokens": True}),
    ],
    ids=["CoCa", "SigLIP", "VideoPrism", "gated"],
)
def test_attention_pooling_equals_a_float64_loop(options, kind):
    pool = randomised(AttentionPool(small_options(**options), **kind, rngs=nnx.Rngs(0)))
    x = DRAW.normal(size=(3, 5, 12)).astype(np.float32)
    got = nnx.jit(lambda pool, x, mask: pool(x, mask=mask))(pool, x, MASK)
    assert got.shape == (3, kind.get("queries", 1), 12)
    if pool.per_dim_scale is not None:  # a factor on the channels of each query is one on the columns that make it
        factor = np.tile(np.log1p(np.exp(f64(pool.per_dim_scale))) * 1.442695041, 4)
        query = pool.attention.query
        query.kernel[...], query.bias[...] = query.kernel[...] * factor[None], query.bias[...] * factor
    for row in range(3):
        tokens = x[row].astype(np.float64)
        tokens = tokens if pool.norm_tokens is None else norm(tokens, pool.norm_tokens)
        seen = np.tile(MASK[row], (len(got[row]), 1))
        wanted = attention_by_loops(f64(pool.query), pool.attention, seen=seen, context=tokens)
        wanted = wanted if pool.norm_pooled is None else norm(wanted, pool.norm_pooled)
        wanted = wanted if pool.mlp is None else wanted + mlp_by_loops(norm(wanted, pool.norm_mlp), pool.mlp)
        np.testing.assert_allclose(got[row], wanted, rtol=2e-4, atol=1e-4)
    whole = pool(jnp.asarray(x), mask=jnp.ones((3, 5), bool))
    np.testing.assert_allclose(pool(jnp.asarray(x)), whole, atol=1e-5)


def test_a_new_per_dim_scale_changes_nothing():
    plain, scaled = (AttentionPool(small_options(), per_dim_scale=s, rngs=nnx.Rngs(0)) for s in (False, True))
    x = jnp.asarray(DRAW.normal(size=(2, 5, 12)), jnp.float32)
    np.testing.assert_allclose(jax.jit(lambda: scaled(x))(), plain(x), atol=1e-6)


def test_first_token_pool_is_a_dense_layer_with_tanh():
    x = DRAW.normal(size=(3, 5, 12))
    pool = randomised(FirstTokenPool(small_options(), rngs=nnx.Rngs(0)))
    got = pool(jnp.asarray(x, jnp.float32), mask=jnp.asarray(MASK))
    assert got.shape == (3, 1, 12)
    np.testing.assert_allclose(got[:, 0], np.tanh(dense(x[:, 0], pool.out)), rtol=1e-5, atol=1e-5)
