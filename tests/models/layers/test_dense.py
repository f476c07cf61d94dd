"""The CPU's form of a dense layer against NumPy in float64 and against nnx.Linear."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec

from twinreel.engine.sharding.mesh import make_mesh
from twinreel.models.layers.dense import Dense


def build(kind=Dense, *, dtype=jnp.float32, bias=True, width=40):
    return kind(24, width, use_bias=bias, dtype=dtype, param_dtype=jnp.float32, rngs=nnx.Rngs(0))


def value_and_gradients(layer, x, dy):
    """The output and the gradients by input, kernel and bias for the cotangent `dy`."""
    graph, params = nnx.split(layer)
    y, pull = jax.vjp(lambda params, x: nnx.merge(graph, params)(x), params, x)
    params_bar, x_bar = pull(dy)
    return y, x_bar, params_bar.kernel[...], params_bar.bias[...]


def draws(*shape, dtype=jnp.float32):
    return jax.random.normal(jax.random.key(shape[-1]), shape, jnp.float32).astype(dtype)


@pytest.mark.parametrize(("dtype", "close"), [(jnp.float32, 1e-5), (jnp.bfloat16, 1e-2)])
@pytest.mark.parametrize(("rows", "width"), [(17, 40), (40, 16)])  # the second has many rows and fewer columns out
def test_output_and_gradients_equal_those_of_numpy_in_float64(rows, width, dtype, close):
    layer = build(dtype=dtype, width=width)
    layer.bias[...] = draws(width)
    x, dy = draws(6, rows, 24, dtype=dtype), draws(6, rows, width, dtype=dtype)
    found = jax.jit(value_and_gradients)(layer, x, dy)
    x64, dy64, w64 = (np.asarray(a.astype(jnp.float32), np.float64) for a in (x, dy, layer.kernel[...]))
    flat, dflat = x64.reshape(-1, 24), dy64.reshape(-1, width)
    wanted = (x64 @ w64 + np.asarray(layer.bias[...]), dy64 @ w64.T, flat.T @ dflat, dflat.sum(0))
    for got, want in zip(found, wanted, strict=True):
        assert np.linalg.norm(np.asarray(got, np.float64) - want) <= close * np.linalg.norm(want)
    assert [value.dtype for value in found] == [dtype, dtype, jnp.float32, jnp.float32]


def test_the_gradient_by_the_kernel_needs_no_transposition_in_float32():
    """Automatic differentiation makes it as the transpose of dy^T x, and the CPU compiler then copies dy^T."""
    layer, x, dy = build(), draws(6, 17, 24), draws(6, 17, 40)
    primitives = {eqn.primitive.name for eqn in jax.make_jaxpr(value_and_gradients)(layer, x, dy).eqns}
    assert "dot_general" in primitives and "transpose" not in primitives


@pytest.mark.parametrize("devices", [1, 8])
def test_a_bias_of_many_rows_keeps_its_gradient_in_bfloat16(devices):
    """Left to the compiler, the sum over rows is rounded to bfloat16 on the way and comes to 4000 on one device."""
    layer, mesh = build(dtype=jnp.bfloat16), make_mesh(devices=jax.devices()[:devices])
    weights = jnp.linspace(0.9, 1.1, 4096)[:, None] * jnp.ones((1, 40))
    loss = nnx.grad(lambda layer, x, weights: jnp.sum(layer(x).astype(jnp.float32) * weights))
    with jax.set_mesh(mesh):
        rows, whole = NamedSharding(mesh, PartitionSpec("replica")), NamedSharding(mesh, PartitionSpec())
        x, weights = (jax.device_put(a, rows) for a in (jnp.ones((4096, 24), jnp.bfloat16), weights))
        found = jax.jit(loss)(jax.device_put(layer, whole), x, weights)
    np.testing.assert_allclose(np.asarray(found.bias[...]), np.full(40, 4096.0), rtol=1e-3)


@pytest.mark.parametrize(("dtype", "close"), [(jnp.float32, 1e-5), (jnp.bfloat16, 1e-2)])
@pytest.mark.parametrize("sizes", [{"fsdp": 8}, {"fsdp": 2, "tensor": 4}])
def test_sharded_over_a_mesh_it_is_the_same(sizes, dtype, close):
    layer, x, dy = build(dtype=dtype), draws(8, 5, 24, dtype=dtype), draws(8, 5, 40, dtype=dtype)
    alone = jax.jit(value_and_gradients)(layer, x, dy)
    mesh = make_mesh(replica=1, **sizes)
    graph, params = nnx.split(layer)
    with jax.set_mesh(mesh):
        params.kernel[...] = jax.device_put(params.kernel[...], NamedSharding(mesh, PartitionSpec("fsdp", "tensor")))
        x, dy = (jax.device_put(a, NamedSharding(mesh, PartitionSpec("fsdp"))) for a in (x, dy))
        shared = jax.jit(value_and_gradients)(nnx.merge(graph, params), x, dy)
    for one, many in zip(alone, shared, strict=True):
        one, many = np.asarray(one, np.float64), np.asarray(many, np.float64)
        assert np.linalg.norm(many - one) <= close * np.linalg.norm(one)


def test_rows_on_several_devices_stay_where_they_are():
    """A layout constraint would have gathered them: the step of eight fake devices came to a standstill over it."""
    layer, mesh = build(dtype=jnp.bfloat16), make_mesh()
    with jax.set_mesh(mesh):
        rows, whole = NamedSharding(mesh, PartitionSpec("replica")), NamedSharding(mesh, PartitionSpec())
        x, dy = (jax.device_put(draws(8, 5, width, dtype=jnp.bfloat16), rows) for width in (24, 40))
        text = jax.jit(value_and_gradients).lower(jax.device_put(layer, whole), x, dy).compile().as_text()
    assert "all-reduce" in text and "all-gather" not in text


def test_under_vmap_and_scan_it_is_the_same():
    layer, x = build(dtype=jnp.bfloat16), draws(4, 6, 24, dtype=jnp.bfloat16)

    def square(x):
        return jnp.sum(jnp.square(layer(x).astype(jnp.float32)))

    singly = np.stack([np.asarray(jax.grad(square)(row), np.float32) for row in x])
    np.testing.assert_allclose(np.asarray(jax.vmap(jax.grad(square))(x), np.float32), singly, rtol=2e-2, atol=2e-2)
    scanned = jax.jit(lambda x: jax.lax.map(jax.grad(square), x))(x)
    np.testing.assert_allclose(np.asarray(scanned, np.float32), singly, rtol=2e-2, atol=2e-2)
