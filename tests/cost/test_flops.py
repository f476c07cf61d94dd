"""FLOPs counted in a trace, against hand counts and against XLA's count of programs without loops."""

import jax
import jax.numpy as jnp
import pytest

from twinreel.cost.flops import count_flops
from twinreel.engine.sharding.mesh import make_mesh

WIDTH, ROWS, DEPTH = 16, 8, 5
UNIT = 2 * ROWS * WIDTH * WIDTH  # one product [ROWS,WIDTH] x [WIDTH,WIDTH]


def count(function, *shapes):
    return count_flops(jax.jit(function).trace(*[jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes]).jaxpr)


def by_xla(function, *shapes):
    lowered = jax.jit(function).lower(*[jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes])
    return lowered.compile().cost_analysis()["flops"]


def stack(layer):
    """Loss of DEPTH layers applied by lax.scan."""
    return lambda weights, x: jnp.sum(jax.lax.scan(lambda h, w: (layer(h, w), None), x, weights)[0] ** 2)


@pytest.mark.parametrize(
    ("function", "shapes"),
    [
        (lambda a, b: a @ b, ((64, 32), (32, 16))),
        (lambda a, b: jnp.einsum("bqkd,bqd->bqk", a, b), ((3, 4, 5, 6), (3, 4, 6))),
        (lambda a, b: jnp.einsum("bld,bmd->blm", a, b), ((3, 4, 6), (3, 5, 6))),
    ],
)
def test_products_as_xla_counts_them(function, shapes):
    assert count(function, *shapes).model == by_xla(function, *shapes)


def test_a_grouped_convolution():
    def convolve(x, kernel):
        return jax.lax.conv_general_dilated(x, kernel, (2, 2), "VALID", feature_group_count=2)

    # [3,4,9,9] by [6,2,3,3] in two groups, stride 2: 4 x 4 places, each output reads 2 channels x 3 x 3
    assert count(convolve, (3, 4, 9, 9), (6, 2, 3, 3)).model == 2 * 3 * 6 * 4 * 4 * 2 * 3 * 3


def test_a_scan_counts_as_the_same_layers_written_out():
    def unrolled(weights, x):
        for w in weights:
            x = jnp.tanh(x @ w)
        return jnp.sum(x**2)

    shapes = ((DEPTH, WIDTH, WIDTH), (ROWS, WIDTH))
    layers = stack(lambda h, w: jnp.tanh(h @ w))
    found = count(jax.grad(layers, argnums=(0, 1)), *shapes)
    assert found == count(jax.grad(unrolled, argnums=(0, 1)), *shapes)
    assert found.model == 3 * DEPTH * UNIT  # forward, backward to the weights, backward to the input


def test_recomputation_stands_apart():
    shapes = ((DEPTH, WIDTH, WIDTH), (ROWS, WIDTH))
    twice = jax.checkpoint(lambda h, w: jnp.tanh(jnp.tanh(h @ w) @ w))
    found = count(jax.grad(stack(twice)), *shapes)
    assert found.model == 6 * DEPTH * UNIT
    assert found.recomputed == 2 * DEPTH * UNIT
    assert found.hardware == 8 * DEPTH * UNIT
    saved = jax.checkpoint(lambda h, w: jnp.tanh(jnp.tanh(h @ w) @ w), policy=jax.checkpoint_policies.dots_saveable)
    assert count(jax.grad(stack(saved)), *shapes).recomputed == 0


def test_a_shard_map_counts_for_all_its_devices():
    mesh = make_mesh(replica=4, fsdp=2)
    rows = jax.P(("replica", "fsdp"))

    def spread(x, w):
        return jax.shard_map(lambda x, w: x @ w, mesh=mesh, in_specs=(rows, jax.P()), out_specs=rows)(x, w)

    assert count(spread, (ROWS, WIDTH), (WIDTH, WIDTH)).model == UNIT


def test_of_two_branches_the_dearer_counts():
    def choose(flag, x, w):
        return jax.lax.cond(flag[0] > 0, lambda: x @ w @ w, lambda: x @ w)

    assert count(choose, (1,), (ROWS, WIDTH), (WIDTH, WIDTH)).model == 2 * UNIT


