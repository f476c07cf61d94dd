"""Attention against float64 loops: kinds of heads, masks, decoding, gradients, queries that see nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tower_loops import attend_by_loops, attention_by_loops, randomised, small_options

from twinreel.models.layers.attend import attend
from twinreel.models.layers.attention import Attention, AttentionInputs
from twinreel.models.layers.positions import rotary_angles

B, L, D = 2, 5, 12
DRAW = np.random.default_rng(0)
TOKENS = DRAW.normal(size=(B, L, D)).astype(np.float32)
PAIRS = np.array([[1, 0, 1, 1, 0], [1, 1, 0, 0, 0], [0, 1, 1, 1, 1], [0, 0, 0, 1, 0], [1, 1, 1, 1, 1]], bool)
REAL = np.array([[1, 1, 1, 1, 1], [1, 1, 0, 1, 0]], bool)
CAUSAL = np.tri(L, dtype=bool)


def built(*, context_width=None, **changes):
    return randomised(Attention(small_options(**changes), context_width=context_width, rngs=nnx.Rngs(0)))


def applied(layer, x, **inputs):
    inputs = {key: jnp.asarray(value) for key, value in inputs.items()}
    return nnx.jit(lambda layer, x, inputs: layer(x, inputs=AttentionInputs(**inputs)))(layer, jnp.asarray(x), inputs)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"kv_heads": 2},
        {"kv_heads": 1, "fused_qkv": False, "qkv_bias": False},
        {"fused_qkv": False, "out_bias": False, "attention_scale": 1.0},
        {"head_width": 5, "kv_heads": 2, "qk_norm": "width", "norm": "rmsnorm"},
        {"qk_norm": "head", "norm_epsilon": 1e-2, "norm_plus_one": True, "attention_norm": True},
        {"kv_heads": 2, "fused_qkv": False, "qk_norm": "width", "logit_cap": 0.7},
    ],
    ids=str,
)
def test_kinds_of_heads_equal_a_float64_loop(options):
    layer = built(**options)
    got = applied(layer, TOKENS)
    for row in range(B):
        wanted = attention_by_loops(TOKENS[row].astype(np.float64), layer)
        np.testing.assert_allclose(got[row], wanted, rtol=1e-4, atol=2e-5)


def test_fused_and_separate_projections_are_the_same_layer():
    fused, apart = built(kv_heads=2), built(kv_heads=2, fused_qkv=False)
    columns = np.asarray(fused.qkv.kernel[...]).reshape(D, 2, 4, 3)  # group, (two queries, key, value), channel
    biases = np.asarray(fused.qkv.bias[...]).reshape(2, 4, 3)
    for layer, at in ((apart.query, slice(0, 2)), (apart.key, slice(2, 3)), (apart.value, slice(3, 4))):
        layer.kernel[...], layer.bias[...] = columns[:, :, at].reshape(D, -1), biases[:, at].reshape(-1)
    apart.out.kernel[...], apart.out.bias[...] = fused.out.kernel[...], fused.out.bias[...]
    np.testing.assert_allclose(applied(fused, TOKENS), applied(apart, TOKENS), atol=1e-5)


@pytest.mark.parametrize(
    ("causal", "inputs", "seen"),
    [
        (True, {}, [CAUSAL] * B),
        (False, {"mask": REAL}, [np.tile(row, (L, 1)) for row in REAL]),
        (False, {"pairs": PAIRS}, [PAIRS] * B),
        (False, {"pairs": np.stack([PAIRS, PAIRS.T])}, [PAIRS, PAIRS.T]),
        (False, {"pairs": np.stack([PAIRS, PAIRS.T])[:, None]}, [PAIRS, PAIRS.T]),
        (False, {"pairs": np.stack([PAIRS, PAIRS.T, CAUSAL, ~PAIRS])[None]}, [[PAIRS, PAIRS.T, CAUSAL, ~PAIRS]] * B),
        (True, {"mask": REAL, "pairs": PAIRS}, [CAUSAL & PAIRS & row for row in REAL]),
    ],
    ids=["causal", "keys", "pairs", "pairs of rows", "[B,1,L,M]", "[1,K,L,M]", "all"],
)
@pytest.mark.parametrize("kv_heads", [4, 2])
def test_masks_equal_a_float64_loop_and_combine(causal, inputs, seen, kv_heads):
    layer = built(causal=causal, kv_heads=kv_heads)
    got = applied(layer, TOKENS, **inputs)
    for row in range(B):
        wanted = attention_by_loops(TOKENS[row].astype(np.float64), layer, seen=np.asarray(seen[row]))
        np.testing.assert_allclose(got[row], wanted, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("options", [{"rotary": "halves"}, {"rotary": "interleaved", "kv_heads": 1, "causal": True}])
def test_bias_and_rotary_positions_equal_a_float64_loop(options):
    layer = built(width=16, **options)
    x, bias = DRAW.normal(size=(B, L, 16)).astype(np.float32), DRAW.normal(size=(1, 4, L, L)).astype(np.float32)
    angles = np.asarray(rotary_angles(np.arange(L), width=4))
    got = applied(layer, x, bias=bias, angles=angles)
    seen = CAUSAL if options.get("causal") else None
    for row in range(B):
        own = {"seen": seen, "bias": bias[0], "angles": angles}
        wanted = attention_by_loops(x[row].astype(np.float64), layer, **own)
        np.testing.assert_allclose(got[row], wanted, rtol=1e-4, atol=2e-5)
    rows = applied(layer, x, bias=bias, angles=np.stack([angles] * B))  # positions of each row by itself
    np.testing.assert_allclose(rows, got, atol=1e-6)


@pytest.mark.parametrize("options", [{}, {"kv_heads": 2, "qk_norm": "head", "logit_cap": 2.0}], ids=str)
def test_cross_attention_equals_a_float64_loop_and_one_row_may_ask_for_all(options):
    layer = built(context_width=7, **options)
    context = DRAW.normal(size=(B, 4, 7)).astype(np.float32)
    mask = np.array([[1, 1, 1, 1], [0, 1, 1, 0]], bool)

    @nnx.jit
    def crossed(layer, x, context, mask):
        keys, values = layer.context(context)
        return layer.cross(x, keys=keys, values=values, inputs=AttentionInputs(mask=mask))

    for x in (TOKENS, TOKENS[:1]):
        got = crossed(layer, x, context, mask)
        for row in range(B):
            asks = x[row % len(x)].astype(np.float64)
            seen = np.tile(mask[row], (L, 1))
            wanted = attention_by_loops(asks, layer, seen=seen, context=context[row].astype(np.float64))
            np.testing.assert_allclose(got[row], wanted, rtol=1e-4, atol=2e-5)


def slopes_by_differences(function, arrays, *, step=1e-5):
    """Central differences of a function of float64 arrays by every element of each of them."""
    found = []
    for array in arrays:
        slope = np.zeros_like(array)
        for place in np.ndindex(array.shape):
            kept = array[place]
            array[place] = kept + step
            above = function()
            array[place] = kept - step
            slope[place] = (above - function()) / (2 * step)
            array[place] = kept
        found.append(slope)
    return found


@pytest.mark.parametrize(
    ("groups", "masked", "biased", "cap"),
    [(2, False, None, None), (1, True, (1, 2, 3, 4), 1.5), (2, True, (2, 1, 1, 4), None)],
)
def test_gradients_equal_differences_of_a_float64_loop(groups, masked, biased, cap):
    draw = np.random.default_rng(1)
    q, k, v = (draw.normal(size=(2, heads, places, 3)) for heads, places in ((2, 3), (groups, 4), (groups, 4)))
    bias = None if biased is None else draw.normal(size=biased)
    seen = draw.random((2, 1, 3, 4)) < 0.6 if masked else np.ones((2, 1, 3, 4), bool)
    if masked:
        seen[1, 0, 2] = False  # a query that sees nothing
    weight = draw.normal(size=(2, 2, 3, 3))

    def value():
        total = 0.0
        for row in range(2):
            for head in range(2):
                own = None if bias is None else np.broadcast_to(bias, (2, 2, 3, 4))[row, head]
                at = head // (2 // groups)
                y = attend_by_loops(q[row, head], k[row, at], v[row, at], seen=seen[row, 0], bias=own, cap=cap)
                total += (weight[row, head] * y).sum()
        return total

    def loss(q, k, v, bias):
        y = attend(q, k, v, seen=jnp.asarray(seen) if masked else None, bias=bias, cap=cap)
        return jnp.sum(y * jnp.asarray(weight, jnp.float32))

    arrays = [q, k, v] + ([] if bias is None else [bias])
    given = [jnp.asarray(array, jnp.float32) for array in arrays]
    given += [None] * (4 - len(given))
    got, grads = jax.jit(jax.value_and_grad(loss, argnums=tuple(range(len(arrays)))))(*given)
    np.testing.assert_allclose(got, value(), rtol=1e-5)
    for found, wanted in zip(grads, slopes_by_differences(value, arrays), strict=True):
        np.testing.assert_allclose(found, wanted, atol=2e-5)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_queries_that_see_nothing_give_zeros_and_no_gradient(dtype):
    q, k, v = (jnp.asarray(DRAW.normal(size=(2, 2, 3, 4)), dtype) for _ in range(3))
    seen = jnp.asarray([[[[True] * 3] * 3], [[[False] * 3] * 3]])  # the second row sees nothing

    def loss(q, k, v):
        return jnp.sum(jnp.square(attend(q, k, v, seen=seen).astype(jnp.float32)))

    y, grads = attend(q, k, v, seen=seen), jax.jit(jax.grad(loss, argnums=(0, 1, 2)))(q, k, v)
    assert y.dtype == dtype and not np.asarray(y[1], np.float32).any() and np.asarray(y[0], np.float32).all()
    for grad in grads:
        grad = np.asarray(grad, np.float32)
        assert np.isfinite(grad).all() and not grad[1].any() and grad[0].any()


def test_in_bfloat16_it_is_the_same_but_for_rounding():
    q, k, v, dy = (jnp.asarray(DRAW.normal(size=(2, 2, 9, 8)), jnp.bfloat16) for _ in range(4))
    bias = jnp.asarray(DRAW.normal(size=(1, 2, 9, 9)), jnp.float32)

    def loss(q, k, v, bias):
        y = attend(q, k, v, seen=jnp.tril(jnp.ones((9, 9), bool))[None, None], bias=bias, cap=3.0)
        return jnp.sum(y.astype(jnp.float32) * dy.astype(jnp.float32))

    gradient = jax.jit(jax.grad(loss, argnums=(0, 1, 2, 3)))
    found = gradient(q, k, v, bias)
    wanted = gradient(*(a.astype(jnp.float32) for a in (q, k, v)), bias)
    assert [a.dtype for a in found] == [jnp.bfloat16] * 3 + [jnp.float32]
    for got, want in zip(found, wanted, strict=True):
        got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
        assert np.linalg.norm(got - want) <= 2e-2 * np.linalg.norm(want)


def decoded(layer, x, *, sizes, places, mask=None, angles=None):
    """The outputs of decoding `x` in pieces of `sizes` tokens."""
    options = layer.options
    keys = values = jnp.zeros((len(x), options.groups, places, options.head_size))

    @nnx.jit
    def step(layer, x, keys, values, index, angles):
        inputs = AttentionInputs(mask=mask, angles=angles)
        return layer.decode(x, keys=keys, values=values, index=index, inputs=inputs)

    out, at = [], 0
    for size in sizes:
        own = None if angles is None else angles[at : at + size]
        y, keys, values = step(layer, x[:, at : at + size], keys, values, jnp.int32(at), own)
        out.append(y)
        at += size
    return np.concatenate(out, axis=1)


@pytest.mark.parametrize("sizes", [(1, 1, 1, 1, 1), (3, 1, 1), (5,)], ids=str)
@pytest.mark.parametrize("options", [{}, {"kv_heads": 1, "rotary": "halves", "width": 16}], ids=str)
def test_decoding_equals_causal_attention_to_all_tokens_at_once(sizes, options):
    layer = built(causal=True, **options)
    x = jnp.asarray(DRAW.normal(size=(B, L, layer.options.width)), jnp.float32)
    angles = rotary_angles(np.arange(L), width=4) if "rotary" in options else None
    given = {} if angles is None else {"angles": angles}
    got = decoded(layer, x, sizes=sizes, places=8, angles=angles)
    np.testing.assert_allclose(got, applied(layer, x, **given), atol=1e-5)


def test_decoding_does_not_see_padding_of_the_prompt_and_says_when_the_cache_is_full():
    layer = built(causal=True)
    pad = jnp.full((B, 2, D), 50.0)
    mask = jnp.asarray([[False] * 2 + [True] * 6] * B)  # of the eight places of the cache
    got = decoded(layer, jnp.concatenate([pad, TOKENS], axis=1), sizes=(4, 1, 1, 1), places=8, mask=mask)
    np.testing.assert_allclose(got[:, 2:], applied(layer, TOKENS), atol=1e-5)
    full = decoded(layer, jnp.asarray(TOKENS), sizes=(4, 1), places=4)
    assert np.isfinite(full[:, :4]).all() and np.isnan(full[:, 4]).all()
