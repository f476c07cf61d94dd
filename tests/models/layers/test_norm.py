"""Norms against NumPy in float64, forward and backward."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tower_loops import f64, norm, randomised

from twinreel.base.errors import UserError
from twinreel.models.layers.norm import make_norm, unit_rows

KINDS = [
    ("layernorm", {}),
    ("layernorm", {"epsilon": 0.3, "plus_one": True}),
    ("layernorm", {"epsilon": 1e-12, "bias": False}),
    ("rmsnorm", {"epsilon": 0.3}),
    ("rmsnorm", {"plus_one": True}),
]


def gradients_by_hand(x, layer, dy):
    """Of `sum(dy * norm(x))` by x, scale and bias, from the Jacobian of each row in float64."""
    scale, centred = f64(layer.scale) + layer.plus_one, hasattr(layer, "bias")
    width = x.shape[-1]
    centre = np.eye(width) - (np.full((width, width), 1 / width) if centred else 0)
    to_x, to_scale = np.zeros_like(x), np.zeros(width)
    for place in np.ndindex(x.shape[:-1]):
        z = centre @ x[place]
        size = np.sqrt((z**2).mean() + layer.epsilon)
        jacobian = (np.eye(width) / size - np.outer(z, z) / (width * size**3)) @ centre
        to_x[place] = jacobian.T @ (dy[place] * scale)
        to_scale += dy[place] * z / size
    return to_x, to_scale, dy.reshape(-1, width).sum(0)


@pytest.mark.parametrize(("dtype", "close"), [(jnp.float32, 2e-5), (jnp.bfloat16, 2e-2)])
@pytest.mark.parametrize(("name", "options"), KINDS, ids=str)
def test_values_and_gradients_equal_those_of_numpy_in_float64(name, options, dtype, close):
    layer = randomised(make_norm(name, width=12, dtype=dtype, rngs=nnx.Rngs(0), **options))
    draw = np.random.default_rng(0)
    x, dy = (jnp.asarray(draw.normal(1, 2, (3, 5, 12)), dtype) for _ in range(2))

    @nnx.jit
    def outcome(layer, x, dy):
        y, pull = jax.vjp(lambda layer, x: layer(x), layer, x)
        return y, pull(dy)

    y, (to_layer, to_x) = outcome(layer, x, dy)
    assert y.dtype == to_x.dtype == dtype
    x64, dy64 = (np.asarray(a.astype(jnp.float32), np.float64) for a in (x, dy))
    wanted = (norm(x64, layer), *gradients_by_hand(x64, layer, dy64))
    found = [y, to_x, to_layer.scale[...]]
    if getattr(layer, "bias", None) is not None:
        found.append(to_layer.bias[...])
    for got, want in zip(found, wanted, strict=False):
        assert np.linalg.norm(np.asarray(got, np.float64) - want) <= close * np.linalg.norm(want)


@pytest.mark.parametrize("name", ["layernorm", "rmsnorm"])
def test_at_the_start_both_forms_of_the_scale_are_the_same(name):
    plain, offset = (make_norm(name, width=4, dtype=jnp.float32, rngs=nnx.Rngs(0), plus_one=p) for p in (False, True))
    x = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4)), jnp.float32)
    np.testing.assert_array_equal(plain(x), offset(x))
    assert float(plain.scale[0]) == 1 and float(offset.scale[0]) == 0


def test_an_unknown_norm_is_named():
    with pytest.raises(UserError, match="norm 'rms_norm'; did you mean 'rmsnorm'"):
        make_norm("rms_norm", width=4, dtype=jnp.float32, rngs=nnx.Rngs(0))


def test_unit_rows_keep_zero_rows_and_their_gradient_finite():
    x = jnp.asarray([[3.0, 4.0], [0.0, 0.0]], jnp.bfloat16)
    np.testing.assert_allclose(unit_rows(x), [[0.6, 0.8], [0, 0]], rtol=1e-6)
    assert np.isfinite(jax.grad(lambda x: jnp.sum(unit_rows(x)))(x.astype(jnp.float32))).all()
