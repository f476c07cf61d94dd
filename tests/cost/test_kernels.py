"""FLOPs and bytes of Pallas kernels, against counts by hand."""

import jax
import jax.numpy as jnp
import pytest
from jax.experimental import pallas as pl

from twinreel.cost.flops import count_flops
from twinreel.cost.hbm import count_hbm_bytes, count_kernel_bytes
from twinreel.cost.hlo import parse_program
from twinreel.models.layers.short import short_attention
from twinreel.models.layers.splash import splash_attention


def traced(function, *shapes, dtype=jnp.float32):
    return jax.jit(function).trace(*[jax.ShapeDtypeStruct(shape, dtype) for shape in shapes]).jaxpr


def product(x, y):
    """`[16,256] @ [256,384]` in blocks of 8 rows and 128 columns."""

    def body(x, y, out):
        out[...] = x[...] @ y[...]

    return pl.pallas_call(
        body,
        grid=(2, 3),
        in_specs=[pl.BlockSpec((8, 256), lambda i, j: (i, 0)), pl.BlockSpec((256, 128), lambda i, j: (0, j))],
        out_specs=pl.BlockSpec((8, 128), lambda i, j: (i, j)),
        out_shape=jax.ShapeDtypeStruct((16, 384), jnp.float32),
        interpret=True,
    )(x, y)


def test_a_kernel_counts_in_each_step_of_its_grid_and_copies_a_block_where_its_index_changes():
    found = traced(product, (16, 256), (256, 384))
    flops = count_flops(found)
    assert (flops.model, flops.recomputed) == (2 * 16 * 256 * 384, 0)
    rows, columns, results = 2 * (8 * 256), 6 * (256 * 128), 6 * (8 * 128)  # columns are read for each block of rows
    assert count_kernel_bytes(found.jaxpr) == 4 * (rows + columns + results)
    looped = traced(lambda x, y: jax.lax.scan(lambda x, _: (x + product(x, y)[:, :256], None), x, None, 5)[0],
                    (16, 256), (256, 384))  # fmt: skip
    assert count_kernel_bytes(looped.jaxpr) == 5 * count_kernel_bytes(found.jaxpr)
    assert count_flops(looped).model == 5 * flops.model


B, K, L, PADDED = 2, 4, 196, 256


def loss(q, k, v):
    return jnp.sum(splash_attention(q, k, v).astype(jnp.float32))


@pytest.mark.parametrize(("width", "lanes"), [(64, 128), (160, 256)])
def test_splash_counts_the_model_without_padding_and_the_memory_with_it(width, lanes):
    """Blocks are tiles of 128 lanes: heads of 64 channels take twice their bytes."""
    shapes = [(B, K, L, width)] * 3
    real, done = (2 * B * K * tokens**2 * width for tokens in (L, PADDED))  # one product
    rowwise = 2 * B * K * PADDED * width  # di = sum over channels of y dy, outside the kernel
    forward = traced(loss, *shapes, dtype=jnp.bfloat16)
    both = traced(jax.grad(loss, argnums=(0, 1, 2)), *shapes, dtype=jnp.bfloat16)
    again = traced(jax.grad(jax.checkpoint(loss), argnums=(0, 1, 2)), *shapes, dtype=jnp.bfloat16)
    for trace, products, scores in ((forward, 2, 0), (both, 6, 1), (again, 6, 3)):
        found, rest = count_flops(trace), 0 if trace is forward else rowwise
        assert found.model == pytest.approx(products * real + rest)
        assert found.hardware == pytest.approx((products + scores) * done + rest)

    block, row = 2 * PADDED * lanes, 4 * PADDED * 128  # bfloat16 of a head; one float32 to a lane
    places = row + 4 * 8 * PADDED  # of queries and keys, to hide the padding: the same for all rows, read once
    passes = {
        "forward": B * K * 4 * block + B * (2 * row + 4 * PADDED * lanes) + places,
        "log-sum-exp": B * K * row,
        "backward": B * K * (7 * block + 2 * 4 * 8 * PADDED) + B * 2 * 4 * PADDED * lanes + places,
    }
    assert count_kernel_bytes(forward.jaxpr) == passes["forward"]
    assert count_kernel_bytes(both.jaxpr) == sum(passes.values())
    twice = sum(passes.values()) + passes["forward"] + passes["log-sum-exp"]
    assert count_kernel_bytes(again.jaxpr) == twice


def test_the_kernel_of_short_rows_counts_its_scores_twice_and_reads_each_row_once():
    def loss(q, k, v):
        return jnp.sum(short_attention(q, k, v).astype(jnp.float32))

    shapes, one = [(B, L, K, 64)] * 3, 2 * B * K * L**2 * 64
    again = traced(jax.grad(jax.checkpoint(loss), argnums=(0, 1, 2)), *shapes, dtype=jnp.bfloat16)
    found = count_flops(again)
    # The backward kernel needs no result of the forward one, which is therefore not run a second time.
    assert (found.model, found.recomputed) == pytest.approx((6 * one, one))
    row = 2 * 208 * (K * 64)  # bfloat16 lies in tiles of 16 rows
    assert count_kernel_bytes(again.jaxpr) == B * (4 + 7) * row


def test_in_a_compiled_program_kernels_are_left_to_the_trace():
    text = """HloModule m
ENTRY %main (a: bf16[2,4,256,64]) -> bf16[2,4,256,64] {
  %a = bf16[2,4,256,64]{3,2,1,0:T(8,128)(2,1)} parameter(0)
  %k = bf16[2,4,256,64]{3,2,1,0:T(8,128)(2,1)} custom-call(%a), custom_call_target="tpu_custom_call"
  ROOT %n = bf16[2,4,256,64]{3,2,1,0:T(8,128)(2,1)} negate(%k)
}
"""
    assert count_hbm_bytes(parse_program(text)) == 2 * 2 * (2 * 4 * 256 * 64)
