"""What forward keeps for backward: known for small stacks of layers."""

import jax
import jax.numpy as jnp
import pytest

from twinreel.cost.memory import kept_activations

ROWS, WIDTH, HIDDEN, DEPTH = 64, 16, 48, 5
STATE, INNER = 4 * ROWS * WIDTH, 4 * ROWS * HIDDEN  # bytes of one layer's input and of its hidden values


def kept(body, *, ways=1, parts=1):
    """Bytes kept by DEPTH layers [ROWS,WIDTH] -> [ROWS,HIDDEN] -> [ROWS,WIDTH], in `parts` that are encoded again."""
    up = jax.ShapeDtypeStruct((DEPTH, WIDTH, HIDDEN), jnp.float32)
    down = jax.ShapeDtypeStruct((DEPTH, HIDDEN, WIDTH), jnp.float32)
    x = jax.ShapeDtypeStruct((parts, ROWS // parts, WIDTH), jnp.float32)

    def encode(weights, x):
        return jax.lax.scan(lambda h, w: (body(h, w), None), x, weights)[0]

    def loss(weights, x):
        once = (lambda x: encode(weights, x)) if parts == 1 else jax.checkpoint(lambda x: encode(weights, x))
        return jnp.sum(jax.lax.map(once, x) ** 2)

    traced = jax.jit(jax.grad(loss)).trace((up, down), x)
    return kept_activations(traced.jaxpr, rows=ROWS // parts, ways=ways)


def layer(h, weights):
    return h + jnp.sin(h @ weights[0]) @ weights[1]


def test_all_of_a_layer_is_kept():
    # per layer: its input, sin and cos of the hidden values; and once the output of the stack
    assert kept(layer) == pytest.approx(DEPTH * (STATE + 2 * INNER), rel=0.25)


def test_rematerialised_layers_keep_their_input():
    full = kept(jax.checkpoint(layer))
    assert DEPTH * STATE <= full <= DEPTH * STATE + 2 * (STATE + 2 * INNER)


def test_it_is_split_over_the_devices_of_the_batch():
    assert kept(layer, ways=4) == kept(layer) / 4


def test_parts_that_are_encoded_again_hold_one_part_at_a_time():
    whole, part = kept(layer), kept(layer, parts=8)
    assert part < whole / 4
    assert part > DEPTH * (STATE + INNER) / 8
