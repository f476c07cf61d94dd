"""The text tower's forms of BERT and T5 against NumPy loops in float64, and longer contexts than it has positions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tower_loops import blocks_by_loops, dense, f64, norm, randomised

from twinreel.base.errors import UserError
from twinreel.models.towers.transformer import TextTower

IDS, REAL = np.array([[3, 7, 7, 1, 19, 0, 0], [3, 9, 2, 9, 7, 19, 4]]), [5, 7]
MASK = jnp.arange(7)[None] < jnp.asarray(REAL)[:, None]


def tower(**changes):
    """A small text tower with random parameters."""
    sizes = {"vocab_size": 20, "context_length": 7, "width": 12, "depth": 2, "heads": 3, "mlp_ratio": 2.0}
    return randomised(TextTower(**(sizes | changes), rngs=nnx.Rngs(0)))


def encoded(model, ids=IDS, mask=MASK):
    return nnx.jit(lambda model, ids, mask: model(ids, mask=mask))(model, jnp.asarray(ids, jnp.int32), mask)


@pytest.mark.parametrize("pool", ["cls", "mean", "pooler"])
def test_bert_form_equals_a_float64_loop(pool):
    block = {"norm_position": "post", "final_norm": False, "norm_epsilon": 1e-12}
    model = tower(pool=pool, token_types=2, embedding_norm=True, activation="gelu_exact", block=block)
    got = encoded(model)
    for row, real in enumerate(REAL):
        x = f64(model.embedding)[IDS[row, :real]] + f64(model.position)[:real] + f64(model.token_type)[0]
        x = blocks_by_loops(norm(x, model.embedding_norm), model.blocks)
        pooled = {"cls": x[0], "mean": x.mean(0)}.get(pool)
        wanted = np.tanh(dense(x[0], model.pooler.out)) if pooled is None else pooled
        np.testing.assert_allclose(got[row], wanted, rtol=1e-4, atol=1e-4)


def bucket(distance, *, buckets, farthest, causal):
    """T5's number of a distance from query to key, from the definition."""
    first = 0
    if causal:
        distance = max(-distance, 0)
    else:
        buckets //= 2
        first, distance = buckets * (distance > 0), abs(distance)
    exact = buckets // 2
    if distance < exact:
        return first + distance
    far = exact + int(np.log(distance / exact) / np.log(farthest / exact) * (buckets - exact))
    return first + min(far, buckets - 1)


@pytest.mark.parametrize(("activation", "causal"), [("relu", False), ("geglu", False), ("relu", True)])
def test_t5_form_equals_a_float64_loop(activation, causal):
    block = {"norm": "rmsnorm", "qkv_bias": False, "out_bias": False, "mlp_bias": False, "attention_scale": 1.0}
    block |= {"head_width": 5, "norm_epsilon": 1e-6, "mlp_hidden": 10}
    kind = {"position": "relative", "relative_buckets": 8, "relative_distance": 6, "causal": causal}
    model = tower(activation=activation, block=block, **kind)
    assert model.position is None
    got = encoded(model)
    for row, real in enumerate(REAL):
        numbers = [[bucket(m - q, buckets=8, farthest=6, causal=causal) for m in range(real)] for q in range(real)]
        bias = np.moveaxis(f64(model.relative_bias.table)[np.array(numbers)], 2, 0)
        x = blocks_by_loops(f64(model.embedding)[IDS[row, :real]], model.blocks, bias=bias)
        np.testing.assert_allclose(got[row], x.mean(0), rtol=1e-4, atol=1e-4)
    loss = lambda model: jnp.sum(jnp.square(model(jnp.asarray(IDS), mask=MASK)))  # noqa: E731
    gradient = nnx.grad(loss)(model)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    assert np.abs(gradient["relative_bias"]["table"][...]).max() > 0


def test_without_positions_a_text_is_a_bag_of_tokens_of_any_length():
    model = tower(position="none", context_length=3)
    a, b = (encoded(model, ids, jnp.ones((2, 7), bool)) for ids in (IDS, IDS[:, ::-1]))
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_longer_contexts_stretch_the_positions_linearly():
    model = tower(positions=4, stretch_positions=True)
    stored, places = f64(model.position), (np.arange(7) + 0.5) * 4 / 7 - 0.5
    assert stored.shape == (4, 12)
    wanted = np.stack([np.interp(places, np.arange(4), column) for column in stored.T], axis=1)
    plain = tower()
    nnx.update(plain, nnx.state(model, lambda path, _: path[0] != "position"))
    plain.position[...] = jnp.asarray(wanted, jnp.float32)
    np.testing.assert_allclose(encoded(model), encoded(plain), rtol=1e-5, atol=1e-5)
    short = encoded(model, IDS[:, :5], MASK[:, :5])  # a shorter batch has the same first positions
    np.testing.assert_allclose(short[0], encoded(model)[0], rtol=1e-4, atol=1e-5)


def test_shorter_contexts_use_the_first_positions():
    long, short = tower(positions=7, context_length=5), tower(context_length=7)
    nnx.update(short, nnx.state(long))
    ids, mask = IDS[:, :5], MASK[:, :5]
    np.testing.assert_allclose(encoded(long, ids, mask), encoded(short, ids, mask), atol=1e-6)
    with pytest.raises(UserError, match=r"text of 7 tokens.*for 5; set config\.data\.context_length"):
        long.tokens(jnp.asarray(IDS), mask=MASK)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"positions": 4}, r"config\.data\.context_length=7 .* 4 positions.*stretch_positions=True"),
        ({"position": "rotary"}, r"config\.model\.text\.position.*'rotary'"),
        ({"pool": "poolr"}, r"config\.model\.text\.pool.*'poolr'; did you mean 'pooler'"),
        ({"position": "relative", "relative_buckets": 6}, r"relative_buckets=6 must be a multiple of 4"),
        ({"position": "relative", "relative_distance": 16}, r"relative_distance=16 above half"),
    ],
    ids=str,
)
def test_mistakes_are_named(options, message):
    with pytest.raises(UserError, match=message):
        tower(**options)