def test_an_open_loop_is_said_to_be_one():
    def loop(x, w):
        return jax.lax.while_loop(lambda x: jnp.sum(x) < 3, lambda x: x @ w, x)

    found = count(loop, (ROWS, WIDTH), (WIDTH, WIDTH))
    assert found.open_loops == 1 and found.model == UNIT
    fixed = count(lambda x, w: jax.lax.fori_loop(0, 7, lambda _, x: x @ w, x), (ROWS, WIDTH), (WIDTH, WIDTH))
    assert fixed.open_loops == 0 and fixed.model == 7 * UNIT


def test_flash_attention_counts_as_the_products_that_it_does(monkeypatch):
    """Forward two products, backward four and the scores once more (Dao et al. 2022)."""
    kernel = pytest.importorskip("jax._src.cudnn.fused_attention_stablehlo")
    for name, value in {"check_cudnn_version": 91200, "check_compute_capability": True}.items():
        monkeypatch.setattr(kernel, name, lambda *_, value=value: value)
    monkeypatch.setattr(kernel, "is_cuda_compute_capability_equal", lambda _: False)
    shape = jax.ShapeDtypeStruct((2, 6, 3, 8), jnp.bfloat16)  # [B,L,K,d]
    product = 2 * 2 * 3 * 6 * 6 * 8

    def attend(q, k, v):
        return jax.nn.dot_product_attention(q, k, v, implementation="cudnn")

    def loss(*qkv):
        return jnp.sum(attend(*qkv).astype(jnp.float32))

    forward = count_flops(jax.jit(attend).trace(shape, shape, shape).jaxpr)
    both = count_flops(jax.jit(jax.grad(loss, argnums=(0, 1, 2))).trace(shape, shape, shape).jaxpr)
    again = count_flops(jax.jit(jax.grad(jax.checkpoint(loss), argnums=(0, 1, 2))).trace(shape, shape, shape).jaxpr)
    assert (forward.model, forward.recomputed) == (2 * product, 0)
    assert (both.model, both.recomputed) == (6 * product, product)
    assert again.model == 6 * product


@pytest.mark.parametrize(
    ("left", "right", "tiles"),
    [
        ((1000, 256), (256, 512), 1000 * 256 * 512),  # whole tiles
        ((1000, 64), (64, 512), 1000 * 128 * 512),  # half of the rows of a unit are zeros
        ((1024, 64), (64, 8), 1024 * 128 * 8),  # the right side flows: the left one fills tiles
        ((4, 196, 64), (4, 64, 196), 4 * 196 * 128 * 256),  # scores of a head
        ((4, 196, 196), (4, 196, 64), 4 * 64 * 256 * 256),  # its outputs, the weights held
    ],
)
def test_products_narrower_than_the_matrix_units(left, right, tiles):
    shapes = [jax.ShapeDtypeStruct(shape, jnp.bfloat16) for shape in (left, right)]
    trace = jax.jit(jnp.matmul).trace(*shapes).jaxpr
    found = count_flops(trace, tile=128)
    assert found.on_tiles == pytest.approx(2 * tiles)
    assert found.hardware == count_flops(trace).on_tiles, "without tiles nothing is padded"


def test_loops_and_recomputation_pad_each_time():
    def loss(x, weights):
        def layer(x, w):
            return jnp.tanh(x @ w), None

        return jnp.sum(jax.lax.scan(jax.checkpoint(layer), x, weights)[0])

    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((512, 64), (3, 64, 64))]
    found = count_flops(jax.jit(jax.grad(loss, argnums=1)).trace(*shapes).jaxpr, tile=128)
    # Forward twice and by the input, [512,64] x [64,64]: twice the product; by the weights, [64,512] x [512,64]: twice.
    product = 2 * 512 * 64 * 64
    assert (found.model, found.recomputed) == (3 * 3 * product, 3 * product)
    assert found.tile_padding == pytest.approx(3 * product * (3 * 1 + 1))
