"""Bytes to and from memory, against programs whose traffic is known and against XLA's own count."""

import jax
import jax.numpy as jnp
import pytest

from twinreel.cost.hbm import count_hbm_bytes
from twinreel.cost.hlo import parse_program

WIDTH, ROWS, DEPTH = 64, 32, 9


def compiled(function, *shapes):
    return jax.jit(function).lower(*[jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes]).compile()


def moved(program):
    return count_hbm_bytes(parse_program(program.as_text()))


@pytest.mark.parametrize(
    ("function", "shapes"),
    [
        (lambda a, b: a @ b, ((64, 32), (32, 16))),
        (lambda a, b: jnp.tanh(a) * b + 1.0, ((64, 32), (64, 32))),
        (lambda a, b: jnp.sum(a @ b, axis=0), ((64, 32), (32, 16))),
    ],
)
def test_without_loops_as_xla_counts(function, shapes):
    program = compiled(function, *shapes)
    assert moved(program) == pytest.approx(program.cost_analysis()["bytes accessed"], rel=0.05)


def test_a_loop_reads_its_slice_in_each_round():
    def layers(weights, x):
        return jax.lax.scan(lambda h, w: (jnp.tanh(h @ w), None), x, weights)[0]

    found = moved(compiled(layers, (DEPTH, WIDTH, WIDTH), (ROWS, WIDTH)))
    weights, hidden = 4 * DEPTH * WIDTH * WIDTH, 4 * DEPTH * ROWS * WIDTH
    # each layer: its slice is copied out and read; hidden states are read and written by product and tanh
    assert weights + 2 * hidden <= found <= 3 * weights + 6 * hidden


def test_the_text_must_be_a_program():
    with pytest.raises(ValueError, match="ENTRY"):
        parse_program("HloModule m")
