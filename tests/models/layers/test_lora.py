"""LoRA and DoRA against NumPy in float64: values, gradients, stacks, dropout."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from twinreel.engine.sharding.mesh import make_mesh
from twinreel.models.layers.dense import Dense
from twinreel.models.layers.draws import drawing, row_keys
from twinreel.models.layers.lora import Lora, column_norms
from twinreel.models.layers.recurrent import Recurrent

WIDTH, OUT, RANK, ALPHA = 10, 7, 3, 6.0
RNG = np.random.default_rng(0)


def updated(*, magnitude, dtype=jnp.float32, **options):
    """A dense layer whose update is not zero."""
    layer = Dense(WIDTH, OUT, dtype=dtype, param_dtype=jnp.float32, rngs=nnx.Rngs(0))
    layer.bias[...] = jnp.asarray(RNG.normal(size=OUT), jnp.float32)
    layer.lora = Lora(
        layer.kernel[...], rank=RANK, alpha=ALPHA, magnitude=magnitude, number=5, rngs=nnx.Rngs(1), **options
    )
    layer.lora.b[...] = jnp.asarray(RNG.normal(size=(RANK, OUT)), jnp.float32)
    if magnitude:
        layer.lora.magnitude[...] *= jnp.asarray(RNG.uniform(0.5, 2, OUT), jnp.float32)
    return layer


def in_float64(layer):
    """Kernel, bias, A, B and m as NumPy arrays."""
    lora = layer.lora
    values = (layer.kernel, layer.bias, lora.a, lora.b, *([lora.magnitude] if lora.magnitude is not None else []))
    return [np.asarray(value[...], np.float64) for value in values]


def by_hand(x, w, bias, a, b, m=None):
    """Each output by its sum, as the papers write it."""
    y = np.zeros((*x.shape[:-1], w.shape[1]))
    v = w + ALPHA / RANK * np.einsum("dr,re->de", a, b)
    for j in range(w.shape[1]):
        column = v[:, j] if m is None else m[j] * v[:, j] / np.sqrt(np.sum(v[:, j] ** 2))
        y[..., j] = x @ column + bias[j]
    return y


@pytest.mark.parametrize("magnitude", [False, True], ids=["lora", "dora"])
@pytest.mark.parametrize(
    ("dtype", "close", "devices"), [(jnp.float32, 2e-6, 1), (jnp.float32, 2e-6, 8), (jnp.bfloat16, 2e-2, 1)]
)
def test_outputs_are_those_of_the_papers(magnitude, dtype, close, devices):
    layer = updated(magnitude=magnitude, dtype=dtype)
    x = jnp.asarray(RNG.normal(size=(4, 5, WIDTH)), dtype)
    with jax.set_mesh(make_mesh(devices=jax.devices()[:devices])):
        found = jax.jit(lambda layer: layer(x))(layer)
    wanted = by_hand(np.asarray(x.astype(jnp.float32), np.float64), *in_float64(layer))
    assert found.dtype == dtype
    assert np.linalg.norm(np.asarray(found, np.float64) - wanted) <= close * np.linalg.norm(wanted)


@pytest.mark.parametrize("devices", [1, 8])
def test_gradients_of_lora_are_those_of_numpy(devices):
    layer = updated(magnitude=False)
    x, dy = (np.asarray(RNG.normal(size=(6, width)), np.float32) for width in (WIDTH, OUT))
    with jax.set_mesh(make_mesh(devices=jax.devices()[:devices])):
        slopes = jax.jit(nnx.grad(lambda layer, x: jnp.sum(layer(x) * dy), argnums=(0, 1)))
        found, to_x = slopes(layer, jnp.asarray(x))
    w, _, a, b = in_float64(layer)
    scale, x, dy = ALPHA / RANK, x.astype(np.float64), dy.astype(np.float64)
    wanted = {"a": scale * x.T @ (dy @ b.T), "b": scale * (x @ a).T @ dy}
    for name, want in wanted.items():
        np.testing.assert_allclose(found["lora"][name][...], want, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(to_x, dy @ (w + scale * a @ b).T, rtol=1e-4, atol=1e-5)


def test_no_gradient_flows_through_the_norms_of_dora():
    """Section 4.3 of the paper: the norms of the columns of W + s A B count as constants."""
    layer = updated(magnitude=True)
    x, dy = (np.asarray(RNG.normal(size=(6, width)), np.float32) for width in (WIDTH, OUT))
    found = jax.jit(nnx.grad(lambda layer: jnp.sum(layer(jnp.asarray(x)) * dy)))(layer)
    w, _, a, b, m = in_float64(layer)
    v = w + ALPHA / RANK * a @ b
    norms = np.sqrt((v**2).sum(0))
    np.testing.assert_allclose(found["lora"]["magnitude"][...], ((x @ v) * dy).sum(0) / norms, rtol=1e-4, atol=1e-5)
    to_v = x.T @ (dy * m / norms)
    np.testing.assert_allclose(found["lora"]["b"][...], ALPHA / RANK * a.T @ to_v, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("magnitude", [False, True], ids=["lora", "dora"])
def test_the_weight_stands_for_the_layer(magnitude):
    layer = updated(magnitude=magnitude)
    x = jnp.asarray(RNG.normal(size=(5, WIDTH)), jnp.float32)
    np.testing.assert_allclose(x @ layer.weight() + layer.bias[...][None], layer(x), rtol=1e-5, atol=1e-5)


def test_a_new_update_changes_nothing():
    layer = Dense(WIDTH, OUT, dtype=jnp.float32, param_dtype=jnp.float32, rngs=nnx.Rngs(0))
    x = jnp.asarray(RNG.normal(size=(5, WIDTH)), jnp.float32)
    before = layer(x)
    layer.lora = Lora(layer.kernel[...], rank=RANK, alpha=ALPHA, rngs=nnx.Rngs(1))
    np.testing.assert_array_equal(layer(x), before)
    assert np.abs(layer.lora.a[...]).max() <= WIDTH**-0.5
    layer.lora = Lora(layer.kernel[...], rank=RANK, alpha=ALPHA, magnitude=True, rngs=nnx.Rngs(1))
    np.testing.assert_allclose(layer(x), before, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(column_norms(layer.kernel[...]), np.linalg.norm(layer.kernel[...], axis=0), rtol=1e-6)


def test_dropout_acts_on_the_input_of_the_update_alone():
    """By the keys of the rows: none without keys, and the same for a row whatever else is in the batch."""
    layer = updated(magnitude=False, dropout=0.5)
    x = jnp.asarray(RNG.normal(size=(4, 5, WIDTH)), jnp.float32)
    keys = row_keys(jax.random.key(0), rows=4)
    with drawing(keys):
        dropped = layer(x)
    with drawing(keys[2:]):
        np.testing.assert_allclose(
            layer(x[2:]), dropped[2:], rtol=1e-6, atol=1e-6
        )  # products of other shapes round otherwise
    plain = by_hand(np.asarray(x, np.float64), *in_float64(layer))
    assert np.abs(dropped - plain).max() > 0.1
    with drawing(row_keys(jax.random.key(0), rows=2)):  # four frames of two clips
        frames = layer(x)
    assert np.abs(frames - plain).max() > 0.1 and np.abs(frames[0] - frames[1]).max() > 0.1
    with drawing(row_keys(jax.random.key(0), rows=8)):  # learned queries, which all rows share
        np.testing.assert_allclose(layer(x), plain, rtol=1e-4, atol=1e-4)
    w, bias, *_ = in_float64(layer)
    layer.lora.a[...] = jnp.zeros_like(layer.lora.a[...])
    with drawing(keys):  # the rest of the layer sees all of x
        np.testing.assert_allclose(layer(x), np.asarray(x, np.float64) @ w + bias, rtol=1e-4, atol=1e-4)


def test_a_recurrent_layer_takes_the_updated_matrix():
    layer = Recurrent(4, 6, cell="lstm", rngs=nnx.Rngs(0))
    x, mask = jnp.asarray(RNG.normal(size=(2, 3, 4)), jnp.float32), jnp.ones((2, 3), bool)
    layer.state.lora = Lora(layer.state.kernel[...], rank=2, alpha=2.0, rngs=nnx.Rngs(1))
    layer.state.lora.b[...] = jnp.asarray(RNG.normal(size=(2, 24)), jnp.float32)
    found = layer(x, mask=mask)
    plain = Recurrent(4, 6, cell="lstm", rngs=nnx.Rngs(0))
    plain.state.kernel[...] = plain.state.kernel[...] + layer.state.lora.a[...] @ layer.state.lora.b[...]
    np.testing.assert_allclose(found, plain(x, mask=mask), rtol=1e-5, atol=1e-6)
