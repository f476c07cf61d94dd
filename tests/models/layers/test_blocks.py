"""Stacks of blocks against float64 loops: every option, cross-attention, decoding, stochastic depth, bad options."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tower_loops import blocks_by_loops, layer_of, norm, randomised, small_options

from twinreel.base.errors import UserError
from twinreel.models.layers.attention import AttentionInputs
from twinreel.models.layers.blocks import Blocks, Context
from twinreel.models.layers.draws import drop_path, fold, row_keys
from twinreel.models.layers.options import BlockOptions, block_options
from twinreel.models.layers.positions import rotary_angles

B, L, D = 2, 5, 12
DRAW = np.random.default_rng(0)
X = DRAW.normal(size=(B, L, D)).astype(np.float32)
CONTEXT = DRAW.normal(size=(B, 4, 7)).astype(np.float32)
REAL = np.array([[1, 1, 1, 1], [0, 1, 1, 0]], bool)  # of the context


def built(*, depth=2, **changes):
    return randomised(Blocks(small_options(**changes), depth=depth, rngs=nnx.Rngs(0)))


@pytest.mark.parametrize(
    "options",
    [
        {"activation": "swiglu", "mlp_bias": False, "norm": "rmsnorm", "mlp_hidden": 7},
        {"activation": "geglu", "mlp_norm": True, "attention_norm": True, "layer_scale": 0.1, "kv_heads": 2},
        {"norm_position": "post", "final_norm": False, "activation": "gelu_exact", "norm_epsilon": 1e-12},
        {"norm_plus_one": True, "logit_cap": 1.5, "activation": "relu", "causal": True, "norm_epsilon": 1e-6},
        {"norm_bias": False, "qkv_bias": False, "qk_norm": "head", "unroll": 0},
    ],
    ids=lambda options: " ".join(options),
)
def test_options_equal_a_float64_loop(options):
    blocks = built(**options)
    got = nnx.jit(lambda blocks, x: blocks(x))(blocks, X)
    for row in range(B):
        wanted = blocks_by_loops(X[row].astype(np.float64), blocks)
        np.testing.assert_allclose(got[row], wanted, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize(("rotary", "depth"), [("halves", 2), ("interleaved", 1)])
def test_rotary_positions_count_from_zero_unless_the_caller_places_the_tokens(rotary, depth):
    blocks = built(width=16, depth=depth, rotary=rotary, rotary_base=100.0)
    x = DRAW.normal(size=(B, L, 16)).astype(np.float32)
    angles = rotary_angles(np.array([0, 0, 7, 3, 1]), width=4)
    run = nnx.jit(lambda blocks, x, inputs: blocks(x, inputs=inputs))
    for got, placed in (
        (run(blocks, x, AttentionInputs()), rotary_angles(np.arange(L), width=4, base=100.0)),
        (run(blocks, x, AttentionInputs(angles=angles)), angles),
    ):
        wanted = blocks_by_loops(x[0].astype(np.float64), blocks, angles=np.asarray(placed, np.float64))
        np.testing.assert_allclose(got[0], wanted, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("norm_position", ["pre", "post"])
def test_cross_attention_equals_a_float64_loop(norm_position):
    blocks = built(cross_width=7, layer_scale=0.5, norm_position=norm_position)
    context = Context(tokens=jnp.asarray(CONTEXT), mask=jnp.asarray(REAL))
    got = nnx.jit(lambda blocks, x, context: blocks(x, context=context))(blocks, X, context)
    for row in range(B):
        seen = np.tile(REAL[row], (L, 1))
        given = {"context": CONTEXT[row].astype(np.float64), "context_seen": seen}
        wanted = blocks_by_loops(X[row].astype(np.float64), blocks, **given)
        np.testing.assert_allclose(got[row], wanted, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize(
    "options",
    [{"kv_heads": 2, "unroll": 0}, {"cross_width": 7, "rotary": "halves", "width": 16, "qk_norm": "head"}],
    ids=str,
)
def test_decoding_step_by_step_equals_all_at_once_in_one_compiled_program(options):
    blocks = built(causal=True, **options)
    x = jnp.asarray(DRAW.normal(size=(B, L, blocks.options.width)), jnp.float32)
    crosses = "cross_width" in options
    context = Context(tokens=jnp.asarray(CONTEXT), mask=jnp.asarray(REAL)) if crosses else None
    traces = []

    @nnx.jit
    def step(blocks, x, cache):
        traces.append(x.shape)
        return blocks.decode(x, cache=cache)

    wanted = nnx.jit(lambda blocks, x, context: blocks(x, context=context))(blocks, x, context)
    cache = blocks.start(rows=B, places=7, context=context)
    out = []
    for start, end in [(0, 2), (2, 3), (3, 4), (4, 5)]:  # a prompt of two tokens, then one at a time
        y, cache = step(blocks, x[:, start:end], cache)
        out.append(y)
    np.testing.assert_allclose(np.concatenate(out, axis=1), wanted, atol=2e-5)
    assert int(cache.index) == L and len(traces) == 2


def test_decoding_needs_a_causal_stack_and_room():
    with pytest.raises(ValueError, match="only a causal stack decodes"):
        built().decode(jnp.asarray(X), cache=built().start(rows=B, places=8))
    blocks = built(causal=True, depth=0)
    with pytest.raises(ValueError, match="5 tokens do not fit into a cache of 4 places"):
        blocks.decode(jnp.asarray(X), cache=blocks.start(rows=B, places=4))
    y, cache = blocks.decode(jnp.asarray(X), cache=blocks.start(rows=B, places=8))
    np.testing.assert_allclose(y[0], norm(X[0].astype(np.float64), blocks.norm), atol=1e-5)
    assert int(cache.index) == L


def test_a_context_and_angles_must_be_asked_for():
    blocks, x = built(), jnp.asarray(X)
    with pytest.raises(ValueError, match="cross_width go together"):
        blocks(x, context=Context(tokens=jnp.asarray(CONTEXT)))
    with pytest.raises(ValueError, match="cross_width go together"):
        built(cross_width=7).start(rows=B, places=4)
    with pytest.raises(ValueError, match=r"angles need BlockOptions\.rotary"):
        blocks(x, inputs=AttentionInputs(angles=jnp.zeros((L, 2))))


def test_stochastic_depth_skips_branches_of_rows_more_often_in_later_blocks():
    """Two rows per branch: each is skipped, or scaled by 1 / (1 - rate); the first block skips nothing."""
    blocks = built(depth=3, drop_path=0.6)
    x, keys = jnp.asarray(X), row_keys(jax.random.key(0), rows=B)
    got = nnx.jit(lambda blocks, x, keys: blocks(x, keys=keys))(blocks, x, keys)
    wanted = x
    for number, rate in enumerate((0.0, 0.3, 0.6)):
        block, own = layer_of(blocks, number), fold(keys, number)
        mlp = super(type(block), block).__call__
        for branch, layer, at in ((block.attention, block.norm1, 3), (mlp, block.norm2, 4)):
            y = branch(layer(wanted))
            kept = np.array([jax.random.bernoulli(key, 1 - rate) for key in fold(own, at)], np.float32)
            wanted = wanted + y * kept[:, None, None] / (1 - rate)
    np.testing.assert_allclose(got, blocks.norm(wanted), atol=1e-4)
    np.testing.assert_array_equal(blocks(x), built(depth=3)(x))  # without keys it is off


def test_skipped_rows_keep_their_expectation_and_dtype():
    x = jnp.ones((4000, 3), jnp.bfloat16)
    got = drop_path(x, rate=jnp.float32(0.25), keys=row_keys(jax.random.key(0), rows=4000))
    assert got.dtype == jnp.bfloat16 and set(np.unique(np.asarray(got, np.float32))) == {0.0, 1.3359375}
    rows = np.asarray(got, np.float32)
    assert (rows == rows[:, :1]).all() and abs((rows[:, 0] > 0).mean() - 0.75) < 0.03


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kv_heads": 3}, r"config\.model\.video\.block\.kv_heads=3 must be a divisor of heads=4"),
        ({"norm": "rms"}, r"norm in config\.model\.video\.block 'rms'.*known: layernorm, rmsnorm"),
        ({"norm_position": "before"}, r"norm_position in config\.model\.video\.block 'before'"),
        ({"qk_norm": "heads"}, r"qk_norm in config\.model\.video\.block 'heads'; did you mean 'head'"),
        ({"rotary": "half"}, r"rotary in config\.model\.video\.block 'half'; did you mean 'halves'"),
        ({"drop_path": 1.0}, r"config\.model\.video\.block\.drop_path must be at least 0 and below 1, got 1\.0"),
        ({"logit_cap": 0.0}, r"config\.model\.video\.block\.logit_cap must be above 0, got 0\.0"),
        ({"norm_epsilon": -1e-6}, r"config\.model\.video\.block\.norm_epsilon must be above 0, got -1e-06"),
        ({"heads": 5}, r"width=12 must divide by heads=5; set config\.model\.video\.width"),
        ({"activation": "gelo"}, r"activation 'gelo'; did you mean 'gelu'"),
        ({"width": 6, "heads": 2, "head_width": 3, "rotary": "halves"}, r"head's width to be a multiple of 2, got 3"),
    ],
)
def test_bad_options_name_the_field(changes, message):
    with pytest.raises(UserError, match=message):
        blocks = Blocks(small_options(**changes), depth=1, rngs=nnx.Rngs(0))
        blocks(jnp.zeros((1, 2, 6)))


def test_fields_of_a_config_that_the_tower_sets_itself_are_refused():
    given = {"tower": "text", "width": 8, "heads": 2}
    assert block_options({"norm": "rmsnorm"}, **given) == BlockOptions(norm="rmsnorm", **given)
    with pytest.raises(UserError, match=r"field of config\.model\.text\.block 'heads'"):
        block_options({"heads": 4}, **given)
    with pytest.raises(UserError, match=r"'layerscale'; did you mean 'layer_scale'"):
        block_options({"layerscale": 1e-5}, **given)
    with pytest.raises(UserError, match=r"config\.model\.text\.block\.norm_epsilon must be a number, got 'small'"):
        block_options({"norm_epsilon": "small"}, **given)
